"""Rows on a cluster of three Ray nodes, of which one is taken away in the middle.

    $(./scripts/fleet setup) tests/fleet/nodes.py --rows 60

The driver runs at the head, which has no room for servers; each of the two others has one. Prints
a line of figures; status 1 when a row is missing or was done twice.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(HERE)]

from ray.cluster_utils import Cluster  # noqa: E402
from trial import Fleet, check  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--graph", type=Path, required=True, help="with an input noise_seed")
    parser.add_argument("--base", type=Path, required=True)
    options = parser.parse_args()
    # As ./scripts/fleet ray start does.
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "scripts")))
    rows = [{"id": f"row-{n:04}", "noise_seed": n} for n in range(options.rows)]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    graph = json.loads(options.graph.read_text("utf-8"))
    try:
        with tempfile.TemporaryDirectory(prefix="fleet-nodes-") as scratch:
            with Fleet(Path(scratch), options.base, graph) as fleet:
                began = time.monotonic()
                table = fleet.table(rows)
                fleet.start(*table, "--servers", "2", "--address", cluster.address)
                half = options.rows // 2
                fleet.until(lambda: fleet.ended() >= half, f"row {half}")
                servers = {line["server"] for line in fleet.journal()}
                cluster.remove_node(nodes[0], allow_graceful=False)
                removed = time.monotonic()
                ended = fleet.wait()
                counts = check(fleet, [row["id"] for row in rows])
                print(
                    json.dumps(
                        {
                            "rows": options.rows,
                            "servers before": len(servers),
                            "done": counts["done"],
                            "run again": counts["begun"] - counts["done"],
                            "seconds": round(time.monotonic() - began, 1),
                            "after the removal": round(time.monotonic() - removed, 1),
                            "status": ended.status,
                            "cores": os.cpu_count(),
                        }
                    )
                )
                print(ended.told)
                return ended.status
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())

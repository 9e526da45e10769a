"""Rows on two servers while servers, actors, the ledger and the driver are killed at random.

    python tests/fleet/kill.py --rows 300 --kills 20 --seed 16

A driver that was killed is started again by the same command. Only processes below the driver are
killed, by their ids, and never more than ``--kills``. Prints a line of figures; status 1 when a
row is missing, was done twice, or more work was lost than was in flight.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).resolve().parent)]

from trial import Fleet, check, kill  # noqa: E402

from host import models, stock  # noqa: E402
from host.cache import cache_root  # noqa: E402

KINDS = ("server", "server", "actor", "actor", "ledger", "pass", "driver")
WORDS = {"actor": "MapWorker", "ledger": "ray::Ledger", "pass": "ray::_conduct"}


class Campaign:
    """``kills`` of them over a run of ``rows`` rows, on ``servers`` servers."""

    def __init__(self, fleet: Fleet, rows: int, kills: int, seed: int, servers: int = 2) -> None:
        self.fleet, self.rows, self.kills, self.servers = fleet, rows, kills, servers
        self.random = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.options = [*fleet.table(self._row(n) for n in range(rows)), "--servers", str(servers)]

    def run(self) -> dict[str, Any]:
        """Start, kill, start again, until all rows are done; the figures."""
        began = time.monotonic()
        # Kills come at rows, spread over the run, so that each finds work in flight.
        moments = sorted(self.random.sample(range(1, self.rows - 1), self.kills))
        self.fleet.start(*self.options)
        for moment in moments:
            self.fleet.until(lambda at=moment: self.fleet.ended() >= at, f"row {moment}")
            self._kill(self.random.choice(KINDS))
        ended = self.fleet.wait()
        counts = check(self.fleet, [self._row(n)["id"] for n in range(self.rows)])
        return {
            "rows": self.rows,
            "kills": dict(self.killed),
            "done": counts["done"],
            "begun": counts["begun"],
            "run again": counts["begun"] - counts["done"],
            "seconds": round(time.monotonic() - began, 1),
            "status": ended.status,
            **{name: ended.summary[name] for name in ("failed", "left", "pictures")},
        }

    def lost_at_most(self) -> int:
        """Rows in flight at the kills: one a server or actor, all of them a pass or driver."""
        whole = self.killed["driver"] + self.killed["pass"]
        return self.killed["server"] + self.killed["actor"] + whole * self.servers

    def _row(self, number: int) -> dict[str, Any]:
        return {"id": f"row-{number:04}", "noise_seed": number}

    def _kill(self, kind: str) -> None:
        if kind == "driver":
            self.fleet.kill_driver()
            self.killed[kind] += 1
            self.fleet.start(*self.options)
            return
        pids = self.fleet.servers if kind == "server" else lambda: self.fleet.members(WORDS[kind])
        kill(self.random.choice(self.fleet.until(pids, kind)))
        self.killed[kind] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-kill-") as scratch:
        folder = Path(scratch)
        base = models.make_base(folder / "base", models.every_dir(cache_root()))
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        graph = stock.edit(width=64, height=64, steps=2).prompt
        with Fleet(folder, base, graph) as fleet:
            campaign = Campaign(fleet, options.rows, options.kills, options.seed)
            figures = campaign.run()
            print(json.dumps({**figures, "seed": options.seed, "cores": os.cpu_count()}))
            return int(
                figures["run again"] > campaign.lost_at_most() or figures["done"] != options.rows
            )


if __name__ == "__main__":
    sys.exit(main())

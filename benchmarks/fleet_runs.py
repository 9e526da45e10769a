"""What the fleet costs over a bare loop, what two servers gain, what a long run keeps in memory.

    python benchmarks/fleet_runs.py overhead|two|memory [--rows N]

``overhead``: the same rows by a loop over ComfyUI's API, written as short as it can be and kept to
one server, and by one server of the fleet, in turn, three times each; the time from the first
row's end to the last one's. A core is left free, as it is where a
GPU does the work. ``two``: one server of one thread against two. ``memory``: a graph that
does next to nothing, and the resident memory of the driver and of the ledger on the way. Linux.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "fleet"), str(ROOT)]

from trial import Fleet  # noqa: E402

from host import models, server, stock  # noqa: E402
from host.cache import cache_root  # noqa: E402
from host.client import Client  # noqa: E402
from host.graph import Graph  # noqa: E402

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("overhead", "two", "memory"))
    parser.add_argument("--rows", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-runs-") as scratch:
        base = models.make_base(Path(scratch) / "base", models.every_dir(cache_root()))
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        {"overhead": overhead, "two": two, "memory": memory}[options.what](base, options.rows)


def graph() -> dict[str, Any]:
    """A picture that takes a good second here: what a fleet adds to it is easily seen."""
    return stock.edit(images=["astronaut.png"], width=256, height=256, steps=8).prompt


def overhead(base: Path, rows: int) -> None:
    rows, threads = rows or 24, str(max(1, (os.cpu_count() or 2) - 1))
    print("| Round | | s a row | of it inside ComfyUI | around it, ms |\n|---|---|---:|---:|---:|")
    around: dict[str, list[float]] = {"bare loop": [], "fleet": []}
    for number in range(1, ROUNDS + 1):
        for name, taken in (
            ("bare loop", bare(base, rows, threads)),
            ("fleet", fleet(base, graph(), rows, 1, threads)),
        ):
            around[name].append(taken.around)
            print(f"| {number} | {name} | {taken.row:.3f} | {taken.inside:.3f} | "
                  f"{taken.around * 1000:.0f} |", flush=True)  # fmt: skip
    loop, own = (statistics.median(around[name]) for name in ("bare loop", "fleet"))
    print(f"\nThe fleet is {(own - loop) * 1000:.0f} ms a row slower: "
          f"{(own - loop) / taken.inside:.1%} of this row.")  # fmt: skip


class Taken(NamedTuple):
    """Seconds a row, wall time, and ComfyUI's own of its history; the first row is left out."""

    row: float
    inside: float

    @property
    def around(self) -> float:
        return self.row - self.inside


def bare(base: Path, rows: int, threads: str) -> Taken:
    """A loop that queues, waits, and moves the picture."""
    prompt = graph()
    (save,) = [node for node in prompt.values() if node["class_type"] == "SaveImage"]
    (noise,) = [node for node in prompt.values() if "noise_seed" in node["inputs"]]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        arguments = ["--output-directory", str(out / "made"), "--temp-directory", str(out)]
        environment = {"OMP_NUM_THREADS": threads}
        with (
            server.start(
                Path(os.environ["COMFYUI_PATH"]), base, arguments=arguments,
                defaults=(*server.QUIET, "--preview-method", "none", *server.CPU),
                environment=environment,
            ) as running,
            Client(running.url) as client,
        ):  # fmt: skip
            ids, moments = [], []
            for number in range(rows):
                noise["inputs"]["noise_seed"] = number
                save["inputs"]["filename_prefix"] = f"row{number:04}"
                result = client.run(prompt).check()
                for image in result.images():
                    os.replace(out / "made" / image["filename"], out / image["filename"])
                ids.append(result.prompt_id)
                moments.append(time.monotonic())
            inside = [inside_seconds(client, name) for name in ids[1:]]
    return Taken((moments[-1] - moments[0]) / (rows - 1), statistics.mean(inside))


def inside_seconds(client: Client, prompt_id: str) -> float:
    """ComfyUI's own time for a prompt."""
    messages = client.get(f"/history/{prompt_id}")[prompt_id]["status"]["messages"]
    moments = {name: data["timestamp"] for name, data in messages}
    return (moments["execution_success"] - moments["execution_start"]) / 1000


def fleet(base: Path, prompt: dict[str, Any], rows: int, servers: int, threads: str) -> Taken:
    """By the journal's moments, from where the last server has ended its first row."""
    with tempfile.TemporaryDirectory() as scratch, Fleet(Path(scratch), base, prompt) as run:
        table = run.table({"id": f"row{number:04}", "noise_seed": number} for number in range(rows))
        environment = {"OMP_NUM_THREADS": threads}
        ended = run.run(*table, "--servers", str(servers), environment=environment)
        assert ended.status == 0, ended.told
        done = [line for line in run.journal() if line["state"] == "done"]
        firsts = {line["server"]: line["at"] for line in reversed(done)}
        began = max(firsts.values())
        after = [line for line in done if line["at"] > began]
        inside = statistics.mean(line["seconds"] for line in after)
        return Taken((after[-1]["at"] - began) / len(after), inside)


def two(base: Path, rows: int) -> None:
    rows = rows or 24
    print("| Round | One server, s a row | inside | Two, s a row | inside | Gain |")
    print("|---|---:|---:|---:|---:|---:|")
    for number in range(1, ROUNDS + 1):
        one, both = (fleet(base, graph(), rows, servers, "1") for servers in (1, 2))
        print(f"| {number} | {one.row:.3f} | {one.inside:.3f} | {both.row:.3f} | {both.inside:.3f} "
              f"| {one.row / both.row:.2f} |", flush=True)  # fmt: skip


def memory(base: Path, rows: int) -> None:
    rows = rows or 3000
    graph = Graph()
    image = graph.add("EmptyImage", width=16, height=16, batch_size=1, color=0)
    graph.add("SaveImage", images=image, filename_prefix="nothing")
    with tempfile.TemporaryDirectory() as scratch, Fleet(Path(scratch), base, graph.prompt) as run:
        table = run.table({"id": f"row{number:04}", "color": number} for number in range(rows))
        run.start(*table, "--servers", "2")
        print("| Rows done | Driver, MB | Ledger, MB | Pass, MB |\n|---:|---:|---:|---:|")
        for part in range(1, 10):
            run.until(lambda at=rows * part // 10: run.ended() >= at, f"{part} tenths")
            pids = [[run.process.pid], run.members("ray::Ledger"), run.members("ray::_conduct")]
            told = " | ".join(f"{sum(map(resident, each)):.0f}" for each in pids)
            print(f"| {run.ended()} | {told} |", flush=True)
        ended = run.wait()
        assert ended.status == 0, ended.told


def resident(pid: int) -> float:
    """MB in memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()

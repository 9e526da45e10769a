"""How long the fleet takes to read, check and order 100,000 rows, and in how much memory.

    python benchmarks/fleet_plan.py [--rows N]

A CSV of six columns (prompt, seed, two LoRA files, a scale, one of 50 pictures) is planned in a
fresh process, once as it should be and once with every cell of every row wrong. Needs neither
ComfyUI nor Ray: the graph is the demo's, its classes as a server describes them.
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
FIXTURE = ROOT / "tests" / "fleet" / "edit.json"
COLUMNS = (
    "prompt", "seed", "LoRA Stack.lora_1.file", "LoRA Stack.lora_2.file",
    "LoRA Stack.lora_1.scale", "image 1.image",
)  # fmt: skip
PICTURES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        plan(options.table)
        return
    print("| Table | Rows | Seconds | of one core | Peak memory | Outcome |")
    print("|---|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("right", right), ("all wrong", wrong)):
            table = write(Path(folder), options.rows)
            command = [sys.executable, __file__, "--table", str(table)]
            reply = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"| {name} | {options.rows:,} | {reply.stdout.strip()} |", flush=True)


def plan(table: Path) -> None:
    """Plan a table, and print seconds, memory and outcome as cells of a Markdown table."""
    from fleet.rows.plan import make_plan, weight_changes
    from fleet.rows.table import Refused, read_table

    began = time.perf_counter()
    case = json.loads(FIXTURE.read_text("utf-8"))
    try:
        made = make_plan(case["graph"], case["info"], read_table(table), table.parent)
    except Refused as error:
        outcome = f"refused in {len(str(error).splitlines())} lines"
    else:
        changes = weight_changes(made.jobs, made.weights)
        outcome = f"{len(made.jobs):,} jobs, {len(made.chunks):,} runs, {changes} weight changes"
    seconds = time.perf_counter() - began
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    print(f"{seconds:.1f} | {time.process_time():.1f} | {peak:.0f} MiB | {outcome}")


def right(folder: Path, rows: int) -> Path:
    """Pictures that are files, and prompts that are all different."""
    chance = random.Random(1)  # noqa: S311 (no secret)
    for number in range(PICTURES):
        (folder / f"{number}.png").write_bytes(b"\x89PNG")
    names = [f"ckpt-{step}.safetensors" for step in (100, 200, 300)]
    scales = [f"{number / 10}" for number in range(-10, 21)]
    return written(folder / "right.csv", (
        (f"a heron on a lake at dusk, number {number}, in the style of ink on wet paper",
         chance.randrange(2**64), chance.choice(names), chance.choice(names),
         chance.choice(scales), f"{chance.randrange(PICTURES)}.png")
        for number in range(rows)
    ))  # fmt: skip


def wrong(folder: Path, rows: int) -> Path:
    """No cell that can be set, and no two that are the same; the prompts alone are text."""
    return written(folder / "wrong.csv", (
        (f"a heron {number}", f"{number}e3", f"ckpt-{number}.pt", f"ink-{number}.pt", number + 5,
         f"missing-{number}.png")
        for number in range(rows)
    ))  # fmt: skip


def written(path: Path, rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows])
    return path


if __name__ == "__main__":
    main()

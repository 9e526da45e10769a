"""Every benchmark that needs no GPU: a table, its figures as JSON, and one picture of the ratios.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/run.py [--quick] [--only NAME] [--out FOLDER]

Writes ``stack.md`` and ``stack.json`` to benchmarks/results and docs/images/benchmarks.png (or all
three to FOLDER). Each benchmark runs in a process of its own. The picture needs matplotlib:
``pip install matplotlib``. Times are worth something on an idle machine only; the load is told.
"""

import argparse
import importlib
import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench
from bench import ROOT, Row

BENCHMARKS = (
    "merge_bytes",
    "merge_accuracy",
    "merge_time",
    "memory_peak",
    "quantised_fidelity",
    "slider",
    "side_path_overhead",
    "ram_flat",
)
COMMAND = "COMFYUI_PATH=/path/to/ComfyUI python benchmarks/run.py"

PICTURE: tuple[tuple[str, str], ...] = (
    ("moved", "bytes moved by a merge"),
    ("in bf16, ns", "time to merge, bf16, CPU"),
    ("counted, as on a GPU", "temporary memory of a merge"),
    ("patches stored", "patches stored"),
    ("fp8 linear1", "error of a LoRA on fp8"),
    ("nvfp4 linear1", "error of a LoRA on nvfp4"),
    ("a changed scale, side path", "a moved slider, to the end of a step"),
)
"""What is drawn: a part of a row's name and unit, and its words. Each as stock over ours."""


def in_a_process(name: str, quick: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one(name: str, quick: bool) -> None:
    """The process of one benchmark: its machine and rows as a line of JSON."""
    about = bench.machine(bench.host())
    rows = importlib.import_module(name).measure(quick)
    print(json.dumps({"machine": about, "rows": [asdict(row) for row in rows]}))


def table(results: dict[str, dict[str, Any]]) -> str:
    first = next(iter(results.values()))["machine"]
    about = ", ".join(f"{name} {value}" for name, value in first.items() if name != "load")
    loads = [float(result["machine"]["load"]) for result in results.values()]
    lines = [
        "# What a stack of three LoRAs costs: stock ComfyUI and this pack",
        "",
        f"{about[0].upper()}{about[1:]}. Load average {min(loads)}-{max(loads)}.",
        f"Command: `{COMMAND}`",
        "",
        "Ranks 16, 32 and 64, random weights. Both sides in one process, one after the other in "
        "each round; times are medians, with the least and most of the rounds' ratios. What is "
        "counted is the same on every machine.",
    ]
    for name, result in results.items():
        words = (importlib.import_module(name).__doc__ or "").strip().splitlines()[0]
        rows = [bench.line(as_row(row)) for row in result["rows"]]
        lines += ["", f"## {words}", "", f"`benchmarks/{name}.py`", "", bench.HEAD, *rows]
    return "\n".join(lines) + "\n"


def as_row(row: dict[str, Any]) -> Row:
    return Row(**row | {"spread": tuple(row["spread"]) if row["spread"] else None})


def draw(rows: list[Row], path: Path) -> None:
    """How many times better than stock: one bar each, on a logarithmic axis."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("The picture needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = []
    for part, words in PICTURE:
        found = [row for row in rows if part in f"{row.name}, {row.unit}" and row.stock]
        if found:
            bars.append((words, found[-1].stock / found[-1].ours))  # type: ignore[operator]
    bars.sort(key=lambda bar: bar[1])
    with pyplot.rc_context({"font.family": "DejaVu Sans", "font.size": 11}):
        figure, axes = pyplot.subplots(figsize=(8.6, 0.52 * len(bars) + 1.3), dpi=160)
        axes.barh([words for words, _ in bars], [value for _, value in bars], color="#2f6f9f",
                  height=0.62, log=True)  # fmt: skip
        most = max(value for _, value in bars)
        for place, (_, value) in enumerate(bars):
            axes.text(value * 1.08, place, f"{value:.3g}×", va="center", color="#1d1d1f")
        axes.axvline(1, color="#1d1d1f", linewidth=1)
        axes.set_xlim(1, 10 ** math.ceil(math.log10(most * 1.5)))
        axes.set_title("Three LoRAs: how many times less than stock ComfyUI", loc="left", pad=12,
                       fontsize=13)  # fmt: skip
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.grid(axis="x", color="#d9d9de", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        figure.savefig(path)
        pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, fewer rounds")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, help="these; the others' stay")
    parser.add_argument("--out", type=Path, help="a folder for the table, JSON and picture")
    parser.add_argument("--draw", type=Path, help="draw the picture of this stack.json again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.quick)
        return 0
    results = given.out or ROOT / "benchmarks" / "results"
    picture = (given.out or ROOT / "docs" / "images") / "benchmarks.png"
    results.mkdir(parents=True, exist_ok=True)
    if given.draw:
        found = json.loads(given.draw.read_text())
    else:
        kept = results / "stack.json"
        found = json.loads(kept.read_text()) if given.only and kept.is_file() else {}
        for name in given.only or BENCHMARKS:
            print(name, flush=True)
            found[name] = in_a_process(name, given.quick)
        found = {name: found[name] for name in BENCHMARKS if name in found}
        kept.write_text(json.dumps(found, indent=1) + "\n")
        (results / "stack.md").write_text(table(found))
    rows = [as_row(row) for result in found.values() for row in result["rows"]]
    draw(rows, picture)
    missed = [row.name for row in rows if row.met is False]
    print(f"{len(rows)} rows, {len(missed)} short of their target: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

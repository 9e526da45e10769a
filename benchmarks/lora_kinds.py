"""Every kind of FLUX.2 LoRA file: how far ComfyUI's own loader is off, and how far this pack is.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/lora_kinds.py [--write] [--only TEXT]

Prints a Markdown table, "kind | trainer | dev: core, ours | klein: core, ours". A figure is the
relative error of the dense weight change, ||got - true|| / ||true||, over the whole model. A cell
is exact when every weight is within the kind's tolerance (1e-3 for 16-bit files, 1e-5 for fp32
ones). Files, truths and tiny models are those of ``tests/lora_loader/kinds``. ``--write`` also
writes ``benchmarks/results/lora_kinds.md``. Exits with 1 when a kind that should be exact is not.
"""

import argparse
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import bench
from bench import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "lora_kinds.md"
ORACLES = ("torch", "diffusers", "peft", "lycoris-lora", "safetensors")

COMMAND = "COMFYUI_PATH=/path/to/ComfyUI python benchmarks/lora_kinds.py --write"


@dataclass(frozen=True)
class Cell:
    """One loader on one kind and geometry: the words for the table, and whether it is right."""

    text: str
    right: bool


def prepare() -> str:
    """Make ComfyUI and the tests' kinds importable, on one thread; ComfyUI's version."""
    comfyui = bench.host()
    sys.path.append(str(ROOT / "tests" / "lora_loader"))
    import torch

    torch.set_num_threads(1)
    return comfyui


def core_cell(model: object, files: list, kind: object, base: object, truth: dict) -> Cell:
    from kinds import measure

    try:
        changed = measure.changes(measure.apply_core(model, files), base)
    except Exception as error:  # whatever a user would get in their face
        return Cell(f"{type(error).__name__}", kind.expect == "refused")
    return judged(changed, kind, truth, kind.expect != "refused")


def ours_cell(model: object, files: list, kind: object, base: object, truth: dict) -> Cell:
    from kinds import measure

    how = "warn" if kind.expect == "unsupported" else "error"
    try:
        ours = measure.apply_ours(model, files, on_mismatch=how)
    except ValueError:
        return Cell("refused", kind.expect == "refused")
    named = all(key in ours.words for key in kind.unsupported)
    return judged(measure.changes(ours.model, base), kind, truth, named)


def judged(changed: dict, kind: object, truth: dict, allowed: bool) -> Cell:
    from kinds import measure

    if kind.expect == "refused":
        return Cell("applied nothing" if not changed else "applied", False)
    worst = max(measure.errors(changed, truth).values())
    text = f"{measure.total_error(changed, truth):.1e}"
    right = worst <= kind.tolerance and allowed
    return Cell(text if right else f"**{text}**", right)


def rows(only: str) -> tuple[list[str], dict[str, int], int]:
    """The table's rows, right cells by loader, and cells in all."""
    from kinds.base import Base
    from kinds.measure import load_model, write
    from kinds.table import all_kinds

    models = {geometry: (base := Base(geometry), load_model(base)) for geometry in ("dev", "klein")}
    right = {"core": 0, "ours": 0}
    lines, total = [], 0
    for kind in all_kinds():
        if only.lower() not in kind.name.lower():
            continue
        cells = []
        for base, model in models.values():
            built = kind.build(base)
            with tempfile.TemporaryDirectory() as folder:
                files = write(built, Path(folder))
                core = core_cell(model, files, kind, base, built.truth)
                ours = ours_cell(model, files, kind, base, built.truth)
            right["core"] += core.right
            right["ours"] += ours.right
            total += 1
            cells += [core.text, ours.text]
        note = {"unsupported": " (a part is unsupported)", "refused": " (to be refused)"}
        name = kind.name + note.get(kind.expect, "")
        lines.append(f"| {name} | {kind.trainer} | {' | '.join(cells)} |")
    return lines, right, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    arguments = parser.parse_args()
    comfyui = prepare()
    lines, right, total = rows(arguments.only)
    oracles = ", ".join(f"{name} {version(name)}" for name in ORACLES)
    text = "\n".join(
        [
            "# LoRA kinds: ComfyUI's own loader and this pack",
            "",
            f"ComfyUI {comfyui}, Python {platform.python_version()}, {oracles}. CPU, fp32 model of "
            "width 256.",
            f"Command: `{COMMAND}`",
            "",
            "Relative error of the dense weight change over the whole model; 1.0 means that "
            "nothing of the file arrived. Bold: at least one weight is off by more than the "
            "tolerance (1e-3 for 16-bit files, 1e-5 for fp32 ones).",
            "",
            f"Core exact {right['core']} of {total}, ours {right['ours']} of {total} "
            f"({len(lines)} kinds, dev and klein).",
            "",
            "| kind | trainer | dev: core | dev: ours | klein: core | klein: ours |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
    print(text)
    if arguments.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text)
    return 0 if right["ours"] == total else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks share: the host, interleaved timing, and tables.

A benchmark module has ``measure(quick) -> list[Row]`` and ends in ``bench.main(__doc__, measure)``;
``run.py`` runs them all. ``quick`` keeps shapes and counts small: for the tests' gates.
"""

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One line of the results: stock's figure, ours, and what ``target`` asks of ``ratio``.

    ``ratio`` is the figure that counts, as a number; ``spread`` its least and most over the rounds;
    ``met`` is None where no target is set.
    """

    name: str
    unit: str
    stock: float | None
    ours: float
    ratio: float
    spread: tuple[float, float] | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""


def host() -> str:
    """Import ComfyUI on the CPU and this pack without it being one of its nodes; its version."""
    comfyui = os.environ.get("COMFYUI_PATH", "")
    if not Path(comfyui, "comfy", "model_patcher.py").is_file():
        sys.exit("COMFYUI_PATH names no ComfyUI.")
    if "flux2_lora_edit" not in sys.modules:
        pack = types.ModuleType("flux2_lora_edit")
        pack.__path__ = [str(ROOT)]
        sys.modules["flux2_lora_edit"] = pack
    # The repository's root would shadow ComfyUI's own modules.
    ours = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]
    sys.path[:] = [comfyui, *(p for p in sys.path if p not in (comfyui, str(ROOT), *ours)), *ours]
    import comfy.cli_args
    import utils.extra_config  # noqa: F401  (as the host's main.py does)

    comfy.cli_args.args.cpu = not gpu()
    import comfy.model_management  # noqa: F401
    import comfyui_version

    return str(comfyui_version.__version__)


def gpu() -> bool:
    """Whether this process may use a GPU: only ``gpu.py`` asks for it."""
    import torch

    return os.environ.get("BENCH_GPU") == "1" and torch.cuda.is_available()


def machine(comfyui: str) -> dict[str, str]:
    """What the figures depend on, by name."""
    import torch

    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    kind = torch.backends.cpu.get_cpu_capability()
    found = {
        "processor": f"{processor}, {os.cpu_count()} cores, {kind}",
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "ComfyUI": comfyui,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    return found | ({"GPU": torch.cuda.get_device_name()} if gpu() else {})


def interleaved(
    sides: Mapping[str, Callable[[], Any]], rounds: int = 5, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of each side, one after the other in each round; the first ``warm`` do not count."""
    import torch

    ready = torch.cuda.synchronize if gpu() else lambda: None
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm + rounds):
        for name, side in sides.items():
            gc.collect()
            ready()
            begun = time.perf_counter()
            side()
            ready()
            if number >= warm:
                times[name].append(time.perf_counter() - begun)
    return times


def ratios(over: list[float], under: list[float]) -> tuple[float, tuple[float, float]]:
    """The median of the rounds' ratios, and their least and most."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return statistics.median(each), (min(each), max(each))


def alone(file: str, *arguments: object) -> list[float]:
    """The numbers that the benchmark ``file`` prints last in a process of its own."""
    command = [sys.executable, file, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def line(row: Row) -> str:
    """A Markdown table row."""
    spread = f" ({row.spread[0]:.3g}-{row.spread[1]:.3g})" if row.spread else ""
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    first = "-" if row.stock is None else f"{row.stock:.4g}"
    cells = (f"{row.name}, {row.unit}", first, f"{row.ours:.4g}", f"{row.ratio:.3g}{spread}",
             row.target, met, row.note)  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEAD = "| | stock | ours | ratio (spread) | target | met | |\n|---|---|---|---|---|---|---|"


def main(words: str | None, measure: Callable[[bool], list[Row]]) -> None:
    """The command of one benchmark: its table; exits with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(words or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, fewer rounds")
    quick = parser.parse_args().quick
    about = machine(host())
    rows = measure(quick)
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    print("\n".join([HEAD, *(line(row) for row in rows)]))
    sys.exit(any(row.met is False for row in rows))

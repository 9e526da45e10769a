"""From a changed LoRA scale to the end of the first step, over a step with nothing changed.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/slider.py

Real ModelPatchers, loaded and sampled by the host; three LoRAs whose scales all change each time.
A model a side, so that none pays for another's patches. 256 image tokens.
"""

import statistics
import time
from itertools import pairwise
from typing import Any

import bench
import subjects
from bench import Row

WIDTH, DOUBLE, SINGLE = 1024, 2, 4


def measure(quick: bool = False) -> list[Row]:
    return of(512, 1, 1, rounds=3) if quick else of(WIDTH, DOUBLE, SINGLE)


def of(
    width: int, double: int, single: int, variant: str = "dev", side: int = 16, rounds: int = 7
) -> list[Row]:
    """The rows for a model of this size, at ``side ** 2`` image tokens."""
    with subjects.three_loras(width, double, single) as paths:
        appliers = {
            "stock": subjects.StockApplier(paths),
            "merge": subjects.Applier(paths, "merge"),
            "side path": subjects.Applier(paths, "side path"),
        }
        models = {way: subjects.model(width, double, single, variant) for way in appliers}
        found: dict[str, list[float]] = {way: [] for way in appliers}
        applying: dict[str, list[float]] = {way: [] for way in appliers}
        for number in range(1 + rounds):
            for way, applier in appliers.items():
                applied, first, again = change(applier, models[way], number, side)
                if number:
                    found[way].append((applied + first) / again)
                    applying[way].append(applied)
    stock = statistics.median(found["stock"])
    rows = []
    for way in ("side path", "merge"):
        ours = statistics.median(found[way])
        beside = way == "side path"
        rows.append(
            Row(f"a changed scale, {way}", "over an unchanged step", stock, ours, ours,
                (min(found[way]), max(found[way])), "<= 1.05" if beside else "",
                ours <= 1.05 if beside else None,
                f"reading and applying takes {statistics.median(applying[way]) * 1e3:.0f} ms of it")
        )  # fmt: skip
    return rows


def change(applier: Any, model: Any, number: int, side: int) -> tuple[float, float, float]:
    """Seconds of applying new scales, of the first step with them, and of the same step again."""
    scales = tuple(scale * (1 + number / 16) for scale in subjects.SCALES)
    times = [time.perf_counter()]
    patched = applier(model, scales)
    times.append(time.perf_counter())
    for _ in range(2):
        subjects.sample(patched, side)
        times.append(time.perf_counter())
    applied, first, again = (after - before for before, after in pairwise(times))
    return applied, first, again


if __name__ == "__main__":
    bench.main(__doc__, measure)

"""Memory of the process after 50 changes of LoRA and scale: flat within 2 %.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/ram_flat.py

Each change applies two or three of three LoRAs at new scales, loads the model as the host does and
takes a step. What is in memory after 50 changes over that after 10, when every combination has been
seen: the tensors that are held, which is exact, and the resident set, which has the allocator's
noise of a few per cent. One process a way (Linux).
"""

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

import bench
import subjects
from bench import Row

WIDTH, DOUBLE, SINGLE = 512, 2, 2
FIRST, LAST = 10, 50
WAYS = ("stock", "merge", "side path")


def grown(way: str, first: int, last: int) -> tuple[float, float]:
    """(tensors, resident set) after the change ``last`` over those after ``first``."""
    model = subjects.model(WIDTH, DOUBLE, SINGLE)
    with subjects.three_loras(WIDTH, DOUBLE, SINGLE) as paths:
        appliers = {
            count: subjects.StockApplier(paths[:count])
            if way == "stock"
            else subjects.Applier(paths[:count], way)
            for count in (2, 3)
        }
        sizes = {}
        for number in range(1, last + 1):
            change(appliers[2 + number % 2], model, number)
            if number in (first, last):
                gc.collect()
                sizes[number] = held(), resident()
    (held_first, resident_first), (held_last, resident_last) = sizes[first], sizes[last]
    return held_last / held_first, resident_last / resident_first


def change(applier: Any, model: Any, number: int) -> None:
    count = 2 + number % 2
    scales = tuple(scale * (0.5 + number / 64) for scale in subjects.SCALES[:count])
    subjects.sample(applier(model, scales), side=4)


def held() -> int:
    """The bytes of all tensors that anything holds; views of one storage count once."""
    import torch

    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def resident() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back first
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def measure(quick: bool = False) -> list[Row]:
    if sys.platform != "linux":
        return []
    first, last = (4, 12) if quick else (FIRST, LAST)
    found = {way: bench.alone(__file__, "--way", way, first, last) for way in WAYS}
    return [
        Row(f"{what} after {last} changes, {way}", f"over that after {first}", found["stock"][n],
            found[way][n], found[way][n], target="<= 1.02", met=found[way][n] <= 1.02)
        for n, what in enumerate(("tensors held", "resident memory"))
        for way in WAYS[1:]
    ]  # fmt: skip


if __name__ == "__main__":
    if "--way" in sys.argv:
        bench.host()
        print(*grown(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        bench.main(__doc__, measure)

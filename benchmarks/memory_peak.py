"""Temporary memory of merging three LoRAs into one linear1 of dev (55296 x 6144, bf16).

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/memory_peak.py

Counted: the most bytes of new tensors alive at once when the host merges on a GPU, on tensors with
a shape and no device. Measured: how far the resident set of a process grows on this CPU, one
process a side (Linux). The factors themselves are in memory before.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import bench
import counting
import merge_bytes
import subjects
from bench import Row

DEV = 6144
MIB = 2**20
KEY = subjects.LINEAR1


def linear1(width: int) -> dict[str, Any]:
    """What stock and we store for the linear1 of a model of this width."""
    import comfy.weight_adapter
    import torch

    from flux2_lora_edit.lora_loader.adapters.lora import LowRank
    from flux2_lora_edit.lora_loader.fuse import StackedLora, Step, fuse
    from flux2_lora_edit.lora_loader.patch.merge import FusedAdapter, pack

    generator = torch.Generator().manual_seed(0)
    stock, loras = [], []
    for rank, scale in zip(subjects.RANKS, subjects.SCALES, strict=True):
        up, down = (
            (torch.randn(shape, generator=generator) * 0.02).bfloat16()
            for shape in ((9 * width, rank), (rank, width))
        )
        adapter = comfy.weight_adapter.LoRAAdapter(set(), (up, down, float(rank), None, None, None))
        stock.append((scale, adapter, 1.0, None, None))
        step = Step(0, 9 * width, 1.0, LowRank(up, down, 1.0))
        loras.append(StackedLora(rank, scale, ((KEY, step),)))
    ours = FusedAdapter(set(), pack(fuse(loras)[KEY]))
    return {"stock": stock, "ours": [(1.0, ours, 1.0, None, None)]}


def counted(width: int, device: str) -> dict[str, int]:
    """Peak bytes of new tensors by side."""
    import comfy.lora
    import torch

    peaks = {}
    for side, stored in linear1(width).items():
        weight = torch.zeros(9 * width, width, dtype=torch.bfloat16, device=device)
        stored = merge_bytes.on_meta(stored) if device == "meta" else stored
        with counting.Counter(1) as counter:
            comfy.lora.calculate_weight(stored, weight, KEY, intermediate_dtype=weight.dtype)
        peaks[side] = counter.peak
    return peaks


def grown(side: str, width: int) -> int:
    """Bytes by which this process's resident set was larger at its peak; in a process alone."""
    import comfy.lora
    import torch

    stored = linear1(width)[side]
    weight = torch.full((9 * width, width), 0.01, dtype=torch.bfloat16)
    # The libraries' own threads and buffers are not the merge's: have them made before.
    for dtype in (torch.float32, torch.bfloat16):
        torch.mm(torch.ones(256, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype))
    # What was freed goes back to the system, so that using it again counts; then the peak anew.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    comfy.lora.calculate_weight(stored, weight, KEY, intermediate_dtype=weight.dtype)
    return resident("VmHWM") - before


def resident(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise LookupError(what)


def measure(quick: bool = False) -> list[Row]:
    gpu = counted(DEV, "meta")
    rows = [row("counted, as on a GPU", gpu["stock"], gpu["ours"])]
    if sys.platform == "linux":
        width = 1024 if quick else DEV
        sides = {side: bench.alone(__file__, "--side", side, width)[0] for side in gpu}
        name = f"resident on this CPU, {9 * width} x {width}"
        rows.append(row(name, sides["stock"], sides["ours"]))
    return rows


def row(name: str, stock: float, ours: float) -> Row:
    return Row(f"temporary memory, {name}", "MiB", stock / MIB, ours / MIB, stock / ours,
               target="ours <= 64 MiB", met=ours <= 64 * MIB)  # fmt: skip


if __name__ == "__main__":
    if "--side" in sys.argv:
        bench.host()
        print(grown(sys.argv[2], int(sys.argv[3])))
    else:
        bench.main(__doc__, measure)

"""Bytes, operations and stored patches of a merge of three LoRAs: stock and ours, counted.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/merge_bytes.py

Nothing is computed: the host's own ``calculate_weight`` runs on tensors that have a shape and no
device, as the dynamic-VRAM path calls it on a GPU (in the weight's own type). The same everywhere.
"""

from typing import Any

import bench
import counting
import subjects
from bench import Row

WIDTH = 512
DEV = (8, 48)
"""dev's double and single blocks."""


def patches(width: int = 128) -> tuple[int, int]:
    """(stock, ours): patches that three diffusers-named LoRAs store on a dev of every block."""
    patcher = subjects.model(width, *DEV)
    with subjects.three_loras(width, *DEV, ranks=(4, 4, 4)) as paths:
        sides = subjects.stock(patcher, paths), subjects.ours(patcher, paths)
    stock, ours = (sum(len(stored) for stored in side.patches.values()) for side in sides)
    return stock, ours


def counted(model: Any, key: str, least: int) -> Any:
    """The counter of one weight's merge, of tensors with at least ``least`` elements."""
    import comfy.lora
    import torch

    shape = tuple(model.model.state_dict()[key].shape)
    weight = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    stored = on_meta(model.patches[key])
    with counting.Counter(least) as counter:
        comfy.lora.calculate_weight(stored, weight, key, intermediate_dtype=weight.dtype)
    return counter


def on_meta(value: Any) -> Any:
    """Patches with their tensors on no device, as the host's prefetch rebuilds them."""
    import comfy.weight_adapter
    import torch

    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, comfy.weight_adapter.WeightAdapterBase):
        return type(value)(value.loaded_keys, on_meta(value.weights))
    if isinstance(value, tuple | list):
        return type(value)(on_meta(item) for item in value)
    return value


def counts() -> list[Row]:
    """Bytes and operations of one qkv and one linear1."""
    patcher = subjects.model(WIDTH, 1, 1)
    rows = []
    with subjects.three_loras(WIDTH, 1, 1) as paths:
        stock, ours = subjects.stock(patcher, paths), subjects.ours(patcher, paths)
        for key, slices, most in ((subjects.QKV, 3, 27), (subjects.LINEAR1, 1, 9)):
            shape = patcher.model.state_dict()[key].shape
            size = shape.numel()
            a, b = (counted(side, key, size // slices) for side in (stock, ours))
            name = key.split(".")[-2] + (" of split LoRAs" if slices > 1 else "")
            met = b.bytes == 4 * size and len(b.ops) == slices
            rows += [
                Row(f"{name}: moved", "bytes a parameter", a.bytes / size, b.bytes / size,
                    a.bytes / b.bytes, target="4 of 36", met=met),
                Row(f"{name}: operations", "on large tensors", len(a.ops), len(b.ops),
                    len(a.ops) / len(b.ops), target=f"{slices} of {most}", met=met),
            ]  # fmt: skip
    return rows


def measure(quick: bool = False) -> list[Row]:
    many, few = patches()
    stored = Row("patches stored on dev", "three LoRAs, diffusers' names", many, few, many / few,
                 target="160 of 576", met=few == 160)  # fmt: skip
    return [*counts(), stored]


if __name__ == "__main__":
    bench.main(__doc__, measure)

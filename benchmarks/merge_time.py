"""Time to merge three LoRAs into bf16 weights on the CPU: stock and ours, interleaved.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/merge_time.py

First one weight the two ways the host asks for it: in its own type (dynamic VRAM, what is
offloaded), and in float32 (the classic load, less the host's own casts, which are the same for
both). Then a model of real width, patched and restored through the ModelPatcher, casts and all.
The floors: a copy of the weight, and the float32 product alone. Needs about 6 GB of memory.
"""

import statistics
from collections.abc import Callable
from typing import Any

import bench
import subjects
from bench import Row

KLEIN_4B, KLEIN_9B = 3072, 4096


def patch(model: Any, weight: Any) -> Callable[[], Any]:
    """Merges into ``weight`` again and again: the values grow, the time does not."""
    import comfy.lora

    return lambda: comfy.lora.calculate_weight(
        model.patches[subjects.QKV], weight, subjects.QKV, intermediate_dtype=weight.dtype
    )


def row(name: str, times: dict[str, list[float]], size: int, target: str, note: str) -> Row:
    ratio, spread = bench.ratios(times["stock"], times["ours"])
    stock, ours = (statistics.median(times[side]) / size * 1e9 for side in ("stock", "ours"))
    met = ratio >= 6 if target else None
    return Row(name, "ns a parameter", stock, ours, ratio, spread, target, met, note)


def one_weight(width: int, rounds: int) -> list[Row]:
    import torch

    model = subjects.model(width, 1, 1, "klein-4b")
    rows = []
    with subjects.three_loras(width, 1, 1, "ai_toolkit") as paths:
        stock, ours = subjects.stock(model, paths), subjects.ours(model, paths)
    bf16 = model.model.state_dict()[subjects.QKV]
    total = sum(subjects.RANKS)
    up, down = torch.randn(bf16.shape[0], total), torch.randn(total, bf16.shape[1])
    for name, weight in (("in bf16", bf16.clone()), ("in float32", bf16.float())):
        copy, buffer = weight.clone(), torch.zeros(bf16.shape)
        sides = {
            "stock": patch(stock, weight.clone()),
            "ours": patch(ours, weight),
            "copy": lambda w=weight, c=copy: c.copy_(w),
            "product": lambda b=buffer: torch.mm(up, down, out=b),
        }
        times = bench.interleaved(sides, rounds)
        size = weight.numel()
        copied, product = (statistics.median(times[n]) / size * 1e9 for n in ("copy", "product"))
        note = f"floors: copy {copied:.2f}, float32 product {product:.2f}"
        # In float32 stock's own product leaves less than 6 to gain.
        target = ">= 6" if weight.dtype == torch.bfloat16 else ""
        rows.append(row(f"qkv of {width} x {3 * width}, {name}", times, size, target, note))
    return rows


def whole_model(width: int, rounds: int) -> Row:
    """A double and a single block at real width: patched onto the model, and taken off again."""
    import torch

    model = subjects.model(width, 1, 1, "klein-9b")
    cpu = torch.device("cpu")
    with subjects.three_loras(width, 1, 1) as paths:
        stock, ours = subjects.stock(model, paths), subjects.ours(model, paths)

    def through(patcher: Any) -> Callable[[], None]:
        def run() -> None:
            patcher.patch_model(cpu)
            patcher.unpatch_model(cpu)

        return run

    times = bench.interleaved({"stock": through(stock), "ours": through(ours)}, rounds)
    weights = model.model.state_dict()
    size = sum(weights[key].numel() for key in ours.patches)
    note = "with the host's casts and backups, the same for both"
    name = f"a model of {size / 1e6:.0f} M parameters, loaded and unloaded"
    return row(name, times, size, "", note)


def measure(quick: bool = False) -> list[Row]:
    if quick:
        return [*one_weight(512, 5), whole_model(512, 5)]
    return [*one_weight(KLEIN_4B, 5), whole_model(KLEIN_9B, 5)]


if __name__ == "__main__":
    bench.main(__doc__, measure)

"""Noise of a merge of three bf16 LoRAs over that of one ideal rounding, against fp64 truth.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/merge_accuracy.py

Noise is the root mean square of (result - exact); ideal is the exact sum rounded to bf16. Both ways
of the host, in the weight's own type (dynamic VRAM, and whatever is offloaded) and through float32,
and ours as on a GPU.
"""

from typing import Any

import bench
import subjects
from bench import Row

WIDTH = 512


def truth(model: Any, loras: Any) -> dict[str, Any]:
    """The exact weights in fp64, from the files' factors alone: nothing of ``fuse`` is in it."""
    weights = model.model.state_dict()
    exact: dict[str, Any] = {}
    for lora in loras:
        for key, step in lora.steps:
            total = exact.setdefault(key, weights[key].double())
            effect = step.effect
            scale = effect.scale * (step.scale * lora.scale)
            change = effect.up.double() @ effect.down.double() * scale
            total[step.start : step.end] += change
    return exact


def noise(weight: Any, exact: Any) -> float:
    return float((weight.detach() - exact.detach()).pow(2).mean().sqrt())


def in_its_own_type(model: Any, key: str) -> Any:
    import comfy.lora

    weight = model.model.state_dict()[key].clone()
    return comfy.lora.calculate_weight(
        model.patches[key], weight, key, intermediate_dtype=weight.dtype
    )


def one_addmm(steps: Any, weight: Any) -> Any:
    """As our merge does it on a GPU: one ``addmm_`` a row slice, its factors in 16 bits."""
    result = weight.clone()
    for step in steps:
        up, down = (factor.to(weight.dtype) for factor in (step.effect.up, step.effect.down))
        rows = result[step.start : step.end]
        rows.addmm_(up, down, alpha=step.effect.scale * step.scale)
    return result


def measure(quick: bool = False) -> list[Row]:
    from flux2_lora_edit.lora_loader.fuse import fuse

    model = subjects.model(WIDTH, 1, 1)
    rows = []
    with subjects.three_loras(WIDTH, 1, 1) as paths:
        loras = subjects.Applier(paths, "merge").read(model, subjects.SCALES)
        exact, fused = truth(model, loras), fuse(loras)
        stock, ours = subjects.stock(model, paths), subjects.ours(model, paths)
        for key in (subjects.QKV, subjects.LINEAR1):
            ideal = noise(exact[key].bfloat16(), exact[key])
            weight = model.model.state_dict()[key]
            through = stock.patch_weight_to_device(key, return_weight=True)
            left, merged = in_its_own_type(stock, key), in_its_own_type(ours, key)
            ways = (
                ("in bf16", noise(left, exact[key]), noise(merged, exact[key])),
                ("through float32", noise(through, exact[key]),
                 noise(ours.patch_weight_to_device(key, return_weight=True), exact[key])),
                ("one addmm_", noise(left, exact[key]),
                 noise(one_addmm(fused[key], weight), exact[key])),
            )  # fmt: skip
            wrong = float((left != exact[key].bfloat16()).float().mean())
            for way, theirs, mine in ways:
                rows.append(
                    Row(f"{key.split('.')[-2]}: noise, {way}", "over one ideal rounding",
                        theirs / ideal, mine / ideal, mine / ideal, target="<= 1.02",
                        met=mine / ideal <= 1.02,
                        note=f"stock: {wrong:.1%} not the rounded sum" if way == "in bf16" else "")
                )  # fmt: skip
    return rows


if __name__ == "__main__":
    bench.main(__doc__, measure)

"""Noise of a merge of three bf16 LoRAs over that of one ideal rounding, against fp64 truth.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/merge_accuracy.py

Noise is the root mean square of (result - exact); ideal is the exact sum rounded to bf16. Both ways
of the host, in the weight's own type (dynamic VRAM, and whatever is offloaded) and through float32,
and ours as on a GPU.
"""

from dataclasses import replace
from typing import Any

import bench
import subjects
from bench import Row

WIDTH = 512
WEIGHTS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")


def truth(model: Any, plan: Any) -> dict[str, Any]:
    """The exact weights in fp64, from the files' factors alone."""
    exact = {}
    weights = model.model.state_dict()
    for key, steps in plan.items():
        total = weights[key].double()
        for step in steps:
            effect = step.effect
            change = effect.up.double() @ effect.down.double() * (effect.scale * step.scale)
            total[step.start : step.start + step.rows] += change
        exact[key] = total
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
    """As our merge does it on a GPU: one ``addmm_`` a row slice, summed in float32."""
    result = weight.clone()
    for step in steps:
        step.effect.add_to(result[step.start : step.start + step.rows], step.scale)
    return result


def measure(quick: bool = False) -> list[Row]:
    from flux2_lora_edit.lora_loader.parts import fused as fuse

    model = subjects.model(WIDTH, 1, 1)
    rows = []
    with subjects.three_loras(WIDTH, 1, 1) as paths:
        stack = subjects.Applier(paths, "merge").plan(model, subjects.SCALES)
        exact = truth(model, unfused(stack.loras))
        stock, ours = subjects.stock(model, paths), subjects.ours(model, paths)
        for name in WEIGHTS:
            key = f"diffusion_model.{name}.weight"
            ideal = noise(exact[key].bfloat16(), exact[key])
            weight = model.model.state_dict()[key]
            through = stock.patch_weight_to_device(key, return_weight=True)
            left, merged = in_its_own_type(stock, key), in_its_own_type(ours, key)
            ways = (
                ("in bf16", noise(left, exact[key]), noise(merged, exact[key])),
                ("through float32", noise(through, exact[key]),
                 noise(ours.patch_weight_to_device(key, return_weight=True), exact[key])),
                ("one addmm_", noise(left, exact[key]),
                 noise(one_addmm(fuse(stack.loras)[key], weight), exact[key])),
            )  # fmt: skip
            wrong = float((left != exact[key].bfloat16()).float().mean())
            for way, theirs, mine in ways:
                rows.append(
                    Row(f"{name.split('.')[-1]}: noise, {way}", "over one ideal rounding",
                        theirs / ideal, mine / ideal, mine / ideal, target="<= 1.02",
                        met=mine / ideal <= 1.02,
                        note=f"stock: {wrong:.1%} not the rounded sum" if way == "in bf16" else "")
                )  # fmt: skip
    return rows


def unfused(loras: Any) -> dict[str, list[Any]]:
    """Every LoRA's own steps by weight, with its scale: nothing of ``fuse`` in the truth."""
    plan: dict[str, list[Any]] = {}
    for lora in loras:
        for key, step in lora.steps:
            plan.setdefault(key, []).append(replace(step, scale=step.scale * lora.scale))
    return plan


if __name__ == "__main__":
    bench.main(__doc__, measure)

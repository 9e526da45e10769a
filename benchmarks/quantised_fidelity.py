"""A LoRA's effect on quantised layers: how far stock's merge and our side path are from the truth.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/quantised_fidelity.py

For fp8, nvfp4 and int8 models in ComfyUI's own format: y_lora - y_base of a layer against
x @ (change of the weight)^T in fp64. Stock adds the LoRA to the weight and quantises it again.
"""

from typing import Any

import bench
import subjects
from bench import Row

WIDTH = 512
FORMS = {"float8_e4m3fn": "fp8", "nvfp4": "nvfp4", "int8_tensorwise": "int8"}
TOKENS = 256


def output(patcher: Any, layer: str, x: Any) -> Any:
    """What the host's loaded MODEL makes of ``x`` in one layer, wrappers and all, in fp64."""
    import comfy.model_management
    import torch
    from comfy.patcher_extension import WrapperExecutor, WrappersMP

    comfy.model_management.load_models_gpu([patcher, *patcher.get_nested_additional_models()])
    patcher.pre_run()
    module = patcher.model.get_submodule(f"diffusion_model.{layer}")
    run = WrapperExecutor.new_class_executor(
        lambda x: module(x), patcher.model, patcher.get_all_wrappers(WrappersMP.APPLY_MODEL)
    )
    with torch.no_grad():
        return run.execute(x).double()


def truth(paths: Any, layer: str, x: Any) -> Any:
    from safetensors.torch import load_file

    total = 0
    for path, scale in zip(paths, subjects.SCALES, strict=True):
        tensors = load_file(path)
        down, up = (
            tensors[f"diffusion_model.{layer}.lora_{part}.weight"].double() for part in "AB"
        )
        total = total + scale * (x.double() @ down.T @ up.T)
    return total


def measure(quick: bool = False) -> list[Row]:
    import torch
    from comfy.quant_ops import QUANT_ALGOS

    width, tokens = (256, 32) if quick else (WIDTH, TOKENS)
    rows = []
    with subjects.three_loras(width, 1, 1, "ai_toolkit") as paths:
        known = {form: name for form, name in FORMS.items() if form in QUANT_ALGOS}
        for form, name in known.items():
            model = subjects.model(width, 1, 1, form=form)
            stock = subjects.stock(model, paths)
            ours = subjects.ours(model, paths, "side path")
            target = "" if name == "int8" else ">= 10"
            for layer in subjects.LAYERS:
                generator = torch.Generator().manual_seed(0)
                x = torch.randn(1, tokens, width, generator=generator)
                x = x.bfloat16()  # as on a GPU; in float32 ours would be a million times closer
                base, true = output(model, layer, x), truth(paths, layer, x)
                theirs, mine = (
                    float((output(side, layer, x) - base - true).norm() / true.norm())
                    for side in (stock, ours)
                )
                rows.append(
                    Row(f"{name} {layer.split('.')[-1]}: error of the LoRAs' effect", "of its size",
                        theirs, mine, theirs / mine, target=target,
                        met=theirs / mine >= 10 if target else None)
                )  # fmt: skip
    return rows


if __name__ == "__main__":
    bench.main(__doc__, measure)

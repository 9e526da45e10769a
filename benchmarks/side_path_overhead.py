"""One forward with three LoRAs beside the weights, over one without: ours, per LoRA, and stock's.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/side_path_overhead.py

A double and a single block of klein 9B in float32, 256 image tokens, LoRAs of ranks 16, 32 and 64.
"Per LoRA" is the pattern of PEFT's layers, y + B(Ax) * s for each LoRA; stock's bypass loader keeps
the last LoRA alone (it does not stack), so that its figure is for one. Needs about 4 GB of memory.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import bench
import subjects
from bench import Row

KLEIN_9B = 4096


def measure(quick: bool = False) -> list[Row]:
    import torch

    width, rounds = (512, 3) if quick else (KLEIN_9B, 5)
    model = subjects.model(width, 1, 1, "klein-9b", torch.float32)
    with subjects.three_loras(width, 1, 1, "ai_toolkit") as paths:
        beside = subjects.ours(model, paths, "side path")
        bypass = bypassed(model, paths)
        factors = of_files(paths)

        def per_lora() -> None:
            with layers_of(model, factors):
                subjects.sample(model)

        sides = {
            "base": lambda: subjects.sample(model),
            "ours": lambda: subjects.sample(beside),
            "per LoRA": per_lora,
            "bypass": lambda: subjects.sample(bypass),
        }
        times = bench.interleaved(sides, rounds)
    ours, spread = bench.ratios(times["ours"], times["base"])
    rows = []
    for name, side in (("three LoRAs, each added by itself", "per LoRA"),
                       ("stock's bypass loader, one LoRA", "bypass")):  # fmt: skip
        stock, theirs = bench.ratios(times[side], times["base"])
        rows.append(
            Row(f"a forward, against {name}", "over one without", stock, ours, ours, spread,
                "<= 1.07", ours <= 1.07, f"theirs {theirs[0]:.3g}-{theirs[1]:.3g}")
        )  # fmt: skip
    return rows


def bypassed(model: Any, paths: Any) -> Any:
    """A chain of stock's bypass loaders: the last one replaces the others."""
    import comfy.sd
    import comfy.utils

    for path, scale in zip(paths, subjects.SCALES, strict=True):
        tensors = comfy.utils.load_torch_file(str(path))
        model, _ = comfy.sd.load_bypass_lora_for_models(model, None, tensors, scale, 0)
    return model


def of_files(paths: Any) -> dict[str, list[tuple[Any, Any, float]]]:
    """Module -> (down, up, scale) of each LoRA, in float32."""
    from safetensors.torch import load_file

    found: dict[str, list[tuple[Any, Any, float]]] = {}
    for path, scale in zip(paths, subjects.SCALES, strict=True):
        tensors = load_file(path)
        for key, down in tensors.items():
            if key.endswith(".lora_A.weight"):
                up = tensors[key.replace("lora_A", "lora_B")]
                name = key.removesuffix(".lora_A.weight")
                found.setdefault(name, []).append((down.float(), up.float(), scale))
    return found


@contextlib.contextmanager
def layers_of(model: Any, factors: dict[str, list[tuple[Any, Any, float]]]) -> Iterator[None]:
    """The model's modules with each LoRA added by itself, as PEFT's Linear.forward does."""
    import torch.nn.functional as F  # noqa: N812

    def beside(forward: Any, loras: list[tuple[Any, Any, float]]) -> Any:
        def run(x: Any) -> Any:
            result = forward(x)
            for down, up, scale in loras:
                result = result + F.linear(F.linear(x, down), up) * scale
            return result

        return run

    modules = [model.model.get_submodule(name) for name in factors]
    for module, loras in zip(modules, factors.values(), strict=True):
        module.forward = beside(module.forward, loras)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


if __name__ == "__main__":
    bench.main(__doc__, measure)

"""What needs a GPU: merging all of dev, the slider on klein 9B, and the step against other graphs.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/gpu.py [--tiny] [--write]

Random weights, 1024 x 1024 (4096 image tokens), 0 to 3 references of that size. The step: stock's
graph with stock's merge, ours merged and ours with the side path, and diffusers' transformer with
PEFT adapters and with fuse_lora; MFU is over a peak of 989 TFLOP/s (H100, H200: dense bf16). dev
runs with a quarter of its blocks, so that two of it fit. ``--tiny`` runs everything small, on a CPU
too, and shows only that it works. ``--write`` writes benchmarks/results/gpu.md.

No figures of it are published yet: it has been run with ``--tiny`` alone.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import bench
import slider
import subjects
from bench import ROOT, Row

PEAK = 989e12
KLEIN_9B = ("klein-9b", 4096, 8, 24)
DEV = ("dev", 6144, 8, 48)
DEV_QUARTER = ("dev", 6144, 2, 12)
TINY = ("dev", 256, 1, 1)
Shape = tuple[str, int, int, int]


def merge_all(shape: Shape, device: str, rounds: int) -> Row:
    """Three LoRAs into every block weight of a model: one weight of each shape, times their
    number. Stock's dynamic-VRAM way, in bf16."""
    import comfy.lora
    import torch

    _, width, double, single = shape
    model = subjects.model(256, 1, 1)
    with subjects.three_loras(256, 1, 1) as paths:
        patched = subjects.stock(model, paths), subjects.ours(model, paths)
    total = {"stock": [0.0] * rounds, "ours": [0.0] * rounds}
    size = 0
    for key in patched[1].patches:
        out, into = (n // 256 * width for n in model.model.state_dict()[key].shape)
        count = double if "double_blocks" in key else single
        sides: dict[str, Callable[[], Any]] = {}
        for name, side in zip(total, patched, strict=True):
            stored = widened(side.patches[key], width, device)
            weight = torch.zeros(out, into, dtype=torch.bfloat16, device=device)
            sides[name] = lambda s=stored, w=weight, k=key: comfy.lora.calculate_weight(
                s, w, k, intermediate_dtype=w.dtype
            )
        for name, times in bench.interleaved(sides, rounds).items():
            total[name] = [a + count * b for a, b in zip(total[name], times, strict=True)]
        size += count * out * into
    ratio, spread = bench.ratios(total["stock"], total["ours"])
    stock, ours = (statistics.median(total[name]) for name in total)
    note = f"{4 * size / ours / 1e12:.2f} TB/s of weights read and written"
    return Row(f"three LoRAs into {size / 1e9:.1f} G parameters", "ms", stock * 1e3, ours * 1e3,
               ratio, spread, ">= 6", ratio >= 6, note)  # fmt: skip


def widened(value: Any, width: int, device: str) -> Any:
    """Patches of a model of width 256 as those of a wider one, on the device."""
    import torch

    factor = width // 256
    if isinstance(value, torch.Tensor) and value.ndim == 2:
        rows, columns = (n * factor if n >= 256 else n for n in value.shape)
        return torch.full((rows, columns), 1e-3, dtype=value.dtype, device=device)
    if isinstance(value, tuple) and len(value) > 2 and all(isinstance(n, int) for n in value[1:3]):
        # A row slice, ours (Step, start, rows, ...) or the host's offset (dimension, start, rows).
        value = (value[0], *(n * factor for n in value[1:3]), *value[3:])
    if hasattr(value, "loaded_keys"):
        return type(value)(value.loaded_keys, widened(value.weights, width, device))
    if isinstance(value, tuple | list):
        return type(value)(widened(item, width, device) for item in value)
    return value


def flops(shape: Shape, image: int, text: int) -> float:
    """Of one forward: the blocks' Linears and attention, 2 a multiply and add."""
    _, width, double, single = shape
    tokens = image + text
    linears = 26 * width**2 * double * tokens / 2 + 13 * width**2 * single * tokens
    attention = 2 * width * tokens**2 * (double + single)
    return 2 * (linears + attention)


def diffusers_step(model: Any, side: int, references: int) -> Callable[[], Any]:
    """One forward of diffusers' transformer on the same number of tokens."""
    import torch

    device, dtype = model.device, model.dtype
    axis, zero = torch.arange(side), torch.tensor([0])
    ids = torch.cat(
        [torch.cartesian_prod(zero + 10 * n, axis, axis, zero) for n in range(1 + references)]
    )
    count = subjects.TEXT_TOKENS
    given = {
        "hidden_states": torch.randn(1, len(ids), 128, device=device, dtype=dtype),
        "encoder_hidden_states": torch.randn(1, count, 768, device=device, dtype=dtype),
        "timestep": torch.full((1,), 0.6, device=device, dtype=dtype),
        "img_ids": ids[None].to(device),
        "txt_ids": torch.cartesian_prod(zero, zero, zero, torch.arange(count))[None].to(device),
        "guidance": torch.full((1,), 2.5, device=device, dtype=dtype),
    }
    return torch.inference_mode()(lambda: model(**given, return_dict=False))


def diffusers_model(shape: Shape, device: str) -> Any:
    """diffusers' transformer with three PEFT adapters on every Linear of its blocks."""
    import torch
    from diffusers import Flux2Transformer2DModel
    from peft import LoraConfig

    variant, width, double, single = shape
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Flux2Transformer2DModel(
                num_layers=double, num_single_layers=single, num_attention_heads=width // 128,
                joint_attention_dim=768, guidance_embeds=variant == "dev",
            )  # fmt: skip
            names = [
                name
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear) and "blocks" in name
            ]
            for number, rank in enumerate(subjects.RANKS):
                model.add_adapter(LoraConfig(r=rank, target_modules=names), f"lora_{number}")
    finally:
        torch.set_default_dtype(torch.float32)
    adapters = [f"lora_{number}" for number in range(len(subjects.RANKS))]
    model.set_adapters(adapters, list(subjects.SCALES))
    return model.eval()


def steps(shape: Shape, device: str, side: int, rounds: int, most: int) -> list[Row]:
    """Seconds a step with 0 to ``most`` references, each graph over stock's."""
    variant, width, double, single = shape
    with subjects.three_loras(width, double, single) as paths:
        base = subjects.model(width, double, single, variant)
        graphs = {
            "stock": subjects.stock(base, paths),
            "ours, merged": subjects.ours(base, paths),
            "ours, side path": subjects.ours(base, paths, "side path"),
        }
    rows = []
    peft = diffusers_model(shape, device)
    for references in range(most + 1):
        found = {}
        for name, graph in graphs.items():

            def sampled(count: int, g: Any = graph, n: int = references) -> Callable[[], Any]:
                return lambda: subjects.sample(g, side, n, count)

            # Loading and the host's own preparation are in both: what remains is four steps.
            times = bench.interleaved({"one": sampled(1), "five": sampled(5)}, rounds)
            found[name] = [(b - a) / 4 for a, b in zip(times["one"], times["five"], strict=True)]
        forward = diffusers_step(peft, side, references)
        found["diffusers, PEFT"] = bench.interleaved({"step": forward}, rounds)["step"]
        peft.fuse_lora()
        found["diffusers, fused"] = bench.interleaved({"step": forward}, rounds)["step"]
        peft.unfuse_lora()
        work = flops(shape, side * side * (1 + references), subjects.TEXT_TOKENS)
        stock = statistics.median(found.pop("stock"))
        for name, times in found.items():
            taken = statistics.median(times)
            rows.append(
                Row(f"{variant}, {double} + {single} blocks, {references} references: {name}",
                    "ms a step", stock * 1e3, taken * 1e3, taken / stock,
                    (min(times) / stock, max(times) / stock),
                    note=f"MFU {work / taken / PEAK:.1%}, stock {work / stock / PEAK:.1%}")
            )  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="everything small, on a CPU too")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/gpu.md")
    given = parser.parse_args()
    os.environ["BENCH_GPU"] = "1"
    import torch

    if not torch.cuda.is_available() and not given.tiny:
        sys.exit("gpu.py needs an NVIDIA GPU with 100 GB of memory; --tiny tries it without one.")
    about = bench.machine(bench.host())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.tiny:
        rows = [merge_all(TINY, device, 2), *slider.of(*TINY[1:], side=4, rounds=2)]
        rows += steps(TINY, device, 4, 2, 1)
    else:
        variant, *klein = KLEIN_9B
        rows = [merge_all(DEV, device, 5), *slider.of(*klein, variant, side=64)]
        rows += steps(KLEIN_9B, device, 64, 5, 3) + steps(DEV_QUARTER, device, 64, 5, 3)
    heading = ", ".join(f"{name} {value}" for name, value in about.items())
    text = "\n".join(["# On a GPU", "", heading, "", bench.HEAD, *(bench.line(r) for r in rows)])
    print(text)
    if given.write:
        (ROOT / "benchmarks" / "results" / "gpu.md").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

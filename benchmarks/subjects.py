"""What is measured: random models and LoRA files of any size, onto each other both ways."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RANKS = (16, 32, 64)
SCALES = (1.0, 0.7, 0.31)
TEXT_TOKENS = 8
LAYERS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")
"""The largest of each kind of block: one that trainers split in three, and one that they do not."""
QKV, LINEAR1 = (f"diffusion_model.{layer}.weight" for layer in LAYERS)


def model(
    hidden: int, double: int, single: int, variant: str = "dev", dtype: Any = None,
    form: str | None = None,
) -> Any:  # fmt: skip
    """A random FLUX.2 of any width and depth by ComfyUI's own loader; ``form`` quantises it."""
    import comfy.sd
    import torch

    from host import tiny, tiny_quantised

    dtype = dtype or torch.bfloat16
    weights = tiny.transformer(variant, hidden, double=double, single=single, dtype=dtype)
    if form:
        weights = tiny_quantised.quantised(weights, form)
    options = {} if form else {"dtype": dtype}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options=options)


@contextmanager
def three_loras(
    hidden: int, double: int, single: int, make: str = "diffusers", ranks: tuple[int, ...] = RANKS
) -> Iterator[list[Path]]:
    """Three bf16 files of ranks 16, 32 and 64 as the trainer ``make`` writes them.

    Alpha is the rank: stock does not read the alpha of diffusers' files, which is no matter here.
    """
    import torch
    from safetensors.torch import save_file

    from host import tiny_loras

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, rank in enumerate(ranks):
            write = getattr(tiny_loras, make)
            alpha = {} if make == "ai_toolkit" else {"alpha": float(rank)}
            made = write(hidden, double, single, rank=rank, seed=number + 1, **alpha)
            path = Path(folder, f"{number}.safetensors")
            # A change of about a tenth of the weight: what a trained LoRA does.
            tensors = {
                key: (t * 0.3 if "lora" in key and t.ndim == 2 else t).to(torch.bfloat16)
                for key, t in made.weights.items()
            }
            save_file(tensors, path, made.metadata)
            paths.append(path)
        yield paths


class Applier:
    """Our way from files to a MODEL with what the node keeps between runs: files and side paths."""

    def __init__(self, paths: list[Path], mode: str) -> None:
        from flux2_lora_edit.lora_loader.patch import SidePathCache
        from flux2_lora_edit.lora_loader.read_stack import LoraFiles

        self.paths, self.mode = {path.name: path for path in paths}, mode
        self.files, self.side_paths = LoraFiles(), SidePathCache()

    def __call__(self, patcher: Any, scales: tuple[float, ...]) -> Any:
        from flux2_lora_edit.lora_loader.patch import apply_stack

        loras = self.read(patcher, scales)
        return apply_stack(patcher, loras, self.mode, side_paths=self.side_paths).model

    def read(self, patcher: Any, scales: tuple[float, ...]) -> Any:
        """The files as a stack of LoRAs for the MODEL."""
        from flux2_lora_edit.lora_loader.patch import weight_shapes
        from flux2_lora_edit.lora_loader.read_stack import read_stack
        from flux2_lora_edit.lora_loader.stack import LoraEntry

        entries = [LoraEntry(n, s, s) for n, s in zip(self.paths, scales, strict=True)]
        where = {"locate": lambda entry: self.paths[entry.name], "files": self.files}
        return read_stack(entries, weight_shapes(patcher), **where).loras


class StockApplier:
    """ComfyUI's own way; its LoraLoader keeps the last file, so that reading them is not in it."""

    def __init__(self, paths: list[Path]) -> None:
        import comfy.utils

        self.files = [comfy.utils.load_torch_file(str(path)) for path in paths]

    def __call__(self, patcher: Any, scales: tuple[float, ...]) -> Any:
        import comfy.sd

        for tensors, scale in zip(self.files, scales, strict=True):
            patcher, _ = comfy.sd.load_lora_for_models(patcher, None, tensors, scale, 0)
        return patcher


def stock(patcher: Any, paths: list[Path]) -> Any:
    """The MODEL as a chain of ComfyUI's LoraLoaderModelOnly leaves it."""
    return StockApplier(paths)(patcher, SCALES)


def ours(patcher: Any, paths: list[Path], mode: str = "merge") -> Any:
    """The MODEL as this pack's Apply node leaves it."""
    return Applier(paths, mode)(patcher, SCALES)


def sample(
    patcher: Any, side: int = 16, references: int = 0, steps: int = 1, pictures: int = 1
) -> Any:
    """The host's own sampling, loading included: ``side ** 2`` image tokens, as many for each
    reference; all ``pictures`` of the batch from one noise."""
    import comfy.sample
    import comfy.samplers
    import torch

    generator = torch.Generator().manual_seed(0)
    columns = patcher.model.diffusion_model.txt_in.weight.shape[1]
    one = torch.randn(1, 128, side, side, generator=generator)
    text = torch.randn(1, TEXT_TOKENS, columns, generator=generator)
    options = {"guidance": 2.5}
    if references:
        options["reference_latents"] = [one] * references
    conditioning, noise = [[text, options]], one.repeat(pictures, 1, 1, 1)
    return comfy.sample.sample_custom(
        patcher, noise, 1.0, comfy.samplers.sampler_object("euler"),
        torch.linspace(1.0, 0.0, steps + 1), conditioning, conditioning, torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip

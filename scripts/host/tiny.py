"""Tiny random FLUX.2 weights that the stock ComfyUI loaders accept.

Every tensor has a generator of its own, seeded by its name: the same arguments give the same bytes,
and adding a tensor leaves the others as they were. Standard deviations are ``1/sqrt(fan_in)`` so
that activations keep their size through the depth: sampling stays finite and the picture is noise
with contrast, in which the effect of a LoRA is easy to see.

Shapes: black-forest-labs/flux2 ``model.py``; ComfyUI ``comfy/model_detection.py``,
``comfy/ldm/modules/diffusionmodules/model.py`` and ``comfy/taesd/taesd.py``.
"""

import math
import zlib

import torch

Weights = dict[str, torch.Tensor]

# The host takes the number of heads from hidden / 128.
HEAD_DIM = 128
VARIANTS = ("dev", "klein-9b", "klein-4b")


class Random:
    """Named random tensors: the bytes depend on (seed, name, shape) alone."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.seed, self.dtype = seed, dtype

    def normal(self, name: str, shape: tuple[int, ...], std: float | None = None) -> torch.Tensor:
        """Normal values; ``std`` defaults to ``1/sqrt(fan_in)``."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}:{name}".encode()))
        std = 1.0 / math.sqrt(math.prod(shape[1:])) if std is None else std
        return torch.randn(shape, generator=generator).mul_(std).to(self.dtype)

    def ones(self, *shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=self.dtype)

    def zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype)


def transformer_shapes(
    variant: str, hidden: int = 256, context: int = 768, double: int = 2, single: int = 3
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a BFL FLUX.2 file; dev alone has ``guidance_in``.

    Raises ValueError for an unknown variant or a width that is no multiple of 128.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; one of {', '.join(VARIANTS)}")
    if hidden % HEAD_DIM:
        raise ValueError(f"hidden must be a multiple of {HEAD_DIM}, not {hidden}")
    h = hidden
    shapes: dict[str, tuple[int, ...]] = {
        "img_in.weight": (h, 128),
        "txt_in.weight": (h, context),
        "double_stream_modulation_img.lin.weight": (6 * h, h),
        "double_stream_modulation_txt.lin.weight": (6 * h, h),
        "single_stream_modulation.lin.weight": (3 * h, h),
        "final_layer.linear.weight": (128, h),
        "final_layer.adaLN_modulation.1.weight": (2 * h, h),
    }
    for embedder in ("time_in", "guidance_in") if variant == "dev" else ("time_in",):
        shapes[f"{embedder}.in_layer.weight"] = (h, 256)
        shapes[f"{embedder}.out_layer.weight"] = (h, h)
    for block in range(double):
        for stream in ("img", "txt"):
            prefix = f"double_blocks.{block}.{stream}"
            shapes[f"{prefix}_attn.qkv.weight"] = (3 * h, h)
            shapes[f"{prefix}_attn.proj.weight"] = (h, h)
            shapes[f"{prefix}_attn.norm.query_norm.scale"] = (HEAD_DIM,)
            shapes[f"{prefix}_attn.norm.key_norm.scale"] = (HEAD_DIM,)
            shapes[f"{prefix}_mlp.0.weight"] = (6 * h, h)
            shapes[f"{prefix}_mlp.2.weight"] = (h, 3 * h)
    for block in range(single):
        prefix = f"single_blocks.{block}"
        shapes[f"{prefix}.linear1.weight"] = (9 * h, h)
        shapes[f"{prefix}.linear2.weight"] = (h, 4 * h)
        shapes[f"{prefix}.norm.query_norm.scale"] = (HEAD_DIM,)
        shapes[f"{prefix}.norm.key_norm.scale"] = (HEAD_DIM,)
    return shapes


def transformer(
    variant: str = "dev",
    hidden: int = 256,
    context: int = 768,
    double: int = 2,
    single: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> Weights:
    """A FLUX.2 diffusion model under BFL's names, for ``UNETLoader``; about 15 MB by default."""
    random = Random(seed, dtype)
    shapes = transformer_shapes(variant, hidden, context, double, single)
    return {
        name: random.ones(*shape) if len(shape) == 1 else random.normal(name, shape)
        for name, shape in shapes.items()
    }


def flux1_transformer(hidden: int = 128, context: int = 768, seed: int = 0) -> Weights:
    """A FLUX.1 dev diffusion model of one block each: the model that is not FLUX.2."""
    h = hidden
    linears = {"img_in": (h, 64), "txt_in": (h, context)}
    for embedder, width in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        linears |= {f"{embedder}.in_layer": (h, width), f"{embedder}.out_layer": (h, h)}
    for stream in ("img", "txt"):
        prefix = f"double_blocks.0.{stream}"
        linears |= {f"{prefix}_mod.lin": (6 * h, h), f"{prefix}_attn.qkv": (3 * h, h)}
        linears |= {f"{prefix}_attn.proj": (h, h)}
        linears |= {f"{prefix}_mlp.0": (4 * h, h), f"{prefix}_mlp.2": (h, 4 * h)}
    linears |= {"single_blocks.0.linear1": (7 * h, h), "single_blocks.0.linear2": (h, 5 * h)}
    linears |= {"single_blocks.0.modulation.lin": (3 * h, h)}
    linears |= {"final_layer.linear": (64, h), "final_layer.adaLN_modulation.1": (2 * h, h)}
    random = Random(seed, torch.bfloat16)
    weights: Weights = {}
    for name, shape in linears.items():
        weights[f"{name}.weight"] = random.normal(name, shape)
        weights[f"{name}.bias"] = random.zeros(shape[0])
    for owner in ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0"):
        for norm in ("query_norm", "key_norm"):
            weights[f"{owner}.norm.{norm}.scale"] = random.ones(HEAD_DIM)
    return weights


def clip_l_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a CLIP-L text encoder, width 768: the cheapest that ComfyUI takes for
    FLUX.2, whose context width follows from ``txt_in``."""
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (49408, 768),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        "text_projection.weight": (768, 768),
    }
    norms = ["text_model.final_layer_norm"]
    for layer in range(12):
        prefix = f"text_model.encoder.layers.{layer}"
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        linears = {f"self_attn.{part}_proj": (768, 768) for part in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
        for name, shape in linears.items():
            shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (768,), f"{norm}.bias": (768,)}
    return shapes


def clip_l(seed: int = 0) -> Weights:
    """A random CLIP-L (247 MB in float16), for ``CLIPLoader(type="flux2")``: the prompt changes
    the conditioning."""
    random = Random(seed, torch.float16)
    embeddings = "text_model.embeddings."
    weights: Weights = {}
    for name, shape in clip_l_shapes().items():
        if len(shape) == 1:
            weights[name] = random.zeros(*shape) if name.endswith("bias") else random.ones(*shape)
        elif name.startswith(embeddings):
            weights[name] = random.normal(name.removeprefix(embeddings), shape, std=0.02)
        else:
            weights[name] = random.normal(name.removesuffix(".weight"), shape)
    return weights

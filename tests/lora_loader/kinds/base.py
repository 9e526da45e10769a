"""A tiny random FLUX.2 transformer and every place in it that a trainer can name.

Shapes: black-forest-labs/flux2 ``model.py``. Names and the half swap of ``norm_out``: diffusers
``scripts/convert_flux2_to_diffusers.py``. Independent of the pack: the maths here is the truth that
the pack is compared with.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

HIDDEN, CONTEXT, HEAD = 256, 768, 128
DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 3
PREFIX = "diffusion_model."


@dataclass(frozen=True)
class Site:
    """One module as a trainer names it, and the part of a ComfyUI weight that it is."""

    name: str
    key: str
    rows: tuple[int, int] | None = None
    swap: bool = False

    def weight(self, base: "Base") -> Tensor:
        """The module's own weight, float64, in the trainer's orientation."""
        weight = self.part(base.weights[self.key]).double()
        return swap_halves(weight) if self.swap else weight

    def part(self, tensor: Tensor) -> Tensor:
        """A view of the rows of a ComfyUI tensor that this module is."""
        return tensor if self.rows is None else tensor[self.rows[0] : self.rows[1]]

    def renamed(self, name: str) -> "Site":
        return Site(name, self.key, self.rows, self.swap)


def swap_halves(tensor: Tensor) -> Tensor:
    """(scale, shift) rows to (shift, scale) rows, and back."""
    first, second = tensor.chunk(2, dim=0)
    return torch.cat([second, first], dim=0)


class Truth(dict[str, Tensor]):
    """ComfyUI key -> dense float64 change of that weight."""

    def __init__(self, base: "Base") -> None:
        super().__init__()
        self.base = base

    def add(self, site: Site, delta: Tensor) -> None:
        delta = swap_halves(delta) if site.swap else delta
        if site.key not in self:
            if site.rows is None:
                self[site.key] = delta.clone()
                return
            self[site.key] = torch.zeros_like(self.base.weights[site.key], dtype=torch.float64)
        site.part(self[site.key]).add_(delta)

    def include(self, other: "Truth", scale: float = 1.0) -> None:
        for key, delta in other.items():
            self[key] = self.get(key, torch.zeros_like(delta)) + scale * delta


class Base:
    """The weights under ComfyUI's names, and the sites of both namings."""

    def __init__(self, geometry: str) -> None:
        self.geometry = geometry
        generator = torch.Generator().manual_seed(20 if geometry == "dev" else 21)
        self.weights: dict[str, Tensor] = {}
        for site, shape in _shapes(geometry == "dev"):
            weight = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
            self.weights[f"{PREFIX}{site}.weight"] = weight
        for site in norm_names():
            scale = 1 + 0.1 * torch.randn(HEAD, generator=generator)
            self.weights[f"{PREFIX}{site}.weight"] = scale

    def plus(self, truth: Truth) -> "Base":
        """This model with a change merged: what the next LoRA of a stack meets."""
        other = Base.__new__(Base)
        other.geometry = self.geometry
        other.weights = {k: (w.double() + truth[k]) if k in truth else w for k, w in self.items()}
        return other

    def items(self) -> Iterable[tuple[str, Tensor]]:
        return self.weights.items()

    def checkpoint(self) -> dict[str, Tensor]:
        """The file as published: BFL names, norms as ``.scale``."""
        norms = set(norm_names())
        names = {key: key.removeprefix(PREFIX).removesuffix(".weight") for key in self.weights}
        return {
            f"{name}.{'scale' if name in norms else 'weight'}": self.weights[key].float()
            for key, name in names.items()
        }

    def bfl(self, select: str = "blocks") -> list[Site]:
        """Linears under BFL names. ``select``: blocks, globals, all, attention."""
        names = [name for name, _ in _shapes(self.geometry == "dev")]
        return [Site(n, f"{PREFIX}{n}.weight") for n in names if _selected(n, select)]

    def diffusers(self, select: str = "blocks") -> list[Site]:
        """Linears under diffusers names: q, k, v apart, ``norm_out`` with swapped halves."""
        return [site for bfl in self.bfl(select) for site in _as_diffusers(bfl)]


def norm_names() -> Iterator[str]:
    for block in range(DOUBLE_BLOCKS):
        for stream in ("img", "txt"):
            for norm in ("query_norm", "key_norm"):
                yield f"double_blocks.{block}.{stream}_attn.norm.{norm}"
    for block in range(SINGLE_BLOCKS):
        for norm in ("query_norm", "key_norm"):
            yield f"single_blocks.{block}.norm.{norm}"


def _shapes(guidance: bool) -> Iterator[tuple[str, tuple[int, int]]]:
    h = HIDDEN
    yield "img_in", (h, 128)
    yield "txt_in", (h, CONTEXT)
    for embed in ("time_in", "guidance_in") if guidance else ("time_in",):
        yield f"{embed}.in_layer", (h, 256)
        yield f"{embed}.out_layer", (h, h)
    yield "double_stream_modulation_img.lin", (6 * h, h)
    yield "double_stream_modulation_txt.lin", (6 * h, h)
    yield "single_stream_modulation.lin", (3 * h, h)
    yield "final_layer.linear", (128, h)
    yield "final_layer.adaLN_modulation.1", (2 * h, h)
    for block in range(DOUBLE_BLOCKS):
        for stream in ("img", "txt"):
            yield f"double_blocks.{block}.{stream}_attn.qkv", (3 * h, h)
            yield f"double_blocks.{block}.{stream}_attn.proj", (h, h)
            yield f"double_blocks.{block}.{stream}_mlp.0", (6 * h, h)
            yield f"double_blocks.{block}.{stream}_mlp.2", (h, 3 * h)
    for block in range(SINGLE_BLOCKS):
        yield f"single_blocks.{block}.linear1", (9 * h, h)
        yield f"single_blocks.{block}.linear2", (h, 4 * h)


def _selected(name: str, select: str) -> bool:
    in_block = "_blocks." in name
    return {
        "all": True,
        "blocks": in_block,
        "globals": not in_block,
        "attention": in_block and "_mlp" not in name,
    }[select]


_DIFFUSERS_GLOBALS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_DIFFUSERS_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
_DIFFUSERS_SINGLE = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}
DIFFUSERS_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


def diffusers_norm(name: str) -> str:
    """``double_blocks.0.img_attn.norm.query_norm`` -> ``transformer_blocks.0.attn.norm_q``."""
    kind, block, rest = name.split(".", 2)
    blocks = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
    return f"{blocks[kind]}.{block}.{DIFFUSERS_NORMS[rest]}"


def _as_diffusers(site: Site) -> Iterator[Site]:
    if site.name in _DIFFUSERS_GLOBALS:
        name = _DIFFUSERS_GLOBALS[site.name]
        yield Site(name, site.key, swap=name == "norm_out.linear")
        return
    kind, block, rest = site.name.split(".", 2)
    if kind == "single_blocks":
        yield site.renamed(f"single_transformer_blocks.{block}.{_DIFFUSERS_SINGLE[rest]}")
        return
    names = _DIFFUSERS_DOUBLE[rest]
    for part, name in enumerate(names):
        rows = (part * HIDDEN, (part + 1) * HIDDEN) if len(names) == 3 else None
        yield Site(f"transformer_blocks.{block}.{name}", site.key, rows)

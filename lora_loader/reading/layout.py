"""Module names of either kind -> the loaded model's weight, its rows and its order of rows.

Built from the shapes of the loaded model, so that every depth and width works and nothing can
resolve to a weight that the model has not got. Names: black-forest-labs/flux2 and diffusers'
``convert_flux2_to_diffusers.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .naming import words

PREFIX = "diffusion_model."

# BFL module -> diffusers modules that share its rows equally, in order. {n} is the block's number.
_DIFFUSERS: Mapping[str, tuple[str, ...]] = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "double_blocks.{n}.img_attn.qkv": tuple(
        f"transformer_blocks.{{n}}.attn.to_{part}" for part in "qkv"
    ),
    "double_blocks.{n}.txt_attn.qkv": tuple(
        f"transformer_blocks.{{n}}.attn.add_{part}_proj" for part in "qkv"
    ),
    "double_blocks.{n}.img_attn.proj": ("transformer_blocks.{n}.attn.to_out.0",),
    "double_blocks.{n}.txt_attn.proj": ("transformer_blocks.{n}.attn.to_add_out",),
    "double_blocks.{n}.img_mlp.0": ("transformer_blocks.{n}.ff.linear_in",),
    "double_blocks.{n}.img_mlp.2": ("transformer_blocks.{n}.ff.linear_out",),
    "double_blocks.{n}.txt_mlp.0": ("transformer_blocks.{n}.ff_context.linear_in",),
    "double_blocks.{n}.txt_mlp.2": ("transformer_blocks.{n}.ff_context.linear_out",),
    "double_blocks.{n}.img_attn.norm.query_norm": ("transformer_blocks.{n}.attn.norm_q",),
    "double_blocks.{n}.img_attn.norm.key_norm": ("transformer_blocks.{n}.attn.norm_k",),
    "double_blocks.{n}.txt_attn.norm.query_norm": ("transformer_blocks.{n}.attn.norm_added_q",),
    "double_blocks.{n}.txt_attn.norm.key_norm": ("transformer_blocks.{n}.attn.norm_added_k",),
    "single_blocks.{n}.linear1": ("single_transformer_blocks.{n}.attn.to_qkv_mlp_proj",),
    "single_blocks.{n}.linear2": ("single_transformer_blocks.{n}.attn.to_out",),
    "single_blocks.{n}.norm.query_norm": ("single_transformer_blocks.{n}.attn.norm_q",),
    "single_blocks.{n}.norm.key_norm": ("single_transformer_blocks.{n}.attn.norm_k",),
}
# BFL orders these rows (shift, scale), diffusers (scale, shift).
_HALVES_SWAPPED = frozenset({"norm_out.linear"})

_BLOCK = re.compile(r"^(double_blocks|single_blocks)\.(\d+)\.")
# A prefix with one of these words belongs to another network, or makes another module of the name
# behind it: "single" + "transformer_blocks...", a text encoder, a control net.
_NOT_A_PREFIX = frozenset(
    "single controlnet vae te te1 te2 te3 t5 qwen qwen3 mistral encoder".split()
)
# Longer keys are no module of this model; bounds the work per key.
_MOST_WORDS = 40


@dataclass(frozen=True)
class Target:
    """Rows ``start`` to ``start + rows`` of the weight ``key``, whose input width is ``columns``.

    ``columns`` is None for a vector (a norm or a bias). ``swapped``: the trainer's two row halves
    lie the other way round in the model. ``bias`` is the key of the module's bias, if it has one.
    """

    key: str
    start: int
    rows: int
    columns: int | None
    swapped: bool = False
    bias: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A stem's target, the prefix before the module's name and the naming: "BFL" or "diffusers"."""

    target: Target
    prefix: tuple[str, ...]
    naming: str


class Layout:
    """The loaded model's modules under every name that a trainer may give them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """``shapes``: the model's weights by state-dict name, with ``diffusion_model.`` or not."""
        self.shapes = dict(shapes)

    @cached_property
    def _targets(self) -> dict[tuple[str, ...], tuple[Target, str]]:
        """Each module's target under each of its names, split into words."""
        targets: dict[tuple[str, ...], tuple[Target, str]] = {}
        for key, shape in self.shapes.items():
            name = key.removeprefix(PREFIX)
            module, _, leaf = name.rpartition(".")
            if leaf in ("weight", "scale") and len(shape) in (1, 2) and module:
                self._add_module(targets, key, module, leaf, shape)
        return targets

    def _add_module(
        self,
        targets: dict[tuple[str, ...], tuple[Target, str]],
        key: str,
        module: str,
        leaf: str,
        shape: tuple[int, ...],
    ) -> None:
        bias = f"{key.removesuffix(leaf)}bias"
        bias_key = bias if bias in self.shapes else None
        columns = shape[1] if len(shape) == 2 else None
        whole = Target(key, 0, shape[0], columns, bias=bias_key)
        targets[words(module)] = (whole, "BFL")
        if columns is None:
            # BFL's files call a norm's weight "scale", and a LoRA of it "...query_norm.scale.diff".
            targets[words(f"{module}.scale")] = (whole, "BFL")
        block = _BLOCK.match(module)
        pattern = _BLOCK.sub(rf"{block[1]}.{{n}}.", module) if block else module
        names = _DIFFUSERS.get(pattern, ())
        if not names or shape[0] % len(names):
            return
        rows = shape[0] // len(names)
        for part, name in enumerate(names):
            swapped = name in _HALVES_SWAPPED
            part_bias = bias_key if len(names) == 1 else None
            target = Target(key, part * rows, rows, columns, swapped, part_bias)
            alias = name.format(n=block[2] if block else "")
            targets[words(alias)] = (target, "diffusers")

    def resolve(self, stem: str) -> Resolved | None:
        """The module that a stem's last words name, or None where they name none of this model.

        The longest name wins. A prefix is any words before it, unless they give the name another
        meaning.
        """
        found = words(stem)
        if len(found) > _MOST_WORDS:
            return None
        for at in range(len(found)):
            hit = self._targets.get(found[at:])
            if hit is not None:
                prefix = found[:at]
                return (
                    None if _changes_meaning(prefix, found[at:]) else Resolved(*_with(hit, prefix))
                )
        return None


def _with(hit: tuple[Target, str], prefix: tuple[str, ...]) -> tuple[Target, tuple[str, ...], str]:
    return hit[0], prefix, hit[1]


def _changes_meaning(prefix: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if not _NOT_A_PREFIX.isdisjoint(prefix):
        return True
    # "single_transformer_blocks.3.proj_out" is a block of FLUX.1, not this model's "proj_out".
    in_block = any(word.isdigit() for word in name[:4]) and "blocks" in name
    return not in_block and any(word.isdigit() for word in prefix)

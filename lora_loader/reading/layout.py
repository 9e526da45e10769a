"""Module names of either kind -> the loaded model's weight, its rows and its order of rows.

Built from the shapes of the loaded model, so that every depth and width works and nothing can
resolve to a weight that the model has not got. Names: black-forest-labs/flux2 and diffusers'
``convert_flux2_to_diffusers.py``.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from ...flux2.variants import PREFIX
from .keys import WORD, Words, is_text_encoder, words

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
        f"transformer_blocks.{{n}}.attn.to_{letter}" for letter in "qkv"
    ),
    "double_blocks.{n}.txt_attn.qkv": tuple(
        f"transformer_blocks.{{n}}.attn.add_{letter}_proj" for letter in "qkv"
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
# A prefix with one of these words makes another module of the name behind it: a control net's, or
# "single" + "transformer_blocks...".
_NOT_A_PREFIX = frozenset({"single", "controlnet", "vae", "encoder"})
# Longer keys are no module of this model; bounds the work per key.
_MOST_WORDS = 40


class Target(NamedTuple):
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

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows,) of a vector."""
        return (self.rows,) if self.columns is None else (self.rows, self.columns)


class Place(NamedTuple):
    """A stem's target, the prefix before the module's name and whose name: "BFL", "diffusers"."""

    target: Target
    prefix: Words
    style: str

    def naming(self, stem: str) -> str:
        """How the stem is spelled, for the report: "diffusion_model. + BFL"."""
        starts = [match.start() for match in WORD.finditer(stem)]
        prefix = stem[: starts[len(self.prefix)]]
        style = self.style
        if "." not in stem.removeprefix(prefix):
            style += " flattened"
        elif "_attn_" in stem:
            style += " with flattened attention"
        return f"{prefix} + {style}" if prefix else style


class Layout:
    """The loaded model's modules under every name that a trainer may give them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """``shapes``: the model's weights by state-dict name, with ``diffusion_model.`` or not."""
        self.shapes = dict(shapes)

    def resolve(self, stem: str) -> Place | None:
        """The module that a stem's last words name, or None where they name none of this model.

        The longest name wins. A prefix is any words before it, unless they give the name another
        meaning.
        """
        found = words(stem)
        if len(found) > _MOST_WORDS:
            return None
        for at in range(len(found)):
            place = self._places.get(found[at:])
            if place is not None:
                prefix = found[:at]
                meant = not _changes_meaning(prefix, found[at:])
                return place._replace(prefix=prefix) if meant else None
        return None

    @cached_property
    def _places(self) -> dict[Words, Place]:
        """Each module's place under each of its names, split into words."""
        return {
            words(name): place
            for key, shape in self.shapes.items()
            if len(shape) in (1, 2)
            for name, place in self._named(key, shape)
        }

    def _named(self, key: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Place]]:
        module, _, leaf = key.removeprefix(PREFIX).rpartition(".")
        if not module or leaf not in ("weight", "scale"):
            return
        bias_key = f"{key.removesuffix(leaf)}bias"
        bias = bias_key if bias_key in self.shapes else None
        columns = shape[1] if len(shape) == 2 else None
        whole = Place(Target(key, 0, shape[0], columns, bias=bias), (), "BFL")
        yield module, whole
        if columns is None:
            # BFL's files call a norm's weight "scale", and a LoRA of it "...query_norm.scale.diff".
            yield f"{module}.scale", whole
        block = _BLOCK.match(module)
        pattern = _BLOCK.sub(rf"{block[1]}.{{n}}.", module) if block else module
        names = _DIFFUSERS.get(pattern, ())
        if not names or shape[0] % len(names):
            return
        rows = shape[0] // len(names)
        for number, name in enumerate(names):
            own_bias = bias if len(names) == 1 else None
            target = Target(key, number * rows, rows, columns, name in _HALVES_SWAPPED, own_bias)
            yield name.format(n=block[2] if block else ""), Place(target, (), "diffusers")


def _changes_meaning(prefix: Words, name: Words) -> bool:
    if not _NOT_A_PREFIX.isdisjoint(prefix) or is_text_encoder(prefix):
        return True
    # "single_transformer_blocks.3.proj_out" is a block of FLUX.1, not this model's "proj_out".
    in_block = any(word.isdigit() for word in name[:4]) and "blocks" in name
    return not in_block and any(word.isdigit() for word in prefix)

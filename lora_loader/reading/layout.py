"""Module names of either kind -> the loaded model's weight, its rows and its order of rows.

Built from the shapes of the loaded model, so that every depth and width works and nothing can
resolve to a weight that the model has not got. Names: black-forest-labs/flux2 and diffusers'
``convert_flux2_to_diffusers.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ...flux2.variants import PREFIX

WORD = re.compile(r"[A-Za-z0-9]+")

Words = tuple[str, ...]

# BFL's blocks -> diffusers'.
_BLOCKS = {
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
}
# BFL module, outside of blocks or in one -> the diffusers modules that share its rows, in order.
_DIFFUSERS: Mapping[str, Mapping[str, str]] = {
    "": {
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
    },
    "double_blocks": {
        "img_attn.qkv": "attn.to_q attn.to_k attn.to_v", "img_attn.proj": "attn.to_out.0",
        "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "txt_attn.proj": "attn.to_add_out",
        "img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out",
        "txt_mlp.0": "ff_context.linear_in", "txt_mlp.2": "ff_context.linear_out",
        "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
    },
    "single_blocks": {
        "linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out",
        "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k",
    },
}  # fmt: skip

_BLOCK = re.compile(r"^(double_blocks|single_blocks)\.(\d+)\.(.+)$")
# A prefix with one of these words makes another module of the name behind it: a control net's, or
# "single" + "transformer_blocks...".
_NOT_A_PREFIX = frozenset({"single", "controlnet", "vae", "encoder"})
_TEXT_ENCODER = re.compile(
    r"(?:^|_)(?:te\d?|t5[a-z]*|clip_[lg]|qwen\d*[a-z]*|mistral\d*|text_(?:encoders?\d*|model))(?:_|$)"
)
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


def words(name: str) -> Words:
    """A name's words and numbers in lower case, whatever separates them."""
    return tuple(word.lower() for word in WORD.findall(name))


def is_text_encoder(stem: Words) -> bool:
    """Whether a stem of these words, or a prefix, is a text encoder's."""
    return _TEXT_ENCODER.search("_".join(stem)) is not None


@dataclass(frozen=True)
class Layout:
    """The loaded model's modules under every name that a trainer may give them.

    ``shapes``: the model's weights by state-dict name, with ``diffusion_model.`` or not.
    """

    shapes: Mapping[str, tuple[int, ...]]

    def resolve(self, stem: str) -> Place | None:
        """The module that a stem's last words name, or None where they name none of this model.

        The longest name wins. A prefix is any words before it, unless they give the name another
        meaning.
        """
        found = words(stem)
        for at in range(len(found) if len(found) <= _MOST_WORDS else 0):
            place = self._places.get(found[at:])
            if place is not None:
                prefix, name = found[:at], found[at:]
                if not _NOT_A_PREFIX.isdisjoint(prefix) or is_text_encoder(prefix):
                    return None
                # "single_transformer_blocks.3.proj_out" is a block of FLUX.1, not our "proj_out".
                in_block = any(word.isdigit() for word in name[:4]) and "blocks" in name
                if not in_block and any(word.isdigit() for word in prefix):
                    return None
                return place._replace(prefix=prefix)
        return None

    @cached_property
    def _places(self) -> dict[Words, Place]:
        """Each module's place under each of its names, split into words."""
        places: dict[Words, Place] = {}
        for key, shape in self.shapes.items():
            module, _, leaf = key.removeprefix(PREFIX).rpartition(".")
            if not module or leaf not in ("weight", "scale") or len(shape) not in (1, 2):
                continue
            bias_key = f"{key.removesuffix(leaf)}bias"
            bias = bias_key if bias_key in self.shapes else None
            columns = shape[1] if len(shape) == 2 else None
            whole = Place(Target(key, 0, shape[0], columns, bias=bias), (), "BFL")
            places[words(module)] = whole
            if columns is None:
                # BFL's files call a norm's weight "scale", and its LoRA "...query_norm.scale.diff".
                places[words(f"{module}.scale")] = whole
            block = _BLOCK.match(module)
            kind, number, inside = block.groups() if block else ("", "", module)
            prefix = f"{_BLOCKS[kind]}.{number}." if block else ""
            names = _DIFFUSERS[kind].get(inside, "").split()
            rows, odd = divmod(shape[0], max(len(names), 1))
            for place, name in enumerate(() if odd else names):
                # BFL orders this one's rows (shift, scale), diffusers (scale, shift).
                swapped = name == "norm_out.linear"
                own = bias if len(names) == 1 else None
                target = Target(key, place * rows, rows, columns, swapped, own)
                places[words(prefix + name)] = Place(target, (), "diffusers")
        return places

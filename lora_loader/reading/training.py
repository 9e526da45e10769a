"""Which model a file was trained for, from its names, shapes and metadata; whether that is ours;
and by which program, for the report, never for the maths.

FLUX.1 and klein 4B share the width 3072, so a FLUX.1 file partly fits klein 4B: its block counts,
per-block modulation, MLP shapes and metadata tell it apart.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...flux2.variants import RELEASED, Flux2Model
from ..adapters.base import Unfit
from .facts import Facts
from .layout import words

FLUX1_WIDTH = 3072

# In a stem's words joined by "_": BFL's or diffusers' block, its number, and the module inside.
_BLOCK = re.compile(r"(?:^|_)(single|double|transformer)_(?:transformer_)?blocks_(\d+)(?:_(.*))?$")
# Modules inside a block whose input is as wide as the model, and so tell its width.
_WIDTH_IN = frozenset(
    "img_attn_qkv txt_attn_qkv attn_to_q attn_to_k attn_to_v attn_add_q_proj attn_add_k_proj "
    "attn_add_v_proj linear1 attn_to_qkv_mlp_proj img_mlp_0 txt_mlp_0 ff_linear_in "
    "ff_context_linear_in img_attn_proj txt_attn_proj attn_to_out_0 attn_to_add_out proj_mlp "
    "ff_net_0_proj ff_context_net_0_proj".split()
)
# FLUX.1's blocks have these modules and FLUX.2's have not.
_FLUX1_NAMES = re.compile(
    r"^(?:(?:img|txt)_mod_lin|modulation_lin|norm1(?:_context)?_linear|norm_linear|proj_mlp"
    r"|ff(?:_context)?_net_.*)$"
)
_FLUX1_SINGLE_NAMES = frozenset({"proj_out", "attn_to_q", "attn_to_k", "attn_to_v"})
# Rows over columns, or columns over rows, that only FLUX.1 has.
_FLUX1_RATIOS: Mapping[str, tuple[int, int]] = {
    "linear1": (7, 1), "img_mlp_0": (4, 1), "txt_mlp_0": (4, 1), "linear2": (1, 5),
    "img_mlp_2": (1, 4), "txt_mlp_2": (1, 4),
}  # fmt: skip
_METADATA_KEYS = ("ss_base_model_version", "modelspec.architecture", "base_model")
_NAMES = ""
# A key of the metadata, or _NAMES for the first tensors' names, a line each; what is found in it;
# and the trainer or exporter that it is a sign of. The first sign counts.
_TRAINER_SIGNS = (
    ("software", "ai-toolkit", "ai-toolkit"),
    ("training_info", "", "ai-toolkit"),
    ("ot_revision", "", "OneTrainer"),
    ("ot_branch", "", "OneTrainer"),
    ("ss_network_module", "flux_2", "musubi-tuner"),
    ("modelspec.architecture", r"^Flux\.2-", "musubi-tuner"),
    ("ss_network_module", r"(?s).", "kohya"),
    ("lycoris_config", "", "SimpleTuner"),
    ("global_step", "", "SimpleTuner"),
    ("lora_adapter_metadata", "", "diffusers"),
    (_NAMES, r"\.default\.weight", "DiffSynth-Studio"),
    (_NAMES, r"^base_model\.model\.", "PEFT"),
    (_NAMES, "^lycoris_", "LyCORIS"),
    (_NAMES, "^lora_unet_", "kohya naming"),
)


@dataclass(frozen=True)
class Training:
    """What a file tells of the model that it was trained for; None where it does not tell.

    ``family`` is "FLUX.1" or "FLUX.2"; ``variant`` a released FLUX.2's name; block counts are what
    its highest block numbers ask for at least; ``sign`` says how it was found out; ``trainer`` is
    the program that wrote the file, or "".
    """

    family: str | None
    variant: str | None
    width: int | None
    double_blocks: int
    single_blocks: int
    base_model: str | None
    sign: str
    trainer: str

    def describe(self) -> str:
        """For a sentence: "FLUX.2 klein 9B (width 4096)"."""
        width = f" (width {self.width})" if self.width else ""
        if self.family == "FLUX.1":
            return f"FLUX.1{width}"
        name = next((m.name for m in RELEASED if m.width == self.width), self.variant)
        if name:
            return f"FLUX.2 {name}{width}"
        if self.width:
            return f"a FLUX.2 of width {self.width}"
        return self.base_model or "an unknown model"


class Anatomy(NamedTuple):
    """What modules tell of the model: its width, the least that it has of both blocks, and the
    first that FLUX.1 alone has, or ""."""

    width: int | None
    double_blocks: int
    single_blocks: int
    sign: str


def trained_for(facts: Facts, found: Anatomy) -> Training:
    """Everything a file tells about the base model, beside its ``anatomy``; no tensor is read."""
    metadata = facts.header.metadata
    width, double, single, sign = found
    named = [metadata[key] for key in _METADATA_KEYS if key in metadata]
    family, variant = _from_hint(" ".join(named).lower())
    if family == "FLUX.1":
        sign = sign or "its metadata says so"
    told = {**metadata, _NAMES: "\n".join(list(facts.header.tensors)[:50])}
    trainers = (
        trainer
        for key, pattern, trainer in _TRAINER_SIGNS
        if key in told and re.search(pattern, told[key])
    )
    return Training(
        "FLUX.1" if sign else family,
        None if sign else variant,
        width,
        double,
        single,
        next(iter(named), "")[:200] or None,
        sign,
        next(trainers, ""),
    )


def anatomy(facts: Facts) -> Anatomy:
    """The anatomy of the model that a file's modules are of."""
    widths: Counter[int] = Counter()
    blocks = {"double": 0, "single": 0}
    sign = ""
    for stem, _, made in facts.modules:
        rows, columns, _ = (None, None, None) if isinstance(made, Unfit) else made[1]
        block = _BLOCK.search("_".join(words(stem)))
        if block is not None:
            kind = "single" if block[1] == "single" else "double"
            blocks[kind] = max(blocks[kind], min(int(block[2][:6]), 10**5) + 1)
            if block[3] in _WIDTH_IN and rows and columns:
                widths[columns] += 1
        sign = sign or _flux1_sign(stem, block, rows or 0, columns or 0)
    width = widths.most_common(1)[0][0] if widths else None
    double, single = blocks.values()
    if width == FLUX1_WIDTH and max(double - 5, single - 20) > 0:  # more than klein 4B has
        sign = sign or f"it has {double} double and {single} single blocks"
    return Anatomy(width, double, single, sign)


def _flux1_sign(stem: str, block: re.Match[str] | None, rows: int, columns: int) -> str:
    """What of a module FLUX.1 alone has, or ""; 0 rows or columns are unknown."""
    if block is None:
        found = words(stem)
        other = {"vector", "in"} <= set(found) or "time_text_embed" in "_".join(found)
        return f"it has {stem}" if other else ""
    module = block[3] or ""
    if _FLUX1_NAMES.match(module) or (block[1] == "single" and module in _FLUX1_SINGLE_NAMES):
        return f"it has {stem}"
    high, wide = _FLUX1_RATIOS.get(module, (0, 0))
    if rows and columns and high and rows * wide == columns * high:
        return f"its {stem} is {rows} x {columns}"
    return ""


def _from_hint(hint: str) -> tuple[str | None, str | None]:
    """Family and variant that the metadata names."""
    if re.search(r"flux[\W_]*2", hint):
        if "klein" in hint:
            size = re.search(r"(?<!\d)([49])[\W_]*b", hint)
            return "FLUX.2", f"klein {size[1]}B" if size else None
        # ai-toolkit writes plain "flux2" for dev; OneTrainer "Flux.2/lora" for every size.
        return "FLUX.2", "dev" if "dev" in hint or re.search(r"\bflux2\b", hint) else None
    if re.search(r"flux[\W_]*1|flux[\W_]*(?:dev|schnell)", hint):
        return "FLUX.1", None
    return None, None


def wrong_base(training: Training, model: Flux2Model) -> str | None:
    """Why the file cannot be for this model: "was trained for X; the model is Y. Do Z."

    None where nothing speaks against it.
    """
    made_for = training.describe()
    ours = f"FLUX.2 {model.name}" if model.name else f"width {model.width}"
    if training.family == "FLUX.1":
        why = f" ({training.sign})" if training.sign else ""
        return (
            f"was trained for {made_for}{why}; the model is {model.describe()}. A FLUX.1 LoRA "
            f"does not work on FLUX.2, even where shapes fit: use one made for {ours}."
        )
    depth = ""
    if training.width in (None, model.width):
        double, single = training.double_blocks, training.single_blocks
        if double <= model.double_blocks and single <= model.single_blocks:
            return None
        depth = (
            f" with at least {double} double and {single} single "
            f"blocks (the model has {model.double_blocks} and {model.single_blocks})"
        )
    load = f" or load {made_for.split(' (')[0]}" if made_for.startswith("FLUX.2") else ""
    return (
        f"was trained for {made_for}{depth}; the model is {model.describe()}. Use a LoRA made for "
        f"{ours}{load}."
    )


def other_distillation(metadata: Mapping[str, str], model: Flux2Model, model_file: str) -> str:
    """A warning where a LoRA of klein's undistilled "base" meets the distilled klein, or the
    reverse, by the LoRA's metadata; or "".

    Their weights have the same shapes, so the model is known by the name of its file alone.
    """
    name = model_file.lower()
    if model.guidance or "klein" not in name:
        return ""
    text = " ".join(
        value[:10_000].lower() for key, value in metadata.items() if "lora_adapter" not in key
    )
    ours = "klein base" if "base" in name else "distilled klein"
    named = set(re.findall(r"klein[\W_]*(?:[49]b[\W_]*)?(base|distilled)", text))
    theirs = "klein base" if "base" in named else "distilled klein"
    if not named or theirs == ours:
        return ""
    return (
        f"was trained on {theirs} and the model is {ours} "
        f"({model_file}): it works, but may come out weaker or stronger than in training"
    )

"""What FLUX.2 takes to be sampled: its ranges, latents, texts, and what guidance does on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .references import LATENT_CHANNELS, MULTIPLE, InputError, token_count
from .variants import RELEASED

RANGES: dict[str, dict[str, Any]] = {
    "seed": {"min": 0, "max": 2**64 - 1},
    "steps": {"min": 1, "max": 100},
    "guidance": {"min": 0.0, "max": 20.0},
    "denoise": {"min": 0.01, "max": 1.0},
}
TEXT_ENCODERS = {
    15360: "Mistral 3 Small (FLUX.2 dev)",
    12288: "Qwen3 8B (FLUX.2 klein 9B)",
    7680: "Qwen3 4B (FLUX.2 klein 4B)",
}
"""Text encoder by the width of its conditioning; three layers side by side."""
_MODELS = dict(zip(TEXT_ENCODERS, RELEASED, strict=True))
MIN_TEXT = 512
"""Tokens that the host fills a shorter text up to."""


def check_ranges(**values: float) -> None:
    """Refuse a number outside its range: linked values do not pass the host's own check."""
    for name, value in values.items():
        low, high = RANGES[name]["min"], RANGES[name]["max"]
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name} is {value}; it takes {low:g} to {high:g}.")


def check_latent(samples: torch.Tensor, given: torch.Tensor, scale: int | None) -> str:
    """Refuse a latent of another model family, or one that is not finite.

    ``samples`` is what the host makes of ``given``: an empty latent of any family becomes an empty
    one of this, of the same size where it says its ``scale`` (pixels a cell). Says so, else "".
    """
    if samples.is_nested or samples.ndim != 4 or samples.shape[1] != LATENT_CHANNELS:
        shape = "nested" if samples.is_nested else "x".join(str(side) for side in given.shape)
        raise InputError(
            f"latent_image has the shape {shape}; FLUX.2 takes {LATENT_CHANNELS} channels at "
            f"1/{MULTIPLE} of the size. Use FLUX.2 Image Size, Empty Flux 2 Latent, or encode "
            "with a FLUX.2 VAE."
        )
    if not torch.isfinite(samples).all():
        raise InputError("latent_image has NaN or infinite values.")
    if samples.shape == given.shape:
        return ""
    unsaid = "" if scale else f" and does not say its scale: {MULTIPLE} px a cell"
    return f"; latent_image was an empty one of {given.shape[1]} channels{unsaid}"


def check_conditioning(
    name: str, conditioning: Sequence[tuple[torch.Tensor, Mapping[str, Any]]], text_width: int
) -> None:
    """Refuse text of another encoder and references of another VAE, before anything is loaded.

    ``text_width`` is the number of channels that the model takes.
    """
    if not conditioning:
        raise InputError(f"{name} is empty. Connect FLUX.2 Edit Conditioning.")
    for text, extras in conditioning:
        if text.shape[-1] != text_width:
            wanted = TEXT_ENCODERS.get(text_width, f"width {text_width}")
            given = TEXT_ENCODERS.get(text.shape[-1], f"width {text.shape[-1]}")
            raise InputError(
                f"{name} comes from another text encoder: {given}; this model needs {wanted}. "
                "Load the matching encoder with Load CLIP, type flux2."
            )
        for number, reference in enumerate(extras.get("reference_latents", []), 1):
            if reference.ndim != 4 or reference.shape[1] != LATENT_CHANNELS:
                raise InputError(
                    f"{name}: reference latent {number} has {reference.shape[1]} channels; "
                    f"FLUX.2 takes {LATENT_CHANNELS}. Encode it with a FLUX.2 VAE."
                )


def forward_flops(tokens: int, width: int, blocks: int = 1) -> int:
    """Floating point operations of one forward over ``tokens``, text, output and references.

    In each block, double or single, a token meets 13 width^2 weights (26 width^2 operations), and
    attention compares and mixes all tokens with all (4 width tokens^2). Left out: the layers before
    and after the blocks, under 1 % of it.
    """
    return blocks * tokens * (26 * width**2 + 4 * width * tokens)


def references_cost(text: torch.Tensor, tokens: int, side: int) -> str:
    """In words: the ``tokens`` of the references, and what a step with them costs beside one
    without, for an output of ``side`` x ``side`` pixels.

    On the model that takes ``text``, [1, tokens, width]; not said where none is known to. By
    ``forward_flops``, so of arithmetic, and computed anew at each step: a machine that is short of
    memory pays more, one with FluxKVCache less.
    """
    said = f"in all {tokens} tokens"
    model = _MODELS.get(text.shape[-1])
    if model is None:
        return said
    bare = max(MIN_TEXT, text.shape[1]) + token_count(side, side)
    cost = forward_flops(bare + tokens, model.width) / forward_flops(bare, model.width)
    return f"{said}: a step at {side}x{side} costs {cost:.1f} times one without on {model.name}"


def plan_guidance(
    embeds: bool, guidance: float, has_negative: bool, both: bool = False
) -> tuple[bool, str]:
    """Whether the negative is handed on, and in words what guidance and it do on this model.

    ``embeds``: guidance is an input of the model (dev); else guidance means CFG (klein). ``both``:
    a node on the model, such as NAGuidance, asks for the negative's forward at guidance 1 too,
    which the host saves otherwise.
    """
    if embeds:
        unused = "; negative does nothing on dev: its guidance is embedded" if has_negative else ""
        return False, f"embedded guidance {guidance:g}{unused}"
    if not has_negative:
        return False, "no CFG: guidance does nothing on klein without a negative"
    if not math.isclose(guidance, 1):
        turned = "; below 1 it leads to the negative" if guidance < 1 else ""
        return True, f"CFG {guidance:g}, two forwards a step{turned}"
    if both:
        return True, "no CFG: the negative is for what is patched into the model, such as NAG"
    return True, "no CFG: negative does nothing at guidance 1; above 1 it does"


def unused_guidance(
    conditioning: Sequence[tuple[torch.Tensor, Mapping[str, Any]]], used: float | None
) -> str:
    """What is to be said of a guidance that comes with ``conditioning`` and is not the one
    ``used`` (None: the model embeds none)."""
    own = {extras["guidance"] for _, extras in conditioning if "guidance" in extras} - {used}
    values = " and ".join("off" if one is None else f"{one:g}" for one in own)
    return f"; the guidance that positive brings ({values}) does nothing" if own else ""

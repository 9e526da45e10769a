"""Pixel rules for reference images, as the model's authors wrote them.

Source: ``encode_image_refs`` and ``default_prep`` in black-forest-labs/flux2
(``src/flux2/sampling.py``): RGB; shortest side at least 64 px and aspect ratio at most 8:1; shrink
(never enlarge) with LANCZOS to an area cap that depends on how many references there are; then
centre-crop to a multiple of 16. diffusers and ai-toolkit cap every reference at 1024^2 whatever the
count, and an edit LoRA is sensitive to the rule it was trained with: so the rule is a choice.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

IMAGES = ("image_1", "image_2", "image_3")
"""The inputs that take reference images, in the order of the prompt's "image 1", "image 2" ..."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")

MULTIPLE = 16
"""Pixels per latent cell and side: the VAE's 8 times the 2x2 patch."""
LATENT_CHANNELS = 128
"""Channels of a latent: the VAE's 32 times the 2x2 patch."""
MIN_SIDE = 64
MAX_ASPECT = 8
ONE_REFERENCE_AREA = 2024**2
SEVERAL_REFERENCES_AREA = 1024**2


class ReferenceSize(str, Enum):
    """How large a reference may be, by widget value."""

    FLUX2 = "flux2"
    ONE_MEGAPIXEL = "1 megapixel each"
    AS_IS = "as is"


class InputError(ValueError):
    """An input that FLUX.2 cannot take; the message names it and the way out."""


class ReferencePlan(NamedTuple):
    """What happens to one picture; all values in pixels."""

    source: tuple[int, int]
    """Width and height as it comes in."""
    scaled: tuple[int, int]
    """Width and height after shrinking; equal to ``source`` where nothing shrinks."""
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom of the centre crop inside ``scaled``."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that reach the VAE, both multiples of 16."""
        left, top, right, bottom = self.crop
        return right - left, bottom - top

    def describe(self) -> str:
        """``1000x750 -> cropped to 992x736, 2852 tokens``."""
        steps = []
        if self.scaled != self.source:
            steps.append(f"shrunk to {self.scaled[0]}x{self.scaled[1]}")
        if self.size != self.scaled:
            steps.append(f"cropped to {self.size[0]}x{self.size[1]}")
        change = ", ".join(steps) or "unchanged"
        return f"{self.source[0]}x{self.source[1]} -> {change}, {token_count(*self.size)} tokens"


def token_count(width: int, height: int) -> int:
    """Tokens of a picture of ``width`` x ``height`` pixels (multiples of 16)."""
    return width * height // MULTIPLE**2


def snap(pixels: int) -> int:
    """The largest multiple of 16 that is not above ``pixels``, as the model's own cropping does."""
    return pixels // MULTIPLE * MULTIPLE


def shrink(width: int, height: int, area: float) -> tuple[int, int]:
    """``width`` x ``height`` made to cover ``area`` pixels at most, in shape; never enlarged."""
    scale = min(1.0, math.sqrt(area / (width * height)))
    return int(width * scale), int(height * scale)


def plan_reference(
    width: int,
    height: int,
    rule: ReferenceSize = ReferenceSize.FLUX2,
    several: bool = False,
    name: str = "image",
) -> ReferencePlan:
    """The crop plan of the picture at input ``name``, of ``width`` x ``height`` pixels.

    ``several`` says whether it is one of several references. Raises InputError for a side under
    64 px or an aspect ratio beyond 8:1, as the authors' code does.
    """
    size = f"{name} is {width}x{height}"
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{size}; FLUX.2 takes references of at least {MIN_SIDE} px a side. "
            "Use a larger picture."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(
            f"{size}, longer than {MAX_ASPECT}:1; FLUX.2 takes references up to "
            f"{MAX_ASPECT}:1. Crop it first."
        )
    one = rule is ReferenceSize.FLUX2 and not several
    cap = ONE_REFERENCE_AREA if one else SEVERAL_REFERENCES_AREA
    scaled = shrink(width, height, math.inf if rule is ReferenceSize.AS_IS else cap)
    new_width, new_height = map(snap, scaled)
    left, top = (scaled[0] - new_width) // 2, (scaled[1] - new_height) // 2
    return ReferencePlan((width, height), scaled, (left, top, left + new_width, top + new_height))


def plan_references(
    images: Mapping[str, torch.Tensor], rule: ReferenceSize
) -> dict[str, ReferencePlan]:
    """The crop plan of each picture ``[1, H, W, C]`` by its input's name.

    Raises InputError for what is not one finite picture of 1, 3 or 4 channels, or of a size that
    cannot be a reference.
    """
    plans = {}
    for name, image in images.items():
        if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
            raise InputError(f"{name} is no picture: its shape is {tuple(image.shape)}.")
        count, height, width, _ = image.shape
        if count != 1:
            raise InputError(
                f"{name} carries a batch of {count} images; a reference is one picture. "
                f"Connect each picture to its own socket, {IMAGES[0]} to {IMAGES[-1]}, or pick one "
                "with Get Image from Batch."
            )
        if not torch.isfinite(image).all():
            raise InputError(f"{name} has NaN or infinite pixels. Look at the node that made it.")
        plans[name] = plan_reference(width, height, rule, len(images) > 1, name)
    return plans


def gap_notice(connected: Sequence[str]) -> str:
    """What a skipped input does to the prompt's image numbers; empty where none is skipped.

    ``connected``: the input of each picture, in the order of ``IMAGES``; that of a batch stands
    there once for each of its pictures, which may fill the gap.
    """
    before = IMAGES[: IMAGES.index(connected[-1])] if connected else ()
    empty = ", ".join(name for name in before if name not in connected)
    places = {name: connected.index(name) + 1 for name in connected}
    moved = ", ".join(
        f'{name} is "image {place}" to the model'
        for name, place in places.items()
        if name != f"image_{place}"
    )
    if not (empty and moved):
        return ""
    return f"{empty} is empty, so {moved}. Connect from image_1 on without a gap."


def prepare_reference(image: torch.Tensor, plan: ReferencePlan) -> torch.Tensor:
    """``image`` shrunk and cropped by ``plan``.

    ``image`` is ``[H, W, C]`` in 0..1 with 1, 3 or 4 channels (grey is repeated, alpha is dropped,
    as PIL's ``convert("RGB")`` does); the result is ``[h, w, 3]`` float32 in 0..1. A picture that
    is not shrunk keeps its exact values; one that is goes through 8 bit, as in the authors' code,
    rounded to the nearest level.
    """
    image = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(1, 1, 3)
    image = image.to(torch.float32).clamp(0, 1)
    if plan.scaled != plan.source:
        pixels = (image * 255).round().to(torch.uint8).cpu().numpy()
        resized = Image.fromarray(pixels).resize(plan.scaled, Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.asarray(resized).astype(np.float32) / 255)
    left, top, right, bottom = plan.crop
    return image[top:bottom, left:right]

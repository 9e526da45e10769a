"""Output sizes: the hosted API's presets, custom sizes, and the size of a picture.

Presets: the pixel sizes of RunComfy's ``blackforestlabs/flux-2/lora`` schema. Everything FLUX.2
makes is a multiple of 16 a side; sizes are cut down to that, never stretched.
"""

from typing import NamedTuple

from .references import MULTIPLE, InputError, plan_reference, shrink, snap, token_count

CUSTOM = "custom"
MATCH_IMAGE = "match image"
PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
PRESETS_IN_WORDS = ", ".join(f"{name} {w}x{h}" for name, (w, h) in PRESETS.items())
CHOICES = [*PRESETS, CUSTOM, MATCH_IMAGE]
MIN_CUSTOM, MAX_CUSTOM = 64, 16384
"""The least side of a reference, and the host's own limit."""
MEGAPIXEL = 1024**2
MAX_MEGAPIXELS = 16.0


class ImageSize(NamedTuple):
    """A requested and an effective size, in pixels."""

    requested: tuple[int, int]
    width: int
    height: int
    note: str = ""
    limit: float = 0.0
    """The megapixels that it was shrunk to; 0 where it was not."""

    def describe(self) -> str:
        """``1168x880 (from 4000x3000, at most 1 MP), 4015 tokens``."""
        source = ""
        if self.requested != (self.width, self.height):
            most = f", at most {self.limit:g} MP" if self.limit else ""
            source = f" (from {self.requested[0]}x{self.requested[1]}{most})"
        tokens = token_count(self.width, self.height)
        return f"{self.width}x{self.height}{source}, {tokens} tokens\n{self.note}".rstrip()


def resolve(
    choice: str,
    width: int,
    height: int,
    swap: bool,
    image: tuple[int, int] | None,
    megapixels: float = 0.0,
) -> ImageSize:
    """The size for a widget ``choice``; ``image`` is the (width, height) of a connected picture.

    ``megapixels`` (of 1024x1024 pixels) bounds the area that it gives; 0 does not. Raises
    InputError naming the input at fault.
    """
    if choice in PRESETS:
        size = ImageSize(PRESETS[choice], *PRESETS[choice])
    elif choice == CUSTOM:
        for name, value in (("width", width), ("height", height)):
            if not MIN_CUSTOM <= value <= MAX_CUSTOM:
                raise InputError(
                    f"{name} is {value}; a custom size takes {MIN_CUSTOM}-{MAX_CUSTOM} px a side. "
                    "Choose a value in that range or a preset."
                )
        size = ImageSize((width, height), snap(width), snap(height))
    elif choice != MATCH_IMAGE:
        raise InputError(f'image_size "{choice}" is unknown; choose one of {", ".join(CHOICES)}.')
    elif image is None:
        raise InputError(
            'image_size is "match image" but image is not connected. Connect an image, or '
            "choose a preset."
        )
    else:
        # By the rule of a single reference, so that the output's grid is the very grid of the
        # picture as a reference: nothing shifts.
        size = _within(ImageSize(image, *plan_reference(*image).size), megapixels)
    if swap:
        size = size._replace(requested=size.requested[::-1], width=size.height, height=size.width)
    if image is None or choice == MATCH_IMAGE:
        return size
    return size._replace(note=f'image is connected but not used: image_size is "{choice}".')


def _within(size: ImageSize, megapixels: float) -> ImageSize:
    if not 0 <= megapixels <= MAX_MEGAPIXELS:
        raise InputError(f"megapixels is {megapixels:g}; it takes 0 to {MAX_MEGAPIXELS:g}.")
    if not megapixels or size.width * size.height <= megapixels * MEGAPIXEL:
        return size
    sides = shrink(*size.requested, megapixels * MEGAPIXEL)
    width, height = (max(MULTIPLE, snap(side)) for side in sides)
    return size._replace(width=width, height=height, limit=megapixels)

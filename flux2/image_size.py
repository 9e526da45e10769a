"""Output sizes: the hosted API's presets, custom sizes, and the size of a picture.

Presets: the pixel sizes of RunComfy's ``blackforestlabs/flux-2/lora`` schema. Everything FLUX.2
makes is a multiple of 16 a side; sizes are cut down to that, never stretched.
"""

from typing import NamedTuple

from .references import InputError, plan_reference, snap, token_count

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
MIN_CUSTOM, MAX_CUSTOM = 512, 2048


class ImageSize(NamedTuple):
    """A requested and an effective size, in pixels."""

    requested: tuple[int, int]
    width: int
    height: int
    note: str = ""

    def describe(self) -> str:
        """``992x736 (from 1000x750), 2852 tokens``."""
        source = ""
        if self.requested != (self.width, self.height):
            source = f" (from {self.requested[0]}x{self.requested[1]})"
        tokens = token_count(self.width, self.height)
        return f"{self.width}x{self.height}{source}, {tokens} tokens\n{self.note}".rstrip()


def resolve(
    choice: str, width: int, height: int, swap: bool, image: tuple[int, int] | None
) -> ImageSize:
    """The size for a widget ``choice``; ``image`` is the (width, height) of a connected picture.

    Raises InputError naming the input at fault.
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
        size = ImageSize(image, *plan_reference(*image).size)
    if swap:
        size = ImageSize(size.requested[::-1], size.height, size.width)
    if image is None or choice == MATCH_IMAGE:
        return size
    return size._replace(note=f'image is connected but not used: image_size is "{choice}".')

"""Where a region lies: its box in the picture, and the lattice of tokens that the model edits.

All in source pixels but where "canvas" says otherwise: the canvas is what the model edits, one
token of 16 x 16 pixels for each ``q`` x ``q`` source pixels. One scale on both axes, so nothing is
stretched; with ``q`` 16 the canvas is a copy.
"""

import math
from typing import NamedTuple

from ..references import MAX_ASPECT, MIN_SIDE, MULTIPLE, ONE_REFERENCE_AREA, InputError

RANGES: dict[str, tuple[float, float]] = {
    "context": (1.0, 8.0),
    "megapixels": (0.25, 4.0),
    "max_upscale": (1.0, 4.0),
    "grow": (0, 256),
    "feather": (0, 256),
}
LEAST_CONTEXT = 32
"""Source pixels around what is pasted, wherever the picture has them."""
MEGAPIXEL_TOKENS = 1024**2 // MULTIPLE**2
# A larger canvas would be shrunk as a reference, and then lie on another grid than the output.
MAX_TOKENS = ONE_REFERENCE_AREA // MULTIPLE**2
MIN_TOKENS = MIN_SIDE // MULTIPLE

Box = tuple[float, float, float, float]
"""Left, top, right, bottom; 0 is the outer edge of the first pixel."""


class Settings(NamedTuple):
    """How a region is made, by the names of the node's inputs; checked by ``check``."""

    context: float = 2.0
    megapixels: float = 1.0
    max_upscale: float = 2.0
    grow: int = 0
    feather: int = 16

    def check(self) -> None:
        """Raise InputError for a number outside its range: a linked value passes the host."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value:g}; it takes {low:g} to {high:g}.")


DEFAULTS = Settings()


class Lattice(NamedTuple):
    """``across`` x ``down`` tokens of ``q`` x ``q`` source pixels, from ``left``, ``top`` on.

    Where the picture is too small for whole tokens it hangs over the right and the lower edge.
    """

    left: int
    top: int
    q: int
    across: int
    down: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """In source pixels."""
        right, bottom = self.left + self.across * self.q, self.top + self.down * self.q
        return self.left, self.top, right, bottom

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height of what the model edits, both multiples of 16."""
        return self.across * MULTIPLE, self.down * MULTIPLE

    def on_canvas(self, box: Box) -> Box:
        """A box of the picture, in the canvas's pixels."""
        left, top, right, bottom = (side * MULTIPLE / self.q for side in box)
        x, y = (side * MULTIPLE / self.q for side in (self.left, self.top))
        return left - x, top - y, right - x, bottom - y


def plan_lattice(
    box: tuple[int, int, int, int], size: tuple[int, int], settings: Settings = DEFAULTS
) -> Lattice:
    """The lattice that covers ``box`` of a picture of ``size``, (width, height).

    The finest that neither enlarges by more than ``max_upscale`` nor has more tokens than
    ``megapixels``, and one that FLUX.2 takes as a reference: 64 px a side, up to 8:1.
    """
    most = min(int(settings.megapixels * MEGAPIXEL_TOKENS), MAX_TOKENS)
    wide, high = box[2] - box[0], box[3] - box[1]
    q = math.ceil(MULTIPLE / settings.max_upscale)
    while math.prod(_cells(wide, high, q)) > most:
        q += 1
    q += q == MULTIPLE - 1  # a copy is worth more than a fifteenth
    across, down = _cells(wide, high, q)
    left = _start(box[0], wide, across * q, size[0])
    return Lattice(left, _start(box[1], high, down * q, size[1]), q, across, down)


def _cells(wide: int, high: int, q: int) -> tuple[int, int]:
    across, down = (max(MIN_TOKENS, math.ceil(side / q)) for side in (wide, high))
    return max(across, math.ceil(down / MAX_ASPECT)), max(down, math.ceil(across / MAX_ASPECT))


def _start(low: int, length: int, grown: int, side: int) -> int:
    """Where ``length`` pixels from ``low`` begin, grown evenly, inside of ``side`` if it can be."""
    return max(0, min(low - (grown - length) // 2, side - grown))

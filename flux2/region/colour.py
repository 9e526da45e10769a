"""The tint that an edit has given its picture, told by what it was to leave alone."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from .alignment import KEEP_OFF, eroded

LEAST_PIXELS = 4096
LEAST_GAIN, MOST_GAIN, MOST_OFFSET = 0.8, 1.25, 0.1
LEAST_BETTER = 0.2
"""How much of the difference has to go for the colours to be changed at all."""
LEAST_TINT = 0.5 / 255
"""A smaller difference is not seen."""
_CELL = 4
_SATURATED = 0.5 / 255
_FLAT = 0.01
"""Spread of a channel below which its gain cannot be told from its offset."""


class Tint(NamedTuple):
    """What makes the edit's colours the picture's again: ``gain * x + offset`` for each channel.
    ``refused``: why it is not used."""

    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    refused: str = ""

    @property
    def changes(self) -> bool:
        """Whether it is to be used and does anything."""
        return not self.refused and self != Tint()

    def undo(self, picture: np.ndarray) -> np.ndarray:
        """``picture``, ``[h, w, 3]``, in the colours of the original, within 0..1."""
        gain, offset = np.array((self.gain, self.offset), np.float32)
        return np.clip(picture * gain + offset, 0, 1)

    def reach(self, picture: np.ndarray) -> np.ndarray:
        """``picture`` as far as a tinted one can show it: what the tint has made black or white is
        not a change."""
        if not self.changes:
            return picture
        ends = [self.undo(np.full((1, 1, 3), end, np.float32)) for end in (0, 1)]
        return np.clip(picture, *ends)


def find_tint(crop: np.ndarray, edit: np.ndarray, usable: np.ndarray) -> Tint:
    """The tint of ``edit`` beside ``crop``, both ``[h, w, 3]`` float32 in 0..1, sides multiples of
    16 and aligned; ``usable``, ``[h, w]`` bool, is where nothing was to change."""
    usable = eroded(usable, KEEP_OFF)
    pixels = int(usable.sum())
    if pixels < LEAST_PIXELS:
        return Tint(refused=f"only {pixels} pixels were to stay as they are")
    found = [_fit(crop[..., one], edit[..., one], usable) for one in range(3)]
    gain, offset = zip(*found, strict=True)
    if not all(LEAST_GAIN <= one <= MOST_GAIN for one in gain):
        return Tint(refused=f"too far off (gain {_words(gain)})")
    if max(map(abs, offset)) > MOST_OFFSET:
        return Tint(refused=f"too far off (offset {_words(offset)})")
    return Tint(gain, offset)


def _words(values: tuple[float, ...]) -> str:
    return ", ".join(f"{one:.3f}" for one in values)


def _fit(crop: np.ndarray, edit: np.ndarray, usable: np.ndarray) -> tuple[float, float]:
    """Gain and offset of one channel, by Huber's loss over what is left when both are blurred: 1, 0
    where that makes too little of a difference.

    What is black or white in the edit has lost its value and says nothing.
    """
    counts = usable & (edit > _SATURATED) & (edit < 1 - _SATURATED)
    weight = _blurred(counts.astype(np.float32))
    enough = weight > 0.5
    if enough.sum() * _CELL**2 < LEAST_PIXELS // 2:
        return 1.0, 0.0
    wanted, given = (
        (_blurred(one * counts)[enough] / weight[enough]).astype(np.float64) for one in (crop, edit)
    )
    flat = given.std() < _FLAT
    gain, offset = 1.0, float(np.median(wanted - given))
    for _ in range(20):
        rest = np.abs(wanted - gain * given - offset)
        bound = 2 * float(np.median(rest)) + 1e-5
        trust = bound / np.maximum(rest, bound)
        middle, target = (np.average(one, weights=trust) for one in (given, wanted))
        if not flat:
            spread = np.sum(trust * (given - middle) ** 2)
            gain = float(np.sum(trust * (given - middle) * (wanted - target)) / spread)
        offset = float(target - gain * middle)
    before, after = (np.mean(np.abs(wanted - one)) for one in (given, gain * given + offset))
    seen = before > LEAST_TINT and after < (1 - LEAST_BETTER) * before
    return (gain, offset) if seen else (1.0, 0.0)


def _blurred(channel: np.ndarray) -> np.ndarray:
    """Means of cells of 4 x 4 pixels, blurred by another pixel of them."""
    height, width = (side // _CELL for side in channel.shape)
    return gaussian_filter(channel.reshape(height, _CELL, width, _CELL).mean((1, 3)), 1.0)

"""What an edit of a whole picture has changed, told from what it has merely redrawn."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, label, maximum_filter1d

from .crop import soften

LEAST, MOST = 0.04, 0.12
"""Bounds of the threshold: ten levels of 8 bit, and thirty."""
OVER_NOISE = 6.0
"""The threshold over the median difference, which is that of what was only redrawn."""
SURE = 2.0
"""A change is one where it exceeds the threshold this often somewhere ..."""
LEAST_PIXELS = 48
"""... and is as large, in pixels of the canvas."""
_BLUR, _GAP, _AROUND = 1.5, 6, 4


class Change(NamedTuple):
    """Where something has changed: ``core`` ``[h, w]`` bool, by differences over ``threshold``."""

    core: np.ndarray
    threshold: float

    def alpha(self, grow: float, feather: float) -> np.ndarray:
        """``[h, w]`` float32: how much of the edit is taken; 1 in what has changed, a little more
        than that and ``grow`` pixels around, 0 from ``feather`` on."""
        if self.core.all() or not self.core.any():
            return self.core.astype(np.float32)
        return soften(self.core, grow + _AROUND, feather)


def find_change(crop: np.ndarray, edit: np.ndarray, seen: np.ndarray) -> Change:
    """What of ``edit`` differs from ``crop``, both ``[h, w, 3]`` float32, aligned and of the same
    tint; ``seen``, ``[h, w]`` bool, is where the edit shows the picture at all.

    The difference is blurred, since noise then goes and a change stays, and the largest of the
    channels counts. Where it is twice the threshold something has changed, as far as it is over it.
    """
    signed = (edit - crop) * seen[..., None]
    size = np.max([np.abs(gaussian_filter(signed[..., one], _BLUR)) for one in range(3)], axis=0)
    noise = float(np.median(size[seen])) if seen.any() else 0.0
    threshold = float(np.clip(OVER_NOISE * noise, LEAST, MOST))
    # What is near belongs together: letters of a word, a face's two eyes.
    parts, count = label(_widened(size > threshold, _GAP))
    inside = np.where(size > threshold, parts, 0)
    counted = np.bincount(inside.ravel(), minlength=count + 1)
    strong = np.bincount(inside[size > SURE * threshold], minlength=count + 1)
    real = (counted >= LEAST_PIXELS) & (strong > 0)
    real[0] = False
    core = ~_widened(~real[parts], _GAP)  # the gaps closed, the widening gone again
    return Change(core, threshold)


def _widened(where: np.ndarray, by: int) -> np.ndarray:
    for axis in (0, 1):
        where = maximum_filter1d(where, 2 * by + 1, axis=axis, mode="constant", cval=0)
    return where

"""Where an edit has moved its picture to, by shift and zoom, told by what it was to leave alone.

First phase correlation (Kuglin and Hines 1975) over a few zooms, on band-passed luma; then robust
Gauss-Newton on shift, zoom and contrast, coarse to fine (Lucas and Kanade 1981). All in pixels of
the canvas; a claim that the surroundings do not prove is refused.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter1d

from .crop import resample
from .lattice import Box

KEEP_OFF = 8
"""Pixels around what may have changed, and along the edges, that prove nothing."""
LEAST_AREA = 0.05
"""Part of the canvas that has to be left to prove it."""
LEAST_MOVE = 0.25
"""Pixels: below that nothing is moved, for resampling costs more sharpness than it mends."""
MOST_SHIFT, MOST_ZOOM = 32, 0.03
_MARGIN = 0.5, 0.001
LEAST_ALIKE = 0.8
MOST_RIVAL, NEAR = (0.67, 0.83), 2.0
"""The next best shift's height, of phase and of plain correlation, over the best one's; asked for
where that is more than ``NEAR`` pixels. A pattern that repeats looks alike wherever it is laid."""
FLAT = 0.002
"""Contrast of the band below which there is nothing to go by: half a level of 8 bit."""
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_ROUNDS, _STILL = 12, 0.002


class Alignment(NamedTuple):
    """The canvas's point ``c + v`` is found at ``c + zoom * v + (dx, dy)`` of the edit; ``c`` is
    the middle. ``alike``: correlation of the surroundings, then. ``refused``: why it is unused."""

    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0
    alike: float = 1.0
    refused: str = ""

    def found(self, box: Box, size: tuple[int, int]) -> Box:
        """Where ``box`` of a canvas of ``size`` lies in an edit of the same size."""
        x, y = (side / 2 for side in size)
        left, top, right, bottom = box
        return (
            x + (left - x) * self.zoom + self.dx, y + (top - y) * self.zoom + self.dy,
            x + (right - x) * self.zoom + self.dx, y + (bottom - y) * self.zoom + self.dy,
        )  # fmt: skip

    def moves(self, size: tuple[int, int]) -> bool:
        """Whether it is to be used and moves a corner of the canvas far enough."""
        box = (0.0, 0.0, *size)
        pairs = zip(self.found(box, size), box, strict=True)
        return not self.refused and max(abs(now - then) for now, then in pairs) >= LEAST_MOVE

    def inside(self, size: tuple[int, int], edge: float = 0.0) -> np.ndarray:
        """``[h, w]`` bool: which of the canvas's pixels the edit has, ``edge`` from its sides."""
        left, top, right, bottom = self.found((0.5, 0.5, size[0] - 0.5, size[1] - 0.5), size)
        x, y = np.linspace(left, right, size[0]), np.linspace(top, bottom, size[1])[:, None]
        across, down = (x > edge) & (x < size[0] - edge), (y > edge) & (y < size[1] - edge)
        return across & down


def align(crop: np.ndarray, edit: np.ndarray, usable: np.ndarray) -> Alignment:
    """Where ``edit`` shows what ``crop`` shows: both ``[h, w, 3]`` float32, sides multiples of 16.

    ``usable``, ``[h, w]`` bool, is where nothing was to change.
    """
    usable = eroded(usable, KEEP_OFF)
    area = usable.mean()
    if area < LEAST_AREA:
        return Alignment(refused=f"only {area:.1%} of it was to stay as it is")
    short = min(usable.shape)
    coarse = 4 if short >= 512 else 2 if short >= 192 else 1
    found, rivals = Alignment(), (1.0, 1.0)
    for factor in (4, 2, 1):
        if factor > coarse or (factor == 1 and short >= 512):
            continue
        level = _Level(crop, edit, usable, factor)
        if level.contrast < FLAT:
            return Alignment(refused="the surroundings are flat")
        if factor == coarse:
            found, rivals = level.search()
        found = level.refine(found)
    return found._replace(refused=_doubt(found, rivals))


def _doubt(found: Alignment, rivals: tuple[float, float]) -> str:
    """Why ``found`` is not to be trusted; empty where it is."""
    far = max(abs(found.dx), abs(found.dy))
    if found.alike < LEAST_ALIKE:
        return f"the surroundings no longer match ({found.alike:.2f})"
    if far > NEAR and any(one > most for one, most in zip(rivals, MOST_RIVAL, strict=True)):
        return f"the surroundings repeat themselves ({max(rivals):.2f})"
    if far > MOST_SHIFT + _MARGIN[0]:
        return f"moved by more than {MOST_SHIFT} px ({far:.1f})"
    if abs(found.zoom - 1) > MOST_ZOOM + _MARGIN[1]:
        return f"zoomed by more than {MOST_ZOOM:.0%} ({found.zoom - 1:+.1%})"
    return ""


def eroded(where: np.ndarray, by: int) -> np.ndarray:
    """``where`` without what is within ``by`` pixels (a square) of its edge or the array's."""
    for axis in (0, 1):
        where = minimum_filter1d(where, 2 * by + 1, axis=axis, mode="constant", cval=0)
    return where


class _Level:
    """Both pictures at 1/``factor`` of the canvas, in the band that tells where things are."""

    def __init__(self, crop: np.ndarray, edit: np.ndarray, usable: np.ndarray, factor: int) -> None:
        height, width = (side // factor for side in usable.shape)
        self.factor, self.size = factor, (width, height)
        self.crop, self.edit = self._band(crop), self._band(edit)
        self.usable = usable.reshape(height, factor, width, factor).all((1, 3))
        self.across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None]
        self.down = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None]
        seen = self.crop[self.usable]
        self.contrast = float(np.sqrt(np.mean(seen**2))) if seen.size else 0.0

    def _band(self, picture: np.ndarray) -> np.ndarray:
        full = (0, 0, picture.shape[1], picture.shape[0])
        luma = resample((picture @ LUMA)[..., None], full, self.size)[..., 0]
        wide = max(2.5, 6 / self.factor)
        return gaussian_filter(luma, 1.0) - gaussian_filter(luma, wide)

    def _scaled(self, by: Alignment) -> Alignment:
        return by._replace(dx=by.dx / self.factor, dy=by.dy / self.factor)

    def moved(self, by: Alignment) -> np.ndarray:
        """The edit, brought to where the crop is."""
        box = self._scaled(by).found((0.0, 0.0, *self.size), self.size)
        return resample(self.edit[..., None], box, self.size)[..., 0]

    def search(self) -> tuple[Alignment, tuple[float, float]]:
        """The best shift in whole pixels over a few zooms, and how good the next one is beside it,
        by phase and by plain correlation."""
        reach = -(-MOST_SHIFT // self.factor) + 1
        weight = gaussian_filter(self.usable.astype(np.float32), 2.0) * self.usable
        shape = [fft.next_fast_len(side + reach, real=True) for side in self.size[::-1]]
        first = np.conj(fft.rfft2(self.crop * weight, shape))
        best, rivals, height = Alignment(), (1.0, 1.0), 0.0
        for zoom in (1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03):
            cross = first * fft.rfft2(self.moved(Alignment(zoom=zoom)) * weight, shape)
            size = np.abs(cross)
            phase = cross / (size + 1e-6 * size.max() + 1e-20)
            found, x, y, rival = _peak(fft.irfft2(_low(phase, shape), shape), reach)
            if found > height:
                height, best = found, Alignment(x * self.factor, y * self.factor, zoom)
                rivals = rival, _peak(fft.irfft2(cross, shape), reach)[3]
        return best, rivals

    def refine(self, found: Alignment) -> Alignment:
        """``found``, made exact."""
        gain = 1.0
        for _ in range(_ROUNDS):
            moved = self.moved(found)
            seen = self._seen(found)
            down, across = np.gradient(moved)
            slopes = np.stack([
                across[seen], down[seen], (across * self.across + down * self.down)[seen],
                moved[seen],
            ])  # fmt: skip
            rest = self.crop[seen] - gain * moved[seen]
            weight = _huber(rest)
            slopes[:3] *= gain
            normal = (slopes * weight) @ slopes.T
            normal += np.diag(np.diag(normal) * 1e-6 + 1e-12)
            x, y, zoom, more = map(float, np.linalg.solve(normal, (slopes * weight) @ rest))
            x, y, zoom = (float(np.clip(one, -4, 4)) for one in (x, y, zoom))
            found = found._replace(
                dx=found.dx + x * self.factor, dy=found.dy + y * self.factor, zoom=found.zoom + zoom
            )
            gain += more
            if not 0.5 < found.zoom < 2 or abs(found.dx) + abs(found.dy) > 4 * MOST_SHIFT:
                return Alignment(alike=0.0)
            if max(abs(x), abs(y), abs(zoom) * max(self.size) / 2) < _STILL:
                break
        seen = self._seen(found)
        one, other = self.crop[seen], self.moved(found)[seen]
        scale = float(np.sqrt(np.sum(one**2) * np.sum(other**2)))
        return found._replace(alike=float(one @ other) / scale if scale else 0.0)

    def _seen(self, by: Alignment) -> np.ndarray:
        """What proves something and is inside of the moved edit."""
        return self.usable & self._scaled(by).inside(self.size, 1.0)


def _peak(surface: np.ndarray, reach: int) -> tuple[float, float, float, float]:
    """The height of the highest peak within ``reach``, where it is (x, y), and how high the next
    one is beside it."""
    near = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(np.argmax(near), near.shape)
    peaks = np.where(maximum_filter(near, 3) == near, near, 0)
    peaks[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = 0
    height = float(near[y, x])
    rival = float(peaks.max()) / height if height > 0 else 1.0
    return height, float(x - reach), float(y - reach), rival


def _low(cross: np.ndarray, shape: list[int]) -> np.ndarray:
    """The spectrum without its finest, where noise is louder than the picture."""
    y = fft.fftfreq(shape[0])[:, None]
    x = fft.rfftfreq(shape[1])[None]
    return cross * np.exp(-(x * x + y * y) / (2 * 0.15**2))


def _huber(rest: np.ndarray) -> np.ndarray:
    """Weights that bound what a residual counts: what has changed after all is one."""
    if not rest.size:
        return rest
    size = np.abs(rest)
    bound = 2 * float(np.median(size)) + 1e-6
    return bound / np.maximum(size, bound)

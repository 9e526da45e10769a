"""A region of a picture: what is painted over, and what stands around it, as the model sees it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ..references import MULTIPLE, InputError
from .lattice import DEFAULTS, LEAST_CONTEXT, Box, Lattice, Settings, plan_lattice

_REACH = 3
"""Pixels that Lanczos looks to each side, of the coarser of the two grids."""


@dataclass(frozen=True)
class Region:
    """What Region Paste has to know; the batches have ``count`` entries, or one for all."""

    picture: torch.Tensor
    """``[N, H, W, 3 or 4]`` as it came, in 0..1."""
    lattice: Lattice
    alpha: torch.Tensor | None
    """``[M, h, w]`` float32: how much of the edit is taken, over the part of the lattice's box that
    the picture has. None: the whole picture, and what has changed is to be found."""
    crop: torch.Tensor
    """``[N, 16 down, 16 across, 3]`` float32 in 0..1: the canvas."""
    settings: Settings

    @property
    def count(self) -> int:
        """Pictures that an edit of it gives."""
        return max(len(self.picture), 1 if self.alpha is None else len(self.alpha))

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """The part of the lattice's box that the picture has."""
        left, top, right, bottom = self.lattice.box
        height, width = self.picture.shape[1:3]
        return left, top, min(right, width), min(bottom, height)

    def describe(self) -> str:
        """``960x880 (0.67x of 1440x1320 at 312,40), 3300 tokens``."""
        left, top, right, bottom = self.lattice.box
        width, height = self.lattice.canvas
        source = (
            f"{MULTIPLE / self.lattice.q:.3g}x of {right - left}x{bottom - top} at {left},{top}"
        )
        return f"{width}x{height} ({source}), {self.lattice.across * self.lattice.down} tokens"


def make_region(
    image: torch.Tensor, mask: torch.Tensor | None, settings: Settings = DEFAULTS
) -> Region:
    """The region of ``mask``, ``[M, H, W]`` or ``[H, W]`` in 0..1, in ``image``, ``[N, H, W, C]``
    with 1, 3 or 4 channels; one of them may be a batch of one. Without a mask, the whole picture.

    Raises InputError for an empty mask, sizes or counts that do not match, and no picture.
    """
    settings.check()
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or not image.numel():
        raise InputError(f"image is no picture: its shape is {tuple(image.shape)}.")
    if image.shape[-1] == 1:
        image = image.expand(-1, -1, -1, 3)
    height, width = image.shape[1:3]
    if mask is None:
        lattice = plan_lattice((0, 0, width, height), (width, height), settings)
        return Region(image, lattice, None, _canvas(image, lattice), settings)

    painted = [_alpha(one, settings) for one in _masks(mask, image)]
    box = _union([box for box, _ in painted if box is not None])
    margin = (settings.context - 1) / 2 * max(box[2] - box[0], box[3] - box[1])
    lattice = plan_lattice(_padded(box, margin, (width, height)), (width, height), settings)
    left, top, right, bottom = lattice.box
    alpha = torch.zeros(len(painted), min(bottom, height) - top, min(right, width) - left)
    for whole, (part, values) in zip(alpha, painted, strict=True):
        if part is not None:
            x, y = part[0] - left, part[1] - top
            high, wide = values.shape
            whole[y : y + high, x : x + wide] = torch.from_numpy(values)
    return Region(image, lattice, alpha, _canvas(image, lattice), settings)


def noise_mask(region: Region) -> torch.Tensor:
    """``[M, 16 down, 16 across]`` of 0 and 1: the tokens that the edit may change.

    In whole tokens, so that the host's reduction to them, which looks at 4 of the 256 pixels of
    each, finds every one.
    """
    lattice = region.lattice
    if region.alpha is None:
        return torch.ones(1, *lattice.canvas[::-1])
    count, high, wide = region.alpha.shape
    q = lattice.q
    changed = torch.zeros(count, lattice.down * q, lattice.across * q, dtype=torch.bool)
    changed[:, :high, :wide] = region.alpha > 0
    tokens = changed.view(count, lattice.down, q, lattice.across, q).any(4).any(2)
    return tokens.repeat_interleave(MULTIPLE, 1).repeat_interleave(MULTIPLE, 2).float()


def resample(picture: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """``box`` of ``picture``, ``[H, W, C]`` float32, at ``size`` (width, height), by Lanczos in
    float; beyond the picture's edges they go on. Whole pixels of the same size are copied."""
    low = [math.floor(side) for side in box[:2]]
    high = [math.ceil(side) for side in box[2:]]
    if (*low, *high) != tuple(box) or (high[0] - low[0], high[1] - low[1]) != tuple(size):
        for axis in (0, 1):
            reach = math.ceil(_REACH * max(1.0, (box[axis + 2] - box[axis]) / size[axis]))
            low[axis], high[axis] = low[axis] - reach, high[axis] + reach
    rows, columns = (
        np.clip(np.arange(low[axis], high[axis]), 0, picture.shape[1 - axis] - 1) for axis in (1, 0)
    )
    part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if part.shape[:2] != (len(rows), len(columns)):
        part = part[rows - rows[0]][:, columns - columns[0]]
    if part.shape[1::-1] == tuple(size):
        return part
    within = (box[0] - low[0], box[1] - low[1], box[2] - low[0], box[3] - low[1])
    channels = (Image.fromarray(np.ascontiguousarray(one)) for one in np.moveaxis(part, 2, 0))
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(one.resize(size, lanczos, within)) for one in channels], axis=2)


def _canvas(image: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """The lattice's part of each picture as the model is to see it."""
    left, top, right, bottom = lattice.box
    reach = _REACH * lattice.q
    x, y = max(0, left - reach), max(0, top - reach)
    part = image[:, y : bottom + reach, x : right + reach, :3].float()
    if not torch.isfinite(part).all():
        raise InputError("image has NaN or infinite pixels. Look at the node that made it.")
    box = (left - x, top - y, right - x, bottom - y)
    canvas = [resample(one, box, lattice.canvas) for one in part.cpu().numpy()]
    # A copy stays one; what was resampled can swing over.
    return torch.from_numpy(np.stack(canvas)).clamp(0, 1)


def _masks(mask: torch.Tensor, image: torch.Tensor) -> Sequence[np.ndarray]:
    """``mask`` as arrays ``[H, W]`` in 0..1 that fit ``image``."""
    if mask.ndim == 4 and 1 in (mask.shape[1], mask.shape[3]):
        mask = mask.squeeze(1 if mask.shape[1] == 1 else 3)
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3:
        raise InputError(f"mask is no mask: its shape is {tuple(mask.shape)}.")
    # Before its size: what nobody painted on is 64x64 zeros.
    if not (mask > 0).any():
        raise InputError(
            "The mask is empty. Paint the part to change, or leave mask unconnected: then the "
            "whole picture is edited."
        )
    if mask.shape[1:] != image.shape[1:3]:
        (high, wide), (height, width) = mask.shape[1:], image.shape[1:3]
        raise InputError(f"Mask {wide}x{high}, picture {width}x{height}: same size needed.")
    if len(mask) != len(image) and 1 not in (len(mask), len(image)):
        raise InputError(
            f"{len(mask)} masks for {len(image)} pictures. Give one of either, or as many."
        )
    return list(mask.detach().cpu().float().nan_to_num(0).clamp(0, 1).numpy())


def soften(core: np.ndarray, grow: float, feather: float) -> np.ndarray:
    """1 within ``grow`` pixels of what is ``core``, from there falling to 0 in ``feather`` + 1."""
    away = distance_transform_edt(~core)
    beyond = np.where(away > grow, np.maximum(away - grow, 1), 0)
    rest = np.clip(1 - beyond / (feather + 1), 0, 1)
    return (rest * rest * (3 - 2 * rest)).astype(np.float32)


def _alpha(
    mask: np.ndarray, settings: Settings
) -> tuple[tuple[int, int, int, int] | None, np.ndarray]:
    """How much of the edit is taken, where that is above 0: (box, values); None for nowhere.

    1 where the mask is at least half, or within ``grow`` pixels of that; from there it falls
    smoothly to 0 at ``feather`` + 1 pixels. Nowhere is it less than the mask.
    """
    painted = bounds(mask > 0)
    if painted is None:
        return None, mask[:0, :0]
    reach = settings.grow + settings.feather
    left, top, right, bottom = _padded(painted, reach, mask.shape[::-1], 0)
    part = mask[top:bottom, left:right]
    alpha, core = part.copy(), part >= 0.5
    if core.any() and reach:
        alpha = np.maximum(alpha, soften(core, settings.grow, settings.feather))
    elif core.any():
        alpha[core] = 1
    found = bounds(alpha > 0)
    assert found is not None  # noqa: S101 (what is painted is above 0)
    x0, y0, x1, y1 = found
    return (left + x0, top + y0, left + x1, top + y1), alpha[y0:y1, x0:x1]


def bounds(where: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box that holds all that is true."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _union(boxes: Sequence[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    lows, highs = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return int(lows[0]), int(lows[1]), int(highs[2]), int(highs[3])


def _padded(
    box: tuple[int, int, int, int], by: float, size: tuple[int, ...], least: int = LEAST_CONTEXT
) -> tuple[int, int, int, int]:
    """``box`` with ``by`` pixels around it, at least ``least``, as far as the picture reaches."""
    grown = max(least, math.ceil(by))
    left, top, right, bottom = box
    right, bottom = min(right + grown, size[0]), min(bottom + grown, size[1])
    return max(0, left - grown), max(0, top - grown), right, bottom

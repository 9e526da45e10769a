"""An edited region back into its picture: nothing but what was to change has changed.

The edit's drift and tint are undone where the surroundings prove them. A canvas that was resampled
gives the picture only what the edit has changed of it, so that what stays keeps its detail.
"""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..references import MULTIPLE, InputError
from .alignment import Alignment, align
from .colour import Tint, find_tint
from .crop import Region, bounds, resample
from .difference import Change, find_change

SAME, OTHER = 0.03, 0.10
"""Difference, blurred over a few pixels, up to which a place is the same, and from which it is
another one and takes no detail of the original's."""
_OTHER_BLUR = 2.0
LEAST_KNOWN = 0.2
"""Part of a whole picture that has to be unchanged to prove a drift."""


class Choices(NamedTuple):
    """What Region Paste is asked for."""

    align: bool = True
    colour: bool = True
    keep_detail: bool = True


AS_IT_COMES = Choices()


class Pasted(NamedTuple):
    """``image`` ``[K, H, W, C]`` in the picture's type; ``mask`` ``[K, H, W]``, how much of the
    edit was taken; ``report``, in words, a line for each thing that was done or refused."""

    image: torch.Tensor
    mask: torch.Tensor
    report: str


def paste(region: Region, edited: torch.Tensor, choices: Choices = AS_IT_COMES) -> Pasted:
    """``edited``, ``[M, h, w, C]`` of the canvas's shape, in its place in the region's picture.

    Where nothing was to change the result is the picture, bit for bit. M is the region's count, or
    one of both is 1. Raises InputError for another count or shape.
    """
    count = _check(region, edited)
    many = (count if len(region.picture) == 1 else -1, -1, -1, -1)
    image = region.picture.expand(many).clone(memory_format=torch.contiguous_format)
    mask = torch.zeros(image.shape[:3])
    said = [region.describe()]
    left, top, right, bottom = region.inside
    for one in range(count):
        edit = edited[min(one, len(edited) - 1)].detach().cpu().float().numpy()
        patch = _Patch(region, one, edit[..., :3] if edit.shape[2] > 1 else edit.repeat(3, 2))
        alpha = patch.run(choices)
        name = f"Picture {one + 1}: " if count > 1 else ""
        said += [name + line for line in patch.said]
        found = bounds(alpha > 0)
        if found is not None:
            x0, y0, x1, y1 = found
            place = (one, slice(top + y0, top + y1), slice(left + x0, left + x1))
            values = torch.from_numpy(np.ascontiguousarray(alpha[y0:y1, x0:x1]))
            box = (left + x0, top + y0, left + x1, top + y1)
            _blend(image[place][..., :3], values, patch.source(box, choices.keep_detail))
            mask[place] = values
    return Pasted(image, mask, "\n".join(said))


def _check(region: Region, edited: torch.Tensor) -> int:
    """How many pictures it gives."""
    if edited.ndim != 4 or edited.shape[-1] not in (1, 3, 4) or not edited.numel():
        raise InputError(f"image is no picture: its shape is {tuple(edited.shape)}.")
    (height, width), (wide, high) = edited.shape[1:3], region.lattice.canvas
    # As far as whole pixels let the shape be the same.
    if abs(width - height * wide / high) > 1 and abs(height - width * high / wide) > 1:
        raise InputError(
            f"Edited picture {width}x{height}, expected {wide}x{high} or the same shape. Make the "
            "edit at width and height of FLUX.2 Region Crop."
        )
    if len(edited) != region.count and 1 not in (len(edited), region.count):
        raise InputError(
            f"{len(edited)} edited pictures for {region.count} regions. Give one of either, or as "
            "many."
        )
    return max(len(edited), region.count)


def _blend(place: torch.Tensor, alpha: torch.Tensor, source: np.ndarray) -> None:
    """Put ``source`` into ``place`` by ``alpha``: all of it at 1, none at 0, exactly."""
    new = torch.from_numpy(source).to(place.device)
    alpha = alpha.to(place.device)[..., None]
    old = place.float()
    mixed = torch.where(alpha >= 1, new, old + alpha * (new - old))
    place.copy_(torch.where(alpha <= 0, place, mixed.to(place.dtype)))


class _Patch:
    """One edit of one picture of a region."""

    def __init__(self, region: Region, number: int, edit: np.ndarray) -> None:
        self.region = region
        self.picture = region.picture[min(number, len(region.picture) - 1)]
        self.crop = region.crop[min(number, len(region.crop) - 1)].numpy()
        self.painted = None
        if region.alpha is not None:
            self.painted = region.alpha[min(number, len(region.alpha) - 1)].numpy()
        self.size = region.lattice.canvas
        self.edit, self.said = edit, list[str]()
        self.known = self._whole()
        self.moved, self.tint = Alignment(), Tint()

    def _whole(self) -> np.ndarray:
        """Fill pixels that are no numbers from the original; the canvas's pixels that are both of
        the picture and of the edit."""
        inside = self._on_canvas(np.ones(self._inside(), bool))
        lost = ~np.isfinite(self.edit).all(2)
        if not lost.any():
            return inside
        height, width = lost.shape
        full = (0, 0, *self.size)
        self.edit = np.where(lost[..., None], resample(self.crop, full, (width, height)), self.edit)
        self.said.append(
            f"{lost.sum()} pixels of the edit are no numbers: the original stays there"
        )
        return inside & ~_boxed(lost, (0, 0, width, height), self.size)

    def _inside(self) -> tuple[int, int]:
        left, top, right, bottom = self.region.inside
        return bottom - top, right - left

    def _on_canvas(self, where: np.ndarray) -> np.ndarray:
        """The canvas's pixels that have something of ``where``, of the box inside the picture."""
        left, top, right, bottom = self.region.lattice.box
        whole = np.zeros((bottom - top, right - left), bool)
        whole[: where.shape[0], : where.shape[1]] = where
        return _boxed(whole, (0, 0, right - left, bottom - top), self.size)

    def run(self, choices: Choices) -> np.ndarray:
        """Find drift, tint and, where it was not painted, the change: alpha in the picture."""
        if self.painted is not None:
            self._prove(self.known & ~self._on_canvas(self.painted > 0), choices)
            return self.painted
        if not (choices.align or choices.colour):
            return self._changed()
        # What has changed is an outlier at first, and left out the second time.
        said, known = self.said, self.known
        self.said = []
        self._prove(known, choices)
        self.said, unchanged = said, known & ~self._change().alpha(0, 8).astype(bool)
        if unchanged.mean() >= LEAST_KNOWN:
            self._prove(unchanged, choices)
        else:
            self.moved, self.tint = Alignment(), Tint()
            said.append(f"Not aligned: only {unchanged.mean():.0%} of the picture is unchanged.")
        return self._changed()

    def _prove(self, unchanged: np.ndarray, choices: Choices) -> None:
        """Drift and tint, by the canvas's pixels that are ``unchanged``."""
        self.moved, self.tint = Alignment(), Tint()
        edit = self._seen_at_canvas()
        if choices.align:
            found = align(self.crop, edit, unchanged)
            if found.refused:
                self.said.append(f"Not aligned: {found.refused}.")
            elif found.moves(self.size):
                self.moved = found
                edit = self._seen_at_canvas()
                self.said.append(
                    f"Aligned: it had moved by {found.dx:+.2f}, {found.dy:+.2f} px of the canvas, "
                    f"zoomed by {found.zoom - 1:+.2%} ({found.alike:.2f} alike)."
                )
            else:
                self.said.append(f"In place ({found.alike:.2f} alike).")
        if choices.colour:
            self.tint = find_tint(self.crop, edit, unchanged & self.moved.inside(self.size))
            if self.tint.refused:
                self.said.append(f"Colour not matched: {self.tint.refused}.")
            elif self.tint.changes:
                pairs = zip(self.tint.gain, self.tint.offset, strict=True)
                told = ", ".join(f"{gain:.3f} x {offset:+.3f}" for gain, offset in pairs)
                self.said.append(f"Colour matched: {told} (red, green, blue).")

    def _seen_at_canvas(self) -> np.ndarray:
        return self._edit_at((0.0, 0.0, *self.size), self.size)

    def _edit_at(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
        """``box`` of the canvas as the edit has it, aligned and in the picture's colours."""
        scale = [self.edit.shape[1 - axis] / self.size[axis] for axis in (0, 1)] * 2
        found = self.moved.found(box, self.size) if self.moved != Alignment() else box
        left, top, right, bottom = (side * by for side, by in zip(found, scale, strict=True))
        edit = resample(self.edit, (left, top, right, bottom), size)
        return self.tint.undo(edit) if self.tint.changes else edit

    def _change(self) -> Change:
        return find_change(self.tint.reach(self.crop), self._seen_at_canvas(), self._visible())

    def _visible(self) -> np.ndarray:
        return self.known & self.moved.inside(self.size)

    def _changed(self) -> np.ndarray:
        """The alpha of what has changed, inside of the picture."""
        change, settings = self._change(), self.region.settings
        scale = MULTIPLE / self.region.lattice.q
        alpha = change.alpha(settings.grow * scale, settings.feather * scale) * self._visible()
        height, width = self._inside()
        self.said.append(
            f"Changed: {(alpha > 0).mean():.1%} of the picture, by differences over "
            f"{change.threshold:.3f} of 1; the rest is the original."
        )
        if not alpha.any():
            return np.zeros((height, width), np.float32)
        box = (0, 0, width * scale, height * scale)
        soft = Image.fromarray(alpha).resize((width, height), Image.Resampling.BILINEAR, box)
        return np.array(soft)

    def source(self, box: tuple[int, int, int, int], keep_detail: bool) -> np.ndarray:
        """What the edit makes of ``box`` of the picture: ``[h, w, 3]`` float32."""
        left, top, right, bottom = box
        size = (right - left, bottom - top)
        there = self.region.lattice.on_canvas(box)
        edit = self._edit_at(there, size)
        if self.region.lattice.q == MULTIPLE:
            copied = self.moved == Alignment() and self.edit.shape[1::-1] == self.size
            return edit if copied else np.clip(edit, 0, 1)
        if not keep_detail:
            return np.clip(edit, 0, 1)
        old = self.picture[top:bottom, left:right, :3].float().cpu().numpy()
        crop = resample(self.crop, there, size)
        change = edit - crop
        other = gaussian_filter(np.abs(change).max(axis=2), _OTHER_BLUR)
        other = np.clip((other - SAME) / (OTHER - SAME), 0, 1)[..., None]
        new = old + change - other * other * (3 - 2 * other) * (old - crop)
        # Within the colours there are, and never beyond what an original beyond them has.
        return np.clip(new, np.minimum(old, 0), np.maximum(old, 1))


def _boxed(where: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The pixels of ``size`` that have something of ``where``."""
    if where.shape[::-1] == size:
        return where
    grey = Image.fromarray(where.astype(np.float32))
    return np.asarray(grey.resize(size, Image.Resampling.BOX, box)) > 0

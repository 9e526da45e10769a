"""A stack of LoRAs -> the fewest steps for each weight.

Plain LoRAs on the same rows become one pair of concatenated factors with their scales folded in, so
that the weight is read, added to and rounded once: W[rows] += [up1 up2 ..] @ [s1*down1; s2*down2].
Adapters that depend on the weight (DoRA, OFT, ...) stay whole, in the stack's order.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import torch
from torch import Tensor

from .adapters.base import Additive, Transform
from .adapters.lora import LowRank
from .modifiers.weights import Modifier


@dataclass(frozen=True, eq=False)
class Step:
    """``effect`` at ``scale`` on the rows ``start`` to ``start + rows`` of a weight."""

    start: int
    rows: int
    scale: float
    effect: Additive | Transform

    @property
    def end(self) -> int:
        """The row behind the last."""
        return self.start + self.rows


@dataclass(frozen=True, eq=False)
class StackedLora:
    """One LoRA of a stack: its steps by weight name at scale 1, and its scale.

    LoRAs of equal ``identity`` have the same steps, whatever their scales. ``modifiers`` multiply
    the scale within a run, so that the weights cannot hold it.
    """

    identity: Hashable
    scale: float
    steps: tuple[tuple[str, Step], ...]
    name: str = ""
    modifiers: tuple[Modifier, ...] = ()


def fuse(stack: Iterable[StackedLora]) -> dict[str, tuple[Step, ...]]:
    """Weight name -> its steps, in order, with the scales of the whole stack in them."""
    by_weight: dict[str, list[Step]] = {}
    for lora in stack:
        for key, step in lora.steps:
            scale = step.scale * lora.scale
            if scale != 0:
                by_weight.setdefault(key, []).append(replace(step, scale=scale))
    fused = {}
    for key, steps in by_weight.items():
        runs = groupby(steps, lambda step: isinstance(step.effect, Transform))
        fused[key] = tuple(
            step for depends, run in runs for step in (run if depends else _joined(list(run)))
        )
    return fused


def _joined(run: Sequence[Step]) -> list[Step]:
    """Additive steps commute: the plain LoRAs first, row slice by row slice, then the others."""
    plain = [(step, step.effect) for step in run if isinstance(step.effect, LowRank)]
    others = [step for step in run if not isinstance(step.effect, LowRank)]
    edges = sorted({edge for step, _ in plain for edge in (step.start, step.end)})
    slices = [
        (start, end, [one for one in plain if one[0].start <= start and end <= one[0].end])
        for start, end in pairwise(edges)
    ]
    return [_concatenated(start, end, over) for start, end, over in slices if over] + others


def _concatenated(start: int, end: int, plain: Sequence[tuple[Step, LowRank]]) -> Step:
    """The plain LoRAs' rows ``start`` to ``end`` as one LoRA at scale 1."""
    pieces = []
    for step, effect in plain:
        up = effect.up[start - step.start : end - step.start]
        pieces.append(replace(effect, up=up, scale=effect.scale * step.scale))
    if len(pieces) == 1:
        return Step(start, end - start, 1.0, pieces[0])
    down_is_smaller = pieces[0].down.shape[1] <= end - start
    factors = [_folded(piece, down_is_smaller) for piece in pieces]
    up = torch.cat(_same_type([up for up, _ in factors]), dim=1)
    down = torch.cat(_same_type([down for _, down in factors]), dim=0)
    gain = min(piece.gain for piece in pieces)
    return Step(start, end - start, 1.0, LowRank(up, down, 1.0, gain))


def _folded(piece: LowRank, into_down: bool) -> tuple[Tensor, Tensor]:
    """The factors with the scale in one of them, in float32 where its own type is too coarse."""
    factor = piece.down if into_down else piece.up
    mantissa, exponent = math.frexp(piece.scale)
    exact = abs(mantissa) == 0.5 and abs(exponent) < 8 and factor.dtype != torch.float16
    if piece.scale != 1.0:
        factor = (factor if exact else factor.float()) * piece.scale
    return (piece.up, factor) if into_down else (factor, piece.down)


def _same_type(tensors: list[Tensor]) -> list[Tensor]:
    types = {tensor.dtype for tensor in tensors}
    return tensors if len(types) == 1 else [tensor.float() for tensor in tensors]

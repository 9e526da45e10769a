"""A stack of adapters -> ONE plan a weight.

Plain LoRAs on the same rows become one pair of concatenated factors with their scales folded in, so
that the weight is read, added to and rounded once: W[rows] += [up1 up2 ..] @ [s1*down1; s2*down2].
Adapters that depend on the weight (DoRA, OFT, ...) stay whole, in the stack's order.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from .adapters import Additive, LowRank, Transform


@dataclass(frozen=True, eq=False)
class Step:
    """``effect`` at ``scale`` on the rows ``start`` to ``start + rows`` of a weight."""

    start: int
    rows: int
    scale: float
    effect: Additive | Transform


Plan = Mapping[str, tuple[Step, ...]]
"""Weight name -> its steps, in order."""


def fuse(stack: Iterable[tuple[str, Step]]) -> dict[str, tuple[Step, ...]]:
    """The plan of all (weight name, step) pairs, given in the stack's order."""
    by_weight: dict[str, list[Step]] = {}
    for key, step in stack:
        if step.scale != 0:
            by_weight.setdefault(key, []).append(step)
    return {key: tuple(_fused(steps)) for key, steps in by_weight.items()}


def _fused(steps: Sequence[Step]) -> list[Step]:
    result: list[Step] = []
    run: list[Step] = []
    for step in steps:
        if isinstance(step.effect, Transform):
            result += _fused_run(run)
            result.append(step)
            run = []
        else:
            run.append(step)
    return result + _fused_run(run)


def _fused_run(run: Sequence[Step]) -> list[Step]:
    """Additive steps commute: the plain LoRAs first, row slice by row slice, then the others."""
    low_rank = [step for step in run if isinstance(step.effect, LowRank)]
    others = [step for step in run if not isinstance(step.effect, LowRank)]
    edges = sorted({edge for step in low_rank for edge in (step.start, step.start + step.rows)})
    slices: list[tuple[int, int, list[Step]]] = []
    for start, end in pairwise(edges):
        over = [s for s in low_rank if s.start <= start and end <= s.start + s.rows]
        if slices and slices[-1][2] == over and slices[-1][1] == start:
            start = slices.pop()[0]
        if over:
            slices.append((start, end, over))
    return [_concatenated(start, end, over) for start, end, over in slices] + others


def _concatenated(start: int, end: int, steps: Sequence[Step]) -> Step:
    pieces = []
    for step in steps:
        effect = step.effect
        assert isinstance(effect, LowRank)  # noqa: S101  (told by _fused_run; for the type checker)
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
    if piece.scale == 1.0:
        scaled = factor
    elif exact:
        scaled = factor * piece.scale
    else:
        scaled = factor.float() * piece.scale
    return (piece.up, scaled) if into_down else (scaled, piece.down)


def _same_type(tensors: list[Tensor]) -> list[Tensor]:
    types = {tensor.dtype for tensor in tensors}
    return tensors if len(types) == 1 else [tensor.float() for tensor in tensors]

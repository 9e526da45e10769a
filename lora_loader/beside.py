"""What a stack computes beside one weight: y = Wx + B(Ax), the LoRAs' factors side by side.

Torch only. All factors of a weight lie in one flat tensor, which moves between devices in one go;
the LoRAs' scales lie apart from it, so that a moved slider changes a few numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import filterfalse
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .adapters import Kronecker, LowRank, Transform
from .fuse import StackedLora, Step


def split(
    stack: Sequence[StackedLora], multiplying: frozenset[str]
) -> tuple[list[StackedLora], list[StackedLora]]:
    """(what can be computed beside its weight, what must be added to it).

    ``multiplying`` are the weights whose modules multiply by them. A weight that an adapter depends
    on (DoRA, OFT) is added to whole, so that the order of its steps stays. The first list holds
    every LoRA of the stack, if need be without steps: what is left of one depends on the others.
    """
    steps = [pair for lora in stack for pair in lora.steps]
    free = multiplying - {key for key, step in steps if isinstance(step.effect, Transform)}

    def goes(pair: tuple[str, Step]) -> bool:
        return pair[0] in free and isinstance(pair[1].effect, LowRank | Kronecker)

    beside = [replace(lora, steps=tuple(filter(goes, lora.steps))) for lora in stack]
    added = [replace(lora, steps=tuple(filterfalse(goes, lora.steps))) for lora in stack]
    return beside, [lora for lora in added if lora.steps]


class Slice(NamedTuple):
    """Rows ``start`` to ``start + rows`` of the output take columns ``first`` to ``first + rank``
    of ``x @ down``; their ``up`` begins at ``at`` in the flat tensor."""

    start: int
    rows: int
    first: int
    rank: int
    at: int


class Product(NamedTuple):
    """A Kronecker product on a row slice: the shapes of its factors and where the first begins.

    ``right`` is one shape, or two whose product it is.
    """

    start: int
    left: tuple[int, int]
    right: tuple[tuple[int, int], ...]
    at: int


class Gain(NamedTuple):
    """A gain is ``coefficient`` times the scale of the stack's LoRA number ``lora``."""

    coefficient: float
    lora: int


@dataclass(frozen=True)
class Beside:
    """The layout of one weight's factors; ``down`` (rank, columns) begins at 0.

    The gains are first those of the ``rank`` columns, then one a product.
    """

    columns: int
    rank: int
    slices: tuple[Slice, ...]
    products: tuple[Product, ...]
    gains: tuple[Gain, ...]

    def add_to(self, y: Tensor, x: Tensor, factors: Tensor, gains: Tensor) -> Tensor:
        """``y`` (..., rows) plus what the stack makes of ``x`` (..., columns), in place where it
        can. ``factors`` is flat, of x's type and device; ``gains``, the numbers, are float32 there.
        """
        inputs = x.reshape(-1, self.columns)
        outputs = y.reshape(-1, y.shape[-1])
        if self.rank:
            hidden = F.linear(inputs, _matrix(factors, 0, self.rank, self.columns))
            # In place: computed in float32, rounded once to the type of ``hidden``.
            hidden.mul_(gains[: self.rank])
            for start, count, first, rank, at in self.slices:
                up = _matrix(factors, at, count, rank)
                rows, own = outputs.narrow(1, start, count), hidden.narrow(1, first, rank)
                if rows.dtype == own.dtype:
                    rows.addmm_(own, up.t())
                else:
                    rows.add_(F.linear(own, up))
        for place, product in enumerate(self.products, self.rank):
            change = _kronecker(inputs, factors, product)
            rows = outputs.narrow(1, product.start, change.shape[1])
            rows.add_(change.mul_(gains[place]))
        return outputs.view(y.shape)


def _kronecker(inputs: Tensor, factors: Tensor, product: Product) -> Tensor:
    """kron(left, right) @ x without the product: right on the inner, left on the outer index."""
    at = product.at + product.left[0] * product.left[1]
    inner = inputs.reshape(-1, product.left[1], product.right[-1][1])
    matrices = []
    for rows, columns in product.right:
        matrices.append(_matrix(factors, at, rows, columns))
        at += rows * columns
    for matrix in reversed(matrices):
        inner = F.linear(inner, matrix)
    return torch.matmul(_matrix(factors, product.at, *product.left), inner).flatten(1)


def _matrix(flat: Tensor, at: int, rows: int, columns: int) -> Tensor:
    return flat.narrow(0, at, rows * columns).view(rows, columns)


def build(
    steps: Sequence[tuple[int, Step]], columns: int, dtype: torch.dtype
) -> tuple[Beside, Tensor]:
    """The layout and the factors, in ``dtype``, of (LoRA's number, step) pairs on one weight of so
    many ``columns``; every effect is a LowRank or a Kronecker."""
    flat: list[Tensor] = []
    gains: list[Gain] = []
    groups: dict[tuple[int, int], list[tuple[Gain, Tensor, Tensor]]] = {}
    for lora, step in steps:
        if isinstance(step.effect, LowRank):
            gain = Gain(step.scale * step.effect.scale, lora)
            member = (gain, *_balanced(step.effect, dtype))
            groups.setdefault((step.start, step.rows), []).append(member)
    for members in groups.values():
        for gain, _, down in members:
            _append(flat, down)
            gains += [gain] * down.shape[0]
    rank = len(gains)
    slices: list[Slice] = []
    for (start, rows), members in groups.items():
        up = torch.cat([up for _, up, _ in members], dim=1)
        first = sum(before.rank for before in slices)
        slices.append(Slice(start, rows, first, up.shape[1], _append(flat, up)))
    products = []
    for lora, step in steps:
        if isinstance(step.effect, Kronecker):
            left, *right = _cheapest(step.effect)
            shapes = [(factor.shape[0], factor.shape[1]) for factor in (left, *right)]
            at = _append(flat, left, *right)
            products.append(Product(step.start, shapes[0], tuple(shapes[1:]), at))
            gains.append(Gain(step.scale * step.effect.scale, lora))
    factors = torch.cat([tensor.to(dtype) for tensor in flat])
    return Beside(columns, rank, tuple(slices), tuple(products), tuple(gains)), factors


def _append(flat: list[Tensor], *tensors: Tensor) -> int:
    """Where the first of ``tensors`` begins in ``flat``, laid end to end."""
    at = sum(tensor.numel() for tensor in flat)
    flat += [tensor.reshape(-1) for tensor in tensors]
    return at


def _balanced(effect: LowRank, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors in ``dtype``; float16 holds them only when they are of like size."""
    up, down = effect.up, effect.down
    if dtype == torch.float16 and effect.gain != 1.0:
        up, down = up.float() * effect.gain, down.float() / effect.gain
    return up.to(dtype), down.to(dtype)


def _cheapest(effect: Kronecker) -> tuple[Tensor, ...]:
    """Left, and right as one matrix, or as its two factors where these have fewer numbers."""
    product = effect.prepared()
    (left,), (right,) = product.left, product.right
    if sum(factor.numel() for factor in effect.right) < right.numel():
        return (left, *effect.right)
    return left, right

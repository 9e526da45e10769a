"""What a stack computes beside one weight: y = Wx + B(Ax), the LoRAs' factors side by side.

Torch only. All factors of a weight lie in one flat tensor, which moves between devices in one go;
the LoRAs' scales lie apart from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .adapters import Kronecker, LowRank
from .fuse import Step


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

    ``right`` is one shape, or two whose product it is. ``gain`` is its place among the gains.
    """

    start: int
    left: tuple[int, int]
    right: tuple[tuple[int, int], ...]
    at: int
    gain: int


@dataclass(frozen=True)
class Beside:
    """The layout of one weight's factors; ``down`` (rank, columns) begins at 0.

    The gains are first those of the ``rank`` columns, then one a product.
    """

    columns: int
    rank: int
    slices: tuple[Slice, ...]
    products: tuple[Product, ...]

    @property
    def gains(self) -> int:
        return self.rank + len(self.products)

    def add_to(self, y: Tensor, x: Tensor, factors: Tensor, gains: Tensor) -> Tensor:
        """``y`` (..., rows) plus the stack's part of ``x`` (..., columns), in place where it can.

        ``factors`` is flat, of x's type and device; ``gains`` float32 on the same device.
        """
        inputs = x.reshape(-1, self.columns)
        outputs = y.reshape(-1, y.shape[-1])
        if self.rank:
            hidden = F.linear(inputs, _matrix(factors, 0, self.rank, self.columns))
            # In place: computed in float32, rounded once to the type of ``hidden``.
            hidden.mul_(gains[: self.rank])
            for part in self.slices:
                up = _matrix(factors, part.at, part.rows, part.rank)
                _add_product(
                    outputs.narrow(1, part.start, part.rows),
                    hidden.narrow(1, part.first, part.rank),
                    up,
                )
        for product in self.products:
            change = _kronecker(inputs, factors, product)
            rows = outputs.narrow(1, product.start, change.shape[1])
            rows.add_(change.mul_(gains[product.gain]))
        return outputs.view(y.shape)


def _add_product(rows: Tensor, hidden: Tensor, up: Tensor) -> None:
    if rows.dtype == hidden.dtype:
        rows.addmm_(hidden, up.t())
    else:
        rows.add_(F.linear(hidden, up))


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


class Built(NamedTuple):
    """One weight's layout and factors; gain n is ``coefficients[n]`` times the scale of part
    ``parts[n]``."""

    layout: Beside
    factors: Tensor
    coefficients: list[float]
    parts: list[int]


def build(steps: Sequence[tuple[int, Step]], columns: int, dtype: torch.dtype) -> Built:
    """The layout of (part number, step) pairs on one weight; every effect is a LowRank or a
    Kronecker."""
    groups: dict[tuple[int, int], list[tuple[int, float, LowRank]]] = {}
    for part, step in steps:
        if isinstance(step.effect, LowRank):
            member = (part, step.scale * step.effect.scale, step.effect)
            groups.setdefault((step.start, step.rows), []).append(member)
    downs: list[Tensor] = []
    coefficients: list[float] = []
    parts: list[int] = []
    ups: list[Tensor] = []
    shapes = []
    for (start, rows), members in groups.items():
        pairs = [_balanced(effect, dtype) for *_, effect in members]
        rank = sum(up.shape[1] for up, _ in pairs)
        shapes.append((start, rows, len(coefficients), rank))
        ups.append(torch.cat([up for up, _ in pairs], dim=1))
        downs += [down for _, down in pairs]
        for (part, coefficient, _), (up, _) in zip(members, pairs, strict=True):
            coefficients += [coefficient] * up.shape[1]
            parts += [part] * up.shape[1]
    rank = len(coefficients)
    pieces = [down.reshape(-1) for down in downs]
    at = rank * columns
    slices = []
    for shape, up in zip(shapes, ups, strict=True):
        slices.append(Slice(*shape, at))
        pieces.append(up.reshape(-1))
        at += up.numel()
    products = []
    for part, step in steps:
        effect = step.effect
        if not isinstance(effect, Kronecker):
            continue
        left = _product(effect.left)
        right = _cheapest(effect.right)
        products.append(
            Product(
                step.start,
                (left.shape[0], left.shape[1]),
                tuple((factor.shape[0], factor.shape[1]) for factor in right),
                at,
                len(coefficients),
            )
        )
        pieces += [tensor.reshape(-1) for tensor in (left, *right)]
        at += sum(tensor.numel() for tensor in (left, *right))
        coefficients.append(step.scale * effect.scale)
        parts.append(part)
    flat = torch.cat([piece.to(dtype) for piece in pieces])
    return Built(Beside(columns, rank, tuple(slices), tuple(products)), flat, coefficients, parts)


def _balanced(effect: LowRank, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors in ``dtype``; float16 holds them only when they are of like size."""
    up, down = effect.up, effect.down
    if dtype == torch.float16 and effect.gain != 1.0:
        up, down = up.float() * effect.gain, down.float() / effect.gain
    return up.to(dtype), down.to(dtype)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    first, *rest = factors
    return first.float() @ rest[0].float() if rest else first


def _cheapest(factors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Two factors, or their product where that has fewer numbers."""
    rows, columns = factors[0].shape[0], factors[-1].shape[1]
    if sum(factor.numel() for factor in factors) < rows * columns:
        return factors
    return (_product(factors),)

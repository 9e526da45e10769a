"""Adapters that add a change to the weight, whatever the weight is: LoRA, LoKr, LoHa, full diff.

Weights are (out, in). Scales are numbers; ``strength`` is the user's, on top of the file's own
alpha/rank. Factors keep their file's type; products are made in float32. ``add_to(weight, strength,
first)`` adds the effect's rows from ``first`` on, as many as ``weight`` has; ``prepared()`` is the
same effect with what every row needs made ready in float32, for whoever adds it block by block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MoveTo = Callable[[Tensor], Tensor]

BLOCK_BYTES = 16 * 2**20
"""The most that a block of rows takes in float32: it stays in a CPU's or GPU's last cache."""


def blocks(weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The weight's rows in blocks of ``BLOCK_BYTES`` as float32: the first row, and the view."""
    count = max(BLOCK_BYTES // (4 * max(weight[:1].numel(), 1)), 1)
    for first in range(0, weight.shape[0], count):
        yield first, weight[first : first + count]


@dataclass(frozen=True, eq=False)
class LowRank:
    """LoRA: ``scale * up @ down`` (Hu et al. 2021); up (out, r), down (r, in).

    ``gain`` is a power of two that evens out the factors' sizes where they must become float16.
    """

    up: Tensor
    down: Tensor
    scale: float
    gain: float = 1.0

    def dense(self) -> Tensor:
        return (self.up.float() @ self.down.float()) * self.scale

    def prepared(self) -> "LowRank":
        return replace(self, down=self.down.float())

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """One pass over the weight; accumulates in float32 and rounds once."""
        up, down = self.up[first : first + weight.shape[0]], self.down
        if weight.dtype == torch.float16 and self.gain != 1.0:
            up, down = up.float() * self.gain, down.float() / self.gain
        weight.addmm_(up.to(weight.dtype), down.to(weight.dtype), alpha=self.scale * strength)

    def rolled(self) -> "LowRank":
        return replace(self, up=_rolled(self.up))


@dataclass(frozen=True, eq=False)
class Dense:
    """A full change of the weight: ComfyUI's and LyCORIS' ``.diff``, norms, full-rank LoRA."""

    diff: Tensor
    scale: float

    def dense(self) -> Tensor:
        return self.diff.float() * self.scale

    def prepared(self) -> "Dense":
        return self

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        weight.add_(self.diff[first : first + weight.shape[0]], alpha=self.scale * strength)

    def rolled(self) -> "Dense":
        return replace(self, diff=_rolled(self.diff))


@dataclass(frozen=True, eq=False)
class Kronecker:
    """LoKr: ``scale * kron(left, right)`` (LyCORIS); either side may be a product of two factors.

    ``left`` (a, b) and ``right`` (c, d), or pairs (a, r), (r, b): out = a * c, in = b * d.
    """

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    scale: float

    def dense(self) -> Tensor:
        return torch.kron(_product(self.left), _product(self.right)) * self.scale

    def prepared(self) -> "Kronecker":
        return replace(self, left=(_product(self.left),), right=(_product(self.right),))

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        left, right = _product(self.left).to(weight.dtype), _product(self.right).to(weight.dtype)
        (b, d), c = (left.shape[1], right.shape[1]), right.shape[0]
        row, last = first, first + weight.shape[0]
        while row < last:
            # Whole copies of ``right``, or the part of one that the rows begin or end with.
            above, within = divmod(row, c)
            copies = 1 if within else max((last - row) // c, 1)
            count = min(copies * c - within, last - row)
            rows = weight[row - first : row - first + count].view(copies, count // copies, b, d)
            part = right[within : within + count // copies]
            rows.addcmul_(
                left[above : above + copies].view(copies, 1, b, 1),
                part.view(1, -1, 1, d),
                value=self.scale * strength,
            )
            row += count

    def rolled(self) -> "Kronecker | Dense":
        rows = self.left[0].shape[0]
        if rows % 2 == 0:
            return replace(self, left=(_rolled(self.left[0]), *self.left[1:]))
        if rows == 1:
            return replace(self, right=(_rolled(self.right[0]), *self.right[1:]))
        return Dense(_rolled(self.dense()), 1.0)


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa: ``scale * (a1 @ b1) * (a2 @ b2)`` (Hyeon-Woo et al. 2021); a (out, r), b (r, in)."""

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float

    def dense(self) -> Tensor:
        return (
            (self.a1.float() @ self.b1.float()) * (self.a2.float() @ self.b2.float()) * self.scale
        )

    def prepared(self) -> "Hadamard":
        return replace(self, b1=self.b1.float(), b2=self.b2.float())

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        b1, b2 = self.b1.float(), self.b2.float()
        for start, block in blocks(weight):
            rows = slice(first + start, first + start + block.shape[0])
            change = self.a1[rows].float() @ b1
            change.mul_(self.a2[rows].float() @ b2)
            block.add_(change, alpha=self.scale * strength)

    def rolled(self) -> "Hadamard":
        return replace(self, a1=_rolled(self.a1), a2=_rolled(self.a2))


Additive = LowRank | Dense | Kronecker | Hadamard


def _rolled(rows: Tensor) -> Tensor:
    """The two halves of the rows exchanged."""
    return torch.roll(rows, rows.shape[0] // 2, dims=0)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    first, *rest = (factor.float() for factor in factors)
    return first @ rest[0] if rest else first

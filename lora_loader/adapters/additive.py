"""Adapters that add a change to the weight, whatever the weight is: LoRA, LoKr, LoHa, full diff.

Weights are (out, in). Scales are numbers; ``strength`` is the user's, on top of the file's own
alpha/rank. Factors keep their file's type; products are made in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MoveTo = Callable[[Tensor], Tensor]


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

    def add_to(self, weight: Tensor, strength: float) -> None:
        """One pass over the weight; accumulates in float32 and rounds once."""
        up, down = self.up, self.down
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

    def add_to(self, weight: Tensor, strength: float) -> None:
        weight.add_(self.diff, alpha=self.scale * strength)

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

    def add_to(self, weight: Tensor, strength: float) -> None:
        left, right = _product(self.left).to(weight.dtype), _product(self.right).to(weight.dtype)
        (a, b), (c, d) = left.shape, right.shape
        weight.view(a, c, b, d).addcmul_(
            left.view(a, 1, b, 1), right.view(1, c, 1, d), value=self.scale * strength
        )

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

    def add_to(self, weight: Tensor, strength: float) -> None:
        first = self.a1.float() @ self.b1.float()
        first.mul_(self.a2.float() @ self.b2.float())
        weight.add_(first, alpha=self.scale * strength)

    def rolled(self) -> "Hadamard":
        return replace(self, a1=_rolled(self.a1), a2=_rolled(self.a2))


Additive = LowRank | Dense | Kronecker | Hadamard


def _rolled(rows: Tensor) -> Tensor:
    """The two halves of the rows exchanged."""
    return torch.roll(rows, rows.shape[0] // 2, dims=0)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    first, *rest = (factor.float() for factor in factors)
    return first @ rest[0] if rest else first

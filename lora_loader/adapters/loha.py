"""LoHa: the element-wise product of two products of factors (Hyeon-Woo et al. 2021)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .base import Additive, Algorithm, Geometry, Given, Shape, Unfit, blocks, matrix
from .lora import LowRank


@dataclass(frozen=True, eq=False)
class Hadamard(Additive):
    """LoHa: ``scale * (a1 @ b1) * (a2 @ b2)`` (Hyeon-Woo et al. 2021); a (out, r), b (r, in)."""

    kind = "LoHa"
    by_row = ("a1", "a2")
    by_all = ("b1", "b2")

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """That of the plain LoRA which it equals: the product of its two."""
        return self.a1.shape[1] * self.a2.shape[1]

    def as_low_rank(self) -> LowRank:
        """The same as a plain LoRA: each column of a1 times each of a2, each row of b1 of b2."""
        up = (self.a1.float().unsqueeze(2) * self.a2.float().unsqueeze(1)).flatten(1)
        down = (self.b1.float().unsqueeze(1) * self.b2.float().unsqueeze(0)).flatten(0, 1)
        large, small = (max(float(factor.abs().max()), 2.0**-60) for factor in (up, down))
        return LowRank(up, down, self.scale, gain=2.0 ** round(math.log2(small / large) / 2))

    def dense(self) -> Tensor:
        """``scale * (a1 @ b1) * (a2 @ b2)``."""
        return (
            (self.a1.float() @ self.b1.float()) * (self.a2.float() @ self.b2.float()) * self.scale
        )

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """Block by block, so that the products stay small."""
        b1, b2 = self.b1.float(), self.b2.float()
        for start, block in blocks(weight):
            rows = slice(first + start, first + start + block.shape[0])
            change = self.a1[rows].float() @ b1
            change.mul_(self.a2[rows].float() @ b2)
            block.add_(change, alpha=self.scale * strength)


class Loha(Algorithm):
    """LyCORIS' and PEFT's LoHa, without its Tucker form for convolutions."""

    name = "LoHa"
    peft_type = "LOHA"
    required = factors = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    endings = {role.replace("_", " "): role for role in (*required, "hada_t1", "hada_t2")}
    unsupported = dict.fromkeys(("hada_t1", "hada_t2"), "Tucker LoHa")

    def _read(self, given: Given) -> Hadamard:
        a1, b1, a2, b2 = given.matrices(*self.factors)
        return Hadamard(a1, b1, a2, b2, given.scale)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        (rows, r1), (r1b, columns), (rows2, r2), (r2b, columns2) = (
            matrix(shapes[role]) for role in self.factors
        )
        if (r1, r2, rows, columns) != (r1b, r2b, rows2, columns2):
            raise Unfit("has LoHa factors that do not fit each other")
        return Geometry(rows, columns, r1)

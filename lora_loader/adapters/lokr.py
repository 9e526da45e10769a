"""LoKr: a Kronecker product (LyCORIS), either side whole or in two factors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import Additive, Algorithm, Geometry, Given, Shape, Unfit, Unpaired, matrix, rolled
from .difference import Dense


@dataclass(frozen=True, eq=False)
class Kronecker(Additive):
    """LoKr: ``scale * kron(left, right)`` (LyCORIS); either side may be a product of two factors.

    ``left`` (a, b) and ``right`` (c, d), or pairs (a, r), (r, b): out = a * c, in = b * d.
    """

    kind = "LoKr"

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    scale: float

    def dense(self) -> Tensor:
        """``scale * kron(left, right)``."""
        return torch.kron(_product(self.left), _product(self.right)) * self.scale

    def prepared(self) -> "Kronecker":
        """Both sides multiplied out, which are small."""
        return replace(self, left=(_product(self.left),), right=(_product(self.right),))

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """Copies of ``right``, one for each element of ``left``, without the whole product."""
        left, right = _product(self.left).to(weight.dtype), _product(self.right).to(weight.dtype)
        (b, d), c = (left.shape[1], right.shape[1]), right.shape[0]
        row, last = first, first + weight.shape[0]
        while row < last:
            # Whole copies of ``right``, or the piece of one that the rows begin or end with.
            above, within = divmod(row, c)
            copies = 1 if within else max((last - row) // c, 1)
            count = min(copies * c - within, last - row)
            rows = weight[row - first : row - first + count].view(copies, count // copies, b, d)
            piece = right[within : within + count // copies]
            rows.addcmul_(
                left[above : above + copies].view(copies, 1, b, 1),
                piece.view(1, -1, 1, d),
                value=self.scale * strength,
            )
            row += count

    def rolled(self) -> "Kronecker | Dense":
        """Still a Kronecker product where the halves lie between copies, or in the only one."""
        rows = self.left[0].shape[0]
        if rows % 2 == 0:
            return replace(self, left=(rolled(self.left[0]), *self.left[1:]))
        if rows == 1:
            return replace(self, right=(rolled(self.right[0]), *self.right[1:]))
        return Dense(rolled(self.dense()), 1.0)


def _product(factors: tuple[Tensor, ...]) -> Tensor:
    first, *rest = (factor.float() for factor in factors)
    return first @ rest[0] if rest else first


class Lokr(Algorithm):
    """LyCORIS', PEFT's and ai-toolkit's LoKr, without its Tucker form for convolutions."""

    name = "LoKr"
    peft_type = "LOKR"
    factors = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
    endings = {role.replace("_", " "): role for role in (*factors, "lokr_t1", "lokr_t2")}
    unsupported = dict.fromkeys(("lokr_t1", "lokr_t2"), "Tucker LoKr")

    def _read(self, given: Given) -> Kronecker:
        left, right = (
            given.matrices(*([side] if side in given.tensors else [f"{side}_a", f"{side}_b"]))
            for side in ("lokr_w1", "lokr_w2")
        )
        return Kronecker(tuple(left), tuple(right), given.scale)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        if shapes.keys().isdisjoint(self.factors):
            return None
        (a, b), rank1 = _side(shapes, "lokr_w1")
        (c, d), rank2 = _side(shapes, "lokr_w2")
        # LyCORIS divides alpha by the rank of w2's factors, or of w1's where w2 is whole.
        return Geometry(a * c, b * d, rank2 or rank1)


def _side(shapes: Mapping[str, Shape], name: str) -> tuple[tuple[int, int], int | None]:
    """The shape of one side, and the rank of its factors if it has any."""
    if name in shapes:
        return matrix(shapes[name]), None
    if f"{name}_a" not in shapes or f"{name}_b" not in shapes:
        raise Unpaired(f"has LoKr factors but no {name}, or half of it")
    rows, rank = matrix(shapes[f"{name}_a"])
    rank_b, columns = matrix(shapes[f"{name}_b"])
    if rank != rank_b:
        raise Unfit(f"has LoKr factors of rank {rank} and {rank_b}")
    return (rows, columns), rank

"""LyCORIS' products of small matrices: LoHa (Hyeon-Woo et al. 2021), LoKr, and GLoRA (Chavan et al.
2023), a LoRA and, in front of it, a LoRA of the weight's own input. None in its Tucker form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import (
    Additive,
    Algorithm,
    Geometry,
    Given,
    Shape,
    Transform,
    Unfit,
    Unpaired,
    blocks,
    matrix,
    rolled,
)
from .difference import Dense


@dataclass(frozen=True, eq=False)
class Hadamard(Additive):
    """LoHa: ``scale * (a1 @ b1) * (a2 @ b2)`` (Hyeon-Woo et al. 2021); a (out, r), b (r, in)."""

    by_row = ("a1", "a2")
    by_all = ("b1", "b2")

    a1: Tensor
    b1: Tensor
    a2: Tensor
    b2: Tensor
    scale: float

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


@dataclass(frozen=True, eq=False)
class Kronecker(Additive):
    """LoKr: ``scale * kron(left, right)`` (LyCORIS); either side may be a product of two factors.

    ``left`` (a, b) and ``right`` (c, d), or pairs (a, r), (r, b): out = a * c, in = b * d.
    """

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


@dataclass(frozen=True, eq=False)
class GeneralizedLora(Transform):
    """GLoRA: ``W + scale * (W @ a1 @ a2 + b1 @ b2)`` (Chavan et al. 2023, LyCORIS)."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    scale: float

    def trained(self, weight: Tensor) -> Tensor:
        """``W + scale * (W @ a1 @ a2 + b1 @ b2)``."""
        change = weight @ self.a1.float() @ self.a2.float() + self.b1.float() @ self.b2.float()
        return weight + change * self.scale


class Glora(Algorithm):
    """LyCORIS' GLoRA, without its Tucker form for convolutions."""

    name = "GLoRA"
    endings = {f"{name} weight": f"glora_{name}" for name in ("a1", "a2", "b1", "b2", "bm")}
    required = factors = ("glora_a1", "glora_a2", "glora_b1", "glora_b2")
    unsupported = {"glora_bm": "Tucker GLoRA"}

    def _read(self, given: Given) -> GeneralizedLora:
        a1, a2, b1, b2 = given.matrices(*self.factors)
        return GeneralizedLora(a1, a2, b1, b2, given.scale)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        (columns, ra), (ra2, columns2), (rows, rb), (rb2, columns3) = (
            matrix(shapes[role]) for role in self.factors
        )
        if (ra, rb) != (ra2, rb2) or len({columns, columns2, columns3}) != 1:
            raise Unfit("has GLoRA factors that do not fit each other")
        return Geometry(rows, columns, ra)

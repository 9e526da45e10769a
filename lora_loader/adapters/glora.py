"""GLoRA: a LoRA and, in front of it, a LoRA of the weight's own input (Chavan et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .base import Algorithm, Geometry, Given, Shape, Transform, Unfit, matrix


@dataclass(frozen=True, eq=False)
class GeneralizedLora(Transform):
    """GLoRA: ``W + scale * (W @ a1 @ a2 + b1 @ b2)`` (Chavan et al. 2023, LyCORIS)."""

    kind = "GLoRA"

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

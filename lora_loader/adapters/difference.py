"""Full differences: the change of a weight or a bias itself, without factors."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .base import Additive, Algorithm, Geometry, Given, Shape, matrix


@dataclass(frozen=True, eq=False)
class Dense(Additive):
    """A full change of the weight: ComfyUI's and LyCORIS' ``.diff``, norms, full-rank LoRA."""

    kind = "full difference"
    by_row = ("diff",)

    diff: Tensor
    scale: float

    def dense(self) -> Tensor:
        """``scale * diff``."""
        return self.diff.float() * self.scale

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """Add rows of the change as they are."""
        weight.add_(self.diff[first : first + weight.shape[0]], alpha=self.scale * strength)


class Difference(Algorithm):
    """``.diff`` of a weight or a norm (ComfyUI, LyCORIS ``full``)."""

    name = "full difference"
    endings = {"diff": "diff", "w norm": "diff", "set weight": "set_weight"}
    required = ("diff",)
    unsupported = {"set_weight": "a replaced weight"}
    fits_norm = True

    def _read(self, given: Given) -> Dense:
        diff = given.tensors["diff"]
        return Dense(diff if given.columns is None else diff.flatten(1), 1.0)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        shape = shapes["diff"]
        return Geometry(shape[0], None) if len(shape) == 1 else Geometry(*matrix(shape))


class Bias(Algorithm):
    """The change of a module's bias alone: ``.diff_b``, or PEFT's ``lora_B.bias``."""

    name = "bias"
    endings = {"diff b": "diff_b", "b norm": "diff_b"}

    def check(self, geometry: Geometry, target: Shape) -> None:
        """Any module may have a bias; whether this one has is known later."""

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        return Geometry(None, None) if {"up_bias", "diff_b"} & shapes.keys() else None

"""IA3: the inputs or outputs of a weight scaled one by one (Liu et al. 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .base import Algorithm, Geometry, Given, Shape, Transform, Unfit, matrix


@dataclass(frozen=True, eq=False)
class ChannelScale(Transform):
    """IA3: ``W * (1 + v)`` (Liu et al. 2022); ``change`` is (out, 1) or (1, in)."""

    kind = "IA3"

    change: Tensor

    def trained(self, weight: Tensor) -> Tensor:
        """``W * (1 + v)``."""
        return weight * (1 + self.change.float())


class LycorisIa3(Algorithm):
    """LyCORIS' IA3, which keeps the scale's difference from 1."""

    name = "IA3"
    endings = {"on input": "on_input"}
    numbers = ("on_input",)

    def _read(self, given: Given) -> ChannelScale:
        on_input = bool(given.number("on_input"))
        change = given.tensors["weight"].reshape(-1)
        if change.numel() != (given.columns if on_input else given.rows):
            side = "inputs" if on_input else "outputs"
            raise Unfit(
                f"scales {change.numel()} {side} of a weight of {given.rows} x {given.columns}"
            )
        return ChannelScale(change.reshape(1, -1) if on_input else change.reshape(-1, 1))

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        return Geometry(None, None) if shapes.keys() >= {"on_input", "weight"} else None


class PeftIa3(Algorithm):
    """PEFT's IA3, which keeps the scale itself."""

    name = "IA3"
    endings = {"ia3 l": "ia3_l"}
    required = ("ia3_l",)

    def _read(self, given: Given) -> ChannelScale:
        return ChannelScale(given.tensors["ia3_l"].float() - 1)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        rows, columns = matrix(shapes["ia3_l"])
        if 1 not in (rows, columns):
            raise Unfit(f"has an IA3 vector of shape {list(shapes['ia3_l'])}")
        return Geometry(rows if rows > 1 else None, columns if columns > 1 else None)

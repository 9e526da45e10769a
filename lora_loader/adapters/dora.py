"""DoRA: the magnitude of each row or column trained beside the change (Liu et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Additive, Algorithm, Given, Shape, Transform, Unfit, Unpaired


@dataclass(frozen=True, eq=False)
class Dora(Transform):
    """DoRA: ``m * (W + D) / ||W + D||`` (Liu et al. 2024), D from one additive adapter.

    ``magnitude`` is (out, 1) with norms over each row (PEFT, ai-toolkit, LyCORIS), or (1, in) with
    norms over each column (OneTrainer's default).
    """

    kind = "DoRA"

    delta: Additive
    magnitude: Tensor

    def trained(self, weight: Tensor) -> Tensor:
        """``m * (W + D) / ||W + D||``."""
        moved = weight + self.delta.dense()
        axis = 1 if self.magnitude.shape[1] == 1 else 0
        norm = moved.norm(dim=axis, keepdim=True)
        return moved * (self.magnitude.float() / norm.clamp_min(torch.finfo(norm.dtype).tiny))


class Magnitude(Algorithm):
    """The magnitude of a DoRA: it makes another algorithm's change one, and is none alone."""

    name = "DoRA"
    named_endings = {"lora magnitude vector": "magnitude"}
    endings = {"magnitude": "magnitude", "dora scale": "dora_scale"}
    companions = ("magnitude", "dora_scale")

    def _geometry(self, shapes: Mapping[str, Shape]) -> None:
        if not shapes.keys().isdisjoint(self.companions):
            raise Unpaired("has a DoRA magnitude but no LoRA factors")


def read_magnitude(given: Given) -> Tensor:
    """The magnitude as (rows, 1) or (1, columns); PEFT and ai-toolkit write one per row."""
    rows, columns = given.rows, given.columns
    if "magnitude" in given.tensors:
        magnitude = given.tensors["magnitude"]
        if magnitude.numel() != rows:
            raise Unfit(f"has a DoRA magnitude of {magnitude.numel()} for {rows} rows")
        return magnitude.reshape(-1, 1)
    scale = given.tensors["dora_scale"]
    shape = tuple(scale.flatten(1).shape) if scale.ndim > 1 else ()
    if shape == (rows, 1) or (scale.ndim == 1 and scale.numel() == rows != columns):
        return scale.reshape(-1, 1)
    if shape == (1, columns) or (scale.ndim == 1 and scale.numel() == columns != rows):
        return scale.reshape(1, -1)
    raise Unfit(f"has a dora_scale of shape {list(scale.shape)} for a weight of {rows} x {columns}")

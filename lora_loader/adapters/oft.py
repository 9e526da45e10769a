"""The OFT family: blocks of the weight's rows or inputs turned (Qiu et al. 2023, 2025)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...flux2.variants import PREFIX
from .base import Algorithm, Geometry, Given, NotFinite, Shape, Transform, Unfit, matrix


@dataclass(frozen=True, eq=False)
class BlockRotation(Transform):
    """Diag-OFT: each block of rows turned by its own rotation (LyCORIS ``diag-oft``).

    ``blocks`` (n, s, s) with out = n * s; or (m, n, s, s), the stages of BOFT: rotations of
    butterfly-permuted rows (Liu et al. 2023). ``limit`` bounds the norm of their skew part (0:
    none). ``rescale`` (out, 1) or None scales the rows afterwards.
    """

    kind = "OFT"

    blocks: Tensor
    rescale: Tensor | None
    limit: float

    def trained(self, weight: Tensor) -> Tensor:
        """The weight with its rows turned and scaled."""
        turns, columns = cayley(self.blocks.float(), self.limit), weight.shape[1]
        if turns.ndim == 3:
            count, size, _ = turns.shape
            turned = torch.einsum("knm,kni->kmi", turns, weight.reshape(count, size, -1))
        else:
            turned = weight
            for stage, turn in enumerate(turns):
                stride = 2**stage * (turn.shape[-1] // 2)
                paired = turned.reshape(-1, 2, stride, columns).transpose(1, 2)
                turned = turn @ paired.reshape(turn.shape[0], turn.shape[1], columns)
                turned = turned.reshape(-1, stride, 2, columns).transpose(1, 2)
        turned = turned.reshape(weight.shape)
        return turned if self.rescale is None else turned * self.rescale.float().reshape(-1, 1)


@dataclass(frozen=True, eq=False)
class InputRotation(Transform):
    """OFTv2: the input turned block by block, ``W @ R^T`` (Qiu et al. 2025, OneTrainer ``OFT_2``).

    ``vectors`` (n, s(s-1)/2) hold the upper triangles, n = in / s or 1 where all blocks share one;
    ``divisor`` is 1, or what "scaled OFT" divides them by.
    """

    kind = "OFT"

    vectors: Tensor
    divisor: float

    def trained(self, weight: Tensor) -> Tensor:
        """``W @ R^T``."""
        size = block_size(self.vectors.shape[1])
        upper = torch.triu_indices(size, size, 1, device=weight.device)
        skew = weight.new_zeros(self.vectors.shape[0], size, size)
        skew[:, upper[0], upper[1]] = self.vectors.float() / self.divisor
        skew = skew - skew.transpose(1, 2)
        # The Cayley transform's Neumann series as the trainer cuts it: 1 + 2Q + 2Q^2 + 2Q^3 + Q^4.
        square = skew @ skew
        turn = torch.eye(size, device=weight.device) + 2 * (skew + square + square @ skew)
        turn = turn + square @ square
        blocks = weight.reshape(weight.shape[0], -1, size)
        turn = turn.expand(blocks.shape[1], size, size)
        return torch.einsum("okc,krc->okr", blocks, turn).reshape(weight.shape)


def cayley(blocks: Tensor, limit: float) -> Tensor:
    """Rotations ``(I + Q)(I - Q)^-1``, ``Q = B - B^T`` (..., s, s) of norm at most ``limit``."""
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = skew.norm() + 1e-8
        skew = skew * (limit / norm).clamp_max(1.0)
    eye = torch.eye(skew.shape[-1], device=skew.device, dtype=skew.dtype)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def block_size(elements: int) -> int:
    """s for the s(s-1)/2 elements of a triangle; 0 where there is no such s."""
    size = (1 + math.isqrt(1 + 8 * elements)) // 2
    return size if size * (size - 1) // 2 == elements else 0


class Oft(Algorithm):
    """LyCORIS' diag-OFT. ``alpha`` is its constraint, the bound of the skew part's norm."""

    name = "OFT"
    endings = {"oft blocks": "oft_blocks", "rescale": "rescale"}
    required = ("oft_blocks",)
    companions = ("rescale",)

    def _read(self, given: Given) -> BlockRotation:
        limit = given.number("alpha") if "alpha" in given.tensors else 0.0
        # LyCORIS bounds the rotation by alpha x the output width, ComfyUI's trainer by alpha.
        limit *= 1 if given.stem.startswith(PREFIX) else given.rows
        if not math.isfinite(limit):
            raise NotFinite("has an alpha that is NaN or infinite")
        rescale = given.tensors.get("rescale")
        if rescale is not None and rescale.numel() != given.rows:
            raise Unfit(f"rescales {rescale.numel()} rows of {given.rows}")
        return BlockRotation(given.tensors["oft_blocks"], rescale, limit)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        shape = shapes["oft_blocks"]
        if len(shape) not in (3, 4) or shape[-1] != shape[-2] or shape[-1] < 2:
            raise Unfit(f"has OFT blocks of shape {list(shape)}")
        return Geometry(shape[-3] * shape[-1], None, shape[-1])


class Boft(Oft):
    """LyCORIS' BOFT, which is told by its blocks' fourth dimension, the stages."""

    name = "BOFT"

    def _read(self, given: Given) -> BlockRotation:
        rows = super()._read(given)
        stages, _, size, _ = rows.blocks.shape
        if size % 2 or given.rows % (2**stages * (size // 2)):
            raise Unfit(f"has {stages} butterfly stages, too many for {given.rows} rows")
        return rows

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        return super()._geometry(shapes) if len(shapes["oft_blocks"]) == 4 else None


class OftV2(Algorithm):
    """OneTrainer's OFT_2 and PEFT's OFT: triangles of skew matrices that turn the input."""

    name = "OFTv2"
    endings = {
        "oft r weight": "oft_r", "oft r scaled oft": "scaled_oft", "scaled oft": "scaled_oft",
    }  # fmt: skip
    required = ("oft_r",)
    companions = numbers = ("scaled_oft",)

    def _read(self, given: Given) -> InputRotation:
        (vectors,), columns = given.matrices("oft_r"), given.columns
        count, size = vectors.shape[0], block_size(vectors.shape[1])
        if columns is None or columns % size or count not in (1, columns // size):
            raise Unfit(f"has OFT blocks of {size} for a width of {columns}")
        # OneTrainer PR #1315: 2 sqrt(s - 1).
        divisor = 2 * math.sqrt(size - 1) if "scaled_oft" in given.tensors else 1.0
        return InputRotation(vectors, divisor)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        count, elements = matrix(shapes["oft_r"])
        size = block_size(elements)
        if size < 2:
            raise Unfit(f"has OFT vectors of {elements} elements, which is no triangle of a matrix")
        return Geometry(None, count * size if count > 1 else None)

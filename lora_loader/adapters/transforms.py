"""Adapters whose effect depends on the weight itself: DoRA, the OFT family, GLoRA, IA3.

Each gives the trained weight for a float32 weight (out, in). At scale s the weight becomes
``W + s * (trained(W) - W)``: 0 is the base, 1 is the trainer's own maths. In a stack their order
matters: each sees the weight as the entries before it left it.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .additive import Additive


@dataclass(frozen=True, eq=False)
class Dora:
    """DoRA: ``m * (W + D) / ||W + D||`` (Liu et al. 2024), D from one additive adapter.

    ``magnitude`` is (out, 1) with norms over each row (PEFT, ai-toolkit, LyCORIS), or (1, in) with
    norms over each column (OneTrainer's default).
    """

    delta: Additive
    magnitude: Tensor

    def trained(self, weight: Tensor) -> Tensor:
        moved = weight + self.delta.dense()
        axis = 1 if self.magnitude.shape[1] == 1 else 0
        norm = moved.norm(dim=axis, keepdim=True)
        return moved * (self.magnitude.float() / norm.clamp_min(torch.finfo(norm.dtype).tiny))

    def rolled(self) -> "Dora":
        magnitude = self.magnitude
        if magnitude.shape[1] == 1:
            magnitude = torch.roll(magnitude, magnitude.shape[0] // 2, dims=0)
        return Dora(self.delta.rolled(), magnitude)


@dataclass(frozen=True, eq=False)
class BlockRotation:
    """Diag-OFT: each block of rows turned by its own rotation (LyCORIS ``diag-oft``).

    ``blocks`` (n, s, s) with out = n * s; ``limit`` bounds the norm of the skew part (0: none);
    ``rescale`` (out, 1) or None scales the rows afterwards.
    """

    blocks: Tensor
    rescale: Tensor | None
    limit: float
    swapped: bool = False

    def trained(self, weight: Tensor) -> Tensor:
        weight = _roll_if(weight, self.swapped)
        turn = cayley(self.blocks.float(), self.limit)
        count, size, _ = turn.shape
        turned = torch.einsum("knm,kni->kmi", turn, weight.reshape(count, size, -1))
        return _roll_if(_rescaled(turned.reshape(weight.shape), self.rescale), self.swapped)

    def rolled(self) -> "BlockRotation":
        return replace(self, swapped=not self.swapped)


@dataclass(frozen=True, eq=False)
class Butterfly:
    """BOFT: stages of block rotations over butterfly-permuted rows (Liu et al. 2023, LyCORIS).

    ``blocks`` (m, n, s, s) with out = n * s.
    """

    blocks: Tensor
    rescale: Tensor | None
    limit: float
    swapped: bool = False

    def trained(self, weight: Tensor) -> Tensor:
        result = _roll_if(weight, self.swapped)
        turns = cayley(self.blocks.float(), self.limit)
        half = turns.shape[-1] // 2
        columns = weight.shape[1]
        for stage, turn in enumerate(turns):
            stride = 2**stage * half
            paired = result.reshape(-1, 2, stride, columns).transpose(1, 2)
            turned = turn @ paired.reshape(turn.shape[0], turn.shape[1], columns)
            result = turned.reshape(-1, stride, 2, columns).transpose(1, 2).reshape(weight.shape)
        return _roll_if(_rescaled(result, self.rescale), self.swapped)

    def rolled(self) -> "Butterfly":
        return replace(self, swapped=not self.swapped)


@dataclass(frozen=True, eq=False)
class InputRotation:
    """OFTv2: the input turned block by block, ``W @ R^T`` (Qiu et al. 2025, OneTrainer ``OFT_2``).

    ``vectors`` (n, s(s-1)/2) hold the upper triangles, n = in / s or 1 where all blocks share one;
    ``divisor`` is 1, or what "scaled OFT" divides them by.
    """

    vectors: Tensor
    divisor: float

    def trained(self, weight: Tensor) -> Tensor:
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

    def rolled(self) -> "InputRotation":
        return self


@dataclass(frozen=True, eq=False)
class GeneralizedLora:
    """GLoRA: ``W + scale * (W @ a1 @ a2 + b1 @ b2)`` (Chavan et al. 2023, LyCORIS)."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    scale: float

    def trained(self, weight: Tensor) -> Tensor:
        change = weight @ self.a1.float() @ self.a2.float() + self.b1.float() @ self.b2.float()
        return weight + change * self.scale

    def rolled(self) -> "GeneralizedLora":
        return replace(self, b1=torch.roll(self.b1, self.b1.shape[0] // 2, dims=0))


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """IA3: ``W * (1 + v)`` (Liu et al. 2022); ``change`` is (out, 1) or (1, in)."""

    change: Tensor

    def trained(self, weight: Tensor) -> Tensor:
        return weight * (1 + self.change.float())

    def rolled(self) -> "ChannelScale":
        if self.change.shape[1] != 1:
            return self
        return ChannelScale(torch.roll(self.change, self.change.shape[0] // 2, dims=0))


Transform = Dora | BlockRotation | Butterfly | InputRotation | GeneralizedLora | ChannelScale


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


def _rescaled(weight: Tensor, rescale: Tensor | None) -> Tensor:
    return weight if rescale is None else weight * rescale.float().reshape(-1, 1)


def _roll_if(weight: Tensor, swapped: bool) -> Tensor:
    return torch.roll(weight, weight.shape[0] // 2, dims=0) if swapped else weight

"""LoRA: two factors of low rank (Hu et al. 2021), a third between them (LoCon), or one whole."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Additive, Algorithm, Geometry, Given, Shape, Unfit, Unpaired, matrix
from .difference import Dense


@dataclass(frozen=True, eq=False)
class LowRank(Additive):
    """LoRA: ``scale * up @ down`` (Hu et al. 2021); up (out, r), down (r, in).

    ``gain`` is a power of two that evens out the factors' sizes where they must become float16.
    """

    kind = "LoRA"
    by_row = ("up",)
    by_all = ("down",)

    up: Tensor
    down: Tensor
    scale: float
    gain: float = 1.0

    def dense(self) -> Tensor:
        """``scale * up @ down``."""
        return (self.up.float() @ self.down.float()) * self.scale

    def add_to(self, weight: Tensor, strength: float, first: int = 0) -> None:
        """One pass over the weight; accumulates in float32 and rounds once."""
        up, down = self.up[first : first + weight.shape[0]], self.down
        if weight.dtype == torch.float16 and self.gain != 1.0:
            up, down = up.float() * self.gain, down.float() / self.gain
        if weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float16):
            # A GPU's sum takes wider factors rounded: 1.002 of the least noise, and no copy.
            ups, downs = _pieces(up, weight.dtype), _pieces(down, weight.dtype)
            pairs = [(u, d) for i, u in enumerate(ups) for d in downs[: 2 - i]]
            up, down = torch.cat([u for u, _ in pairs], 1), torch.cat([d for _, d in pairs])
        weight.addmm_(up.to(weight.dtype), down.to(weight.dtype), alpha=self.scale * strength)


def _pieces(factor: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """``factor`` in a 16-bit ``dtype``, and what that rounds off of a wider one, likewise."""
    rounded = factor.to(dtype)
    return [rounded] if factor.dtype == dtype else [rounded, (factor - rounded).to(dtype)]


class Lora(Algorithm):
    """LoRA and LoCon, as kohya, PEFT and diffusers spell them."""

    name = "LoRA"
    name_with_dora = "DoRA"
    peft_type = "LORA"
    named_endings = {
        "lora a": "down", "lora down": "down", "lora linear layer down": "down",
        "lora b": "up", "lora up": "up", "lora linear layer up": "up", "lora mid": "mid",
    }  # fmt: skip
    endings = {
        "alpha": "alpha", "reshape weight": "reshape",
        "q layer weight": "tlora_q", "p layer weight": "tlora_p", "lambda layer": "tlora_lambda",
    }  # fmt: skip
    required = ("down", "up")
    factors = ("down", "up", "mid")
    companions = numbers = ("alpha", "reshape")
    unsupported = dict.fromkeys(
        ("tlora_q", "tlora_lambda"), "T-LoRA, whose effect depends on the timestep"
    )

    def _read(self, given: Given) -> LowRank:
        up, down = given.matrices("up", "down")
        if "mid" in given.tensors:
            down = given.matrices("mid")[0].float() @ down.float()
        large, small = (max(given.peaks[role], 2.0**-60) for role in ("up", "down"))
        return LowRank(up, down, given.scale, gain=2.0 ** round(math.log2(small / large) / 2))

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry:
        (rank, columns), (rows, up_rank) = matrix(shapes["down"]), matrix(shapes["up"])
        if "mid" in shapes:
            mid = matrix(shapes["mid"])
            if mid != (up_rank, rank):
                raise Unfit(f"has a middle factor {list(mid)} that fits neither of its others")
        elif rank != up_rank:
            raise Unfit(f"has factors of rank {rank} and {up_rank}")
        if not rank:
            raise Unfit("has factors of rank 0")
        return Geometry(rows, columns, rank)


class FullRankLora(Algorithm):
    """ai-toolkit's "fullrank": the whole change under the name of the first factor."""

    name = "full-rank LoRA"
    required = ("down",)

    def check(self, geometry: Geometry, target: Shape) -> None:
        """Raises Unpaired where it is half of a LoRA, which the weight's shape tells."""
        if geometry[:2] != target:
            raise Unpaired("has down but not up")

    def _read(self, given: Given) -> Dense:
        return Dense(given.matrices("down")[0], 1.0)

    def _geometry(self, shapes: Mapping[str, Shape]) -> Geometry | None:
        return None if "up" in shapes else Geometry(*matrix(shapes["down"]))

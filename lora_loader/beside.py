"""What a stack computes beside one weight: y = Wx + B(Ax), the LoRAs' factors side by side.

Torch only. All factors of a weight lie in one flat tensor, which moves between devices in one go;
the LoRAs' scales lie apart from it, so that a moved slider changes a few numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .adapters.base import Transform
from .adapters.difference import Dense
from .adapters.loha import Hadamard
from .adapters.lokr import Kronecker
from .adapters.lora import LowRank
from .fuse import StackedLora, Step
from .modifiers.region import Region

MOST_RANK = 256
"""The largest rank of a LoHa that is computed beside its weight, as the plain LoRA it equals."""


class NotBesideError(ValueError):
    """What multiplies a LoRA within a run meets a part that must be added to the weight."""


def split(
    stack: Sequence[StackedLora], multiplying: frozenset[str]
) -> tuple[list[StackedLora], list[StackedLora]]:
    """(what can be computed beside its weight, what must be added to it).

    ``multiplying`` are the weights whose modules multiply by them. A weight that an adapter depends
    on (DoRA, OFT) is added to whole, so that the order of its steps stays; but what is modified
    goes beside it where it comes after. The first list holds every LoRA of the stack, if need be
    without steps: what is left of one depends on the others.

    Raises NotBesideError where a modified LoRA has to be added.
    """
    last = {
        key: number
        for number, lora in enumerate(stack)
        for key, step in lora.steps
        if isinstance(step.effect, Transform)
    }
    beside, added = [], []
    for number, lora in enumerate(stack):
        goes: list[tuple[str, Step]] = []
        stays: list[tuple[str, Step]] = []
        for key, step in lora.steps:
            able = key in multiplying and _factors(step.effect)
            held = last.get(key, -1) > (number if lora.modifiers else -1)
            fits = able and not held
            if lora.modifiers and not fits:
                _refuse(lora, key, step, stack[last[key]].name if able else "")
            (goes if fits else stays).append((key, step))
        beside.append(replace(lora, steps=tuple(goes)))
        added.append(replace(lora, steps=tuple(stays)))
    return beside, [lora for lora in added if lora.steps]


def _factors(effect: object) -> bool:
    """Whether an effect is a product of factors that are worth being beside the weight."""
    if isinstance(effect, Hadamard):
        return effect.rank <= MOST_RANK
    return isinstance(effect, LowRank | Kronecker)


def _refuse(lora: StackedLora, key: str, step: Step, before: str) -> NoReturn:
    """``before``: the LoRA that depends on the weight and comes after this one; or ""."""
    kinds = {"a region" if isinstance(one, Region) else "a schedule" for one in lora.modifiers}
    what = " and ".join(sorted(kinds))
    if before:
        raise NotBesideError(
            f"{lora.name} has {what} and stands before {before}, which depends on the weights that "
            f"it changes ({key}). Put it behind {before} in the stack."
        )
    kind = step.effect.kind
    if kind == Hadamard.kind:
        kind += f" of a rank whose square is over {MOST_RANK}"
    elif kind == Dense.kind:
        kind = f"a change of {'a bias' if key.endswith('bias') else 'the whole weight'}"
    raise NotBesideError(
        f"{lora.name} has {what}, and is {kind} on {key}: that changes the weight itself, which "
        f"stays as it is for the whole run and picture. Remove {what} from this LoRA, or use a "
        "plain LoRA or LoKr."
    )


class Gain(NamedTuple):
    """A gain is ``coefficient`` times the scale of the stack's LoRA number ``lora``."""

    coefficient: float
    lora: int


@dataclass(frozen=True)
class Beside:
    """The layout of one weight's factors: matrices of these ``shapes``, one behind the other.

    Of plain LoRAs, where there are any, ``down`` (rank, columns), then one ``up`` for each of the
    row slices that begin at ``starts``, which takes the next columns of ``x @ down``. Of Kronecker
    ``products``, each (first row, number of factors), left, then right: one, or two to multiply.

    The gains are first those of the columns of ``x @ down``, then one a product.
    """

    shapes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    products: tuple[tuple[int, int], ...]
    gains: tuple[Gain, ...]

    def add_to(self, y: Tensor, x: Tensor, factors: Tensor, gains: Tensor) -> Tensor:
        """``y`` (..., rows) plus what the stack makes of ``x`` (..., columns), in place where it
        can. ``factors`` is flat, of x's type and device; ``gains``, float32 there, are a number
        for each, for all of x or (..., numbers) as x's dimensions.
        """
        inputs = x.reshape(-1, x.shape[-1])
        outputs = y.reshape(-1, y.shape[-1])
        pieces = factors.split([rows * columns for rows, columns in self.shapes])
        matrices = [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        rank = 0
        if self.starts:
            after = 1 + len(self.starts)
            down, ups, matrices = matrices[0], matrices[1:after], matrices[after:]
            rank = down.shape[0]
            hidden = F.linear(inputs, down)
            # In place: computed in float32, rounded once to the type of ``hidden``.
            hidden.view(*x.shape[:-1], rank).mul_(gains[..., :rank])
            owned = hidden.split([up.shape[1] for up in ups], dim=1)
            for start, up, own in zip(self.starts, ups, owned, strict=True):
                rows = outputs.narrow(1, start, up.shape[0])
                if rows.dtype == own.dtype:
                    rows.addmm_(own, up.t())
                else:
                    rows.add_(F.linear(own, up))
        for place, (start, count) in enumerate(self.products, rank):
            change = _kronecker(inputs, *matrices[:count])
            matrices = matrices[count:]
            rows = outputs.narrow(1, start, change.shape[1])
            change.view(*x.shape[:-1], -1).mul_(gains[..., place : place + 1])
            rows.add_(change)
        return outputs.view(y.shape)


def _kronecker(inputs: Tensor, left: Tensor, *right: Tensor) -> Tensor:
    """kron(left, right) @ x without the product: right on the inner, left on the outer index."""
    inner = inputs.reshape(-1, left.shape[1], right[-1].shape[1])
    for matrix in reversed(right):
        inner = F.linear(inner, matrix)
    return torch.matmul(left, inner).flatten(1)


def build(steps: Sequence[tuple[int, Step]], dtype: torch.dtype) -> tuple[Beside, Tensor]:
    """The layout and the factors, in ``dtype``, of (LoRA's number, step) pairs on one weight; every
    effect is a LowRank, a Kronecker, or a Hadamard."""
    groups: dict[tuple[int, int], list[tuple[Gain, Tensor, Tensor]]] = {}
    kronecker: list[Tensor] = []
    kronecker_gains, products = [], []
    for lora, step in steps:
        effect = step.effect
        if isinstance(effect, LowRank | Hadamard):
            member = (Gain(step.scale * effect.scale, lora), *_balanced(effect, dtype))
            groups.setdefault((step.start, step.rows), []).append(member)
        elif isinstance(effect, Kronecker):
            factors = _cheapest(effect)
            kronecker += factors
            products.append((step.start, len(factors)))
            kronecker_gains.append(Gain(step.scale * effect.scale, lora))
    # Slice by slice, so that the columns that a slice takes lie side by side.
    members = [member for group in groups.values() for member in group]
    gains = [gain for gain, _, down in members for _ in range(down.shape[0])]
    matrices = [torch.cat([down for _, _, down in members])] if members else []
    matrices += [torch.cat([up for _, up, _ in group], dim=1) for group in groups.values()]
    matrices += kronecker
    shapes = tuple((matrix.shape[0], matrix.shape[1]) for matrix in matrices)
    starts = tuple(start for start, _ in groups)
    flat = torch.cat([matrix.to(dtype).reshape(-1) for matrix in matrices])
    return Beside(shapes, starts, tuple(products), (*gains, *kronecker_gains)), flat


def _balanced(effect: LowRank | Hadamard, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors in ``dtype``; float16 holds them only when they are of like size."""
    if isinstance(effect, Hadamard):
        effect = effect.as_low_rank()
    up, down = effect.up, effect.down
    if dtype == torch.float16 and effect.gain != 1.0:
        up, down = up.float() * effect.gain, down.float() / effect.gain
    return up.to(dtype), down.to(dtype)


def _cheapest(effect: Kronecker) -> tuple[Tensor, ...]:
    """Left, and right as one matrix, or as its two factors where these have fewer numbers."""
    product = effect.prepared()
    (left,), (right,) = product.left, product.right
    if sum(factor.numel() for factor in effect.right) < right.numel():
        return (left, *effect.right)
    return left, right

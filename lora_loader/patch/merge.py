"""A plan added to the weights: ONE patch a weight, whatever the stack holds.

The host keeps, moves, prefetches and removes it like a patch of its own: nothing of the model or of
the host is replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from comfy import model_management
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ..adapters import Additive, Transform, blocks
from ..fuse import Plan, Step
from .model import PatchError
from .stock_form import StockPatch, stock_patches

_WIDE = (torch.float32, torch.float64)
_FUSED = (torch.bfloat16, torch.float16)
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for base in (Additive, Transform)
    for family in base.__subclasses__()
    for kind in (family, *family.__subclasses__())
}


def merge(model: Any, plan: Plan) -> Any:
    """A clone of ``model`` with the plan as patches. Raises PatchError where it takes none."""
    clone = model.clone()
    patches = {key: FusedAdapter(set(), pack(steps)) for key, steps in plan.items()}
    taken = set(clone.add_patches(patches, 1.0))
    if len(taken) != len(patches):
        left = sorted(patches.keys() - taken)
        raise PatchError(
            f"The model takes no patch for {len(left)} of its weights ({left[0]}). A node before "
            "this one has replaced them; load the model with a stock loader."
        )
    return clone


class FusedAdapter(WeightAdapterBase):
    """All of a stack that one weight takes, applied in one go.

    ``weights`` is nested tuples of tensors, numbers and strings: the host copies the tensors to the
    device where it likes and rebuilds the adapter as ``type(self)(loaded_keys, weights)``.
    """

    name = "flux2_lora_stack"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @torch.no_grad()
    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: tuple[int, int, int] | None,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """Apply every step to ``weight`` in place; strength_model and offset are done already."""
        steps = unpack(_on(weight.device, self.weights))
        if not _is_identity(function, weight):
            changed = weight.to(torch.float32, copy=True)
            _apply(steps, changed, strength)
            weight += function(changed - weight.float()).to(weight.dtype)
            return weight
        additive_only = all(isinstance(step.effect, Additive) for step in steps)
        if additive_only or weight.dtype in _WIDE:
            _apply(steps, weight, strength)
            return weight
        changed = weight.float()
        _apply(steps, changed, strength)
        return weight.copy_(changed)

    def as_stock(self) -> list[StockPatch]:
        """The same change as the host's own patches, for packs that look into them.

        Raises PatchError where the host has none that is equal.
        """
        return stock_patches(unpack(self.weights))


def _apply(steps: Sequence[Step], weight: Tensor, strength: float) -> None:
    run: list[_Added] = []
    for step in steps:
        effect = step.effect
        scale = step.scale * strength
        if isinstance(effect, Additive):
            run.append(_Added(step.start, step.start + step.rows, scale, effect))
            continue
        _add(run, weight)
        run = []
        rows = weight.narrow(0, step.start, step.rows)
        before = rows.float()
        trained = effect.trained(before)
        rows.copy_(trained if scale == 1.0 else torch.lerp(before, trained, scale))
    _add(run, weight)


class _Added(NamedTuple):
    """An additive step on the rows ``start`` to ``end``."""

    start: int
    end: int
    scale: float
    effect: Additive


def _add(run: Sequence[_Added], weight: Tensor) -> None:
    """Add all of ``run``: every element is read, summed in float32 and rounded once."""
    if not _needs_blocks(run, weight):
        for start, end, scale, effect in run:
            effect.add_to(weight[start:end], scale)
        return
    ready = [added._replace(effect=added.effect.prepared()) for added in run]
    buffer = None
    for first, rows in blocks(weight):
        last = first + rows.shape[0]
        over = [added for added in ready if added.start < last and first < added.end]
        if not over:
            continue
        buffer = torch.empty_like(rows, dtype=torch.float32) if buffer is None else buffer
        block = buffer[: rows.shape[0]].copy_(rows)
        for start, end, scale, effect in over:
            top, bottom = max(first, start), min(last, end)
            effect.add_to(block[top - first : bottom - first], scale, top - start)
        rows.copy_(block)


def _needs_blocks(run: Sequence[_Added], weight: Tensor) -> bool:
    """Whether the sum is made in float32 beside the weight, a few rows at a time.

    A GPU's 16-bit ``addmm_`` sums in float32, so one step a row rounds once as it is. Two on the
    same rows would round twice; a type of 8 bits has no arithmetic; and a CPU without 16-bit matrix
    units multiplies float32 some 50 times faster than bfloat16 (``benchmarks/merge_time.py``).
    """
    if weight.dtype in _WIDE:
        return False
    if weight.dtype not in _FUSED or weight.device.type == "cpu":
        return True
    spans = sorted((added.start, added.end) for added in run)
    return any(one[1] > another[0] for one, another in pairwise(spans))


def _is_identity(function: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    """Whether the host's patch function leaves a change as it is; the probe takes no memory."""
    probe = torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape)
    return function(probe) is probe


def _on(device: torch.device, value: Any) -> Any:
    if isinstance(value, Tensor):
        return model_management.cast_to_device(value, device, value.dtype)
    if isinstance(value, tuple):
        return tuple(_on(device, item) for item in value)
    return value


def pack(steps: tuple[Step, ...]) -> tuple[Any, ...]:
    """Steps as nested tuples; ``unpack`` is its inverse."""
    return tuple((step.start, step.rows, step.scale, _pack_effect(step.effect)) for step in steps)


def unpack(packed: tuple[Any, ...]) -> tuple[Step, ...]:
    return tuple(
        Step(start, rows, scale, _unpack_effect(effect)) for start, rows, scale, effect in packed
    )


def _pack_effect(effect: Any) -> tuple[Any, ...]:
    values = (getattr(effect, field.name) for field in fields(effect))
    return (
        type(effect).__name__,
        *(_pack_effect(value) if is_dataclass(value) else value for value in values),
    )


def _unpack_effect(packed: tuple[Any, ...]) -> Any:
    kind, *values = packed
    return _KINDS[kind](
        *(
            _unpack_effect(value)
            if isinstance(value, tuple) and value and isinstance(value[0], str)
            else value
            for value in values
        )
    )

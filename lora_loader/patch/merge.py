"""A plan added to the weights: ONE patch a weight, whatever the stack holds.

The host keeps, moves, prefetches and removes it like a patch of its own: nothing of the model or of
the host is replaced.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from comfy import model_management
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ..adapters import additive, transforms
from ..fuse import Plan, Step
from .model import PatchError

_COMPUTED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for module in (additive, transforms)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind)
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
        if weight.dtype in _COMPUTED:
            _apply(steps, weight, strength)
            return weight
        changed = weight.float()
        _apply(steps, changed, strength)
        return weight.copy_(changed)


def _apply(steps: tuple[Step, ...], weight: Tensor, strength: float) -> None:
    for step in steps:
        rows = weight.narrow(0, step.start, step.rows)
        scale = step.scale * strength
        if isinstance(step.effect, additive.Additive):
            step.effect.add_to(rows, scale)
            continue
        before = rows.float()
        trained = step.effect.trained(before)
        rows.copy_(trained if scale == 1.0 else torch.lerp(before, trained, scale))


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

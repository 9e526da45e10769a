"""A stack added to the weights: ONE patch a weight, whatever the stack holds.

The host keeps, moves, prefetches and removes it like a patch of its own: nothing of the model or of
the host is replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate, groupby, pairwise
from typing import Any
from uuid import uuid4

import torch
from comfy import model_management
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ..adapters.base import Additive, blocks
from ..adapters.lora import LowRank
from ..fuse import Step

_WIDE = (torch.float32, torch.float64)
_FUSED = (torch.bfloat16, torch.float16)
# Of these, what this CPU multiplies in units of its own (AMX, AVX512-BF16, AVX512-FP16), summing in
# float32. A torch that cannot tell is taken to have none, which is as exact.
_CPU_UNITS = {
    dtype
    for dtype, ask in {
        torch.bfloat16: getattr(torch.cpu, "_is_avx512_bf16_supported", bool),
        torch.float16: getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", bool),
    }.items()
    if torch.backends.mkldnn.is_available() and ask()
}


class PatchError(ValueError):
    """A stack that this model cannot take; says why and what to do."""


COMPILED = "._orig_mod"
"""What torch.compile puts into the names of all that is in a module it wraps."""


def merge(model: Any, steps_by_weight: Mapping[str, tuple[Step, ...]]) -> Any:
    """A clone of ``model`` with the steps as patches. Raises PatchError where it takes none.

    The host finds a patch by the name that its weight has when ``model`` is loaded: a module that a
    node before has compiled is in it then, and what another branch has compiled is not. So it is
    ``model`` that is asked, not the modules as they lie there now, as ``add_patches`` would.
    """
    clone = model.clone()
    known = {name.replace(COMPILED, "") for name in clone.model.state_dict()}
    left = sorted(steps_by_weight.keys() - known)
    if left:
        raise PatchError(
            f"The model takes no patch for {len(left)} of its weights ({left[0]}). A node before "
            "this one has replaced them; load the model with a stock loader."
        )
    parents = [accumulate(key.split(".")[:-1], "{}.{}".format) for key in steps_by_weight]
    compiled = [
        place for place in sorted(set().union(*parents), reverse=True)
        # By its names: a pack may let the wrapper answer for what is in it.
        if "_orig_mod" in getattr(clone.get_model_object(place), "_modules", ())
    ]  # fmt: skip
    for key, steps in steps_by_weight.items():
        name = key
        for place in compiled:  # the innermost first
            if name.startswith(f"{place}."):
                name = place + COMPILED + name[len(place) :]
        patch = (1.0, FusedAdapter(set(), pack(steps)), 1.0, None, None)
        clone.patches[name] = [*clone.patches.get(name, ()), patch]
    clone.patches_uuid = uuid4()
    return clone


@dataclass(eq=False, repr=False)
class FusedAdapter(WeightAdapterBase):
    """All of a stack that one weight takes, applied in one go.

    ``weights`` are packed steps: the host copies the tensors in them to the device where it likes
    and rebuilds the adapter as ``type(self)(loaded_keys, weights)``.
    """

    loaded_keys: set[str]
    weights: tuple[Any, ...]
    name = "flux2_lora_stack"

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
        steps = [replace(s, scale=s.scale * strength) for s in _unpack(self.weights, weight.device)]
        # Mostly the host's function leaves a change as it is; the probe takes no memory.
        probe = torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape)
        plain = function(probe) is probe
        exact = weight.dtype in _WIDE or all(isinstance(step.effect, Additive) for step in steps)
        changed = weight if plain and exact else weight.to(torch.float32, copy=True)
        for additive, run in groupby(steps, lambda step: isinstance(step.effect, Additive)):
            if additive:
                _add([(step, step.effect) for step in run], changed)
                continue
            for step in run:
                rows = changed[step.start : step.end]
                before = rows.float()
                after = step.effect.trained(before)
                rows.copy_(after if step.scale == 1.0 else torch.lerp(before, after, step.scale))
        if not plain:
            weight += function(changed - weight.float()).to(weight.dtype)
        elif changed is not weight:
            weight.copy_(changed)
        return weight


def _add(run: Sequence[tuple[Step, Additive]], weight: Tensor) -> None:
    """Add all of ``run``: every element is read, summed in float32 and rounded once.

    Where one step a row does so by itself it adds in place; else the sum is made in float32 beside
    the weight, a few rows at a time.
    """
    if weight.dtype in _WIDE or _rounds_once(run, weight):
        for step, effect in run:
            effect.add_to(weight[step.start : step.end], step.scale)
        return
    ready = [(step, effect.prepared()) for step, effect in run]
    buffer = None
    for first, rows in blocks(weight):
        last = first + rows.shape[0]
        over = [one for one in ready if max(first, one[0].start) < min(last, one[0].end)]
        if not over:
            continue
        buffer = torch.empty_like(rows, dtype=torch.float32) if buffer is None else buffer
        block = buffer[: rows.shape[0]].copy_(rows)
        for step, effect in over:
            top, bottom = max(first, step.start), min(last, step.end)
            effect.add_to(block[top - first : bottom - first], step.scale, top - step.start)
        rows.copy_(block)


def _rounds_once(run: Sequence[tuple[Step, Additive]], weight: Tensor) -> bool:
    """Whether the steps can be added to a 16-bit weight as it is, no two of them to the same row.

    A GPU's 16-bit ``addmm_`` sums in float32. So does that of a CPU with 16-bit units, and about
    twice as fast as by float32 rows; others multiply float32 some 50 times faster than bfloat16
    (``benchmarks/merge_time.py``).
    """
    if weight.device.type != "cpu":
        able = weight.dtype in _FUSED
    else:
        able = weight.dtype in _CPU_UNITS and all(isinstance(e, LowRank) for _, e in run)
    spans = sorted((step.start, step.end) for step, _ in run)
    return able and all(one[1] <= another[0] for one, another in pairwise(spans))


def pack(value: Any) -> Any:
    """Steps as nested tuples, the host's prefetch walks no others: a dataclass as its class and
    the values of its fields, in their order."""
    if is_dataclass(value):
        return (type(value), *(pack(getattr(value, field.name)) for field in fields(value)))
    return tuple(map(pack, value)) if isinstance(value, tuple) else value


def _unpack(value: Any, device: torch.device) -> Any:
    """What was packed, with its tensors on ``device``."""
    if isinstance(value, Tensor):
        return model_management.cast_to_device(value, device, value.dtype)
    if not isinstance(value, tuple):
        return value
    items = [_unpack(item, device) for item in value]
    return items[0](*items[1:]) if items and isinstance(items[0], type) else tuple(items)

"""A stack onto a ComfyUI MODEL: what the MODEL tells of itself, the way to take, and taking it.

The only package here that knows the host.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from comfy import model_management
from torch import Tensor

from ...flux2.variants import PREFIX
from ..beside import split
from ..fuse import StackedLora, fuse
from ..modifiers.weights import weights_of
from .merge import COMPILED, PatchError, merge
from .side_path import SidePathCache, Strengths, Watch, put_beside

__all__ = ["MODES", "Applied", "History", "PatchError", "SidePathCache", "apply_stack"]

MERGE, SIDE_PATH = "merge", "side path"
MODES = ("auto", MERGE, SIDE_PATH)
_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Applied(NamedTuple):
    """The patched clone, the way that was taken ("merge", "side path", "none"), and why."""

    model: Any
    taken: str
    reason: str


def weight_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the diffusion model's weights and biases by the names in the model's file.

    Taken from the modules, where a quantised weight has its true shape, and through torch.compile's
    wrappers, wherever a node has put them.
    """
    shapes = {}
    for name, module in model.model.named_modules():
        if not name.startswith(PREFIX):
            continue
        for leaf in ("weight", "bias"):
            tensor = getattr(module, leaf, None)
            if isinstance(tensor, Tensor):
                shapes[f"{name}.{leaf}".replace(COMPILED, "")] = tuple(tensor.shape)
    return shapes


def model_file(model: Any) -> str:
    """The name of the file that the model came from, as far as the host remembers it; or ""."""
    loaded_by = getattr(model, "cached_patcher_init", None)
    source = loaded_by[1][0] if loaded_by and loaded_by[1] else ""
    return os.path.basename(source) if isinstance(source, str) else ""


def multiplying(model: Any, keys: Iterable[str]) -> frozenset[str]:
    """Those of the weights ``keys`` that belong to a module which multiplies by them."""
    found = set()
    for key in keys:
        name, _, leaf = key.rpartition(".")
        width = getattr(model.model.get_submodule(name), "in_features", None)
        if leaf == "weight" and width is not None:
            found.add(key)
    return frozenset(found)


def quantised(model: Any, keys: Iterable[str]) -> str:
    """The type of those of the weights ``keys`` that are coarser than 16 bit; or ""."""
    kinds: Counter[str] = Counter()
    for weight in (attrgetter(key)(model.model) for key in keys):
        if weight.dim() != 2:
            continue
        layout = getattr(weight, "_layout_cls", None)
        if layout is not None:
            # comfy_kitchen's tensors act as if they had the type that they stand for.
            kind = layout if isinstance(layout, str) else getattr(layout, "__name__", "")
            for noise in ("TensorCore", "TensorWise", "Layout"):
                kind = kind.replace(noise, "")
            kinds[kind.lower() or "quantised"] += 1
        elif hasattr(weight, "tensor_type"):  # city96's ComfyUI-GGUF
            kind = getattr(weight.tensor_type, "name", "GGUF")
            kinds.update(() if kind in ("BF16", "F16", "F32") else (kind,))
        elif weight.dtype not in _PLAIN:
            kinds[str(weight.dtype).removeprefix("torch.")] += 1
    return max(kinds, key=lambda kind: kinds[kind], default="")


def exceeds_memory(model: Any) -> bool:
    """Whether the model's weights cannot all be on the device that runs them."""
    if model_management.is_device_cpu(model.load_device):
        return False
    states = model_management.VRAMState
    if model_management.vram_state in (states.LOW_VRAM, states.NO_VRAM):
        return True
    total = model_management.get_total_memory(model.load_device)
    # Of the whole memory, not of what is free now: the same machine shall decide the same way.
    return bool(model.model_size() + model_management.minimum_inference_memory() > total)


_Settings = OrderedDict[tuple[Hashable, Hashable], tuple[str, str]]
"""(place, setting) -> (way, reason), the last used last."""


class History:
    """The last LoRA settings of each model, at most ``most``, and the way that each was given.

    A setting keeps its way, so that coming back to it gives the same picture. Models are held
    weakly.
    """

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self._models: WeakKeyDictionary[Any, _Settings] = WeakKeyDictionary()

    def choice(
        self,
        model: Any,
        place: Hashable,
        setting: Hashable,
        quantised: str = "",
        exceeds_memory: bool = False,
        weights_taken_by: str = "",
    ) -> tuple[str, str]:
        """The one rule of ``auto``: (the way to take, why, in words that follow "<way>: ").

        It is as before for a ``setting`` that the model has had at this ``place``, which tells
        several stacks on one model apart, and the nodes of parallel branches. ``quantised`` names
        the type of the adapted weights where it is coarser than 16 bit, or is "".
        ``exceeds_memory``: the model is larger than the memory of the GPU that runs it.
        ``weights_taken_by`` names what saves or mixes the weights.
        """
        if weights_taken_by:
            return MERGE, f"{weights_taken_by} takes the weights, so that the LoRAs must be in them"
        settings = self._models.setdefault(model, OrderedDict())
        changing = any(other == place for other, _ in settings)
        way, why = SIDE_PATH, ""
        if (place, setting) in settings:
            way, why = settings.pop((place, setting))
        elif quantised:
            why = f"the weights are {quantised}; beside them the LoRAs keep their precision"
        elif exceeds_memory:
            why = (
                "the model is larger than the GPU's memory; merged, it would be patched at every "
                "step"
            )
        elif changing:
            why = (
                "the LoRA settings are being changed, which touches no weight this way; mode merge "
                "saves a few per cent a step once they stay"
            )
        else:
            way = MERGE
            why = "the weights are 16 or 32 bit and in memory: one pass, and no cost at each step"
        settings[place, setting] = way, why
        while len(settings) > self.most:
            settings.popitem(last=False)
        return way, why


def apply_stack(
    model: Any,
    stack: Sequence[StackedLora],
    mode: str,
    *,
    side_paths: SidePathCache | None = None,
    history: History | None = None,
    node: Hashable = None,
    weights_taken_by: str = "",
    watch: Watch | None = None,
) -> Applied:
    """A clone of ``model`` with the LoRAs of ``stack`` on it; the model itself when there are none.

    ``side_paths`` are kept between runs, ``history`` the settings that ``auto`` compares: those
    that ``node`` had. ``weights_taken_by`` names what saves or mixes the clone's weights, which
    ``auto`` merges therefore. ``watch`` is given a side path's look at whether it has run.
    Raises PatchError for an unknown mode, and where the model takes no patch for a weight;
    NotBesideError where a LoRA that changes within the run cannot be beside a weight.
    """
    if mode not in MODES:
        raise PatchError(f"mode is '{mode}'; choose one of {', '.join(MODES)}.")
    stack = [lora for lora in stack if lora.scale != 0 and lora.steps]
    if not stack:
        return Applied(model, "none", "no LoRA changes the model")
    keys = sorted({key for lora in stack for key, _ in lora.steps})
    way, reason = mode, "asked for"
    if any(map(attrgetter("modifiers"), stack)):
        way, reason = SIDE_PATH, _only_beside(stack, mode, weights_taken_by)
    elif mode == "auto":
        setting = tuple((lora.identity, lora.scale) for lora in stack)
        place = (node, len(model.patches), len(model.additional_models))
        way, reason = (history or History()).choice(
            model.model, place, setting, quantised(model, keys), exceeds_memory(model),
            weights_taken_by,
        )  # fmt: skip
    if way == MERGE:
        return Applied(merge(model, fuse(stack)), MERGE, reason)
    return _beside(model, stack, keys, reason, side_paths or SidePathCache(), watch)


def _only_beside(stack: Sequence[StackedLora], mode: str, weights_taken_by: str) -> str:
    """Why a stack with a LoRA whose scale changes within a run is beside the weights; PatchError
    where it must be in them."""
    name = next(lora.name for lora in stack if lora.modifiers)
    if mode == MERGE or weights_taken_by:
        who = "mode merge puts" if mode == MERGE else f"{weights_taken_by} takes"
        raise PatchError(
            f"{name} has a schedule or a region, which no weight can hold, and {who} the LoRAs in "
            "the weights. Set mode to auto, or take out that node, or the schedule and the region."
        )
    return f"{name} changes within the run, which no weight can hold"


def _beside(
    model: Any, stack: Sequence[StackedLora], keys: Sequence[str], reason: str,
    kept: SidePathCache, watch: Watch | None,
) -> Applied:  # fmt: skip
    """The side path for what it can take, and the rest merged."""
    beside, added = split(stack, multiplying(model, keys))
    if not any(lora.steps for lora in beside):
        reason += ", but every adapter of this stack depends on the weight it changes"
        return Applied(merge(model, fuse(stack)), MERGE, reason)
    patcher = kept.get(model, weight_shapes(model), beside)
    if added:
        model = merge(model, fuse(added))
        merged = len({key for lora in added for key, _ in lora.steps})
        reason += (
            f"; {merged} of {len(keys)} weights are merged, because DoRA, OFT, large LoHa, norms "
            "and full differences change the weight itself"
        )
    weights = weights_of([(lora.name, lora.modifiers) for lora in beside])
    strengths = Strengths(tuple(lora.scale for lora in beside), weights)
    return Applied(put_beside(model, patcher, strengths, watch), SIDE_PATH, reason)

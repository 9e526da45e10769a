"""A stack onto a ComfyUI MODEL. The only package here that knows the host."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..beside import split
from ..fuse import StackedLora, fuse
from .merge import merge
from .model import PatchError, exceeds_memory, model_file, multiplying, quantised, weight_shapes
from .side_cache import SidePathCache
from .side_path import put_beside

__all__ = [
    "MODES",
    "Applied",
    "History",
    "PatchError",
    "SidePathCache",
    "apply_stack",
    "model_file",
    "weight_shapes",
]

MERGE, SIDE_PATH = "merge", "side path"
MODES = ("auto", MERGE, SIDE_PATH)


class Applied(NamedTuple):
    """The patched clone, the way that was taken ("merge", "side path", "none"), and why."""

    model: Any
    taken: str
    reason: str


class Choice(NamedTuple):
    """The way to take, and the reason in words that follow "<way>: "."""

    way: str
    reason: str


def choose(quantised: str, exceeds_memory: bool, changing: bool) -> Choice:
    """The one rule of ``auto``.

    ``quantised`` names the type of the adapted weights where it is coarser than 16 bit, or is "".
    ``exceeds_memory``: the model is larger than the memory of the GPU that runs it. ``changing``:
    this model has had other LoRA settings in this session.
    """
    if quantised:
        why = f"the weights are {quantised}; beside them the LoRAs keep their precision"
    elif exceeds_memory:
        why = "the model is larger than the GPU's memory; merged, it would be patched at every step"
    elif changing:
        why = (
            "the LoRA settings are being changed, which touches no weight this way; mode merge "
            "saves a few per cent a step once they stay"
        )
    else:
        why = "the weights are 16 or 32 bit and in memory: one pass, and no cost at each step"
        return Choice(MERGE, why)
    return Choice(SIDE_PATH, why)


class History:
    """The last LoRA settings of each model, at most ``most``, and the way that each was given.

    A setting keeps its way, so that coming back to it gives the same picture. Models are held
    weakly.
    """

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self._models: WeakKeyDictionary[Any, OrderedDict[tuple[Hashable, Hashable], Choice]] = (
            WeakKeyDictionary()
        )

    def choice(
        self,
        model: Any,
        place: Hashable,
        setting: Hashable,
        quantised: str = "",
        exceeds_memory: bool = False,
    ) -> Choice:
        """As before for a ``setting`` that the model has had, or by the rule.

        ``place`` tells several stacks on one model apart.
        """
        settings = self._models.setdefault(model, OrderedDict())
        changing = any(other == place for other, _ in settings)
        choice = settings.pop((place, setting), None)
        if choice is None:
            choice = choose(quantised, exceeds_memory, changing)
        settings[place, setting] = choice  # the last used last
        while len(settings) > self.most:
            settings.popitem(last=False)
        return choice


def apply_stack(
    model: Any,
    stack: Sequence[StackedLora],
    mode: str,
    *,
    side_paths: SidePathCache | None = None,
    history: History | None = None,
) -> Applied:
    """A clone of ``model`` with the LoRAs of ``stack`` on it; the model itself when there are none.

    ``side_paths`` are kept between runs, ``history`` the settings that ``auto`` compares.
    Raises PatchError for an unknown mode, and where the model takes no patch for a weight.
    """
    if mode not in MODES:
        raise PatchError(f"mode is '{mode}'; choose one of {', '.join(MODES)}.")
    stack = [lora for lora in stack if lora.scale != 0 and lora.steps]
    if not stack:
        return Applied(model, "none", "no LoRA changes the model")
    keys = sorted({key for lora in stack for key, _ in lora.steps})
    way, reason = mode, "asked for"
    if mode == "auto":
        setting = tuple((lora.identity, lora.scale) for lora in stack)
        place = (len(model.patches), len(model.additional_models))
        way, reason = (history or History()).choice(
            model.model, place, setting, quantised(model, keys), exceeds_memory(model)
        )
    if way == MERGE:
        return Applied(merge(model, fuse(stack)), MERGE, reason)
    return _beside(model, stack, keys, reason, side_paths or SidePathCache())


def _beside(
    model: Any, stack: Sequence[StackedLora], keys: Sequence[str], reason: str, kept: SidePathCache
) -> Applied:
    """The side path for what it can take, and the rest merged."""
    beside, added = split(stack, multiplying(model, keys))
    if not any(lora.steps for lora in beside):
        reason += ", but every adapter of this stack depends on the weight it changes"
        return Applied(merge(model, fuse(stack)), MERGE, reason)
    patcher = kept.get(model, beside)
    if added:
        model = merge(model, fuse(added))
        merged = len({key for lora in added for key, _ in lora.steps})
        reason += (
            f"; {merged} of {len(keys)} weights are merged, because DoRA, OFT, LoHa, norms and "
            "full differences change the weight itself"
        )
    scales = tuple(lora.scale for lora in beside)
    return Applied(put_beside(model, patcher, scales), SIDE_PATH, reason)

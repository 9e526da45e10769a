"""A stack onto a ComfyUI MODEL. The only package here that knows the host."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..history import History, Seen
from ..parts import Part, fused, split
from .choice import MERGE, SIDE_PATH, Situation, choose
from .merge import FusedAdapter, merge, pack, unpack
from .model import PatchError, exceeds_memory, model_file, quantised, weight_shapes
from .side_path import modules_of, put_beside
from .side_stacks import SideStacks

__all__ = [
    "MODES",
    "Applied",
    "FusedAdapter",
    "PatchError",
    "SideStacks",
    "apply_parts",
    "model_file",
    "pack",
    "unpack",
    "weight_shapes",
]

MODES = ("auto", MERGE, SIDE_PATH)


class Applied(NamedTuple):
    """The patched clone, the way that was taken ("merge", "side path", "none"), and why."""

    model: Any
    taken: str
    reason: str


def apply_parts(
    model: Any,
    parts: Sequence[Part],
    mode: str,
    *,
    stacks: SideStacks | None = None,
    history: History | None = None,
) -> Applied:
    """A clone of ``model`` with the LoRAs ``parts`` on it; the model itself when there are none.

    ``stacks`` keeps side paths between runs, ``history`` the settings that ``auto`` compares.
    Raises PatchError for an unknown mode, and where the model takes no patch for a weight.
    """
    if mode not in MODES:
        raise PatchError(f"mode is '{mode}'; choose one of {', '.join(MODES)}.")
    parts = [part for part in parts if part.scale != 0 and part.steps]
    if not parts:
        return Applied(model, "none", "no LoRA changes the model")
    keys = sorted({key for part in parts for key, _ in part.steps})
    way, reason = mode, "asked for"
    if mode == "auto":
        way, reason = _automatic(model, parts, keys, history or History())
    if way == MERGE:
        return Applied(merge(model, fused(parts)), MERGE, reason)
    beside, added = split(parts, modules_of(model, keys))
    if not any(part.steps for part in beside):
        return Applied(
            merge(model, fused(parts)),
            MERGE,
            f"{reason}, but every adapter of this stack depends on the weight it changes",
        )
    patched = merge(model, fused(added)) if added else model
    patcher = (stacks or SideStacks()).get(model, beside)
    clone = put_beside(patched, patcher, tuple(part.scale for part in beside))
    return Applied(clone, SIDE_PATH, reason + _rest(added, keys))


def _automatic(model: Any, parts: Sequence[Part], keys: Sequence[str], history: History) -> Seen:
    def decide(changing: bool) -> Seen:
        return Seen(*choose(Situation(quantised(model, keys), exceeds_memory(model), changing)))

    setting = tuple((part.identity, part.scale) for part in parts)
    place = (len(model.patches), len(model.additional_models))
    return history.way(model.model, place, setting, decide)


def _rest(added: Sequence[Part], keys: Sequence[str]) -> str:
    merged = {key for part in added for key, _ in part.steps}
    if not merged:
        return ""
    return (
        f"; {len(merged)} of {len(keys)} weights are merged, because DoRA, OFT, LoHa, norms and "
        "full differences change the weight itself"
    )

"""A plan onto a ComfyUI MODEL. The only package here that knows the host."""

from typing import Any, NamedTuple

from ..fuse import Plan
from .merge import FusedAdapter, merge, pack, unpack
from .model import PatchError, model_file, weight_shapes

__all__ = [
    "MODES",
    "Applied",
    "FusedAdapter",
    "PatchError",
    "apply_plan",
    "model_file",
    "pack",
    "unpack",
    "weight_shapes",
]

MODES = ("auto", "merge", "side path")


class Applied(NamedTuple):
    """The patched clone, the way that was taken ("merge"), and the reason for it."""

    model: Any
    taken: str
    reason: str


def apply_plan(model: Any, plan: Plan, mode: str) -> Applied:
    """A clone of ``model`` with the plan on it; the model itself when the plan is empty.

    Raises PatchError for an unknown mode, and where the model takes no patch for a weight.
    """
    if mode not in MODES:
        raise PatchError(f"mode is '{mode}'; choose one of {', '.join(MODES)}.")
    if not plan:
        return Applied(model, "none", "no LoRA changes the model")
    if mode == "side path":
        raise PatchError(
            "The side path is not available in this version. Set mode to auto or merge."
        )
    reason = "asked for" if mode == "merge" else "the LoRAs are added to the weights in one pass"
    return Applied(merge(model, plan), "merge", reason)

"""A merged stack as the host's own patches, for packs that look into them.

Most packs hand patches on to the host and need none of this. One that reads a MODEL's LoRAs out of
``model.patches`` knows ``LoRAAdapter`` and differences only: it gets them from
``FusedAdapter.as_stock()`` for one weight, or from ``stock_form`` for a whole MODEL.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from comfy.weight_adapter import LoRAAdapter

from ..adapters import Additive, LowRank
from ..fuse import Step
from .model import PatchError

Offset = tuple[int, int, int]


class StockPatch(NamedTuple):
    """One of the host's own: a ``LoRAAdapter`` or a difference, at ``strength``, on the rows that
    ``offset`` narrows to (dimension, start, length)."""

    strength: float
    patch: Any
    offset: Offset


def stock_patches(steps: Sequence[Step]) -> list[StockPatch]:
    """The same change in the host's own kinds; merged by the host, it rounds once for each.

    A low-rank change keeps its factors; LoKr and LoHa become the full difference that they are.
    Raises PatchError for what depends on the weight (DoRA, OFT): the host has no exact form of it.
    """
    return [StockPatch(step.scale, _patch(step), (0, step.start, step.rows)) for step in steps]


def _patch(step: Step) -> Any:
    effect = step.effect
    if not isinstance(effect, Additive):
        raise PatchError(
            f"{type(effect).__name__} depends on the weight it changes; ComfyUI has no patch of "
            "its own that is equal. Use the patched MODEL as it is, or take that LoRA out of the "
            "stack."
        )
    if isinstance(effect, LowRank):
        # The host divides alpha by the rank.
        alpha = effect.scale * effect.down.shape[0]
        return LoRAAdapter(set(), (effect.up, effect.down, alpha, None, None, None))
    return ("diff", (effect.dense(),))


def stock_form(model: Any) -> Any:
    """A clone of ``model`` whose stacks of this pack are the host's own patches, in their places.

    Raises PatchError where they have no such form.
    """
    clone = model.clone()
    clone.patches = {
        key: [entry for stored in patches for entry in _entries(stored, key)]
        for key, patches in model.patches.items()
    }
    return clone


def _entries(stored: tuple[Any, ...], key: str) -> list[tuple[Any, ...]]:
    """A stored patch as itself, or as several of the host's own."""
    strength, adapter, strength_model, offset, function = stored
    as_stock = getattr(adapter, "as_stock", None)
    if as_stock is None:
        return [stored]
    if strength_model != 1.0 or function is not None or (offset is not None and offset[0] != 0):
        raise PatchError(
            f"Another pack has put the LoRA stack on {key} with a change of its own. Put this "
            "pack's Apply node behind it."
        )
    above = 0 if offset is None else offset[1]
    return [
        (strength * one.strength, one.patch, 1.0, (0, above + one.offset[1], one.offset[2]), None)
        for one in as_stock()
    ]

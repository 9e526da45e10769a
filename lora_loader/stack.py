"""LORA_STACK: a list of (name, strength_model, strength_clip), as other stacker packs pass it."""

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from .modifiers.blocks import Blocks
from .modifiers.weights import Modifier
from .sources.source import InstalledSource, Source

MAX_LORAS = 3
"""Enabled entries in all: the hosted API's limit, so that one stack serves both ways."""
MAX_SCALE = 4.0
"""The largest scale of a slot, and with a minus the least: the hosted API's limit is the same, but
begins at 0."""
SLOTS = {str(number): f"LoRA slot {number}" for number in range(1, MAX_LORAS + 1)}
"""The slots' numbers, and what messages call them."""


class StackError(ValueError):
    """A LoRA stack that cannot be used; says which entry and what to do."""


class _Triple(NamedTuple):
    name: str
    strength_model: float
    strength_clip: float


class LoraEntry(_Triple):
    """One LoRA and its scales. A plain 3-tuple to every other pack; ours also know their source,
    and what multiplies the scale within a run.

    ``slot`` says where the user set it ("LoRA slot 2"), for errors and the report.
    """

    source: Source
    slot: str
    modifiers: tuple[Modifier | Blocks, ...]

    def __new__(
        cls,
        name: str,
        strength_model: float,
        strength_clip: float,
        source: Source | None = None,
        slot: str = "",
        modifiers: tuple[Modifier | Blocks, ...] = (),
    ) -> "LoraEntry":
        """Without a source, ``name`` is that of an installed file."""
        entry = super().__new__(cls, name, strength_model, strength_clip)
        entry.source = InstalledSource(name) if source is None else source
        entry.slot = slot or f"LoRA '{name}'"
        entry.modifiers = modifiers
        return entry

    def __getnewargs__(self) -> tuple:  # copy and pickle keep the source
        return (*self, self.source, self.slot, self.modifiers)

    def with_(self, **changes: Any) -> "LoraEntry":
        """A copy with other values of ``__new__``'s arguments."""
        kept = dict(zip(self._fields, self, strict=True))
        own = {"source": self.source, "slot": self.slot, "modifiers": self.modifiers}
        return LoraEntry(**{**kept, **own, **changes})


def as_entries(value: object) -> list[LoraEntry]:
    """Any pack's stack as entries; strength 0 and the name "None" are absent.

    Raises StackError where an entry is not (name, strength_model, strength_clip), or a strength is
    not a finite number.
    """
    if value is None:
        return []
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        raise StackError(
            f"lora_stack is a {type(value).__name__}, not a LoRA stack. Connect the lora_stack "
            "output of a LoRA stack node."
        )
    entries = []
    for number, item in enumerate(value, start=1):
        entry = f"Entry {number} of lora_stack"
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise StackError(
                f"{entry} is not (name, strength_model, strength_clip). Remove the stacker that "
                "made it, or set that LoRA in this pack's LoRA Stack."
            )
        name = item[0]
        # A slice of an array or a tensor is a number too, and in the report one of Python's.
        strengths = [s.item() if getattr(s, "ndim", None) == 0 else s for s in item[1:]]
        for given in strengths:
            if type(given) not in (int, float) or not abs(given) <= sys.float_info.max:
                raise StackError(
                    f"{entry} has the strength {given!r:.60}; a finite number is needed."
                )
        if name in (None, "", "None", "none"):
            continue
        if not isinstance(name, str):
            raise StackError(f"{entry} names its file by a {type(name).__name__}.")
        if any(strengths):
            model, clip = float(strengths[0]), float(strengths[-1])
            source, slot = getattr(item, "source", None), getattr(item, "slot", entry)
            modifiers = getattr(item, "modifiers", ())
            entries.append(LoraEntry(name, model, clip, source, slot, modifiers))
    return entries


def combine(upstream: object, own: Iterable[LoraEntry]) -> list[LoraEntry]:
    """The upstream stack, then our own entries; StackError beyond ``MAX_LORAS`` enabled ones."""
    entries = as_entries(upstream) + as_entries(list(own))
    if len(entries) > MAX_LORAS:
        names = ", ".join(entry.source.describe() for entry in entries)
        raise StackError(
            f"The stack holds {len(entries)} enabled LoRAs; {MAX_LORAS} is the most. Disable "
            f"{len(entries) - MAX_LORAS} of: {names}."
        )
    return entries


def modified(stack: object, which: str, by: Iterable[Modifier | Blocks]) -> list[LoraEntry]:
    """Any pack's stack with modifiers ``by`` on one of its LoRAs, or on "all".

    ``which`` is the number of its slot, which stays when another slot is switched off; in a stack
    whose slots are not in order, because it comes from several nodes or has none, its place. Where
    it names none, nothing changes.
    """
    entries = as_entries(stack)
    known = {slot: number for number, slot in SLOTS.items()}
    numbers = [known.get(entry.slot, "") for entry in entries]
    if "" in numbers or numbers != sorted(set(numbers)):
        numbers = [str(place) for place in range(1, len(entries) + 1)]
    by = tuple(by)
    return [
        entry.with_(modifiers=(*entry.modifiers, *by)) if which in ("all", number) else entry
        for entry, number in zip(entries, numbers, strict=True)
    ]

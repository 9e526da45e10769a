"""A stack as its LoRAs, apart: what each does to which weight, and how much of it.

``fuse`` makes one patch a weight of them; the side path keeps the scales apart from the factors, so
that a moved slider changes a few numbers.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from .adapters import Kronecker, LowRank, Transform
from .fuse import Plan, Step, fuse


@dataclass(frozen=True, eq=False)
class Part:
    """One LoRA of a stack: its steps by weight name at scale 1, and its scale.

    Parts with equal ``identity`` have the same steps, whatever their scales.
    """

    identity: Hashable
    scale: float
    steps: tuple[tuple[str, Step], ...]


def fused(parts: Sequence[Part]) -> Plan:
    """One plan a weight for the whole stack, with the scales in it."""
    return fuse(
        (key, replace(step, scale=step.scale * part.scale))
        for part in parts
        if part.scale != 0
        for key, step in part.steps
    )


def split(parts: Sequence[Part], beside_keys: frozenset[str]) -> tuple[list[Part], list[Part]]:
    """(what can be computed beside its weight, what must be added to it).

    ``beside_keys`` are the weights whose modules multiply by them. A weight that an adapter depends
    on (DoRA, OFT) is taken whole, so that the order of its steps stays.
    """
    bound = {
        key for part in parts for key, step in part.steps if isinstance(step.effect, Transform)
    }
    beside: list[Part] = []
    added: list[Part] = []
    for part in parts:
        goes = [
            key in beside_keys and key not in bound and isinstance(step.effect, LowRank | Kronecker)
            for key, step in part.steps
        ]
        for chosen, kept in ((beside, True), (added, False)):
            steps = tuple(s for s, g in zip(part.steps, goes, strict=True) if g is kept)
            chosen.append(replace(part, steps=steps))
    return beside, [part for part in added if part.steps]

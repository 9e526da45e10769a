"""Merge or side path: the one rule of ``auto``. Knows no host; is told what the model is like."""

from typing import NamedTuple

MERGE, SIDE_PATH = "merge", "side path"


class Situation(NamedTuple):
    """What the rule looks at.

    ``quantised`` names the type of the adapted weights where it is coarser than 16 bit, or is "".
    ``exceeds_memory``: the model is larger than the memory of the GPU that runs it. ``changing``:
    this model has had other LoRA settings in this session.
    """

    quantised: str
    exceeds_memory: bool
    changing: bool


def choose(situation: Situation) -> tuple[str, str]:
    """The way to take, and the reason in words that follow "<way>: "."""
    if situation.quantised:
        return SIDE_PATH, (
            f"the weights are {situation.quantised}; beside them the LoRAs keep their precision"
        )
    if situation.exceeds_memory:
        return SIDE_PATH, (
            "the model is larger than the GPU's memory; merged, it would be patched at every step"
        )
    if situation.changing:
        return SIDE_PATH, (
            "the LoRA settings are being changed, which touches no weight this way; mode merge "
            "saves a few per cent a step once they stay"
        )
    return MERGE, "the weights are 16 or 32 bit and in memory: one pass, and no cost at each step"

"""The small languages of the inputs: a schedule, multipliers of pictures, weights of blocks.

Every mistake is named with its position, counted from 1.
"""

import re
from collections.abc import Iterator

MOST = 100
"""Items of a text: what is longer is no list that somebody wrote."""
MOST_MULTIPLIER = 10.0
Rule = tuple[str, int, int, float]
"""A kind of block ("double", "single", "other"), the first and last of it, and their multiplier."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_PAIR = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})")
_ONE = re.compile(rf"({_NUMBER})")
_BLOCKS = re.compile(
    rf"(double|single|other)(?:\s+(\d+)(?:\s*-\s*(\d+))?)?\s*=\s*({_NUMBER})", re.I
)
LAST = 10_000
"""Stands for the last block, whatever its number."""


class ModifierError(ValueError):
    """A text that cannot be read, or that this model or run has no use for; says where and why."""


def parse_schedule(text: str) -> tuple[tuple[float, float], ...]:
    """Read "0:1, 0.5:0" as (moment, multiplier) pairs: moments 0 to 1, none before the last.

    Raises ModifierError.
    """
    pairs: list[tuple[float, float]] = []
    for place, found in _items(text, _PAIR, "schedule", "0:1, 0.5:0.8, 1:0"):
        moment = float(found[1])
        if not 0 <= moment <= 1:
            raise _mistake("schedule", place, found[0], "the moment is from 0 to 1")
        if pairs and moment < pairs[-1][0]:
            raise _mistake("schedule", place, found[0], f"it comes after {pairs[-1][0]:g}")
        pairs.append((moment, _multiplier(found[2], "schedule", place)))
    if not pairs:
        raise ModifierError("schedule is empty. Write 0:1 for the whole run, or 0:1, 1:0 to fade.")
    return tuple(pairs)


def parse_pictures(text: str) -> tuple[float, ...]:
    """Read "0, 0.5, 1" as one multiplier a picture of the batch; none for all alike.

    Raises ModifierError.
    """
    found = _items(text, _ONE, "pictures", "0, 0.5, 1, 1.5")
    return tuple(_multiplier(one[1], "pictures", place) for place, one in found)


def parse_blocks(text: str) -> tuple[Rule, ...]:
    """Read "double 0-3=0.5, single=0" as rules, of which the later wins.

    Numbers alone, a vector as Inspire's, are one for what is in no block, one a double block, one a
    single block: rules of the kind "vector", numbered from 0. Raises ModifierError.
    """
    if "=" not in text:
        vector = _items(text, _ONE, "blocks", "double 0-3=0.5, single=0, other=1")
        return tuple(
            ("vector", number, number, _multiplier(found[1], "blocks", place))
            for number, (place, found) in enumerate(vector)
        )
    rules = []
    for place, found in _items(text, _BLOCKS, "blocks", "double 0-3=0.5, single=0, other=1"):
        kind, first, last = found[1].lower(), found[2], found[3]
        if kind == "other" and first is not None:
            raise _mistake("blocks", place, found[0], "other has no numbers")
        begin = int(first) if first is not None else 0
        end = int(last) if last is not None else (LAST if first is None else begin)
        if end < begin:
            raise _mistake("blocks", place, found[0], "the range runs backwards")
        rules.append((kind, begin, end, _multiplier(found[4], "blocks", place)))
    return tuple(rules)


def _items(
    text: str, pattern: re.Pattern[str], name: str, example: str
) -> Iterator[tuple[int, re.Match[str]]]:
    """(position from 1, match) of each item between commas or line ends; the last may be empty."""
    pieces = list(re.finditer(r"[^,\n]+", text))
    if len(pieces) > MOST:
        raise ModifierError(f"{name} has {len(pieces)} items; {MOST} is the most.")
    for piece in pieces:
        item = piece[0].strip()
        if not item:
            continue
        place = piece.start() + len(piece[0]) - len(piece[0].lstrip()) + 1
        found = pattern.fullmatch(item)
        if found is None:
            raise _mistake(name, place, item, f"write it like {example}")
        yield place, found


def _multiplier(number: str, name: str, place: int) -> float:
    value = float(number)
    if abs(value) > MOST_MULTIPLIER:
        limit = f"a multiplier is from {-MOST_MULTIPLIER:g} to {MOST_MULTIPLIER:g}"
        raise _mistake(name, place, number, limit)
    return value


def _mistake(name: str, place: int, item: str, why: str) -> ModifierError:
    return ModifierError(f"{name}, position {place}: “{item:.60}”: {why}.")

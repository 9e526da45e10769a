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

# No part can match in two ways, so that a long mistake is told as fast as a short one; and only
# ASCII's digits and letters are meant.
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PAIR = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})")
_ONE = re.compile(rf"({_NUMBER})")
_BLOCKS = re.compile(
    r"((?ai:double|single|other))(?:\s*([0-9]{1,4})(?:\s*-\s*([0-9]{1,4}))?)?"
    rf"\s*=\s*({_NUMBER})"
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
            raise _mistake("schedule", place, found[1], "a moment is from 0 to 1")
        if pairs and moment < pairs[-1][0]:
            why = f"{pairs[-1][0]:g} comes before it, and moments only rise"
            raise _mistake("schedule", place, found[1], why)
        pairs.append((moment, _multiplier(found, 2, "schedule", place)))
    if not pairs:
        raise ModifierError("schedule is empty. Write 0:1 for the whole run, or 0:1, 1:0 to fade.")
    return tuple(pairs)


def parse_pictures(text: str) -> tuple[float, ...]:
    """Read "0, 0.5, 1" as one multiplier a picture of the batch; none for all alike.

    Raises ModifierError.
    """
    found = _items(text, _ONE, "pictures", "0, 0.5, 1, 1.5")
    return tuple(_multiplier(one, 1, "pictures", place) for place, one in found)


def parse_blocks(text: str) -> tuple[Rule, ...]:
    """Read "double 0-3=0.5, single=0" as rules, of which the later wins.

    Numbers alone, a vector as Inspire's, are one for what is in no block, one a double block, one a
    single block: rules of the kind "vector", numbered from 0. Raises ModifierError.
    """
    named = "=" in text
    rules: list[Rule] = []
    items = _items(text, _BLOCKS if named else _ONE, "blocks", "double 0-3=0.5, single=0, other=1")
    for number, (place, found) in enumerate(items):
        if not named:
            rules.append(("vector", number, number, _multiplier(found, 1, "blocks", place)))
            continue
        kind, first, last = found[1].lower(), found[2], found[3]
        begin, end = int(first or 0), int(last or first or LAST)
        where = place + found.start(2)
        if kind == "other" and first is not None:
            raise _mistake("blocks", where, first, "other has no numbers")
        if end < begin:
            raise _mistake("blocks", where, f"{first}-{last}", "the range runs backwards")
        rules.append((kind, begin, end, _multiplier(found, 4, "blocks", place)))
    return tuple(rules)


def _items(
    text: str, pattern: re.Pattern[str], name: str, example: str
) -> Iterator[tuple[int, re.Match[str]]]:
    """(position, match) of each item between commas or line ends; the last may be empty."""
    pieces = re.findall(r"([^,\n]*)([,\n]|\Z)", text)
    count = sum(not piece.isspace() for piece, _ in pieces if piece)
    if count > MOST:
        raise ModifierError(f"{name} has {count} items; {MOST} is the most.")
    place, before = 1, ","
    for piece, end in pieces:
        item = piece.strip()
        if not item and end == before == ",":
            why = "nothing stands before this comma"
            raise _mistake(name, place + len(piece), end, why)
        if item:
            begin = place + piece.index(item)
            found = pattern.fullmatch(item)
            if found is None:
                raise _mistake(name, begin, item, f"write it like {example}")
            yield begin, found
        place, before = place + len(piece) + 1, end


def _multiplier(found: re.Match[str], group: int, name: str, place: int) -> float:
    """The number of a group; ``place`` is where the match begins."""
    value = float(found[group])
    if abs(value) > MOST_MULTIPLIER:
        limit = f"a multiplier is from {-MOST_MULTIPLIER:g} to {MOST_MULTIPLIER:g}"
        raise _mistake(name, place + found.start(group), found[group], limit)
    return value


def _mistake(name: str, place: int, item: str, why: str) -> ModifierError:
    return ModifierError(f"{name}, position {place}: “{item:.60}”: {why}.")

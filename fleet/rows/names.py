"""Names that are safe as files, and how a message names what it speaks of."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LONGEST_ID = 100
LONGEST_TAG = 40
LONGEST_QUOTE = 60
NAMED = 3
"""How many of those that share a fault are named."""

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?<!\.)", re.ASCII)
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?", re.ASCII | re.IGNORECASE)
_SAFE_IN_WORDS = (
    f"Use letters a to z, digits and . _ -, at most {LONGEST_ID} characters, no dot in front or at "
    "the end, and no device name of Windows (con, nul, com1 ...)."
)


class Refused(ValueError):
    """What is asked for cannot be done; ``problems`` says all that is wrong, a text each."""

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = problems
        super().__init__("\n".join(problems))


def check_ids(places: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with (id, place) pairs, as texts: unsafe ones, and those that come twice."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    twice: list[str] = []
    unsafe = [f"{quoted(one)} ({place})" for one, place in places if not _is_safe(one)]
    if unsafe:
        problems.append(f"{counted(unsafe, 'id')} no safe file name: {named(unsafe)}. "
                        + _SAFE_IN_WORDS)  # fmt: skip
    for one, place in places:
        first = seen.setdefault(one.lower(), place)
        if first is not place:
            twice.append(f"{quoted(one)} ({place}, first in {first})")
    if twice:
        problems.append(f"{counted(twice, 'id')} there already: {named(twice)}. Each row needs "
                        "one of its own, and capital letters make no difference.")  # fmt: skip
    return problems


def are_safe(ids: Sequence[str]) -> bool:
    """Whether all can be file names side by side, wherever the files go."""
    return all(map(_is_safe, ids)) and len({one.lower() for one in ids}) == len(ids)


def is_short(text: str) -> bool:
    """Whether a text can be a part of an id as it stands."""
    return len(text) <= LONGEST_TAG // 2 and _SAFE.fullmatch(text) is not None


def named(items: Sequence[str], most: int = NAMED) -> str:
    """The first of the items, and how many more there are."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more:,} more" if more > 0 else "")


def quoted(value: Any) -> str:
    """A value as a message shows it: on one line, and not longer than that."""
    text = value if isinstance(value, str) else repr(value)
    short = text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."
    return repr(short) if isinstance(value, str) else short


def distinct_tags(texts: Sequence[tuple[str, str]], longest: int) -> list[str]:
    """A safe name for each (text, what identifies it), unique ignoring case.

    A text that is safe and alone stays as it is; the others end in six digits of a digest.
    """
    tags = [plain(text)[:longest] for text, _ in texts]
    count: dict[str, int] = {}
    for tag in tags:
        count[tag.lower()] = count.get(tag.lower(), 0) + 1
    return [
        tag
        if tag == text and count[tag.lower()] == 1 and _is_safe(tag)
        else _marked(tag, whole, longest)
        for tag, (text, whole) in zip(tags, texts, strict=True)
    ]


def fitted(name: str, longest: int = LONGEST_ID) -> str:
    """``name``, or where it is too long its beginning and six digits of its digest."""
    return name if len(name) <= longest else _marked(name, name, longest)


def _is_safe(name: str) -> bool:
    fits = len(name) <= LONGEST_ID and _SAFE.fullmatch(name)
    return bool(fits) and not _DEVICES.fullmatch(name)


def plain(text: str) -> str:
    """What is left of a text in letters, digits and . _ -; accents go, other scripts too."""
    text = unicodedata.normalize("NFKD", text)
    kept = "".join(character for character in text if not unicodedata.combining(character))
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", kept).strip(".")
    return kept if kept.strip("_") else "row"


def _marked(tag: str, whole: str, longest: int = LONGEST_ID) -> str:
    """``tag`` and six digits of a digest of ``whole``, in at most ``longest`` characters."""
    digits = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{tag[: longest - len(digits) - 1]}-{digits}"


def counted(items: Sequence[str], noun: str) -> str:
    """How many there are, with the verb: "2 lines are"."""
    return f"1 {noun} is" if len(items) == 1 else f"{len(items):,} {noun}s are"

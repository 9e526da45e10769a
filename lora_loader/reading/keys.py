"""Any trainer's key -> the stem that names its module, and the role of its tensor in an adapter.

Decided per KEY, never per file: files mix namings (fal Turbo, mflux). The stem is matched by its
words, from its end, against the names of the loaded model (``layout``), so that a prefix, an
adapter name or a separator that nobody has listed still resolves when it is unambiguous.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..adapters import Algorithm

MAX_KEY = 1000
WORD = re.compile(r"[A-Za-z0-9]+")

Words = tuple[str, ...]

# What a model's own weights end in, and no adapter but LyCORIS' IA3.
PLAIN: Mapping[Words, str] = {("weight",): "weight", ("bias",): "bias"}
_TEXT_ENCODER = re.compile(
    r"(?:^|_)(?:te\d?|t5[a-z]*|clip_[lg]|qwen\d*[a-z]*|mistral\d*|text_(?:encoders?\d*|model))(?:_|$)"
)


class SplitKey(NamedTuple):
    """A key's stem (prefix and module path), its tensor's role, and PEFT's adapter name or ""."""

    stem: str
    role: str
    adapter: str


class Spellings(NamedTuple):
    """The words of each role: those that PEFT writes an adapter's name behind, and those that end
    a key."""

    named: Mapping[Words, str]
    ends: Mapping[Words, str]


def spellings(algorithms: Iterable[Algorithm]) -> Spellings:
    """How these algorithms spell their tensors' roles."""
    named: dict[Words, str] = {}
    ends = dict(PLAIN)
    for algorithm in algorithms:
        named |= {tuple(text.split()): role for text, role in algorithm.named_endings.items()}
        ends |= {tuple(text.split()): role for text, role in algorithm.endings.items()}
    return Spellings(named, ends)


def words(name: str) -> Words:
    """A name's words and numbers in lower case, whatever separates them."""
    return tuple(word.lower() for word in WORD.findall(name))


def is_text_encoder(stem: Words) -> bool:
    """Whether a stem of these words, or a prefix, is a text encoder's."""
    return _TEXT_ENCODER.search("_".join(stem)) is not None


def split_key(key: str, known: Spellings) -> SplitKey | None:
    """What a key says; None where it has no known role.

    Where an adapter's name also reads as a role, it is one: ``lora_A.b1.weight``. But PEFT's names
    hold no dots and stand before ".weight": ``my_lora_a.net.img_in.lokr_w1`` is a LoKr.
    """
    if len(key) > MAX_KEY:
        return None
    found = list(WORD.finditer(key))
    lowered = tuple(match[0].lower() for match in found)
    named, end = _named(key, found, lowered, known), _end(key, found, lowered, known)
    if named is None or end is None or end.role in PLAIN.values():
        return named or end
    return named if lowered[-1:] in PLAIN and "." not in named.adapter else end


def _named(
    key: str, found: list[re.Match[str]], lowered: Words, known: Spellings
) -> SplitKey | None:
    """The last role in the key that is spelled so; the name is what follows, but "weight"."""
    first_words = {spelling[0] for spelling in known.named}
    for at in range(len(lowered) - 1, 0, -1):
        if lowered[at] not in first_words:
            continue
        for spelling, role in known.named.items():
            end = at + len(spelling)
            if lowered[at:end] != spelling:
                continue
            last = lowered[-1] if end < len(lowered) else ""
            name = found[end:-1] if last in ("weight", "bias") else found[end:]
            if last == "bias":
                if role != "up":
                    return None
                role = "up_bias"
            adapter = key[name[0].start() : name[-1].end()] if name else ""
            return SplitKey(key[: found[at - 1].end()], role, adapter)
    return None


def _end(key: str, found: list[re.Match[str]], lowered: Words, known: Spellings) -> SplitKey | None:
    """The longest spelling that ends the key."""
    longest = max(map(len, known.ends))
    for length in range(min(longest, len(lowered) - 1), 0, -1):
        role = known.ends.get(lowered[-length:])
        if role is not None:
            return SplitKey(key[: found[-length - 1].end()], role, "")
    return None

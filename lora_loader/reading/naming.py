"""Any trainer's key -> the stem that names its module, and the part of the adapter that it is.

Decided per KEY, never per file: files mix namings (fal Turbo, mflux). The stem is matched by its
words, from its end, against the names of the loaded model (``layout``), so that a prefix, an
adapter name or a separator that nobody has listed still resolves when it is unambiguous.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_KEY = 1000

# PEFT writes "lora_A.<adapter name>.weight", and the name may be anything; so these are looked for
# anywhere in a key, the last one counting, and what follows is the name.
_NAMED_PARTS: Mapping[tuple[str, ...], str] = {
    ("lora", "a"): "down",
    ("lora", "b"): "up",
    ("lora", "down"): "down",
    ("lora", "up"): "up",
    ("lora", "mid"): "mid",
    ("lora", "linear", "layer", "down"): "down",
    ("lora", "linear", "layer", "up"): "up",
    ("lora", "magnitude", "vector"): "magnitude",
}
# These end a key. Sources: the trainers' exporters, LyCORIS' weight_list, ComfyUI's weight_adapter.
_ENDINGS: Mapping[tuple[str, ...], str] = {
    tuple(spelling.split()): part
    for spelling, part in {
        "magnitude": "magnitude", "dora scale": "dora_scale", "alpha": "alpha",
        "reshape weight": "reshape",
        "hada w1 a": "hada_w1_a", "hada w1 b": "hada_w1_b", "hada t1": "hada_t1",
        "hada w2 a": "hada_w2_a", "hada w2 b": "hada_w2_b", "hada t2": "hada_t2",
        "lokr w1": "lokr_w1", "lokr w1 a": "lokr_w1_a", "lokr w1 b": "lokr_w1_b",
        "lokr w2": "lokr_w2", "lokr w2 a": "lokr_w2_a", "lokr w2 b": "lokr_w2_b",
        "lokr t1": "lokr_t1", "lokr t2": "lokr_t2",
        "oft r weight": "oft_r", "oft r scaled oft": "scaled_oft", "scaled oft": "scaled_oft",
        "oft blocks": "oft_blocks", "rescale": "rescale",
        "a1 weight": "glora_a1", "a2 weight": "glora_a2",
        "b1 weight": "glora_b1", "b2 weight": "glora_b2", "bm weight": "glora_bm",
        "on input": "on_input", "ia3 l": "ia3_l",
        "q layer weight": "tlora_q", "p layer weight": "tlora_p", "lambda layer": "tlora_lambda",
        "diff": "diff", "diff b": "diff_b",
        "w norm": "diff", "b norm": "diff_b", "set weight": "set_weight",
        "weight": "weight", "bias": "bias",
    }.items()
}  # fmt: skip
_LONGEST_ENDING = max(len(words) for words in _ENDINGS)
WORD = re.compile(r"[A-Za-z0-9]+")


class KeyParts(NamedTuple):
    """A key's stem (prefix and module path), its adapter part, and PEFT's adapter name or ""."""

    stem: str
    part: str
    adapter: str


def words(name: str) -> tuple[str, ...]:
    """A name's words and numbers in lower case, whatever separates them."""
    return tuple(match[0].lower() for match in WORD.finditer(name))


def split_key(key: str) -> list[KeyParts]:
    """The readings of a key, likeliest first; empty where it ends in no known adapter part.

    There are two where a part's name also reads as an adapter name, as in ``lora_A.b1.weight``.
    """
    if len(key) > MAX_KEY:
        return []
    found = list(WORD.finditer(key))
    lowered = tuple(match[0].lower() for match in found)
    readings = [_named_part(key, found, lowered), _ending(key, found, lowered)]
    return [reading for reading in readings if reading is not None]


def _named_part(key: str, found: list[re.Match[str]], lowered: tuple[str, ...]) -> KeyParts | None:
    for at in range(len(lowered) - 1, 0, -1):
        if lowered[at] != "lora":
            continue
        for spelling, part in _NAMED_PARTS.items():
            if lowered[at : at + len(spelling)] != spelling:
                continue
            rest = found[at + len(spelling) :]
            last = rest[-1][0].lower() if rest else ""
            if last in ("weight", "bias"):
                rest = rest[:-1]
            if last == "bias":
                if part != "up":
                    return None
                part = "up_bias"
            adapter = key[rest[0].start() : rest[-1].end()] if rest else ""
            return KeyParts(key[: found[at - 1].end()], part, adapter)
    return None


def _ending(key: str, found: list[re.Match[str]], lowered: tuple[str, ...]) -> KeyParts | None:
    for length in range(min(_LONGEST_ENDING, len(lowered) - 1), 0, -1):
        part = _ENDINGS.get(lowered[-length:])
        if part is not None:
            return KeyParts(key[: found[-length - 1].end()], part, "")
    return None

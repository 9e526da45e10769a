"""Bytes and JSON made strange: flips, cuts, splices, doubled keys, huge numbers, deep nests."""

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

RAW: dict[str, str] = {
    "@@digits": "9" * 5000,
    "@@negative": "-" + "7" * 4400,
    "@@lists": "[" * 1500 + "]" * 1500,
    "@@lists_far": "[" * 100_000,
    "@@objects": '{"detail":' * 1500 + "1" + "}" * 1500,
    "@@errors": '{"error":' * 900 + '{"message":"deep"}' + "}" * 900,
    "@@images": '{"images":[' * 400 + '"https://files.runcomfy.net/a.png"' + "]}" * 400,
    "@@nested": "[" * 900 + '"https://files.runcomfy.net/a.png"' + "]" * 900,
    "@@nan": "NaN",
    "@@infinite": "-Infinity",
    "@@overflow": "1e400",
    "@@tiny": "1e-400",
    "@@zero": "-0",
    "@@surrogate": '"\\ud800"',
    "@@escaped": '"\\u0000\\u202e\\u0085"',
}
"""Mark -> the JSON text in its place, of what ``json.dumps`` does not write."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**32, 2**53 + 1, 2**62, 2**63, 2**64,
    10**30,
    -(2**63), 0.5, 1e-300, 1e308, 400000, 400002, 404001, 422001, 500001, 599999, "", " ", "0", "1",
    "404001", "4" * 5000,
    "٤٠٤٠٠١", "²", "nan", "inf", "1e999", "1_000", "\x00", "\ud800", "\U0001f600",
    "\u202e", "é" * 50, "a" * 70_000,
    "../../x", ".", "..", "a/b", "a b", "a\n", "%2e%2e", "<script>",
    [], {}, [None], [[]], {"": None}, ["a", 1, {}], {"a": {"b": []}}, [0] * 500,
    {str(n): n for n in range(300)},
)  # fmt: skip


def texts(tree: Any) -> bytes:
    """A tree as JSON, its marks replaced; a key's ``@@again`` goes, which doubles the key."""
    text = json.dumps(tree, ensure_ascii=False).replace("@@again", "")
    if "@@" in text:
        for mark, raw in RAW.items():
            text = text.replace(json.dumps(mark), raw)
    return text.encode("utf-8", "surrogatepass")


def odd(rng: Random) -> Any:
    """A value that nobody expects."""
    if rng.random() < 0.25:
        # The far ones cost a millisecond each: now and then is enough.
        return rng.choice(list(RAW)) if rng.random() < 0.5 else "@@digits"
    return deepcopy(rng.choice(ODD))


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            found.append((node, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return found


def _renamed(rng: Random, node: Any, key: Any) -> None:
    if isinstance(node, dict):
        other = rng.choice([f"{key}@@again", key.upper(), f"{key}\u200b", "", "a" * 1200, key[:-1]])
        node[other] = deepcopy(node[key]) if rng.random() < 0.5 else odd(rng)
        if rng.random() < 0.5:
            node.pop(key, None)
    else:
        node.insert(key, deepcopy(node[key]))


def _moved(rng: Random, node: Any, key: Any) -> None:
    own = node[key]
    node[key] = rng.choice([[own], {"x": own}, [own, deepcopy(own)], str(own)[:5000]])


def _dropped(rng: Random, node: Any, key: Any) -> None:
    del node[key]


def _replaced(rng: Random, node: Any, key: Any) -> None:
    node[key] = odd(rng)


CHANGES: tuple[Callable[[Random, Any, Any], None], ...] = (
    _replaced, _replaced, _replaced, _renamed, _moved, _dropped,
)  # fmt: skip


def twisted(rng: Random, tree: Any, most: int = 4) -> Any:
    """The tree itself, with up to ``most`` of its values changed."""
    for _ in range(rng.randint(1, most)):
        if found := places(tree):
            rng.choice(CHANGES)(rng, *rng.choice(found))
    return tree


SPLICES = (
    b"", b"\0" * 8, b"\xff" * 8, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
    b"RIFF\xff\xff\xff\xffWEBP", b"{", b"}", b"[", b'"', b"9" * 4400, b"[" * 3000, b"\xed\xa0\x80",
    b"\xc0\x80", b"\xef\xbb\xbf", b"\\u0000", b"\\ud83d", b"-", b"e9999", b",", b":", b"NaN",
)  # fmt: skip


def battered(rng: Random, data: bytes, most: int = 6) -> bytes:
    """Bytes with bits flipped, parts cut, doubled, moved or spliced in."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, most)):
        size, kind = len(raw), rng.random()
        at = rng.randrange(size + 1)
        end = min(size, at + rng.choice((1, 2, 4, 16, 200)))
        if kind < 0.45 and size:
            raw[at % size] ^= 1 << rng.randrange(8)
        elif kind < 0.6 and size:
            raw[at % size] = rng.randrange(256)
        elif kind < 0.7:
            del raw[at:end]
        elif kind < 0.8:
            raw[at:at] = rng.choice(SPLICES)
        elif kind < 0.88:
            raw[at:at] = raw[at:end] * rng.choice((1, 1, 30))
        elif kind < 0.94:
            piece = raw[at:end]
            raw[at:end] = piece[::-1]
        elif kind < 0.97:
            del raw[at:]
        else:
            raw[at:end] = rng.choice((b"\0", b"\xff")) * (end - at)
    return bytes(raw)

"""What a file says, read once: every key split, every module's adapter recognised by its shapes.

Keys are split one by one, never by a file's habit: files mix namings (fal Turbo, mflux). The stem
is resolved by ``layout``. No tensor is read, and no model is asked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from .. import adapters
from ..adapters.base import Algorithm, Geometry, Unfit
from .file import Header
from .layout import WORD, Words
from .scaling import PeftSettings, header_settings

MAX_KEY = 1000

PLAIN = frozenset({"weight", "bias"})
"""The roles of a model's own weights, which also end other keys."""
_DIFFERENCES = frozenset({"diff", "diff_b"})


class SplitKey(NamedTuple):
    """A key's stem (prefix and module path), its tensor's role, and PEFT's adapter name or ""."""

    stem: str
    role: str
    adapter: str


class Module(NamedTuple):
    """One adapter of a file: the module's name, its tensors' keys by role, and what they make.

    ``made`` is the algorithm and what weight it is for, or why the tensors are no adapter.
    """

    stem: str
    keys: Mapping[str, str]
    made: tuple[Algorithm, Geometry] | Unfit


class Facts(NamedTuple):
    """A file's modules in the order of their keys, the keys of no known role, and settings."""

    header: Header
    modules: tuple[Module, ...]
    unread: tuple[str, ...]
    settings: PeftSettings | None


def facts(header: Header, config: PeftSettings | None = None) -> Facts:
    """Every key split and every module recognised; ``config`` is an adapter_config.json's."""
    named, ends = spellings(adapters.ALGORITHMS)
    tables: dict[tuple[str, str], dict[str, str]] = {}
    unread: list[str] = []
    repeated: set[str] = set()
    for key in sorted(header.tensors):
        split = split_key(key, named, ends)
        if split is None:
            unread.append(key)
            continue
        keys = tables.setdefault((split.stem, split.adapter), {})
        if split.role in keys:
            repeated.add(split.stem)
        keys[split.role] = key
    modules = []
    for stem, own in _apart(tables):
        made: tuple[Algorithm, Geometry] | Unfit = Unfit("has the same part twice")
        if stem not in repeated:
            try:
                made = adapters.recognise({r: header.tensors[key].shape for r, key in own.items()})
            except Unfit as error:
                made = error.with_traceback(None)
        modules.append(Module(stem, own, made))
    settings = header_settings(header.metadata) or config
    return Facts(header, tuple(modules), tuple(unread), settings)


def spellings(algorithms: Iterable[Algorithm]) -> tuple[dict[Words, str], dict[Words, str]]:
    """The words of each role of these algorithms: those that PEFT writes an adapter's name behind,
    and those that end a key."""
    named: dict[Words, str] = {}
    ends: dict[Words, str] = {(role,): role for role in PLAIN}
    for algorithm in algorithms:
        named |= {tuple(text.split()): role for text, role in algorithm.named_endings.items()}
        ends |= {tuple(text.split()): role for text, role in algorithm.endings.items()}
    return named, ends


def split_key(key: str, spelled: Mapping[Words, str], ends: Mapping[Words, str]) -> SplitKey | None:
    """What a key says, by the two ``spellings``; None where it has no known role.

    Where an adapter's name also reads as a role, it is a name: ``lora_A.b1.weight``. But PEFT's
    names hold no dot and stand before ".weight": ``my_lora_a.net.img_in.lokr_w1`` is a LoKr.
    """
    if len(key) > MAX_KEY:
        return None
    found = list(WORD.finditer(key))
    lowered = tuple(match[0].lower() for match in found)
    end = None
    for length in range(1, min(max(map(len, ends)), len(lowered) - 1) + 1):
        role = ends.get(lowered[-length:])
        if role is not None:
            end = SplitKey(key[: found[-length - 1].end()], role, "")
    named = _named(key, found, lowered, spelled)
    if named is None or end is None or end.role in PLAIN:
        return named or end
    return named if lowered[-1] in PLAIN and "." not in named.adapter else end


def _named(
    key: str, found: list[re.Match[str]], lowered: Words, known: Mapping[Words, str]
) -> SplitKey | None:
    """The last role in the key that is spelled so; the name is what follows, but "weight"."""
    longest = max(map(len, known))
    for at in range(len(lowered) - 1, 0, -1):
        for end in range(at + 1, min(at + longest, len(lowered)) + 1):
            role = known.get(lowered[at:end])
            if role is None:
                continue
            last = lowered[-1] if end < len(lowered) else ""
            name = found[end:-1] if last in PLAIN else found[end:]
            if last == "bias":
                if role != "up":
                    return None
                role = "up_bias"
            adapter = key[name[0].start() : name[-1].end()] if name else ""
            return SplitKey(key[: found[at - 1].end()], role, adapter)
    return None


def _apart(tables: dict[tuple[str, str], dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The stem of each adapter and its tensors' keys by role, from those by stem and name."""
    companions = {role for algorithm in adapters.ALGORITHMS for role in algorithm.companions}
    names: dict[str, list[str]] = {}
    for stem, name in tables:
        names.setdefault(stem, []).append(name)
    for stem, both in names.items():
        # ``X.alpha`` belongs to ``X.lora_A.<adapter name>``, where there is one such adapter.
        lonely = [name for name in both if tables[stem, name].keys() <= companions]
        if len(both) == 2 and len(lonely) == 1:
            owner = both[1 - both.index(lonely[0])]
            tables[stem, owner].update(tables.pop((stem, lonely[0])))
    for (stem, _), keys in tables.items():
        # A LoRA and a full difference of one module are two adapters, which add.
        differences = {}
        if not keys.keys() <= companions | _DIFFERENCES:
            differences = {role: keys.pop(role) for role in sorted(keys.keys() & _DIFFERENCES)}
        yield stem, keys
        if differences:
            yield stem, differences

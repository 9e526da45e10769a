"""What a file says, read once: each module's adapter from names and shapes, and PEFT's settings.

Whatever model it may meet. No tensor is read.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .. import adapters
from ..adapters import Algorithm, Geometry, Unfit
from .header import Header
from .keys import PLAIN, spellings, split_key
from .scaling import METADATA_KEY, PeftSettings, header_settings

_DIFFERENCES = frozenset({"diff", "diff_b"})


class Module(NamedTuple):
    """One adapter of a file: the module's name, its tensors' keys by role, and what they make.

    ``made`` is the algorithm and what weight it is for, or why the tensors are no adapter.
    """

    stem: str
    keys: Mapping[str, str]
    made: tuple[Algorithm, Geometry] | Unfit

    @property
    def geometry(self) -> Geometry | None:
        """The weight that it is for, and its rank; None where it is no adapter."""
        return None if isinstance(self.made, Unfit) else self.made[1]

    @property
    def is_plain(self) -> bool:
        """Whether it is a weight of a whole model, and no adapter."""
        return self.keys.keys() <= set(PLAIN.values())


class Facts(NamedTuple):
    """A file's modules in the order of their keys, the keys of no known role, and settings."""

    header: Header
    modules: tuple[Module, ...]
    unread: tuple[str, ...]
    settings: PeftSettings | None


def facts(header: Header, config: PeftSettings | None = None) -> Facts:
    """Every key split and every module recognised; ``config`` is an adapter_config.json's."""
    known = spellings(adapters.ALGORITHMS)
    tables: dict[tuple[str, str], dict[str, str]] = {}
    unread: list[str] = []
    repeated: set[str] = set()
    for key in sorted(header.tensors):
        split = split_key(key, known)
        if split is None:
            unread.append(key)
            continue
        keys = tables.setdefault((split.stem, split.adapter), {})
        if split.role in keys:
            repeated.add(split.stem)
        keys[split.role] = key
    companions = {role for known in adapters.ALGORITHMS for role in known.companions}
    _hand_out(tables, companions)
    modules = []
    for (stem, _), keys in tables.items():
        for own in _apart(keys, companions):
            shapes = {role: header.tensors[key].shape for role, key in own.items()}
            made: tuple[Algorithm, Geometry] | Unfit = Unfit("has the same part twice")
            if stem not in repeated:
                try:
                    made = adapters.recognise(shapes)
                except Unfit as error:
                    made = error.with_traceback(None)
            modules.append(Module(stem, own, made))
    settings = header_settings(header.metadata) if METADATA_KEY in header.metadata else None
    return Facts(header, tuple(modules), tuple(unread), settings or config)


def _hand_out(tables: dict[tuple[str, str], dict[str, str]], companions: set[str]) -> None:
    """Give ``X.alpha`` to ``X.lora_A.<adapter name>``, where there is one such adapter."""
    names: dict[str, list[str]] = {}
    for stem, name in tables:
        names.setdefault(stem, []).append(name)
    for stem, both in names.items():
        lonely = [name for name in both if tables[stem, name].keys() <= companions]
        if len(both) == 2 and len(lonely) == 1:
            owner = both[1 - both.index(lonely[0])]
            tables[stem, owner].update(tables.pop((stem, lonely[0])))


def _apart(keys: dict[str, str], companions: set[str]) -> list[dict[str, str]]:
    """A LoRA and a full difference of one module are two adapters, which add."""
    differences = {role: key for role, key in keys.items() if role in _DIFFERENCES}
    others = {role: key for role, key in keys.items() if role not in _DIFFERENCES}
    return [keys] if not differences or others.keys() <= companions else [others, differences]

"""A file's keys -> groups, one adapter each, on the weights of the loaded model; from names alone.

Two groups on the same rows of one weight are two namings of one module: both are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .header import Header
from .layout import Layout, Resolved
from .naming import WORD, KeyParts, split_key

# Parts that add to an adapter but are none by themselves.
_COMPANIONS = frozenset({"alpha", "dora_scale", "magnitude", "reshape", "scaled_oft", "rescale"})


@dataclass(frozen=True)
class Group:
    """The keys of one adapter: its part names -> the file's keys, and where its module lies."""

    stem: str
    adapter: str
    parts: Mapping[str, str]
    resolved: Resolved

    @property
    def target_shape(self) -> tuple[int, ...]:
        target = self.resolved.target
        rows = (target.rows,)
        return rows if target.columns is None else (*rows, target.columns)


@dataclass(frozen=True)
class Matching:
    """The groups on this model; the modules of the file that it has not got; keys given twice.

    ``unmatched`` holds stems (or whole keys that end in no known part), ``weights`` the plain
    ``.weight`` keys that only a whole model has, ``repeated`` stems whose part comes twice.
    """

    groups: tuple[Group, ...]
    unmatched: tuple[str, ...]
    weights: tuple[str, ...]
    repeated: tuple[str, ...]

    @property
    def total(self) -> int:
        return len(self.groups) + len(self.unmatched)


def match(header: Header, layout: Layout) -> Matching:
    """Sort a file's keys into groups on the loaded model's weights."""
    tables: dict[tuple[str, str], dict[str, str]] = {}
    unmatched: dict[str, None] = {}
    weights: list[str] = []
    repeated: dict[str, None] = {}
    resolved: dict[str, Resolved | None] = {}

    for key in sorted(header.tensors):
        reading = _reading(key, layout, resolved)
        if reading is None:
            readings = split_key(key)
            unmatched[readings[0].stem if readings else key] = None
            continue
        parts = tables.setdefault((reading.stem, reading.adapter), {})
        if reading.part in parts:
            repeated[reading.stem] = None
        parts[reading.part] = key
    _hand_out_companions(tables)
    groups = []
    for (stem, adapter), parts in tables.items():
        at = resolved[stem]
        if at is None:
            continue
        if parts.keys() <= {"weight", "bias"}:
            weights += parts.values()
            continue
        groups += [Group(stem, adapter, own, at) for own in _apart(parts)]
    return Matching(tuple(groups), tuple(unmatched), tuple(weights), tuple(repeated))


def _reading(key: str, layout: Layout, resolved: dict[str, Resolved | None]) -> KeyParts | None:
    """The first reading of a key whose stem is a module of the model."""
    for reading in split_key(key):
        if reading.stem not in resolved:
            resolved[reading.stem] = layout.resolve(reading.stem)
        if resolved[reading.stem] is not None:
            return reading
    return None


def _hand_out_companions(tables: dict[tuple[str, str], dict[str, str]]) -> None:
    """Give ``X.alpha`` to ``X.lora_A.<adapter name>``, where there is one such adapter."""
    adapters: dict[str, list[str]] = {}
    for stem, adapter in tables:
        adapters.setdefault(stem, []).append(adapter)
    for stem, names in adapters.items():
        lonely = [name for name in names if tables[stem, name].keys() <= _COMPANIONS]
        if lonely and len(names) == 2 and len(lonely) == 1:
            owner = names[1 - names.index(lonely[0])]
            tables[stem, owner].update(tables.pop((stem, lonely[0])))


def _apart(parts: dict[str, str]) -> list[dict[str, str]]:
    """A LoRA and a full difference of one module are two adapters, which add."""
    differences = {part: key for part, key in parts.items() if part in ("diff", "diff_b")}
    others = {part: key for part, key in parts.items() if part not in differences}
    if others.keys() <= _COMPANIONS:
        return [parts]
    return [own for own in (others, differences) if own]


def naming_of(group: Group) -> str:
    """How a group's module is spelled, for the report: "diffusion_model. + BFL names"."""
    prefix = _prefix_text(group)
    flat = "." not in group.stem.removeprefix(prefix)
    style = f"{group.resolved.naming}{' flattened' if flat else ''}"
    if not flat and "_attn_" in group.stem:
        style = f"{group.resolved.naming} with flattened attention"
    return f"{prefix} + {style}" if prefix else style


def _prefix_text(group: Group) -> str:
    """The stem's text before the module's name, with the separator behind it."""
    starts = [match.start() for match in WORD.finditer(group.stem)]
    return group.stem[: starts[len(group.resolved.prefix)]]

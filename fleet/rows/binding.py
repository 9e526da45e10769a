"""Which input of the graph a column sets.

A column is ``id.input``, ``title.input`` or, where only one node has such an input, ``input``.
Titles and inputs may hold dots, so that each dot may be the one between them.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from .graph import Graph, Place
from .names import Refused, named, quoted
from .values import SOCKET, Input

SEEDS = ("seed", "noise_seed")


class Column(NamedTuple):
    """What a column sets. ``forms``: its inputs in the schema, several where dynamic combos offer
    it under several options."""

    name: str
    node: str
    input: str
    forms: tuple[Input, ...]


def bind(graph: Graph, names: Iterable[str]) -> tuple[list[Column], list[str]]:
    """The columns that name an input, and what is wrong with the others, a text each."""
    columns: dict[Place, Column] = {}
    problems: list[str] = []
    for name in names:
        try:
            column = _bind(graph, name)
        except Refused as error:
            problems.append(f"Column {quoted(name)}: {error}")
            continue
        first = columns.setdefault((column.node, column.input), column)
        if first is not column:
            place = _place(graph, column.node, column.input)
            problems.append(
                f"Column {quoted(name)}: {quoted(first.name)} sets {place} too. Leave one out."
            )
    return list(columns.values()), problems


def _bind(graph: Graph, name: str) -> Column:
    """Raises Refused with what is to be said of the column."""
    splits = [(name[:dot], name[dot + 1 :]) for dot, sign in enumerate(name) if sign == "."]
    splits = [(" ".join(left.split()), right.strip()) for left, right in splits if left and right]
    candidates = _addressed(graph, splits) or _bare(graph, name.strip())
    if not candidates:
        raise Refused(_nothing(graph, name, splits))
    if len(candidates) > 1:
        free = [(node, one) for node, one in candidates if one in _settable(graph, node)]
        raise Refused(_ambiguous(graph, free or list(candidates)))
    ((node, input_name),) = candidates
    links = graph.links(node)
    if input_name in links:
        raise Refused(_linked(graph, node, input_name, links[input_name][0]))
    forms = graph.inputs[node][input_name]
    if all(form.spec.kind == SOCKET for form in forms):
        raise Refused(
            f"{_place(graph, node, input_name)} takes a link, not a value. Put a node before it "
            "that has the value as an input, and name that one."
        )
    return Column(name, node, input_name, forms)


def _addressed(graph: Graph, splits: Iterable[tuple[str, str]]) -> dict[Place, None]:
    """The inputs that a column names with their node, by the strictest reading that finds any."""
    found: dict[Place, None] = {}
    for nodes_of in (_by_id, _by_title, _by_case, _by_ending):
        for left, right in splits:
            nodes = [node for node in nodes_of(graph, left) if right in graph.inputs[node]]
            found |= dict.fromkeys((node, right) for node in nodes)
        if found:
            break
    return found


def _by_id(graph: Graph, name: str) -> list[str]:
    return [name] if name in graph.nodes else []


def _by_title(graph: Graph, name: str) -> list[str]:
    return [node for node in graph.nodes if graph.title(node) == name]


def _by_case(graph: Graph, name: str) -> list[str]:
    return [node for node in graph.nodes if graph.title(node).casefold() == name.casefold()]


def _by_ending(graph: Graph, name: str) -> list[str]:
    """Titles that end in these whole words."""
    words = name.casefold().split()
    titles = {node: graph.title(node).casefold().split() for node in graph.nodes}
    return [node for node, title in titles.items() if words and title[-len(words) :] == words]


def _bare(graph: Graph, name: str) -> dict[Place, None]:
    """Inputs of this name that can be set; where none can, those that are linked."""
    wanted = SEEDS if name in SEEDS[:1] else (name,)
    places = [(node, one) for node in graph.nodes for one in wanted if one in graph.inputs[node]]
    free = [(node, one) for node, one in places if one in _settable(graph, node)]
    return dict.fromkeys(free or places)


def _place(graph: Graph, node: str, name: str) -> str:
    return f"{graph.title(node)}.{name} (node {node})"


def _ambiguous(graph: Graph, places: list[Place]) -> str:
    titles = named([f"{graph.title(node)!r} (node {node})" for node, _ in places])
    node, one = places[0]
    if one in _settable(graph, node):
        remedy = f"Say which by its id, as in {node}.{one}."
    else:
        remedy = "All of them are linked: set an input of what feeds them."
    return f"it fits {len(places)} nodes: {titles}. {remedy}"


def _linked(graph: Graph, node: str, one: str, source: str) -> str:
    settable = [f"{source}.{other}" for other in _settable(graph, source)]
    remedy = f"Set a value of that one: {named(settable)}." if settable else "Cut the link."
    return (f"{_place(graph, node, one)} is linked; it gets its value from {graph.title(source)!r} "
            f"(node {source}). {remedy}")  # fmt: skip


def _nothing(graph: Graph, name: str, splits: list[Place]) -> str:
    """Which half of the column's name is wrong, and what is near it."""
    for nodes_of in (_by_id, _by_title, _by_case, _by_ending):
        for left, right in splits:
            nodes = nodes_of(graph, left)
            if nodes:
                known = [one for node in nodes for one in _settable(graph, node)]
                title = f"{graph.title(nodes[0])!r} (node {nodes[0]})"
                near = get_close_matches(right, known, 1, 0.6)
                hint = f" Near it: {near[0]!r}." if near else ""
                has = named(known, 12) or "none that can be set"
                return f"{title} has no input {quoted(right)}.{hint} It has {has}."
    addresses = []
    for node in graph.nodes:
        for one in _settable(graph, node):
            addresses += [f"{graph.title(node)}.{one}", f"{node}.{one}", one]
    near = get_close_matches(name, addresses, 2, 0.6)
    if near:
        return f"no node and no input is called so. Near it: {named([*map(repr, near)])}."
    titles = list(dict.fromkeys(graph.title(node) for node in graph.nodes))
    return ("no node and no input is called so. Write title.input or id.input; the nodes are "
            f"{named([*map(repr, titles)], 12)}.")  # fmt: skip


def _settable(graph: Graph, node: str) -> list[str]:
    inputs = graph.inputs[node].items()
    names = [one for one, forms in inputs if any(form.spec.kind != SOCKET for form in forms)]
    return [one for one in names if one not in graph.links(node)]

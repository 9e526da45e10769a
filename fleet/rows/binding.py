"""Which input of the graph a column sets, and whether the graph is one that can be run.

A column is ``id.input``, ``title.input`` or, where only one node has such an input, ``input``.
Titles and inputs may hold dots, so that each dot may be the one between them.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NamedTuple

from .table import Refused, named
from .values import SOCKET, Input, inputs_of, spec_like

SEEDS = ("seed", "noise_seed")
SAVED = {"IMAGE", "VIDEO", "*", "COMFY_MATCHTYPE_V3"}
"""Types of outputs that a node which saves pictures is fed with."""

Node = Mapping[str, Any]
Place = tuple[str, str]
"""A node's id and an input's name."""


class Column(NamedTuple):
    """What a column sets. ``forms``: its inputs in the schema, several where dynamic combos offer
    it under several options."""

    name: str
    node: str
    input: str
    forms: tuple[Input, ...]


class Graph:
    """A graph in API format together with what the server says of its classes.

    Raises Refused where it cannot be run.
    """

    def __init__(self, graph: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        _check_format(graph)
        self.nodes: dict[str, Node] = {str(node): content for node, content in graph.items()}
        self.info = info
        problems = [*self._broken_links(), *self._unknown_classes()]
        if not problems and not self._saves():
            problems.append(
                "The graph saves no picture. Add a Save Image node: a preview is not kept."
            )
        if problems:
            raise Refused(*problems)

    def title(self, node: str) -> str:
        """As the page shows it: the node's own title, its class's, else the class."""
        own = (self.nodes[node].get("_meta") or {}).get("title")
        kind = self.nodes[node]["class_type"]
        return str(own or self.info[kind].get("display_name") or kind)

    def outputs(self, node: str) -> list[str]:
        """The types of a node's outputs."""
        found = self.info[self.nodes[node]["class_type"]].get("output") or ()
        return [kind if isinstance(kind, str) else "COMBO" for kind in found]

    def links(self, node: str) -> dict[str, tuple[str, int]]:
        """A node's linked inputs -> the node and the number of the output that feed them."""
        inputs = self.nodes[node]["inputs"].items()
        return {name: (str(value[0]), value[1]) for name, value in inputs if is_link(value)}

    def takes(self, node: str) -> set[str]:
        """The types of the outputs that feed a node."""
        found = set()
        for source, slot in self.links(node).values():
            types = self.outputs(source)
            found.add(types[slot] if 0 <= slot < len(types) else "*")
        return found

    @cached_property
    def fed(self) -> dict[str, set[str]]:
        """Node -> the nodes that its outputs feed."""
        found: dict[str, set[str]] = {node: set() for node in self.nodes}
        for node in self.nodes:
            for source, _ in self.links(node).values():
                found[source].add(node)
        return found

    def downstream(self, node: str) -> set[str]:
        """All nodes that a change of ``node`` reaches, without itself."""
        found: set[str] = set()
        left = [node]
        while left:
            new = self.fed[left.pop()] - found
            found |= new
            left += new
        return found - {node}

    @cached_property
    def inputs(self) -> dict[str, dict[str, tuple[Input, ...]]]:
        """Node -> its inputs: those of the schema, and what else the graph sets."""
        return {node: self._inputs(node) for node in self.nodes}

    def own_value(self, node: str, name: str) -> Any:
        """What the graph sets, else the schema's default, else None; None for a link."""
        inputs = self.nodes[node]["inputs"]
        if name in inputs:
            return None if is_link(inputs[name]) else inputs[name]
        forms = self.inputs[node].get(name, ())
        return next((form.default for form in forms if not form.when), None)

    def _inputs(self, node: str) -> dict[str, tuple[Input, ...]]:
        found: dict[str, tuple[Input, ...]] = {}
        for one in inputs_of(self.info[self.nodes[node]["class_type"]]):
            found[one.name] = (*found.get(one.name, ()), one)
        for name, value in self.nodes[node]["inputs"].items():
            # A list that grows, or inputs that a pack adds in the page: typed by what is there.
            if all(form.spec.kind == SOCKET for form in found.get(name, ())):
                found[name] = (Input(name, spec_like(value), False, ()),)
        return found

    def _broken_links(self) -> Iterator[str]:
        for node, content in self.nodes.items():
            for name, (source, _) in self.links(node).items():
                if source not in self.nodes:
                    kind = content["class_type"]
                    yield (f"Node {node} ({kind}): {name} is linked to node {source}, which the "
                           "graph does not have. Export the whole graph.")  # fmt: skip

    def _unknown_classes(self) -> Iterator[str]:
        unknown: dict[str, list[str]] = {}
        for node, content in self.nodes.items():
            if content["class_type"] not in self.info:
                unknown.setdefault(content["class_type"], []).append(node)
        for kind, nodes in unknown.items():
            near = get_close_matches(kind, self.info, 1, 0.8)
            hint = f" It knows {near[0]}." if near else ""
            yield (f"Node {named(nodes)}: the server does not know the class {kind}. Install its "
                   f"pack there, or see the server's log for why it did not load.{hint}"
                   )  # fmt: skip

    def _saves(self) -> bool:
        for node, content in self.nodes.items():
            known = self.info[content["class_type"]]
            names = f"{content['class_type']} {known.get('display_name')}".lower()
            shows = "preview" in names or "compare" in names
            if known.get("output_node") and not shows and SAVED & self.takes(node):
                return True
        return False


def is_link(value: Any) -> bool:
    """Whether an input's value is a link to another node's output."""
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int))
            and type(value[1]) is int)  # fmt: skip


def bind(graph: Graph, names: Iterable[str]) -> tuple[list[Column], list[str]]:
    """The columns that name an input, and what is wrong with the others, a text each."""
    columns: dict[tuple[str, str], Column] = {}
    problems: list[str] = []
    for name in names:
        try:
            column = _bind(graph, name)
        except Refused as error:
            problems += error.problems
            continue
        first = columns.setdefault((column.node, column.input), column)
        if first is not column:
            problems.append(
                f"Columns {first.name!r} and {name!r} both set {_place(graph, *column[1:3])}. "
                "Leave one out."
            )
    return list(columns.values()), problems


def _bind(graph: Graph, name: str) -> Column:
    """Raises Refused."""
    splits = [(name[:dot], name[dot + 1 :]) for dot, sign in enumerate(name) if sign == "."]
    splits = [(left.strip(), right.strip()) for left, right in splits if left and right]
    candidates: dict[tuple[str, str], None] = {}
    for nodes_of in (_by_id, _by_title, _by_case, _by_ending):
        for left, right in splits:
            found = [node for node in nodes_of(graph, left) if right in graph.inputs[node]]
            candidates |= dict.fromkeys((node, right) for node in found)
        if candidates:
            break
    else:
        candidates = _bare(graph, name.strip())
    if not candidates:
        raise Refused(_nothing(graph, name, splits))
    if len(candidates) > 1:
        free = [(node, one) for node, one in candidates if one in _settable(graph, node)]
        raise Refused(_ambiguous(graph, name, free or list(candidates)))
    ((node, input_name),) = candidates
    links = graph.links(node)
    if input_name in links:
        raise Refused(_linked(graph, name, node, input_name, links[input_name][0]))
    forms = graph.inputs[node][input_name]
    if all(form.spec.kind == SOCKET for form in forms):
        raise Refused(
            f"Column {name!r}: {_place(graph, node, input_name)} takes a link, not a value. Put a "
            "node before it that has the value as an input, and name that one."
        )
    return Column(name, node, input_name, forms)


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


def _bare(graph: Graph, name: str) -> dict[tuple[str, str], None]:
    """Inputs of this name that can be set; where none can, those that are linked."""
    wanted = SEEDS if name in SEEDS[:1] else (name,)
    places = [(node, one) for node in graph.nodes for one in wanted if one in graph.inputs[node]]
    free = [(node, one) for node, one in places if one in _settable(graph, node)]
    return dict.fromkeys(free or places)


def _place(graph: Graph, node: str, name: str) -> str:
    return f"{graph.title(node)}.{name} (node {node})"


def _ambiguous(graph: Graph, name: str, places: list[tuple[str, str]]) -> str:
    titles = named([f"{graph.title(node)!r} (node {node})" for node, _ in places])
    node, one = places[0]
    if one in _settable(graph, node):
        remedy = f"Say which by its id, as in {node}.{one}."
    else:
        remedy = "All of them are linked: set an input of what feeds them."
    return f"Column {name!r} fits {len(places)} nodes: {titles}. {remedy}"


def _linked(graph: Graph, name: str, node: str, one: str, source: str) -> str:
    settable = [f"{source}.{other}" for other in _settable(graph, source)]
    remedy = f"Set a value of that one: {named(settable)}." if settable else "Cut the link."
    return (f"Column {name!r}: {_place(graph, node, one)} is linked; it gets its value from "
            f"{graph.title(source)!r} (node {source}). {remedy}")  # fmt: skip


def _nothing(graph: Graph, name: str, splits: list[tuple[str, str]]) -> str:
    """Which half of the column's name is wrong, and what is near it."""
    for nodes_of in (_by_id, _by_title, _by_case, _by_ending):
        for left, right in splits:
            nodes = nodes_of(graph, left)
            if nodes:
                known = [one for node in nodes for one in _settable(graph, node)]
                title = f"{graph.title(nodes[0])!r} (node {nodes[0]})"
                near = get_close_matches(right, known, 1, 0.6)
                hint = f" Near it: {near[0]!r}." if near else ""
                return (f"Column {name!r}: {title} has no input {right!r}.{hint} It has "
                        f"{named(known, 12) or 'none that can be set'}.")  # fmt: skip
    addresses = []
    for node in graph.nodes:
        for one in _settable(graph, node):
            addresses += [f"{graph.title(node)}.{one}", f"{node}.{one}", one]
    near = get_close_matches(name, addresses, 2, 0.6)
    if near:
        return f"Column {name!r} names no node and no input. Near it: {named([*map(repr, near)])}."
    titles = list(dict.fromkeys(graph.title(node) for node in graph.nodes))
    return (f"Column {name!r} names no node and no input: write title.input or id.input. The nodes "
            f"are {named([*map(repr, titles)], 12)}.")  # fmt: skip


def _settable(graph: Graph, node: str) -> list[str]:
    inputs = graph.inputs[node].items()
    names = [one for one, forms in inputs if any(form.spec.kind != SOCKET for form in forms)]
    return [one for one in names if one not in graph.links(node)]


def _check_format(graph: Mapping[str, Any]) -> None:
    """Raises Refused where this is no graph in API format."""
    if not isinstance(graph, Mapping) or not graph:
        raise Refused("The graph is no JSON object of nodes.")
    if isinstance(graph.get("nodes"), list):
        raise Refused(
            "This is a workflow of ComfyUI's page, not a graph that its API takes. Open it there "
            "and choose Workflow > Export (API)."
        )
    broken = [
        str(node)
        for node, content in graph.items()
        if not isinstance(content, Mapping)
        or not isinstance(content.get("class_type"), str)
        or not isinstance(content.get("inputs"), Mapping)
    ]
    if broken:
        raise Refused(
            f"The graph is not in API format: {named([*map(repr, broken)])} has no class_type with "
            "inputs. In ComfyUI's page choose Workflow > Export (API)."
        )

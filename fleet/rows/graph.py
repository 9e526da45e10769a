"""A graph in API format, together with what the server says of its classes."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from .names import Refused, named
from .values import SOCKET, Input, inputs_of, spec_like

SAVED = {"IMAGE", "VIDEO", "*", "COMFY_MATCHTYPE_V3"}
"""Types of outputs that a node which saves pictures is fed with."""

Node = Mapping[str, Any]
Place = tuple[str, str]
"""A node's id and an input's name."""


class Graph:
    """A graph in API format together with what the server says of its classes.

    Raises Refused where it cannot be run.
    """

    def __init__(self, graph: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        check_format(graph)
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
        """As the page shows it, on one line: the node's own, its class's, else the class."""
        meta, kind = self.nodes[node].get("_meta"), self.nodes[node]["class_type"]
        own = meta.get("title") if isinstance(meta, Mapping) else None
        return " ".join(str(own or self.info[kind].get("display_name") or kind).split())

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


def check_format(graph: Mapping[str, Any]) -> None:
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

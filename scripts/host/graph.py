"""Graphs in ComfyUI's API format, built in a few words.

>>> g = Graph()
>>> model = g.add("UNETLoader", unet_name="flux2-dev-tiny.safetensors", weight_dtype="default")
>>> guider = g.add("BasicGuider", model=model, conditioning=conditioning.out(1))

A node given as an input is a link to its first output; ``node.out(1)`` is another output.
"""

from typing import Any, NamedTuple


class Output(NamedTuple):
    """One output of a node: what an input links to."""

    node: str
    index: int


class Ref(str):
    """A node's id; used as an input it means the node's first output."""

    __slots__ = ()

    def out(self, index: int) -> Output:
        return Output(str(self), index)


class Graph:
    """A prompt under construction; ``prompt`` is what ``Client.run`` takes."""

    def __init__(self) -> None:
        self.prompt: dict[str, dict[str, Any]] = {}

    def add(self, class_type: str, /, title: str = "", **inputs: Any) -> Ref:
        """Add a node and return its id. Dotted inputs: ``**{"lora_1.file": "a.safetensors"}``."""
        ref = Ref(len(self.prompt) + 1)
        node: dict[str, Any] = {
            "class_type": class_type,
            "inputs": {name: _link(value) for name, value in inputs.items()},
        }
        if title:
            node["_meta"] = {"title": title}
        self.prompt[str(ref)] = node
        return ref

    def set(self, ref: Ref, **inputs: Any) -> None:
        """Change inputs of a node, as a user turns a knob between two runs."""
        self.prompt[ref]["inputs"] |= {name: _link(value) for name, value in inputs.items()}


def _link(value: Any) -> Any:
    if isinstance(value, Ref):
        return [str(value), 0]
    if isinstance(value, Output):
        return [value.node, value.index]
    return value

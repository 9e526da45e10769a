"""Folding nodes of a saved workflow into a box: a subgraph with named inputs and outputs."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from browser.comfy_page import Workflow

from host.graph import Ref

NAMESPACE = uuid.UUID("5bb1a4a3-3a8f-4f0b-9d2c-6f1f4f6c5a10")
INPUT_NODE, OUTPUT_NODE = -10, -20
ROW, TITLE = 20, 30
WIDTH, GAP = 340, 50
# Height by type: room for the picture, or for the words that the node says after its run.
HEIGHTS = {
    "UNETLoader": 100,
    "CLIPLoader": 120,
    "VAELoader": 70,
    "VAEDecode": 70,
    "VAEDecodeTiled": 170,
    "VAEEncode": 70,
    "ImageScaleBy": 110,
    "PreviewImage": 400,
    "ImageGrid": 190,
    "ImagePadForOutpaint": 180,
    "SetLatentNoiseMask": 70,
    "LatentBatchSeedBehavior": 90,
    "RebatchImages": 90,
    "SolidMask": 140,
    "MaskComposite": 190,
    "InvertMask": 60,
    "FluxKVCache": 60,
    "ManualSigmas": 90,
    "PrimitiveFloat": 90,
    "CreateList": 160,
    "LoadImage": 350,
    "LoadImageDataSetFromFolder": 90,
    "SaveImage": 400,
    "Flux2EditLoraStack": 250,
    "Flux2EditLoraSchedule": 290,
    "Flux2EditLoraRegion": 290,
    "Flux2EditApplyLoraStack": 280,
    "Flux2EditConditioning": 510,
    "Flux2EditImageSize": 280,
    "Flux2EditSampler": 520,
    "Flux2EditRegionCrop": 330,
    "Flux2EditRegionPaste": 300,
    "Flux2EditRunComfy": 640,
}
Node = dict[str, Any]


class Port(NamedTuple):
    """An input of the box: its name, and the inner node and input that it feeds."""

    name: str
    node: Ref
    inner: str


class Outlet(NamedTuple):
    """An output of the box: its name, and the inner node and the slot that it comes from."""

    name: str
    node: Ref
    slot: int = 0


class Box(NamedTuple):
    """What becomes a box: its nodes in columns, and what leads in and out."""

    title: str
    category: str
    description: str
    columns: tuple[tuple[Ref, ...], ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Outlet, ...]
    size: tuple[int, int] = (420, 480)


def fold(workflow: Workflow, box: Box, identity: str) -> Node:
    """Put the box's nodes into a subgraph of ``workflow`` and return the node that stands for it.

    ``identity`` makes the ids, the same at every run. Raises ValueError for a link over the box's
    edge that has no port or outlet.
    """
    inner = {int(ref) for column in box.columns for ref in column}
    nodes = {node["id"]: node for node in workflow["nodes"] if node["id"] in inner}
    links = [_link(*link) for link in workflow["links"] if {link[1], link[3]} <= inner]
    number = workflow["last_node_id"] + 1
    name = str(uuid.uuid5(NAMESPACE, identity))
    instance, inputs, outputs = _instance(name, number, box), [], []
    for port in box.inputs:
        _lead_in(port, identity, nodes, links, inputs, instance)
    for place, outlet in enumerate(box.outputs):
        outputs.append(_lead_out(outlet, place, len(box.columns), nodes, links))
        instance["outputs"].append({"name": outlet.name, "type": outputs[-1]["type"], "links": []})
    workflow["nodes"] = [node for node in workflow["nodes"] if node["id"] not in inner]
    workflow["nodes"].append(instance)
    workflow["last_node_id"] = number
    _connect(workflow, box, instance, nodes)
    _name_links(nodes.values(), links)
    _place(box, nodes)
    boxes = workflow.setdefault("definitions", {}).setdefault("subgraphs", [])
    boxes.append(_definition(name, box, list(nodes.values()), links, inputs, outputs))
    return instance


def _link(
    number: int, origin: int, origin_slot: int, target: int, target_slot: int, kind: str
) -> dict[str, Any]:
    """Links inside a subgraph are objects, outside they are lists."""
    return {
        "id": number,
        "origin_id": origin,
        "origin_slot": origin_slot,
        "target_id": target,
        "target_slot": target_slot,
        "type": kind,
    }


def _next(links: Sequence[dict[str, Any]]) -> int:
    return max((int(link["id"]) for link in links), default=0) + 1


def _slot(node: Node, name: str) -> int:
    return next(i for i, entry in enumerate(node["inputs"]) if entry["name"] == name)


def _lead_in(
    port: Port,
    identity: str,
    nodes: dict[int, Node],
    links: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
    instance: Node,
) -> None:
    """One port: a second one of the same name feeds another node from the same input."""
    node = nodes[int(port.node)]
    slot = _slot(node, port.inner)
    entry = node["inputs"][slot]
    names = [made["name"] for made in inputs]
    if port.name not in names:
        inputs.append(
            {
                "id": str(uuid.uuid5(NAMESPACE, f"{identity} {port.name}")),
                "name": port.name,
                "type": entry["type"],
                "linkIds": [],
                "pos": [-80, 20 + ROW * len(inputs)],
            }
        )
        names.append(port.name)
        face: dict[str, Any] = {"name": port.name, "type": entry["type"], "link": None}
        proxied = instance["properties"]["proxyWidgets"]
        if "widget" in entry:
            face["widget"] = {"name": port.name}
            proxied.append([str(port.node), port.inner])
        instance["inputs"].append(face)
        if port.name == "seed":
            proxied.append([str(port.node), "control_after_generate"])
    place = names.index(port.name)
    links.append(_link(_next(links), INPUT_NODE, place, node["id"], slot, entry["type"]))
    inputs[place]["linkIds"].append(links[-1]["id"])


def _lead_out(
    outlet: Outlet,
    place: int,
    columns: int,
    nodes: dict[int, Node],
    links: list[dict[str, Any]],
) -> dict[str, Any]:
    node = nodes[int(outlet.node)]
    kind = node["outputs"][outlet.slot]["type"]
    links.append(_link(_next(links), node["id"], outlet.slot, OUTPUT_NODE, place, kind))
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"output {node['id']} {outlet.name}")),
        "name": outlet.name,
        "type": kind,
        "linkIds": [links[-1]["id"]],
        "pos": [columns * (WIDTH + GAP) + 20, 20 + ROW * place],
    }


def _name_links(nodes: Iterable[Node], links: Sequence[dict[str, Any]]) -> None:
    """Write into every slot which links end there."""
    for node in nodes:
        for slot, entry in enumerate(node.get("inputs", ())):
            entry["link"] = next(iter(_ends(links, "target", node, slot)), None)
        for slot, entry in enumerate(node.get("outputs", ())):
            entry["links"] = _ends(links, "origin", node, slot) or None


def _ends(links: Sequence[dict[str, Any]], side: str, node: Node, slot: int) -> list[int]:
    end = (node["id"], slot)
    return [link["id"] for link in links if (link[f"{side}_id"], link[f"{side}_slot"]) == end]


def _connect(workflow: Workflow, box: Box, instance: Node, nodes: dict[int, Node]) -> None:
    """Lead the links over the box's edge to its own slots, and name all links outside anew."""
    faces = [entry["name"] for entry in instance["inputs"]]
    ports = {(int(port.node), port.inner): faces.index(port.name) for port in box.inputs}
    outlets = {(int(out.node), out.slot): place for place, out in enumerate(box.outputs)}
    kept: list[list[Any]] = []
    for number, origin, slot, target, target_slot, kind in workflow["links"]:
        start, end = (origin, slot), (target, target_slot)
        if origin in nodes and target in nodes:
            continue
        if origin in nodes:
            if start not in outlets:
                raise ValueError(f"{box.title}: no output for what {target} takes from {origin}")
            start = (instance["id"], outlets[start])
        elif target in nodes:
            name = nodes[target]["inputs"][target_slot]["name"]
            if (target, name) not in ports:
                raise ValueError(f"{box.title}: no input for {name} of {target}")
            end = (instance["id"], ports[target, name])
        # Two nodes inside may take the same thing: outside that is one link.
        if not any(link[1:5] == [*start, *end] for link in kept):
            kept.append([number, *start, *end, kind])
    workflow["links"] = kept
    _name_links(workflow["nodes"], [_link(*link) for link in kept])


def _instance(name: str, number: int, box: Box) -> Node:
    """The box itself, with a widget for each port that has one inside."""
    return {
        "id": number,
        "type": name,
        "pos": [0, 0],
        "size": list(box.size),
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {"proxyWidgets": [], "cnr_id": "flux2-lora-edit"},
        "widgets_values": [],
        "title": box.title,
    }


def _definition(
    name: str,
    box: Box,
    nodes: Sequence[Node],
    links: Sequence[dict[str, Any]],
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    edge = len(box.columns) * (WIDTH + GAP)
    return {
        "id": name,
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": max(node["id"] for node in nodes),
            "lastLinkId": max(link["id"] for link in links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": box.title,
        "inputNode": {"id": INPUT_NODE, "bounding": [-220, 0, 160, 40 + ROW * len(inputs)]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [edge, 0, 120, 80]},
        "inputs": list(inputs),
        "outputs": list(outputs),
        "widgets": [],
        "nodes": list(nodes),
        "groups": [],
        "links": list(links),
        "extra": {},
        "category": box.category,
        "description": box.description,
    }


def _place(box: Box, nodes: dict[int, Node]) -> None:
    for number, column in enumerate(box.columns):
        top = 0
        for ref in column:
            node = nodes[int(ref)]
            node["pos"] = [number * (WIDTH + GAP), top]
            node["size"] = [WIDTH, HEIGHTS[node["type"]]]
            top += node["size"][1] + TITLE + GAP

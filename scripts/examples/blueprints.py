"""The blueprints: one box with the hosted API's inputs, made of this pack's local nodes.

A box and the RunComfy node take the same names, so that one can be put in the other's place.
"""

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from browser.comfy_page import ComfyPage, Workflow

from host.graph import Graph, Ref

from .graphs import PICTURE, local, pictures, stack
from .layout import GAP, HEIGHTS, NAMESPACE, WIDTH, mark
from .models import DEV, KLEIN

INPUT_NODE, OUTPUT_NODE = -10, -20
ROW, TITLE = 20, 30


class Port(NamedTuple):
    """An input of the box: its name, and the inner node and input that it feeds."""

    name: str
    node: Ref
    inner: str


class Box(NamedTuple):
    """A blueprint before it is written: its inner graph and its ports."""

    title: str
    category: str
    description: str
    graph: Graph
    inputs: tuple[Port, ...]
    image: Ref
    report: Ref


def boxes() -> tuple[Box, Box]:
    return _box("Image Edit with LoRAs (FLUX.2)", 3), _box("Text to Image with LoRAs (FLUX.2)", 0)


def _box(title: str, count: int) -> Box:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    loras = stack(graph)
    size = "match image" if images else "landscape_4_3"
    at = local(graph, DEV, "", images=images, loras=loras, size=size, seed=0)
    # The box takes pictures and gives one: the nodes that load and save stay outside.
    for outside in (*images.values(), at["save"]):
        del graph.prompt[outside]
    for node in graph.prompt.values():
        node["inputs"] = {
            name: value
            for name, value in node["inputs"].items()
            if not (isinstance(value, list) and value[0] not in graph.prompt)
        }
    ports = [Port("prompt", at["conditioning"], "prompt")]
    ports += [Port(name, at["conditioning"], name) for name in images]
    if images:
        ports.append(Port("image_1", at["size"], "image"))
    ports += [
        Port("lora_stack", loras, "lora_stack"),
        Port("image_size", at["size"], "image_size"),
        Port("guidance_scale", at["sampler"], "guidance"),
        Port("num_inference_steps", at["sampler"], "steps"),
        Port("seed", at["sampler"], "seed"),
        Port("unet_name", at["model"], "unet_name"),
        Port("clip_name", at["clip"], "clip_name"),
        Port("vae_name", at["vae"], "vae_name"),
    ]
    what = "Edits up to three pictures" if images else "Makes a picture from text"
    return Box(
        title,
        "Image generation and editing/" + ("Edit image" if images else "Text to image"),
        f"{what} with FLUX.2 and a LoRA stack on this machine. The inputs are those of RunComfy "
        f"FLUX.2 LoRA, so that the two can be exchanged. Set up for dev; for klein distilled take "
        f"{KLEIN.steps} steps.",
        graph,
        tuple(ports),
        at["decode"],
        at["apply"],
    )


def write_blueprint(page: ComfyPage, box: Box, version: str) -> Workflow:
    """The blueprint's file: a workflow whose only node is an instance of the subgraph."""
    page.load_api(box.graph.prompt)
    inner = page.serialize()
    nodes = {str(node["id"]): node for node in inner["nodes"]}
    for node in nodes.values():
        mark(node, version, DEV)
    _place(list(nodes.values()))
    links = [_link(*link) for link in inner["links"]]
    inputs = _inputs(box, nodes, links)
    outputs = [
        _output(number, nodes[node], slot, name, links)
        for number, (node, slot, name) in enumerate(
            ((box.image, 0, "image"), (box.report, 2, "report"))
        )
    ]
    identity = str(uuid.uuid5(NAMESPACE, box.title))
    subgraph = {
        "id": identity,
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": max(map(int, nodes)),
            "lastLinkId": max(link["id"] for link in links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": box.title,
        "inputNode": {"id": INPUT_NODE, "bounding": [-220, 0, 160, 40 + ROW * len(inputs)]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [4 * (WIDTH + GAP), 0, 120, 80]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": list(nodes.values()),
        "groups": [],
        "links": links,
        "extra": {},
        "category": box.category,
        "description": box.description,
    }
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"{box.title} file")),
        "revision": 0,
        "last_node_id": max(map(int, nodes)) + 1,
        "last_link_id": 0,
        "nodes": [_instance(identity, box, nodes, inputs, outputs)],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {},
        "version": 0.4,
    }


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


def _inputs(box: Box, nodes: dict[str, Any], links: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inputs: dict[str, dict[str, Any]] = {}
    for port in box.inputs:
        node = nodes[port.node]
        slot = next(i for i, entry in enumerate(node["inputs"]) if entry["name"] == port.inner)
        entry = node["inputs"][slot]
        made = inputs.setdefault(
            port.name,
            {
                "id": str(uuid.uuid5(NAMESPACE, f"{box.title} {port.name}")),
                "name": port.name,
                "type": entry["type"],
                "linkIds": [],
                "pos": [-80, 20 + ROW * len(inputs)],
            },
        )
        number = max(link["id"] for link in links) + 1
        place = list(inputs).index(port.name)
        links.append(_link(number, INPUT_NODE, place, node["id"], slot, entry["type"]))
        made["linkIds"].append(number)
        entry["link"] = number
    return list(inputs.values())


def _output(
    place: int, node: dict[str, Any], slot: int, name: str, links: list[dict[str, Any]]
) -> dict[str, Any]:
    number = max(link["id"] for link in links) + 1
    out = node["outputs"][slot]
    links.append(_link(number, node["id"], slot, OUTPUT_NODE, place, out["type"]))
    out["links"] = [*(out.get("links") or []), number]
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"output {node['id']} {name}")),
        "name": name,
        "type": out["type"],
        "linkIds": [number],
        "pos": [4 * (WIDTH + GAP) + 20, 20 + ROW * place],
    }


def _instance(
    identity: str,
    box: Box,
    nodes: dict[str, Any],
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The box itself, with a widget for each port that has one inside."""
    proxied = []
    shown = []
    for entry in inputs:
        port = next(port for port in box.inputs if port.name == entry["name"])
        inner = next(i for i in nodes[port.node]["inputs"] if i["name"] == port.inner)
        face: dict[str, Any] = {"name": entry["name"], "type": entry["type"], "link": None}
        if "widget" in inner:
            face["widget"] = {"name": entry["name"]}
            proxied.append([str(port.node), port.inner])
        shown.append(face)
        if entry["name"] == "seed":
            proxied.append([str(port.node), "control_after_generate"])
    return {
        "id": max(map(int, nodes)) + 1,
        "type": identity,
        "pos": [0, 0],
        "size": [420, 480],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": shown,
        "outputs": [{"name": out["name"], "type": out["type"], "links": []} for out in outputs],
        "properties": {"proxyWidgets": proxied, "cnr_id": "flux2-lora-edit"},
        "widgets_values": [],
        "title": box.title,
    }


def _place(nodes: list[dict[str, Any]]) -> None:
    columns = (
        ("UNETLoader", "CLIPLoader", "VAELoader"),
        ("Flux2EditLoraStack", "Flux2EditApplyLoraStack"),
        ("Flux2EditConditioning", "Flux2EditImageSize"),
        ("Flux2EditSampler", "VAEDecode"),
    )
    for number, kinds in enumerate(columns):
        top = 0
        for node in (node for kind in kinds for node in nodes if node["type"] == kind):
            node["pos"] = [number * (WIDTH + GAP), top]
            node["size"] = [WIDTH, HEIGHTS[node["type"]]]
            top += node["size"][1] + TITLE + GAP

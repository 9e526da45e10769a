"""The blueprints: one box with the hosted API's inputs, made of this pack's local nodes.

A box and the RunComfy node take the same names, so that one can be put in the other's place.
"""

import uuid
from typing import NamedTuple

from browser.comfy_page import ComfyPage, Workflow

from host.graph import Graph, Ref

from .folding import NAMESPACE, Box, Outlet, Port, fold
from .graphs import PICTURE, local, pictures, stack
from .layout import mark
from .models import DEV, KLEIN
from .regions import region_box, region_nodes

EDIT, MAKE = "Image Edit with LoRAs (FLUX.2)", "Text to Image with LoRAs (FLUX.2)"


class Blueprint(NamedTuple):
    """A box and the graph that it is cut out of."""

    graph: Graph
    box: Box


def blueprints() -> tuple[Blueprint, ...]:
    return _blueprint(3), _blueprint(0), _region()


def _blueprint(count: int) -> Blueprint:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * count)
    loras = stack(graph)
    size = "match image" if images else "landscape_4_3"
    at = local(graph, DEV, "", images=images, loras=loras, size=size, seed=0)
    _leave_out(graph, *images.values(), at["save"])
    ports = ports_of(at, tuple(images))
    place = [port.name for port in ports].index("lora_stack")
    ports[place] = Port("lora_stack", loras, "lora_stack")
    return Blueprint(graph, edit_box(at, tuple(ports), bool(images), loras))


def _region() -> Blueprint:
    graph = Graph()
    images = pictures(graph, *[PICTURE] * 3)
    painted = images.pop("image_1")
    loras = stack(graph)
    made = region_nodes(graph, DEV, "", (painted, painted.out(1)), loras, images, seed=0)
    _leave_out(graph, painted, *images.values(), made.at["save"])
    return Blueprint(graph, region_box(made, tuple(images), loras))


def _leave_out(graph: Graph, *outside: Ref) -> None:
    """The box takes pictures and gives one: the nodes that load and save stay outside."""
    for node in outside:
        del graph.prompt[node]
    for entry in graph.prompt.values():
        entry["inputs"] = {
            name: value
            for name, value in entry["inputs"].items()
            if not (isinstance(value, list) and value[0] not in graph.prompt)
        }


def ports_of(at: dict[str, Ref], images: tuple[str, ...]) -> list[Port]:
    """The inputs of the hosted API, on the nodes that ``local`` gave; then the model files."""
    ports = [Port("prompt", at["conditioning"], "prompt")]
    ports += [Port(name, at["conditioning"], name) for name in images]
    if images:
        ports.append(Port("image_1", at["size"], "image"))
    return [
        *ports,
        Port("lora_stack", at["apply"], "lora_stack"),
        Port("image_size", at["size"], "image_size"),
        Port("guidance_scale", at["sampler"], "guidance"),
        Port("num_inference_steps", at["sampler"], "steps"),
        Port("seed", at["sampler"], "seed"),
        Port("unet_name", at["model"], "unet_name"),
        Port("clip_name", at["clip"], "clip_name"),
        Port("vae_name", at["vae"], "vae_name"),
    ]


def edit_box(at: dict[str, Ref], ports: tuple[Port, ...], images: bool, *loras: Ref) -> Box:
    """The box of the nodes that ``local`` gave, without the one that saves."""
    what = "Edits up to three pictures" if images else "Makes a picture from text"
    return Box(
        EDIT if images else MAKE,
        "Image generation and editing/" + ("Edit image" if images else "Text to image"),
        f"{what} with FLUX.2 and a LoRA stack on this machine. The inputs are those of RunComfy "
        f"FLUX.2 LoRA, so that the two can be exchanged. Set up for dev; for klein distilled take "
        f"{KLEIN.steps} steps.",
        (
            (at["model"], at["clip"], at["vae"]),
            (*loras, at["apply"]),
            (at["conditioning"], at["size"]),
            (at["sampler"], at["decode"]),
        ),
        ports,
        (Outlet("image", at["decode"]), Outlet("report", at["apply"], 2)),
    )


def write_blueprint(page: ComfyPage, blueprint: Blueprint, version: str) -> Workflow:
    """The blueprint's file: a workflow whose only node is an instance of the subgraph."""
    page.load_api(blueprint.graph.prompt)
    workflow = page.serialize()
    for node in workflow["nodes"]:
        mark(node, version, DEV)
    title = blueprint.box.title
    fold(workflow, blueprint.box, title)
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"{title} file")),
        "revision": 0,
        "last_node_id": workflow["last_node_id"],
        "last_link_id": 0,
        "nodes": workflow["nodes"],
        "links": [],
        "groups": [],
        "definitions": workflow["definitions"],
        "config": {},
        "extra": {},
        "version": 0.4,
    }

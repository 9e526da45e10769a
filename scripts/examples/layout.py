"""A sheet as the page saves it: positions, a frame, a note, links to the model files."""

import uuid
from typing import Any

from browser.comfy_page import ComfyPage, Workflow

from host.client import Prompt

from .folding import HEIGHTS, NAMESPACE, WIDTH, fold
from .models import Family
from .sheets import Example, Sheet

HOSTED = "Flux2EditRunComfy"
# Nodes 2.0 draws the title above what a node calls its place, so that a gap holds one.
GAP, BESIDE, MARGIN, TOP = 80, 60, 20, 80
WIDTHS = {
    "Flux2EditConditioning": 400,
    "Flux2EditLoraStack": 400,
    "Flux2EditRegionPaste": 280,
    HOSTED: 420,
    "SaveImage": 340,
    "PreviewImage": 340,
}


def write_workflow(page: ComfyPage, example: Example, version: str) -> Workflow:
    """The example in UI format. Raises ValueError where the page changed the graph."""
    sheet = example.draw()
    page.load_api(sheet.graph.prompt)
    _same(page.export_api(), sheet, example.name)
    workflow = page.serialize()
    for node in workflow["nodes"]:
        mark(node, version, example.family)
    for box in sheet.boxes:
        fold(workflow, box, f"{example.name}: {box.title}")
    if sheet.fixed:
        _keep_seeds(workflow)
    arrange(workflow, sheet)
    add_note(workflow, example.note(sheet), sheet.note)
    workflow["id"] = str(uuid.uuid5(NAMESPACE, example.name))
    workflow["extra"] = {}
    page.load(workflow)
    _same(page.export_api(), sheet, example.name)
    return workflow


def _keep_seeds(workflow: Workflow) -> None:
    """What the page draws anew after each run stays as it is."""
    boxes = workflow.get("definitions", {}).get("subgraphs", ())
    for node in (*workflow["nodes"], *(node for box in boxes for node in box["nodes"])):
        values = node.get("widgets_values", [])
        node["widgets_values"] = ["fixed" if value == "randomize" else value for value in values]


def _same(exported: Prompt, sheet: Sheet, name: str) -> None:
    """Compare as if no node were in a box, where its id stands behind the box's and a colon."""
    flat: Prompt = {}
    for node, entry in exported.items():
        inputs = {
            key: [value[0].split(":")[-1], value[1]] if isinstance(value, list) else value
            for key, value in entry["inputs"].items()
        }
        flat[node.split(":")[-1]] = entry | {"inputs": inputs}
    wanted = sheet.graph.prompt
    if other := [node for node in {*flat, *wanted} if flat.get(node) != wanted.get(node)]:
        raise ValueError(f"{name}: the page exports another graph than was defined: {other}")


def arrange(workflow: Workflow, sheet: Sheet) -> None:
    """Place the nodes in their columns, the hosted node in a frame that says that it is paid."""
    boxes = {box["id"]: box["name"] for box in workflow.get("definitions", {}).get("subgraphs", ())}
    nodes = {boxes.get(node["type"], str(node["id"])): node for node in workflow["nodes"]}
    placed = [ref for column in sheet.columns for ref in column if isinstance(ref, str)]
    if sorted(placed) != sorted(nodes):
        raise ValueError(f"the columns hold {sorted(placed)}, the graph {sorted(nodes)}")
    frames: list[dict[str, Any]] = []
    left, width, top = 0, sheet.note[0], sheet.note[1] + GAP if sheet.note[1] else 0
    for column in sheet.columns:
        sizes = {ref: _size(nodes[ref]) for ref in column if isinstance(ref, str)}
        width = max([width, *(size[0] for size in sizes.values())])
        paid = any(nodes[ref]["type"] == HOSTED for ref in sizes)
        left += MARGIN if paid else 0
        for ref in column:
            if isinstance(ref, int):
                top += ref
                continue
            height = sizes[ref][1]
            if nodes[ref]["type"] == HOSTED:
                frames.append(_frame(len(frames) + 1, left, top, width, height))
                top += TOP
            nodes[ref]["pos"], nodes[ref]["size"] = [left, top], [width, height]
            top += height + GAP
        left += width + (BESIDE if sheet.boxes else GAP) + (MARGIN if paid else 0)
        width = top = 0
    workflow["groups"] = frames


def _frame(number: int, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": "RunComfy (paid)",
        "bounding": [left - MARGIN, top, width + 2 * MARGIN, TOP + height + MARGIN],
        "color": "#b58b2a",
        "font_size": 24,
        "flags": {},
    }


def _size(node: dict[str, Any]) -> tuple[int, int]:
    """By type; a box has its own."""
    kind = node["type"]
    if kind in HEIGHTS:
        return WIDTHS.get(kind, WIDTH), HEIGHTS[kind]
    width, height = node["size"]
    return width, height


def add_note(workflow: Workflow, text: str, size: tuple[int, int]) -> None:
    workflow["last_node_id"] += 1
    workflow["nodes"].append(
        {
            "id": workflow["last_node_id"],
            "type": "MarkdownNote",
            "title": "About this workflow",
            "pos": [0, 0],
            "size": list(size),
            "flags": {},
            "order": len(workflow["nodes"]),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {"Node name for S&R": "MarkdownNote"},
            "widgets_values": [text],
            # ComfyUI's brown leaves its text hard to read in Nodes 2.0. A light palette adds half
            # of the lightness to what a node says: of black it makes grey, behind dark grey words.
            "color": "#222",
            "bgcolor": "#333",
        }
    )


def mark(node: dict[str, Any], version: str, family: Family | None) -> None:
    """Name the node's pack, so that another machine can offer to install what it lacks."""
    properties = node["properties"] = {"Node name for S&R": node["type"]}
    ours = node["type"].startswith("Flux2Edit")
    properties["cnr_id"] = "flux2-lora-edit" if ours else "comfy-core"
    if ours:
        properties["ver"] = version
    for file in family.files if family else ():
        if file.name in node.get("widgets_values", ()):
            entry = {"name": file.name, "url": file.url, "directory": file.folder}
            properties["models"] = [entry]

"""A sheet as the page saves it: positions, frames, note, links to the model files."""

import uuid
from typing import Any

from browser.comfy_page import ComfyPage, Workflow

from host.client import Prompt

from .folding import GAP, HEIGHTS, NAMESPACE, TITLE, WIDTH, fold
from .models import Family
from .sheets import Example, Sheet

MARGIN, TOP = 20, 80
COLORS = ("#3f789e", "#8a8", "#a1309b", "#b58b2a", "#3f789e", "#444", "#88a")
WIDTHS = {
    "Flux2EditConditioning": 420,
    "Flux2EditRunComfy": 420,
    "SaveImage": 420,
    "PreviewImage": 420,
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
    arrange(workflow, sheet)
    add_note(workflow, example.note, sheet.note)
    workflow["id"] = str(uuid.uuid5(NAMESPACE, example.name))
    workflow["extra"] = {}
    page.load(workflow)
    _same(page.export_api(), sheet, example.name)
    return workflow


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
    """Place the nodes in their columns, each column that has a title in a frame."""
    boxes = {box["id"]: box["name"] for box in workflow.get("definitions", {}).get("subgraphs", ())}
    nodes = {boxes.get(node["type"], str(node["id"])): node for node in workflow["nodes"]}
    placed = [*sheet.below, *(ref for column in sheet.columns for ref in column.nodes)]
    if sorted(placed) != sorted(nodes):
        raise ValueError(f"the columns hold {sorted(placed)}, the graph {sorted(nodes)}")
    groups: list[dict[str, Any]] = []
    _stack([nodes[ref] for ref in sheet.below], 0, sheet.note[1] + GAP + TITLE)
    # The note stands before the first column.
    left = sheet.note[0] + GAP + (2 * MARGIN if sheet.columns[0].title else TITLE)
    for column in sheet.columns:
        margin = MARGIN if column.title else 0
        width, bottom = _stack([nodes[ref] for ref in column.nodes], left, TOP if margin else 0)
        if column.title:
            groups.append(
                {
                    "id": len(groups) + 1,
                    "title": column.title,
                    "bounding": [left - margin, 0, width + 2 * margin, bottom + margin],
                    "color": COLORS[len(groups) % len(COLORS)],
                    "font_size": 24,
                    "flags": {},
                }
            )
        left += width + GAP + (2 * margin or TITLE)
    workflow["groups"] = groups


def _stack(nodes: list[dict[str, Any]], left: int, top: int) -> tuple[int, int]:
    """Set nodes below one another; gives their width and where they end."""
    sizes = [_size(node) for node in nodes]
    width = max((size[0] for size in sizes), default=0)
    # Without a frame around them there is room for Nodes 2.0, which draws nodes a little higher.
    gap = GAP if top else GAP + TITLE
    for node, (_, height) in zip(nodes, sizes, strict=True):
        node["pos"], node["size"] = [left, top], [width, height]
        top += height + gap
    return width, top - gap


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
            # ComfyUI's brown leaves its text hard to read in Nodes 2.0.
            "color": "#222",
            "bgcolor": "#000",
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

"""A sheet as the page saves it: positions, frames, note, links to the model files."""

import uuid
from typing import Any

from browser.comfy_page import ComfyPage, Workflow

from .folding import GAP, HEIGHTS, NAMESPACE, WIDTH
from .models import Family
from .workflows import Example, Sheet

MARGIN, TITLE = 20, 80
COLORS = ("#3f789e", "#8a8", "#a1309b", "#b58b2a", "#3f789e", "#444", "#88a")
WIDTHS = {"Flux2EditConditioning": 420, "Flux2EditRunComfy": 420, "SaveImage": 420}


def write_workflow(page: ComfyPage, example: Example, version: str) -> Workflow:
    """The example in UI format. Raises ValueError where the page changed the graph."""
    sheet = example.draw()
    page.load_api(sheet.graph.prompt)
    exported = page.export_api()
    if exported != sheet.graph.prompt:
        raise ValueError(f"{example.name}: the page exports another graph than was defined")
    workflow = page.serialize()
    arrange(workflow, sheet)
    add_note(workflow, example.note)
    finish(workflow, example.name, version, example.family)
    return workflow


def arrange(workflow: Workflow, sheet: Sheet) -> None:
    """Place the nodes in their columns, each column in a frame."""
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    placed = [ref for column in sheet.columns for ref in column.nodes]
    if sorted(placed) != sorted(nodes):
        raise ValueError(f"the columns hold {sorted(placed)}, the graph {sorted(nodes)}")
    groups = []
    left = WIDTH + 2 * MARGIN + GAP  # the note stands before the first column
    for number, column in enumerate(sheet.columns):
        top = TITLE
        width = max(WIDTHS.get(nodes[ref]["type"], WIDTH) for ref in column.nodes)
        for ref in column.nodes:
            node = nodes[ref]
            height = HEIGHTS[node["type"]]
            node["pos"], node["size"] = [left, top], [width, height]
            top += height + GAP
        groups.append(
            {
                "id": number + 1,
                "title": column.title,
                "bounding": [left - MARGIN, 0, width + 2 * MARGIN, top - GAP + MARGIN],
                "color": COLORS[number % len(COLORS)],
                "font_size": 24,
                "flags": {},
            }
        )
        left += width + 2 * MARGIN + GAP
    workflow["groups"] = groups


def add_note(workflow: Workflow, text: str) -> None:
    workflow["last_node_id"] += 1
    workflow["nodes"].append(
        {
            "id": workflow["last_node_id"],
            "type": "MarkdownNote",
            "title": "About this workflow",
            "pos": [0, 0],
            "size": [WIDTH, 480],
            "flags": {},
            "order": len(workflow["nodes"]),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {},
            "widgets_values": [text],
            "color": "#432",
            "bgcolor": "#653",
        }
    )


def finish(workflow: Workflow, name: str, version: str, family: Family | None) -> None:
    """What makes it readable elsewhere: a stable id, each node's pack, links to the files."""
    workflow["id"] = str(uuid.uuid5(NAMESPACE, name))
    workflow["extra"] = {}
    for node in workflow["nodes"]:
        mark(node, version, family)


def mark(node: dict[str, Any], version: str, family: Family | None) -> None:
    """Name the node's pack, so that another machine can offer to install what it lacks."""
    properties = node["properties"] = {"Node name for S&R": node["type"]}
    if node["type"] == "MarkdownNote":
        return
    ours = node["type"].startswith("Flux2Edit")
    properties["cnr_id"] = "flux2-lora-edit" if ours else "comfy-core"
    if ours:
        properties["ver"] = version
    for file in family.files if family else ():
        if file.name in node.get("widgets_values", ()):
            entry = {"name": file.name, "url": file.url, "directory": file.folder}
            properties["models"] = [entry]

"""What a hand does on ComfyUI's page, at the place where the page draws the thing."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Locator
from playwright.sync_api import TimeoutError as PageTimeout

from .comfy_page import ComfyPage

# The button over a picture in Nodes 2.0.
MASK = re.compile("mask", re.IGNORECASE)


class Point(NamedTuple):
    """A place on the screen, in CSS pixels."""

    x: float
    y: float


def search(page: ComfyPage, typed: str) -> None:
    """Double-click the empty canvas and type into the search box that opens."""
    box = page.page.get_by_placeholder("Add a node...")
    for _ in range(3):
        canvas = page.page.locator("#graph-canvas").bounding_box() or {}
        page.page.mouse.dblclick(canvas["x"] + canvas["width"] / 2, canvas["y"] + 700)
        with suppress(PageTimeout):
            # Long: a second double-click would close what the first one opens late.
            box.wait_for(timeout=30_000)
            break
    box.fill(typed)


def slot(page: ComfyPage, node: int, side: str, name: str) -> Point:
    """Where the dot of an "input" or "output" is drawn."""
    x, y = page.js(
        """([id, side, name]) => {
            const node = app.graph.getNodeById(id)
            const slots = side === 'input' ? node.inputs : node.outputs
            const index = slots.findIndex(slot => slot.name === name)
            if (index < 0) throw new Error(`no ${side} ${name}`)
            const dom = document.querySelector(`[data-node-id="${id}"]`)
            if (dom) {
                const dots = [...dom.querySelectorAll(`.lg-slot--${side}`)]
                const dot = dots.find(d => d.textContent.trim() === name) ?? dots[index]
                const box = dot.querySelector('[data-testid="slot-dot"]').getBoundingClientRect()
                return [box.x + box.width / 2, box.y + box.height / 2]
            }
            const at = node.getConnectionPos(side === 'input', index)
            const view = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect()
            return [
                canvas.x + (at[0] + view.offset[0]) * view.scale,
                canvas.y + (at[1] + view.offset[1]) * view.scale,
            ]
        }""",
        [node, side, name],
    )
    return Point(x, y)


def widget(page: ComfyPage, node: int, name: str) -> Point:
    """Where the classic canvas draws a widget."""
    x, y = page.js(
        """([id, name]) => {
            const node = app.graph.getNodeById(id)
            const widget = node.widgets.find(w => w.name === name)
            const view = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect()
            return [
                canvas.x + (node.pos[0] + node.size[0] / 2 + view.offset[0]) * view.scale,
                canvas.y + (node.pos[1] + widget.y + 10 + view.offset[1]) * view.scale,
            ]
        }""",
        [node, name],
    )
    return Point(x, y)


def spread(page: ComfyPage) -> None:
    """Lay the nodes out in four columns, apart and all in view."""
    # A node grows when its picture has come and been drawn once.
    page.fit()
    page.page.wait_for_function(
        "() => app.graph._nodes.every(n => n.type !== 'LoadImage' || n.imgs?.length)"
    )
    page.page.wait_for_timeout(300)
    page.js(
        """() => {
            const columns = 4
            const tops = Array(columns).fill(0)
            app.graph._nodes.forEach((node, index) => {
                const column = Math.floor(index * columns / app.graph._nodes.length)
                node.pos = [column * 480, tops[column]]
                tops[column] += node.size[1] + 60
            })
        }"""
    )
    page.settle()
    page.fit()


def open_mask_editor(page: ComfyPage, node: int) -> Locator:
    """The mask editor of a Load Image: from its menu, or by the button over its picture."""
    dom = page.page.locator(f'[data-node-id="{node}"]')
    if page.js("() => LiteGraph.vueNodesMode"):
        picture = dom.locator("img").first.bounding_box() or {}
        page.page.mouse.move(picture["x"] + picture["width"] / 2, picture["y"] + 40)
        dom.get_by_label(MASK).first.click()
    else:
        left, top = page.js(
            """(id) => {
                const node = app.graph.getNodeById(id), view = app.canvas.ds
                const canvas = app.canvas.canvas.getBoundingClientRect()
                return [
                    canvas.x + (node.pos[0] + node.size[0] / 2 + view.offset[0]) * view.scale,
                    canvas.y + (node.pos[1] - 12 + view.offset[1]) * view.scale,
                ]
            }""",
            node,
        )
        page.page.mouse.click(left, top, button="right")
        page.page.locator(".litemenu-entry:visible", has_text="MaskEditor").first.click()
    return page.page.get_by_role("dialog").filter(has=page.page.locator("canvas"))


def paint(page: ComfyPage, editor: Locator, path: Iterable[Point]) -> None:
    """Draw one line with the editor's brush, from pixel to pixel of the picture."""
    # Before its pictures have come the canvases have the browser's own size, and no brush.
    page.page.wait_for_function(
        """(canvas) => canvas.width !== 300
            && canvas.getContext('2d').getImageData(9, 9, 1, 1).data[3]""",
        arg=editor.locator("canvas").first.element_handle(),
    )
    canvas = editor.locator("canvas").first
    place = canvas.bounding_box() or {}
    scale = place["width"] / canvas.evaluate("canvas => canvas.width")
    start, *rest = (Point(place["x"] + x * scale, place["y"] + y * scale) for x, y in path)
    page.page.mouse.move(*start)
    page.page.mouse.down()
    for point in rest:
        page.page.mouse.move(*point)
    page.page.mouse.up()
    page.settle()


def save_mask(page: ComfyPage, editor: Locator, node: int) -> str:
    """Save and close the editor; gives what the node's ``image`` then says."""
    value = "(id) => app.graph.getNodeById(id).widgets.find(w => w.name === 'image').value"
    before = page.js(value, node)
    editor.locator("button", has_text="Save").first.click()
    page.page.wait_for_function(f"([id, before]) => ({value})(id) !== before", arg=[node, before])
    editor.wait_for(state="hidden")
    return str(page.js(value, node))


def drag(page: ComfyPage, start: Point, end: Point) -> None:
    """Drag with the mouse, slowly enough for the page to follow."""
    page.page.mouse.move(*start)
    page.page.mouse.down()
    page.page.mouse.move((start.x + end.x) / 2, (start.y + end.y) / 2)
    page.settle()
    page.page.mouse.move(*end)
    page.settle()
    page.page.mouse.up()
    page.settle()


TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"


def note_change(page: ComfyPage) -> None:
    """What the page does when the mouse is let go: take down the graph for undo."""
    page.js(f"() => ({TRACKER}.captureCanvasState ?? {TRACKER}.checkState).call({TRACKER})")


def undo(page: ComfyPage) -> None:
    page.js(f"async () => {{ await {TRACKER}.undo() }}")
    page.settle()


def redo(page: ComfyPage) -> None:
    page.js(f"async () => {{ await {TRACKER}.redo() }}")
    page.settle()


def another_tab_and_back(page: ComfyPage) -> None:
    """Open an empty workflow, and choose the first one again."""
    first = page.js("() => app.extensionManager.workflow.activeWorkflow.path")
    page.command("Comfy.NewBlankWorkflow")
    page.page.wait_for_function("() => !app.graph._nodes.length")
    page.page.get_by_text(Path(first).stem, exact=True).first.click()
    page.page.wait_for_function("() => app.graph._nodes.length")
    page.settle()


def open_help(page: ComfyPage, kind: str) -> Locator:
    """The help panel of a new node of ``kind``, opened by the button over the selected node."""
    page.js(
        """async (kind) => {
            await app.extensionManager.setting.set('Comfy.Canvas.SelectionToolbox', true)
            const node = LiteGraph.createNode(kind)
            app.graph.add(node)
            app.canvas.ds.scale = 1
            app.canvas.ds.offset[0] = app.canvas.ds.offset[1] = 300
            app.canvas.selectItems?.([node])
        }""",
        kind,
    )
    page.settle()
    page.page.get_by_test_id("info-button").click()
    page.js("() => app.extensionManager.setting.set('Comfy.Canvas.SelectionToolbox', false)")
    return page.page.locator(".node-help-content, [data-testid=node-help]").first

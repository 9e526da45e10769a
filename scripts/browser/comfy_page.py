"""ComfyUI's page, driven by its own objects: load, export, queue, look.

Graph-level calls go through the page's ``app``; what a hand does (search, drag, click) is done with
the mouse and keyboard at the place where the page draws the thing.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Route
from playwright.sync_api import Error as PageError
from playwright.sync_api import TimeoutError as PageTimeout

from host.client import Prompt

Workflow = dict[str, Any]

# Everything that would cover the graph or ask something on the first visit.
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "Comfy.Workflow.Persist": False,
    "Comfy.VueNodes.AutoScaleLayout": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.Canvas.SelectionToolbox": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.NodeBadge.NodeIdBadgeMode": "None",
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
    "Comfy.NodeBadge.NodeLifeCycleBadgeMode": "None",
}
# What a page without the internet says of services that have nothing to do with us.
NOT_OURS = re.compile(
    r"favicon|accessed before initialization|api\.comfy\.org|comfy\.org|firebase|googleapis|gstatic|posthog|sentry|algolia"
    r"|registry|net::ERR_(INTERNET|NAME|CONNECTION|ADDRESS)|Failed to fetch|user\.css|userdata"
    r"|workflow_templates/|templates/|/docs/|\[intlify\]|ResizeObserver"
)


class Point(NamedTuple):
    """A place on the screen, in CSS pixels."""

    x: float
    y: float


class ComfyPage:
    """One visit to the page. Close it."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        frontend: Path | None = None,
        width: int = 1600,
        height: int = 1000,
    ) -> None:
        """``frontend`` is another version's unpacked ``static`` folder, put before the server's."""
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": height})
        if frontend:
            self.context.route(f"{url}/**", lambda route: _from_folder(route, url, frontend))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.errors: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def close(self) -> None:
        self.context.close()

    def open(self, *, vue: bool = False, light: bool = False, **settings: Any) -> "ComfyPage":
        """Load the page with ``vue`` nodes ("Nodes 2.0") or the classic canvas.

        ``settings`` are ComfyUI's, with ``__`` for the dots: ``Comfy__Locale="ja"``.
        """
        values = QUIET | {name.replace("__", "."): value for name, value in settings.items()}
        values["Comfy.VueNodes.Enabled"] = vue
        values["Comfy.ColorPalette"] = "light" if light else "dark"
        reply = self.context.request.post(f"{self.url}/settings", data=values)
        if not reply.ok:
            raise PageError(f"the server does not take settings: {reply.text()[:200]}")
        self.page.goto(self.url)
        self.page.wait_for_function(
            "() => !!(window.app?.extensionManager && app.canvas?.graph"
            " && window.LiteGraph?.registered_node_types['SaveImage'])",
            timeout=60_000,
        )
        return self

    def reset(self, *, vue: bool) -> None:
        """An empty graph under the renderer asked for, no dialog, no run before it."""
        self.page.keyboard.press("Escape")
        self.js(
            """async (vue) => {
                await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)
                app.clean?.()
                await app.loadGraphData({
                    nodes: [], links: [], groups: [], version: 0.4,
                    last_node_id: 0, last_link_id: 0,
                })
                const workflows = app.extensionManager.workflow
                for (const other of [...workflows.openWorkflows])
                    if (other !== workflows.activeWorkflow) await workflows.closeWorkflow(other)
                await app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)
                window.__ends = []
            }""",
            vue,
        )
        self.settle()
        self.errors.clear()

    def _on_console(self, message: ConsoleMessage) -> None:
        where = (message.location or {}).get("url", "")
        if message.type == "error" and not NOT_OURS.search(f"{message.text} {where}"):
            self.errors.append(f"{message.text} ({where})")

    # --- the graph as the page holds it

    def js(self, expression: str, argument: Any = None) -> Any:
        """Evaluate a JavaScript function in the page."""
        return self.page.evaluate(expression, argument)

    def load(self, workflow: Workflow) -> None:
        """Open a workflow in UI format, as dropping the file does."""
        self.js("async (w) => { await app.loadGraphData(w) }", workflow)
        self._opened()

    def load_api(self, prompt: Prompt) -> None:
        """Open a graph in API format."""
        self.js("async (p) => { await app.loadApiJson(p, 'graph') }", prompt)
        self._opened()

    def _opened(self) -> None:
        """Wait for the tab: the page makes it after the graph, and undo belongs to the tab."""
        self.page.wait_for_function(
            """() => {
                const workflows = app.extensionManager.workflow
                const known = workflows.activeWorkflow?.activeState?.nodes?.length
                return !workflows.isBusy && known === app.graph._nodes.length
            }"""
        )
        self.settle()

    def clear(self) -> None:
        self.js("() => { app.graph.clear() }")

    def serialize(self) -> Workflow:
        """The open workflow in UI format, as Save writes it."""
        return json.loads(self.js("() => JSON.stringify(app.graph.serialize())"))

    def export_api(self) -> Prompt:
        """The open workflow in API format, as Export (API) writes it."""
        text = self.js("async () => JSON.stringify((await app.graphToPrompt()).output)")
        return dict(json.loads(text))

    def settle(self) -> None:
        """Let the page draw what it was told."""
        self.js(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def fit(self, zoom: float | None = None) -> None:
        """Bring the whole graph into view, at a given zoom where one is named."""
        self.js(
            """(zoom) => {
                const view = app.canvas.ds, nodes = app.graph._nodes
                const boxes = nodes.map(n => [n.pos[0], n.pos[1] - 30, n.size[0], n.size[1] + 30])
                const left = Math.min(...boxes.map(b => b[0]))
                const top = Math.min(...boxes.map(b => b[1]))
                const right = Math.max(...boxes.map(b => b[0] + b[2]))
                const bottom = Math.max(...boxes.map(b => b[1] + b[3]))
                const canvas = document.querySelector('#graph-canvas').getBoundingClientRect()
                const room = [canvas.width - 120, canvas.height - 170]
                const wide = room[0] / (right - left), high = room[1] / (bottom - top)
                view.scale = zoom || Math.min(1.2, wide, high)
                // Below the bar with the Run button, right of the sidebar.
                view.offset[0] = 80 / view.scale - left
                view.offset[1] = 110 / view.scale - top
                app.canvas.setDirty(true, true)
            }""",
            zoom,
        )
        self.settle()

    # --- running

    def start(self) -> int:
        """Queue the open workflow; give what this returns to ``wait_for_end``."""
        self.listen()
        before = int(self.js("() => window.__ends.length"))
        self.js("async () => { await app.queuePrompt(0, 1) }")
        return before

    def queue(self, timeout: float = 90.0) -> str:
        """Queue the open workflow and wait for its end: "success", "error" or "interrupted"."""
        return self.wait_for_end(self.start(), timeout)

    def wait_for_end(self, before: int, timeout: float = 90.0) -> str:
        """The end of the run that comes after the ``before`` ones already ended."""
        self.page.wait_for_function(
            "(before) => window.__ends.length > before", arg=before, timeout=timeout * 1000
        )
        self.settle()
        return str(self.js("(before) => window.__ends[before]", before))

    def listen(self) -> None:
        """Note how runs end from here on."""
        self.js(
            """() => {
                window.__ends ??= []
                if (window.__listens) return
                window.__listens = true
                const ends = ['success', 'error', 'interrupted']
                for (const end of ends)
                    app.api.addEventListener('execution_' + end, () => window.__ends.push(end))
            }"""
        )
        return True

    # --- by hand

    def search(self, typed: str) -> None:
        """Double-click the empty canvas and type into the search box that opens."""
        box = self.page.get_by_placeholder("Add a node...")
        for _ in range(5):
            canvas = self.page.locator("#graph-canvas").bounding_box() or {}
            self.page.mouse.dblclick(canvas["x"] + canvas["width"] / 2, canvas["y"] + 700)
            with suppress(PageTimeout):
                box.wait_for(timeout=1500)
                break
        box.fill(typed)

    def slot(self, node: int, side: str, name: str) -> Point:
        """Where the dot of an "input" or "output" is drawn."""
        x, y = self.js(
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

    def widget(self, node: int, name: str) -> Point:
        """Where the classic canvas draws a widget."""
        x, y = self.js(
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

    def spread(self) -> None:
        """Lay the nodes out in four columns, apart and all in view."""
        # A node grows when its picture has come.
        self.page.wait_for_function(
            "() => app.graph._nodes.every(n => n.type !== 'LoadImage' || n.imgs?.length)"
        )
        self.settle()
        self.js(
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
        self.settle()
        self.fit()

    def drag(self, start: Point, end: Point) -> None:
        """Drag with the mouse, slowly enough for the page to follow."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for step in (0.3, 0.7, 1.0):
            x = start.x + (end.x - start.x) * step
            self.page.mouse.move(x, start.y + (end.y - start.y) * step)
            self.settle()
        self.page.mouse.up()
        self.settle()

    def command(self, name: str) -> None:
        """Run one of ComfyUI's commands, as its menu entry or key does."""
        self.js("async (name) => { await app.extensionManager.command.execute(name) }", name)

    def text_of(self, node: int) -> str:
        """The words that a node of this pack shows; empty where it shows none."""
        return str(
            self.js(
                """(id) => app.graph.getNodeById(id)
                    .widgets?.find(w => w.name === 'flux2_edit_text')?.element.textContent ?? ''""",
                node,
            )
        )

    # --- looking

    def screenshot(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(300)  # fades and image decoding
        self.page.screenshot(path=path)
        return path


def _from_folder(route: Route, url: str, folder: Path) -> None:
    """Answer a request for a file of ``folder`` from there; all others go to the server."""
    name = unquote(urlsplit(route.request.url).path).lstrip("/") or "index.html"
    file = (folder / name).resolve()
    if route.request.method == "GET" and file.is_file() and folder.resolve() in file.parents:
        route.fulfill(path=file)
    else:
        route.continue_()


__all__ = ["ComfyPage", "PageError", "Point", "Workflow"]

"""ComfyUI's page, driven by its own objects: load, export, queue, look.

What a hand does (search, drag, click) is in ``hand``.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Route
from playwright.sync_api import Error as PageError

from host.client import Prompt

Workflow = dict[str, Any]

# Bounds what hangs, and says nothing of how fast a machine is.
PATIENCE_S = 180

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
    r"favicon|accessed before initialization|comfy\.org|firebase|googleapis|gstatic|posthog|sentry"
    r"|algolia|registry|net::ERR_(INTERNET|NAME|CONNECTION|ADDRESS)|Failed to fetch|user\.css"
    r"|userdata|workflow_templates/|templates/|/docs/|ResizeObserver"
)


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
            names = "|".join(re.escape(entry.name) for entry in frontend.iterdir())
            its_own = re.compile(rf"{re.escape(url)}/(?:$|\?|(?:{names})(?:[/?]|$))")
            self.context.route(its_own, lambda route: _from_folder(route, url, frontend))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.errors: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def close(self) -> None:
        self.context.close()

    def open(self, *, vue: bool = False, **settings: Any) -> "ComfyPage":
        """Load the page with ``vue`` nodes ("Nodes 2.0") or the classic canvas.

        ``settings`` are ComfyUI's, with ``__`` for the dots: ``Comfy__Locale="ja"``.
        """
        values = QUIET | {name.replace("__", "."): value for name, value in settings.items()}
        values["Comfy.VueNodes.Enabled"] = vue
        values["Comfy.ColorPalette"] = "dark"
        reply = self.context.request.post(f"{self.url}/settings", data=values)
        if not reply.ok:
            raise PageError(f"the server does not take settings: {reply.text()[:200]}")
        self.page.goto(self.url, wait_until="commit")
        self.page.wait_for_function(
            """() => {
                const workflows = window.app?.extensionManager?.workflow
                return workflows?.activeWorkflow?.activeState && !workflows.isBusy
                    && !!window.LiteGraph?.registered_node_types['SaveImage']
            }"""
        )
        return self

    def reset(self, *, vue: bool) -> None:
        """An empty graph under the renderer asked for, no dialog, no run before it."""
        # Behind a tab that a test has opened, the page would draw once a second.
        for tab in self.context.pages:
            if tab is not self.page:
                tab.close()
        self.page.bring_to_front()
        self.page.keyboard.press("Escape")
        self.js(
            """async (vue) => {
                const settings = app.extensionManager.setting
                const wanted = {
                    'Comfy.VueNodes.Enabled': vue,
                    'Comfy.ColorPalette': 'dark',
                    'Comfy.RightSidePanel.IsOpen': false,
                }
                for (const [name, value] of Object.entries(wanted))
                    if (settings.get(name) !== value) await settings.set(name, value)
                app.clean?.()
                await app.loadGraphData({
                    nodes: [], links: [], groups: [], version: 0.4,
                    last_node_id: 0, last_link_id: 0,
                })
                const workflows = app.extensionManager.workflow
                for (const other of [...workflows.openWorkflows])
                    if (other !== workflows.activeWorkflow) await workflows.closeWorkflow(other)
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
                const room = [canvas.width - 180, canvas.height - 170]
                const wide = room[0] / (right - left), high = room[1] / (bottom - top)
                view.scale = zoom || Math.min(1.2, wide, high)
                // Below the bar with the Run button, right of the sidebar.
                view.offset[0] = 110 / view.scale - left
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

    def queue(self) -> str:
        """Queue the open workflow and wait for its end: "success", "error" or "interrupted"."""
        return self.wait_for_end(self.start())

    def wait_for_end(self, before: int) -> str:
        """The end of the run that comes after the ``before`` ones already ended."""
        self.page.wait_for_function("(before) => window.__ends.length > before", arg=before)
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

    # --- looking

    def command(self, name: str) -> None:
        """Run one of ComfyUI's commands, as its menu entry or key does."""
        self.js("async (name) => { await app.extensionManager.command.execute(name) }", name)

    def text_of(self, node: int) -> str:
        """The words that a node of this pack shows; empty where it shows none."""
        return str(
            self.js(
                """(id) => app.graph.getNodeById(id)
                    .widgets?.find(w => w.name === 'flux2_edit_text')?.value ?? ''""",
                node,
            )
        )

    def screenshot(self, path: Path, nodes: Sequence[int] = (), margin: float = 16) -> Path:
        """Write a PNG of the page, or of the part that shows ``nodes``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(300)  # fades and image decoding
        self.js("() => app.canvas.setDirty(true, true)")
        self.settle()
        clip: Any = None
        if nodes:
            left, top, right, bottom = self.js(
                """(ids) => {
                    const view = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect()
                    const boxes = ids.map(id => app.graph.getNodeById(id)).map(n => [
                        n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1],
                    ])
                    const ends = [0, 1].map(i => Math.min(...boxes.map(b => b[i])))
                        .concat([2, 3].map(i => Math.max(...boxes.map(b => b[i]))))
                    const start = [canvas.x, canvas.y]
                    return ends.map((v, i) => start[i % 2] + (v + view.offset[i % 2]) * view.scale)
                }""",
                list(nodes),
            )
            clip = {"x": left - margin, "y": top - margin}
            clip |= {"width": right - left + 2 * margin, "height": bottom - top + 2 * margin}
        self.page.screenshot(path=path, clip=clip)
        return path


def _from_folder(route: Route, url: str, folder: Path) -> None:
    """Answer a request for a file of ``folder`` from there; all others go to the server."""
    name = unquote(urlsplit(route.request.url).path).lstrip("/") or "index.html"
    file = (folder / name).resolve()
    if route.request.method == "GET" and file.is_file() and folder.resolve() in file.parents:
        route.fulfill(path=file)
    else:
        route.continue_()


__all__ = ["ComfyPage", "PageError", "Workflow"]

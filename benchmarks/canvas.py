"""How smoothly ComfyUI's page pans over 60 LoRA Stacks, beside 60 nodes of the host's own.

    python benchmarks/canvas.py

Needs a ComfyUI (COMFYUI_PATH) and a Chromium. One server and one page for each frontend; on it the
scenes take turns, so that what else the machine does falls on all of them alike. A frame is what
lies between two animation frames while the view moves; work is what the page's main thread does for
it (script, style, layout, paint). Without a GPU the browser draws in software, so that only the
ratios say something. ``benchmarks/results/canvas.md`` holds them.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "browser")]

from browser.chromium import chromium  # noqa: E402  (found through the path set above)
from browser.comfy_page import ComfyPage  # noqa: E402
from frontends import NEWEST, frontend_of  # noqa: E402
from playwright.sync_api import CDPSession  # noqa: E402

from host import models, server  # noqa: E402
from host.cache import cache_root  # noqa: E402

NODES, COLUMNS = 60, 10
FRAMES, WARM_UP, ROUNDS = 40, 15, 2
SETTING = "Flux2LoraEdit.Stack.List"
REPO = "owner/style-lora:ink.safetensors"


class Scene(NamedTuple):
    """60 of one node."""

    name: str
    kind: str
    listed: bool = True


SCENES = (
    Scene("our list, three LoRAs", "Flux2EditLoraStack"),
    Scene("our stock widgets, three LoRAs", "Flux2EditLoraStack", listed=False),
    Scene("KSampler", "KSampler"),
    Scene("CLIP Text Encode", "CLIPTextEncode"),
    Scene("Load LoRA", "LoraLoader"),
)
BUILD = """async ([kind, count, columns, repo]) => {
    app.graph.clear()
    for (let i = 0; i < count; i++) {
        const node = LiteGraph.createNode(kind)
        app.graph.add(node)
        for (const n of kind === 'Flux2EditLoraStack' ? [1, 2, 3] : []) {
            const widget = (name) => node.widgets.find(w => w.name === name)
            for (const [name, value] of [[`lora_${n}`, 'hugging face'], [`lora_${n}.repo`, repo]]) {
                widget(name).value = value
                widget(name).callback?.(value)
            }
        }
        node.pos = [(i % columns) * 440, Math.floor(i / columns) * 480]
    }
    const view = app.canvas.ds
    view.scale = 0.75
    view.offset = [0, 0]
    app.canvas.setDirty(true, true)
}"""
PAN = """async ([frames, warmUp]) => {
    const view = app.canvas.ds, times = []
    const next = () => new Promise(requestAnimationFrame)
    for (let i = 0; i < warmUp; i++) { app.canvas.setDirty(true, true); await next() }
    let last = await next()
    for (let i = 0; i < frames; i++) {
        view.offset[0] = -600 + 600 * Math.cos(i / 15)
        view.offset[1] = -500 + 500 * Math.cos(i / 22)
        app.canvas.setDirty(true, true)
        const now = await next()
        times.push(now - last)
        last = now
    }
    return times
}"""


class Pan(NamedTuple):
    """One pan over a scene: its frames, and the main thread's work for one of them, in ms."""

    frames: list[float]
    work: float


def pan(page: ComfyPage, meter: CDPSession, scene: Scene) -> Pan:
    page.js("([id, on]) => app.extensionManager.setting.set(id, on)", [SETTING, scene.listed])
    page.js(BUILD, [scene.kind, NODES, COLUMNS, REPO])
    page.settle()
    before = busy(meter)
    frames = list(page.js(PAN, [FRAMES, WARM_UP]))
    return Pan(frames, (busy(meter) - before) * 1000 / (FRAMES + WARM_UP))


def busy(meter: CDPSession) -> float:
    """How long the page's main thread has worked, in seconds."""
    metrics = meter.send("Performance.getMetrics")["metrics"]
    return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def measure(page: ComfyPage, vue: bool) -> dict[Scene, list[Pan]]:
    """The pans over every scene under a renderer, the scenes in turn."""
    page.reset(vue=vue)
    meter = page.context.new_cdp_session(page.page)
    meter.send("Performance.enable")
    found: dict[Scene, list[Pan]] = {scene: [] for scene in SCENES}
    for _ in range(ROUNDS):
        for scene in SCENES:
            found[scene].append(pan(page, meter, scene))
    return found


def rows(found: dict[Scene, list[Pan]]) -> Iterator[list[str]]:
    """Scene, median and 95 % frame, work, and the first scene's work as a multiple of it."""
    ours = min(one.work for one in found[SCENES[0]])
    for scene, pans in found.items():
        frames = [frame for one in pans for frame in one.frames]
        work = min(one.work for one in pans)
        middle, high = statistics.median(frames), statistics.quantiles(frames, n=20)[-1]
        yield [scene.name, f"{middle:.0f}", f"{high:.0f}", f"{work:.1f}", f"{ours / work:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("frontends", nargs="*", default=["pinned", NEWEST])
    frontends = parser.parse_args().frontends
    print(
        "| frontend | renderer | 60 of | frame, median ms | 95 % ms | work, ms | our list's to it |"
    )
    print("|---|---|---|---|---|---|---|")
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "base"
        models.make_base(base, [models.tiny_dir(cache_root())])
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        site = stack.enter_context(server.start(Path(os.environ["COMFYUI_PATH"]), base))
        browser = stack.enter_context(chromium())
        for frontend in frontends:
            folder = None if frontend == "pinned" else frontend_of(frontend)
            page = ComfyPage(browser, site.url, frontend=folder).open()
            for vue in (False, True):
                for row in rows(measure(page, vue)):
                    told = [frontend, "Nodes 2.0" if vue else "classic", *row]
                    print("|", " | ".join(told), "|", flush=True)
            page.close()


if __name__ == "__main__":
    main()

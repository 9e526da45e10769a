"""Three of the README's pictures: the LoRA list with its picker, the report, the hosted node.

Taken of real runs, on tiny random models and the stand-in for RunComfy: so the results are noise,
and the words are what a user sees.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser.comfy_page import ComfyPage
from PIL import Image
from playwright.sync_api import Browser

from host.graph import Graph

from .graphs import hosted, local, pictures, stack
from .layout import arrange
from .models import DEV, Family, File
from .sheets import Sheet

MAX_BYTES = 200_000
COLORS = 256
MARGIN = 24
TINY = Family(
    "tiny",
    File("flux2-dev-tiny.safetensors", "diffusion_models", ""),
    File("clip-l-random.safetensors", "text_encoders", ""),
    File("taef2", "vae", ""),
    4,
    DEV.guidance,
)
PHOTOS = ("astronaut.png", "chelsea.png")
LORAS = (("ai-toolkit.safetensors", 1.0), ("diffusers.safetensors", 0.8))
PROMPT = "the cat of image 2 on the shoulder of the astronaut of image 1"


def take_screenshots(browser: Browser, url: str, folder: Path) -> None:
    """Write ``report.png``, ``picker.png`` and ``runcomfy.png``."""
    with _page(browser, url) as page:
        sheet = _edit()
        _run(page, sheet)
        (report,) = [n for n in map(int, sheet.graph.prompt) if _kind(sheet, n).endswith("Apply")]
        _near(page, report)
        _keep(page, folder / "report.png", report)
        (loras,) = [n for n in map(int, sheet.graph.prompt) if _kind(sheet, n).endswith("Edit")]
        _near(page, loras)
        page.page.locator(".flux2-lora-list .name").nth(1).click()
        page.page.get_by_text("does not fit").first.wait_for()
        _keep(page, folder / "picker.png", loras, ".flux2-edit-picker")
    with _page(browser, url) as page:
        sheet = _hosted()
        _run(page, sheet)
        (node,) = [n for n in map(int, sheet.graph.prompt) if _kind(sheet, n).endswith("RunComfy")]
        _near(page, node)
        _keep(page, folder / "runcomfy.png", node)


def _kind(sheet: Sheet, node: int) -> str:
    return str(sheet.graph.prompt[str(node)]["class_type"]).removesuffix("LoraStack")


@contextmanager
def _page(browser: Browser, url: str) -> Iterator[ComfyPage]:
    page = ComfyPage(browser, url, width=1920, height=1010)
    try:
        page.open(vue=True)
        page.reset(vue=True)
        yield page
    finally:
        page.close()


def _edit() -> Sheet:
    graph = Graph()
    images = pictures(graph, *PHOTOS)
    loras = stack(graph)
    for number, (name, scale) in enumerate(LORAS, 1):
        slot = f"lora_{number}"
        graph.set(loras, **{slot: "installed", f"{slot}.file": name})
        graph.set(loras, **{f"{slot}.scale": scale, f"{slot}.enabled": True})
    at = local(graph, TINY, PROMPT, images=images, loras=loras, size="match image")
    return Sheet(
        graph,
        (
            (at["model"], at["clip"], at["vae"]),
            tuple(images.values()),
            (loras, at["apply"]),
            (at["conditioning"], at["size"]),
            (at["sampler"], at["decode"]),
            (at["save"],),
        ),
        note=(0, 0),
    )


def _hosted() -> Sheet:
    graph = Graph()
    images = pictures(graph, PHOTOS[0])
    loras = stack(graph, ())  # of a repo it would say that nobody is online here
    at = hosted(graph, "make it winter", images=images, loras=loras)
    return Sheet(
        graph,
        (
            tuple(images.values()),
            (loras,),
            (at["hosted"],),
            (at["save"],),
        ),
        note=(0, 0),
    )


def _run(page: ComfyPage, sheet: Sheet) -> None:
    page.load_api(sheet.graph.prompt)
    workflow = page.serialize()
    arrange(workflow, sheet)
    page.load(workflow)
    page.fit()
    ended = page.queue()
    if ended != "success":
        raise RuntimeError(f"the run for a screenshot ended with {ended}")
    # Long enough for the notice of the finished run to go.
    page.page.wait_for_timeout(6000)
    page.fit()
    page.js("() => { app.canvas.ds.offset[1] += 60; app.canvas.setDirty(true, true) }")


def _near(page: ComfyPage, node: int) -> None:
    """Bring one node to the middle at its natural size, without what lies on the graph."""
    page.js(
        """(id) => {
            const view = app.canvas.ds, node = app.graph.getNodeById(id)
            app.graph._groups.splice(0)
            view.scale = 1
            view.offset[0] = 700 - node.pos[0]
            view.offset[1] = 150 - node.pos[1]
            app.canvas.setDirty(true, true)
        }""",
        node,
    )
    page.settle()


def _keep(page: ComfyPage, path: Path, node: int, *others: str) -> None:
    """The part of the page that shows a node, and what is at other places (CSS selectors)."""
    places = [f'[data-node-id="{node}"]', *others]
    boxes = [page.page.locator(place).bounding_box() or {} for place in places]
    left, top = (min(box[at] for box in boxes) - MARGIN for at in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    clip: Any = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    page.page.screenshot(path=path, clip=clip)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise RuntimeError(f"{path.name} has {path.stat().st_size} bytes, over {MAX_BYTES}")

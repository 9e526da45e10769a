"""Write what a program writes in this repository: examples, blueprints, icon, banner, pictures.

Starts a real ComfyUI and a real Chromium, since the page's own format is what must come out.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import ROOT

if TYPE_CHECKING:
    from browser.comfy_page import ComfyPage

    from ..server import Server

PARTS = ("examples", "thumbnails", "blueprints", "screenshots", "region", "assets")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/draw", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"some of: {', '.join(PARTS)}; all by default")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    options.parts = options.parts or list(PARTS)
    return options


def run(options: argparse.Namespace) -> int:
    if "assets" in options.parts:
        from examples.assets import draw_assets

        draw_assets(ROOT / "assets")
        print("assets")
    return _on_the_page(options.parts) if set(options.parts) != {"assets"} else 0


def _on_the_page(parts: Sequence[str]) -> int:
    from browser.chromium import NoChromium, chromium
    from browser.comfy_page import ComfyPage

    try:
        with _server() as server, chromium() as browser:
            page = ComfyPage(browser, server.url).open()
            if "examples" in parts:
                write_examples(page)
            if "blueprints" in parts:
                write_blueprints(page)
            page.close()
            if "thumbnails" in parts:
                write_thumbnails(server.url)
            if "screenshots" in parts:
                from examples.screenshots import take_screenshots

                take_screenshots(browser, server.url, ROOT / "docs" / "images")
                print("docs/images")
            if "region" in parts:
                from examples.region_picture import draw_region

                draw_region(server.url, ROOT / "docs" / "images" / "region.jpg")
                print("docs/images/region.jpg")
    except NoChromium as error:
        print(error)
        return 2
    return 0


@contextmanager
def _server() -> Iterator["Server"]:
    """A ComfyUI with this pack, the tiny models, and a stand-in for RunComfy."""
    from standin_server.server import Standin

    from .. import models, server
    from ..cache import cache_root

    with tempfile.TemporaryDirectory() as place, Standin() as standin:
        base = Path(place) / "base"
        models.make_base(base, models.every_dir(cache_root()))
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        environment = {
            "RUNCOMFY_API_BASE": standin.origin,
            "RUNCOMFY_API_TOKEN": "standin-token-0000",
            "HOME": str(base),
        }
        comfyui = Path(os.environ["COMFYUI_PATH"])
        with server.start(comfyui, base, python=sys.executable, environment=environment) as running:
            yield running


def version() -> str:
    """The pack's version, from pyproject.toml; Python 3.10 has no TOML reader."""
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version"))


def write_examples(page: "ComfyPage") -> None:
    from examples.layout import write_workflow
    from examples.workflows import EXAMPLES

    folder = ROOT / "example_workflows"
    for name, example in EXAMPLES.items():
        workflow = write_workflow(page, example, version())
        _write(folder / f"{name}.json", workflow)
        page.load(workflow)
        _write(folder / "api" / f"{name}.json", page.export_api())


def write_thumbnails(url: str) -> None:
    from examples.thumbnails import draw_thumbnails

    from ..client import Client

    with Client(url) as client:
        draw_thumbnails(client, ROOT / "example_workflows")
    print("example_workflows/*.jpg")


def write_blueprints(page: "ComfyPage") -> None:
    from examples.blueprints import blueprints, write_blueprint

    for blueprint in blueprints():
        path = ROOT / "subgraphs" / f"{blueprint.box.title}.json"
        _write(path, write_blueprint(page, blueprint, version()))


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(path.relative_to(ROOT))

"""Write what a program writes in this repository: examples, blueprints, icon, banner.

Starts a real ComfyUI and a real Chromium, since the page's own format is what must come out.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..environment import ROOT

PARTS = ("examples", "blueprints", "assets")


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
    if {"examples", "blueprints"} & set(options.parts):
        return _on_the_page(options.parts)
    return 0


def _on_the_page(parts: Sequence[str]) -> int:
    from browser.chromium import NoChromium, chromium
    from browser.comfy_page import ComfyPage

    try:
        with tempfile.TemporaryDirectory() as place, _server(Path(place)) as server:
            with chromium() as browser:
                page = ComfyPage(browser, server.url).open()
                if "examples" in parts:
                    write_examples(page)
                if "blueprints" in parts:
                    write_blueprints(page)
    except NoChromium as error:
        print(error)
        return 2
    return 0


def _server(place: Path) -> Any:
    import os

    from .. import models, server

    base = place / "base"
    (base / "custom_nodes").mkdir(parents=True)
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    return server.start(Path(os.environ["COMFYUI_PATH"]), base, python=sys.executable)


def version() -> str:
    """The pack's version, from pyproject.toml; Python 3.10 has no TOML reader."""
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version"))


def write_examples(page: Any) -> None:
    from examples.layout import write_workflow
    from examples.thumbnails import draw_thumbnail
    from examples.workflows import EXAMPLES

    folder = ROOT / "example_workflows"
    for example in EXAMPLES:
        workflow = write_workflow(page, example, version())
        _write(folder / f"{example.name}.json", workflow)
        page.load(workflow)
        prompt = page.export_api()
        _write(folder / "api" / f"{example.name}.json", prompt)
        draw_thumbnail(prompt, example.badge, folder / f"{example.name}.jpg")


def write_blueprints(page: Any) -> None:
    from examples.blueprints import boxes, write_blueprint

    for box in boxes():
        blueprint = write_blueprint(page, box, version())
        _write(ROOT / "subgraphs" / f"{box.title}.json", blueprint)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(path.relative_to(ROOT))

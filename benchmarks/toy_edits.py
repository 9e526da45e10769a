"""What the toy makes of prompt, references, LoRAs and their scales, in figures.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/toy_edits.py [--write]

Each row is one run of the demo's own graph on a real ComfyUI, 256 x 256; ``change`` is the mean
difference of a channel to the first row of its group, in levels of 255, and ``PSNR`` that in dB.
``--write`` writes ``benchmarks/results/toy_edits.md``.
"""

import argparse
import dataclasses
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bench import ROOT
from packs import comfyui_version
from PIL import Image

sys.path.append(str(ROOT / "scripts"))

from host import models, server  # noqa: E402  (found through the path set above)
from host.cache import cache_root  # noqa: E402
from host.client import Client  # noqa: E402
from host.demo import graph  # noqa: E402
from host.demo.trial import TOY, Lora, Trial  # noqa: E402
from host.stock import Models  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "toy_edits.md"
SIDE = 256
MOSAIC, DUOTONE = "toy-mosaic.safetensors", "toy-duotone.safetensors"
DEV = Models("flux2-toy-dev.safetensors", "toy-words.safetensors", "taef2")
Row = tuple[str, Trial]


def groups() -> Iterator[tuple[str, list[Row]]]:
    """A title, and its rows: what is asked for, and the run that does it."""
    bare = dataclasses.replace(TOY, size=SIDE, loras=(), prompt="image 1")

    def row(name: str, **changed: object) -> Row:
        return name, dataclasses.replace(bare, **changed)

    words = ("", " in monochrome", " at sunset", " at night", " in winter", " as a sketch")
    yield (
        "Prompt and reference order: astronaut.png is image 1, cat.png image 2",
        [row(f"image 1{word}", prompt=f"image 1{word}") for word in words]
        + [
            row(prompt, prompt=prompt)
            for prompt in ("image 2", "image 1 and image 2", "image 1 in the colours of image 2")
        ]
        + [
            row(f"{prompt}, the sockets swapped", prompt=prompt, images=TOY.images[::-1])
            for prompt in ("image 1", "image 1 in the colours of image 2")
        ],
    )
    for prompt in ("image 1", "image 1 at sunset"):
        yield (
            f"LoRA and scale: {prompt}",
            [row("no LoRA", prompt=prompt)]
            + [
                row(f"{name[4:-12]} {scale:g}", prompt=prompt, loras=(Lora(name, scale),))
                for name in (MOSAIC, DUOTONE)
                for scale in (0.0, 0.5, 1.0)
            ]
            + [row("both 1", prompt=prompt, loras=(Lora(MOSAIC), Lora(DUOTONE)))],
        )
    yield (
        "Steps on the klein-like toy",
        [row(f"{steps} steps", steps=steps) for steps in (4, 1, 2, 8)],
    )
    dev = {"models": DEV, "guidance": 2.5}
    yield (
        "Steps and guidance on the dev-like toy, image 1 at sunset",
        [
            row(f"{steps} steps, guidance {guidance:g}", prompt="image 1 at sunset",
                **(dev | {"steps": steps, "guidance": guidance}))
            for steps, guidance in ((28, 2.5), (4, 2.5), (8, 2.5), (28, 1.0), (28, 5.0))
        ],
    )  # fmt: skip


def run(client: Client, trial: Trial, output: Path) -> np.ndarray:
    """[256, 256, 3], 0 to 255."""
    built = graph.build(trial)
    built.switch(range(1, len(trial.loras) + 1), "toy")
    (image,) = client.run(built.graph.prompt, 600).check().images()
    with Image.open(output / image["filename"]) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


def table(client: Client, output: Path) -> str:
    lines = []
    for title, rows in groups():
        lines += ["", f"## {title}", "", "| | change | PSNR | luma | red - blue |"]
        lines.append("|---|---:|---:|---:|---:|")
        first = None
        for name, trial in rows:
            picture = run(client, trial, output)
            first = picture if first is None else first
            square = float(((picture - first) ** 2).mean())
            near = f"{10 * math.log10(255**2 / square):.1f}" if square else "equal"
            lines.append(
                f"| {name} | {np.abs(picture - first).mean():.1f} | {near} "
                f"| {(picture @ [0.299, 0.587, 0.114]).mean():.0f} "
                f"| {(picture[..., 0] - picture[..., 2]).mean():+.0f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    given = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        sys.exit("COMFYUI_PATH names no ComfyUI.")
    with tempfile.TemporaryDirectory() as scratch:
        base = models.make_base(Path(scratch) / "base", [models.toy_dir(cache_root())])
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        with server.start(comfyui, base) as running, Client(running.url) as client:
            rows = table(client, base / "output")
    about = (
        f"ComfyUI {comfyui_version(comfyui)}, Python {platform.python_version()}, torch "
        f"{version('torch')}, CPU; `COMFYUI_PATH=/path/to/ComfyUI python benchmarks/toy_edits.py`."
    )
    text = (
        "# What the toy makes of prompt, references, LoRAs and settings\n\n"
        f"{about} `change`: mean difference to the group's first row, in levels of 255.\n{rows}\n"
    )
    if given.write:
        RESULTS.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

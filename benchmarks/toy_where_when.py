"""A LoRA by picture and by place, with the toy: a strip of scales in one batch, and two regions.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/toy_where_when.py [--write]

Pictures of 256 x 256 by this pack's nodes on a real ComfyUI; then ``four_scales.py``. A change is
the mean difference of a channel, in levels of 255. ``--write`` writes
``benchmarks/results/toy_where_when.md`` and two pictures in ``docs/images``.
"""

import argparse
import io
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import bench
import four_scales
import numpy as np
from bench import ROOT
from packs import comfyui_version
from PIL import Image

sys.path.append(str(ROOT / "scripts"))

from examples.graphs import local, pictures  # noqa: E402  (found through the path set above)
from examples.models import File  # noqa: E402
from examples.region_picture import TOY  # noqa: E402
from examples.where_when import halves, region, schedule  # noqa: E402

from host import models, server  # noqa: E402
from host.cache import cache_root  # noqa: E402
from host.client import Client  # noqa: E402
from host.demo.graph import installed  # noqa: E402
from host.demo.sheet import Cell, draw  # noqa: E402
from host.graph import Graph, Ref  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "toy_where_when.md"
IMAGES = ROOT / "docs" / "images"
COMMAND = "COMFYUI_PATH=/path/to/ComfyUI python benchmarks/toy_where_when.py"
SIDE, PROMPT = 256, "image 1"
SCALES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
SCALE_TEXT = ", ".join(f"{scale:g}" for scale in SCALES)
MOSAIC, DUOTONE = "toy-mosaic.safetensors", "toy-duotone.safetensors"
RANDOM = TOY._replace(
    title="random",
    model=File("flux2-dev-tiny.safetensors", "diffusion_models", ""),
    text_encoder=File("clip-l-random.safetensors", "text_encoders", ""),
    guidance=2.5,
)
LORAS = {
    "toy": (TOY, (MOSAIC, 1.0), (DUOTONE, 1.0)),
    "random": (RANDOM, ("ai-toolkit.safetensors", 0.1), ("kohya.safetensors", 0.1)),
}
LEFT, RIGHT = np.s_[:, : SIDE // 2], np.s_[:, SIDE // 2 :]
WIDE, QUALITY = 1400, 82
Loras = Sequence[tuple[str, float]]
Modify = Callable[[Graph, Ref], Ref]


class Studio:
    """Makes pictures, (count, 256, 256, 3) in levels of 255."""

    def __init__(self, client: Client, photo: Path) -> None:
        """``photo`` is image 1, at the output's size: the toy copies it place by place."""
        content = io.BytesIO()
        with Image.open(photo) as picture:
            picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(
                content, "PNG"
            )
        self.client, self.photo = client, client.upload_image("photo.png", content.getvalue())

    def edit(
        self, loras: Loras, modify: Modify | None = None, count: int = 1, which: str = "toy"
    ) -> np.ndarray:
        graph = Graph()
        images = pictures(graph, self.photo)
        chosen = graph.add("Flux2EditLoraStack", **installed(loras))
        chosen = modify(graph, chosen) if modify else chosen
        family = LORAS[which][0]
        at = local(graph, family, PROMPT, images=images, loras=chosen, size="custom")
        graph.set(at["size"], width=SIDE, height=SIDE, batch_size=count)
        noise = graph.add("LatentBatchSeedBehavior", samples=at["size"], seed_behavior="fixed")
        graph.set(at["sampler"], latent_image=noise)
        found = self.client.run(graph.prompt, 600).check().images(at["save"])
        return np.stack([self._read(image) for image in found])

    def _read(self, image: dict[str, str]) -> np.ndarray:
        with Image.open(io.BytesIO(self.client.view(image))) as picture:
            return np.asarray(picture.convert("RGB")).astype(float)


def change(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def strips(studio: Studio) -> tuple[str, list[Cell]]:
    """A table for each LoRA: one batch, and each scale as a run of its own."""
    lines, cells = [], []
    (plain,) = studio.edit([])
    for name, lora in (("mosaic", MOSAIC), ("duotone", DUOTONE)):
        by = lambda graph, loras: schedule(graph, loras, pictures=SCALE_TEXT)  # noqa: E731
        batch = studio.edit([(lora, 1.0)], by, len(SCALES))
        whole = batch[SCALES.index(1.0)] - plain
        lines += ["", f"### {name}", "", HEAD_STRIP, "|---:|---:|---:|---:|"]
        for scale, picture in zip(SCALES, batch, strict=True):
            (alone,) = studio.edit([(lora, scale)]) if scale else (plain,)
            share = round(((picture - plain) * whole).sum() / (whole**2).sum(), 2) + 0.0  # no -0
            lines.append(
                f"| {scale:g} | {change(picture, plain):.2f} | {share:+.2f} "
                f"| {np.abs(picture - alone).max():.0f} |"
            )
            cells.append(Cell(Image.fromarray(picture.astype(np.uint8)), f"{name} {scale:g}"))
            print(name, lines[-1], flush=True)
    return "\n".join(lines), cells


HEAD_STRIP = "| scale | change | along scale 1's | largest difference to a run of its own |"
HEAD_REGIONS = "| model | LoRA and mask | text = references | inside | outside | outside / inside |"


def regions(studio: Studio) -> tuple[str, list[Cell]]:
    """A table of what each LoRA changes inside its mask and outside of it."""
    lines, cells = ["", HEAD_REGIONS, "|---|---|---:|---:|---:|---:|"], []
    for which, (_, *loras) in LORAS.items():
        (plain,) = studio.edit([], which=which)
        names = [Path(name).stem.removeprefix("toy-") for name, _ in loras]
        for share in (1.0, 0.0):
            made = {}
            for wanted in ((1,), (2,), (1, 2)):
                by = lambda graph, stack, s=share, w=wanted: in_halves(graph, stack, s, w)  # noqa: E731
                scales = [
                    (name, scale if number in wanted else 0.0)
                    for number, (name, scale) in enumerate(loras, 1)
                ]
                (made[wanted],) = studio.edit(scales, by, which=which)
            for number, name, inside, outside in (
                (1, f"{names[0]}, left", LEFT, RIGHT), (2, f"{names[1]}, right", RIGHT, LEFT)
            ):  # fmt: skip
                picture = made[(number,)]
                near, far = (change(picture[part], plain[part]) for part in (inside, outside))
                lines.append(
                    f"| {which} | {name} | {share:g} | {near:.2f} | {far:.2f} | {far / near:.3f} |"
                )
                print(lines[-1], flush=True)
        if which == "toy":
            titles = ("no LoRA", "LoRA 1: mosaic, left", "LoRA 2: duotone, right", "both")
            every = (plain, made[(1,)], made[(2,)], made[(1, 2)])
            cells = [
                Cell(Image.fromarray(one.astype(np.uint8)), title)
                for one, title in zip(every, titles, strict=True)
            ]
    return "\n".join(lines), cells


def in_halves(graph: Graph, loras: Ref, share: float, wanted: Sequence[int]) -> Ref:
    """LoRA 1 in the left half, LoRA 2 in the right; ``share``: of text and references."""
    left, right, _ = halves(graph)
    for number, mask in ((1, left), (2, right)):
        if number in wanted:
            loras = region(graph, loras, number, mask)
            graph.set(loras, text=share, references=share)
    return loras


def save(cells: list[Cell], columns: int, heading: str, path: Path) -> None:
    sheet = draw(cells, heading, columns=columns)
    small = sheet.resize((WIDE, sheet.height * WIDE // sheet.width), Image.Resampling.LANCZOS)
    small.save(path, "JPEG", quality=QUALITY, optimize=True, progressive=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the results and pictures too")
    given = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        sys.exit("COMFYUI_PATH names no ComfyUI.")
    with tempfile.TemporaryDirectory() as scratch:
        base = models.make_base(Path(scratch) / "base", models.every_dir(cache_root()))
        models.link_nodes(ROOT, base, "flux2-lora-edit")
        with server.start(comfyui, base) as running, Client(running.url) as client:
            studio = Studio(client, base / "input" / "astronaut.png")
            strip, row = strips(studio)
            halved, pair = regions(studio)
    processor = bench.machine(bench.host())["processor"]
    costs = "\n".join([bench.HEAD, *map(bench.line, four_scales.measure())])
    about = (
        f"ComfyUI {comfyui_version(comfyui)}, Python {platform.python_version()}, torch "
        f"{version('torch')}, CPU: {processor}; `{COMMAND}`."
    )
    text = TEXT.format(scales=SCALE_TEXT, about=about, strip=strip, regions=halved, costs=costs)
    print(text)
    if given.write:
        RESULTS.write_text(text, "utf-8")
        heading = "One batch, one noise: two LoRAs at scales -1 to 2"
        save(row, len(SCALES), heading, IMAGES / "lora-scales.jpg")
        heading = "Two LoRAs in one run, each in its half"
        save(pair, len(pair), heading, IMAGES / "lora-regions.jpg")
    return 0


TEXT = """# What the toy makes of a LoRA by picture and by place

{about} A change is the mean difference of a channel to the picture without LoRAs, in levels of 255.

## A strip of scales in one batch

One LoRA at scale 1, FLUX.2 LoRA Schedule with `pictures` {scales}, one noise for all: one queue.
"Along scale 1's" is the share of that change that lies in the direction of scale 1's. The last
column is the largest difference of any value to a run of that picture alone, with the scale in the
LoRA Stack's slot: one level is what rounding makes of another batch size.
[The pictures](../../docs/images/lora-scales.jpg).
{strip}

At -1 the mosaic sharpens what it would blur, and the duotone makes light blue and dark red, where
at 1 it makes them gold and blue; at 2 the mosaic turns each cell's detail round. Negative scales do
less than in proportion: a part is cut off at black and white, the rest has not been looked into.

## Two regions

LoRA 1 in the left half, LoRA 2 in the right, by a mask each; the change inside its mask and outside
of it. [The pictures](../../docs/images/lora-regions.jpg).
{regions}

The toy is odd here: each of its LoRAs changes one layer, behind the attention that reads text and
references, and no later layer looks at another place. So text and references make no difference,
and nothing leaves the mask. In a model of random weights, whose LoRAs change every block, attention
carries much of the change out of the mask, and `text` and `references` at 0 keep most of it inside.
What a trained model does is not measured.

## Four scales: one batch over four queues of the host's own LoRA loader

`benchmarks/four_scales.py`: LoraLoaderModelOnly at 0, 0.5, 1 and 1.5 in a warm process, which puts
the weights back and patches them anew at each scale, over `pictures`. Seconds of the process, on
one thread: those of the pictures themselves, which a CPU takes as long for either way. What is
saved is the patching: three times all weights that the LoRA adapts, read, changed and written.

{costs}
"""

if __name__ == "__main__":
    sys.exit(main())

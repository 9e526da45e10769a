"""The README's picture of a region: original, mask, edit, and what differs.

A real run of this pack's nodes with the toy model, which can do what its prompt says.
"""

import io
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from host.client import Client
from host.demo.sheet import Cell, draw, save
from host.graph import Graph

from .graphs import stack
from .regions import region_nodes
from .thumbnails import TOY

PICTURE, PROMPT = "cat.png", "image 1 in winter"
# The cat's eyes: one is round, of the other the lid hides a part.
ROUND = (104, 148, 220, 248)
SLANTED = (
    (379, 266), (377, 252), (379, 238), (383, 225), (391, 212), (402, 203), (416, 195), (430, 191),
    (441, 193), (449, 205), (451, 222), (448, 240), (440, 256), (427, 266), (411, 273), (394, 273),
)  # fmt: skip
FEATHER, STRONGER = 4, 8
MAX_BYTES = 250_000


def draw_region(url: str, path: Path) -> None:
    """Run the edit on the server at ``url`` and write a JPEG.

    Raises RuntimeError where a pixel further than the feather from the paint has changed, or where
    the file is too large.
    """
    with Client(url) as client:
        before = _read(client, {"filename": PICTURE, "subfolder": "", "type": "input"})
        mask = Image.new("L", before.size)
        ImageDraw.Draw(mask).ellipse(ROUND, fill=255)
        ImageDraw.Draw(mask).polygon(SLANTED, fill=255)
        after = _edit(client, before, mask)
    changed = ImageChops.difference(before, after)
    near = mask.filter(ImageFilter.MaxFilter(2 * FEATHER + 3))
    if Image.composite(Image.new("RGB", before.size), changed, near).getbbox():
        raise RuntimeError("the edit has changed pixels away from its mask")
    dark = Image.blend(before, Image.new("RGB", before.size), 0.85)
    cells = (
        Cell(before, "original", "x".join(map(str, before.size))),
        Cell(
            Image.composite(Image.new("RGB", before.size, "white"), dark, mask),
            "mask",
            "painted over",
        ),
        Cell(after, "edit", f'"{PROMPT}"'),
        Cell(
            changed.point(lambda level: min(level * STRONGER, 255)),
            f"difference x{STRONGER}",
            "exactly 0 elsewhere",
        ),
    )
    save(draw(cells, columns=len(cells)), path)
    if path.stat().st_size > MAX_BYTES:
        raise RuntimeError(f"{path.name} has {path.stat().st_size} bytes, over {MAX_BYTES}")


def _read(client: Client, image: dict[str, str]) -> Image.Image:
    with Image.open(io.BytesIO(client.view(image))) as picture:
        return picture.convert("RGB")


def _edit(client: Client, picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture edited by the toy where ``mask`` is white, the crop at its own scale."""
    painted = picture.copy()
    painted.putalpha(ImageChops.invert(mask))
    content = io.BytesIO()
    painted.save(content, "PNG")
    name = client.upload_image(f"painted-{PICTURE}", content.getvalue())
    graph = Graph()
    image = graph.add("LoadImage", image=name)
    made = region_nodes(graph, TOY, PROMPT, (image, image.out(1)), stack(graph))
    graph.set(made.crop, max_upscale=1.0, feather=FEATHER)
    (saved,) = client.run(graph.prompt, timeout=600).check().images(made.at["save"])
    return _read(client, saved)

"""A template's thumbnail: photographs, and what the toy FLUX.2 makes of them.

Square, and drawn for a card of about 200 pixels: each shows what its template does. Where the toy
cannot do it (take a thing away, add what was never there), the photograph says it with a sign.
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from host.client import Client
from host.graph import Graph

from .graphs import local, stack
from .models import Family, File
from .workflows import EXAMPLES

SIDE, EDGE, QUALITY = 512, 6, 82
INK, GROUND, HERE, PAID = "#ffffff", "#171b21", "#1f766e", "#a4551f"
TOY = Family(
    "toy",
    File("flux2-toy-klein.safetensors", "diffusion_models", ""),
    File("toy-words.safetensors", "text_encoders", ""),
    File("taef2", "vae", ""),
    4,
    1.0,
)
SPACEMAN, CAT, CUP = "astronaut.png", "cat.png", "coffee.png"
MOSAIC, DUOTONE = "toy-mosaic.safetensors", "toy-duotone.safetensors"
SCALES = (0.0, 0.5, 1.0, 1.5)
COLOURS = "image 1 in the colours of image 2"
EYE, FACE, WHOLE_CUP = (352, 170, 478, 296), (150, 30, 320, 230), (80, 5, 395, 315)
Picture = Image.Image
Rectangle = tuple[int, int, int, int]


class Studio:
    """Photographs as squares, and their edits by the toy on the server of ``client``."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.edit = functools.cache(self._edit)
        self.photos = {name: self._photo(name) for name in (SPACEMAN, CAT, CUP)}

    def _photo(self, name: str) -> Picture:
        """The square in the middle; uploaded, so that the toy edits the same."""
        square = ImageOps.fit(self._view({"filename": name, "type": "input"}), (SIDE, SIDE))
        content = io.BytesIO()
        square.save(content, "PNG")
        self.client.upload_image(f"square-{name}", content.getvalue())
        return square

    def _edit(self, prompt: str, *names: str, lora: str = "", scale: float = 1.0) -> Picture:
        graph = Graph()
        images = {
            f"image_{number}": graph.add("LoadImage", image=f"square-{name}")
            for number, name in enumerate(names, 1)
        }
        loras = stack(graph)
        if lora:
            graph.set(loras, **{"lora_1": "installed", "lora_1.file": lora})
            graph.set(loras, **{"lora_1.scale": scale, "lora_1.enabled": True})
        size = "match image" if images else "square"
        at = local(graph, TOY, prompt, images=images, loras=loras, size=size)
        (saved,) = self.client.run(graph.prompt, timeout=600).check().images(at["save"])
        return self._view(saved)

    def _view(self, image: dict[str, str]) -> Picture:
        content = self.client.view({"subfolder": "", **image})
        with Image.open(io.BytesIO(content)) as picture:
            return picture.convert("RGB")


def draw_thumbnails(client: Client, folder: Path) -> None:
    """Write a JPEG for each example. Raises KeyError for one that has no picture here."""
    studio = Studio(client)
    for stem, example in EXAMPLES.items():
        picture = PICTURES[example.name](studio).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        paid = "RunComfy" in example.name
        model = "RunComfy" if paid else (example.family or TOY).title.removeprefix("FLUX.2 ")
        if not (paid and example.family):  # which has a word for each half
            _word(picture, model, 16, SIDE - 66, PAID if paid else HERE)
        picture.save(folder / f"{stem}.jpg", quality=QUALITY, optimize=True)


def beside(pictures: Sequence[Picture], words: Sequence[str] = (), slant: int = 0) -> Picture:
    """The same view in several ways, from left to right; ``slant`` leans what divides them."""
    sheet, wide = pictures[0].copy(), SIDE // len(pictures)
    for number, picture in enumerate(pictures[1:], 1):
        left = wide * number
        mask = Image.new("L", sheet.size)
        corners = [(left + slant, 0), (SIDE, 0), (SIDE, SIDE), (left - slant, SIDE)]
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        sheet.paste(picture, mask=mask)
        ImageDraw.Draw(sheet).line([corners[0], corners[3]], fill=INK, width=EDGE)
    for number, word in enumerate(words):
        _word(sheet, word, wide * number + 16, 16)
    return sheet


def grid(pictures: Sequence[Picture], words: Sequence[str]) -> Picture:
    sheet, half = Image.new("RGB", (SIDE, SIDE), INK), SIDE // 2
    for number, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        left, top = number % 2 * half, number // 2 * half
        sheet.paste(picture.resize((half - EDGE, half - EDGE)), (left + EDGE // 2, top + EDGE // 2))
        _word(sheet, word, left + 16, top + 16)
    return sheet


def cards(pictures: Sequence[Picture], side: int, left: int, top: int, step: int) -> Picture:
    """The first picture whole, the others on it as smaller cards, each ``step`` lower."""
    sheet = pictures[0].copy()
    for number, picture in enumerate(pictures[1:]):
        card = ImageOps.expand(picture.resize((side, side)), EDGE, INK)
        sheet.paste(card, (left + number * step // 3, top + number * step))
    return sheet


def patch(below: Picture, above: Picture, where: Rectangle) -> Picture:
    """``above`` in an ellipse of ``below``."""
    mask, sheet = Image.new("L", below.size), below.copy()
    ImageDraw.Draw(mask).ellipse(where, fill=255)
    sheet.paste(above, mask=mask)
    ImageDraw.Draw(sheet).ellipse(where, outline=INK, width=EDGE)
    return sheet


def nothing() -> Picture:
    """The sign for what is not there: a chequerboard."""
    small = Image.new("L", (16, 16))
    small.putdata([210 if (x + y) % 2 else 250 for y in range(16) for x in range(16)])
    return small.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")


def told(picture: Picture, prompt: str) -> Picture:
    """A picture from nothing but words."""
    sheet = picture.copy()
    ImageDraw.Draw(sheet).rounded_rectangle((16, 16, SIDE - 16, 110), 12, fill=INK)
    _word(sheet, prompt, 40, 38)
    return sheet


def outpainted(photo: Picture) -> Picture:
    """The picture in the middle; what is beside it is still to come."""
    sheet = ImageEnhance.Color(ImageEnhance.Brightness(photo).enhance(0.45)).enhance(0.2)
    middle = (SIDE // 4, 0, SIDE * 3 // 4, SIDE)
    sheet.paste(photo.crop(middle), middle[:2])
    pen = ImageDraw.Draw(sheet)
    pen.rectangle(middle, outline=INK, width=EDGE)
    for tip, foot in ((24, 96), (SIDE - 24, SIDE - 96)):
        pen.line((tip, SIDE // 2, foot, SIDE // 2), fill=INK, width=3 * EDGE)
        back = (tip + foot) // 2
        pen.polygon([(tip, 256), (back, 216), (back, 296)], fill=INK)
    return sheet


def wired(photo: Picture) -> Picture:
    """Nodes and links over a picture: a graph that can be seen."""
    sheet = ImageEnhance.Brightness(photo).enhance(0.4)
    pen = ImageDraw.Draw(sheet)
    ends = ((60, 90), (60, 260), (60, 400), (220, 110), (220, 320), (380, 210))
    for one, other in ((0, 3), (1, 3), (1, 4), (2, 4), (3, 5), (4, 5)):
        (left, top), (right, bottom) = ends[one], ends[other]
        pen.line((left + 90, top + 20, right, bottom + 20), fill="#f4c95d", width=EDGE)
    for left, top in ends:
        pen.rounded_rectangle((left, top, left + 96, top + 64), 12, fill=GROUND, outline=INK)
        pen.rounded_rectangle((left, top, left + 96, top + 22), 10, fill=HERE)
    return sheet


def _word(sheet: Picture, word: str, left: int, top: int, color: str = GROUND) -> None:
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(36)
    width = pen.textlength(word, font=font) + 32
    pen.rounded_rectangle((left, top, left + width, top + 50), 12, fill=color)
    pen.text((left + width / 2, top + 25), word, fill=INK, font=font, anchor="mm")


def _both(name: str, prompt: str, slant: int = 60) -> Callable[[Studio], Picture]:
    return lambda s: beside((s.photos[name], s.edit(prompt, name)), slant=slant)


def _scaled(s: Studio, name: str, lora: str, scales: Sequence[float] = SCALES) -> list[Picture]:
    return [s.edit("image 1", name, lora=lora, scale=scale) for scale in scales]


NUMBERS = [f"{scale:g}" for scale in SCALES]
PICTURES: dict[str, Callable[[Studio], Any]] = {
    "Edit one picture (klein)": _both(SPACEMAN, "winter"),
    "Edit one picture (dev)": _both(CAT, "sunset"),
    "Edit with CFG (klein base)": _both(CUP, "night", -60),
    "Edit with three references (dev)": lambda s: cards(
        (s.edit("image 1 and image 2", CAT, CUP), *s.photos.values()), 130, 20, 20, 146
    ),
    "Text to image with LoRAs (dev)": lambda s: told(
        _scaled(s, CAT, MOSAIC, (1,))[0], "a cat, pixel art"
    ),
    "Edit with the KV cache (klein 9B KV)": lambda s: cards(
        (s.edit(COLOURS, CUP, SPACEMAN), s.photos[CUP], s.photos[SPACEMAN]), 150, 20, 20, 172
    ),
    "Edit in 8 steps (dev, Turbo LoRA)": lambda s: beside(
        (s.photos[SPACEMAN], s.edit("sketch", SPACEMAN)), ("", "8 steps")
    ),
    "Edit and enlarge, decoded in tiles (klein)": lambda s: cards(
        (s.edit("winter", CAT).crop((256, 128, 512, 384)).resize((SIDE, SIDE)), s.photos[CAT]),
        150,
        20,
        20,
        0,
    ),
    "Edit a folder of pictures (klein)": lambda s: cards(
        (
            Image.new("RGB", (SIDE, SIDE), GROUND),
            *(s.edit("monochrome", name) for name in (CUP, CAT, SPACEMAN)),
        ),
        300,
        30,
        20,
        84,
    ),
    "Compare LoRA scales (klein)": lambda s: grid(_scaled(s, SPACEMAN, DUOTONE), NUMBERS),
    "Compare LoRA scales in one run (klein)": lambda s: beside(_scaled(s, CAT, DUOTONE), NUMBERS),
    "Two LoRAs, two regions (klein)": lambda s: beside(
        [*_scaled(s, SPACEMAN, MOSAIC, (1,)), *_scaled(s, SPACEMAN, DUOTONE, (1,))],
        ("LoRA 1", "LoRA 2"),
    ),
    "Style LoRA that fades out (klein)": lambda s: beside(
        _scaled(s, CUP, MOSAIC, (1, 0.6, 0.3, 0)), slant=20
    ),
    "Edit a region (klein)": lambda s: patch(s.photos[CAT], s.edit("sunset", CAT), EYE),
    "Edit a region (dev, reference)": lambda s: cards(
        (patch(s.photos[SPACEMAN], s.edit(COLOURS, SPACEMAN, CUP), FACE), s.photos[CUP]),
        140,
        346,
        20,
        0,
    ),
    "Remove an object (klein)": lambda s: patch(s.photos[CUP], nothing(), WHOLE_CUP),
    "Outpaint (klein)": lambda s: outpainted(s.photos[SPACEMAN]),
    "Edit a region (RunComfy)": lambda s: patch(s.photos[CUP], s.edit("winter", CUP), WHOLE_CUP),
    "Edit one picture (RunComfy)": _both(SPACEMAN, "monochrome", -60),
    "Text to image (RunComfy)": lambda s: told(
        _scaled(s, CUP, DUOTONE, (1,))[0], "a cup of coffee"
    ),
    "Same edit here and on RunComfy (dev)": lambda s: beside(
        [s.edit("night", CAT)] * 2, ("here", "RunComfy")
    ),
    "Under the hood, every node of an edit (klein)": lambda s: wired(s.photos[CAT]),
}

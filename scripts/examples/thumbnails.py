"""A workflow's thumbnail: what goes in and what comes out, drawn from its graph.

Drawn for a card of about 200 pixels, where the graph itself could not be read.
"""

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from host.client import Prompt

SIZE = (640, 480)
SCALE = 2  # drawn larger and shrunk, so that edges are smooth
GROUND, INK, QUIET = "#171b21", "#eceae4", "#8d97a5"
HERE, PAID, LORA, SIGN = "#2a8f85", "#b8652f", "#7a5cc0", "#56606e"
# Sky, far hill, near hill, sun: pictures that differ at a glance.
SCENES = (
    ("#3d6386", "#86b8a6", "#4d8574", "#f4c95d"),
    ("#6b4a73", "#c08497", "#8c5a6e", "#f7d9a8"),
    ("#2f4858", "#5f9ea0", "#33658a", "#e8e6df"),
)
RESULT = ("#4a5d8a", "#e9eef2", "#b7c8d6", "#f4c95d")
Box = tuple[float, float, float, float]


class Contents(NamedTuple):
    """What a graph is about."""

    pictures: int
    loras: int
    local: bool
    hosted: bool
    grid: bool
    region: bool
    padded: bool
    lora_regions: int


def contents(prompt: Prompt) -> Contents:
    kinds = [entry["class_type"] for entry in prompt.values()]
    slots = [
        value
        for entry in prompt.values()
        if entry["class_type"] == "Flux2EditLoraStack"
        for name, value in entry["inputs"].items()
        if name in ("lora_1", "lora_2", "lora_3")
    ]
    regions = kinds.count("Flux2EditLoraRegion")
    return Contents(
        # A folder is drawn as three pictures.
        kinds.count("LoadImage") + 3 * kinds.count("LoadImageDataSetFromFolder"),
        # A region is one's own LoRA, which the stack does not name yet.
        max(sum(slot != "none" for slot in slots), regions),
        "Flux2EditSampler" in kinds,
        "Flux2EditRunComfy" in kinds,
        "ImageGrid" in kinds,
        "Flux2EditRegionCrop" in kinds,
        "ImagePadForOutpaint" in kinds,
        regions,
    )


def draw_thumbnail(prompt: Prompt, label: str, sign: str, path: Path) -> None:
    """Write a JPEG; ``label`` names the model or the service, ``sign`` what is special, if any.

    Raises ValueError where these are too long.
    """
    about = contents(prompt)
    picture = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), GROUND)
    pen = ImageDraw.Draw(picture)
    _inputs(pen, about)
    _arrow(pen, _box(300, 205, 352, 245))
    places = [color for wanted, color in ((about.local, HERE), (about.hosted, PAID)) if wanted]
    for number, color in enumerate(places):
        height = 230 if len(places) == 1 else 150
        top = 110 if len(places) == 1 else 62 + 170 * number
        box = _box(380, top, 600, top + height)
        pen.rounded_rectangle(_grown(box, 7), 12 * SCALE, fill=color)
        if about.grid:
            _grid(pen, box, color)
        elif about.region:
            _patched(picture, box, about.padded)
        elif about.lora_regions:
            _halved(picture, box)
        else:
            draw_scene(pen, box, RESULT)
    badges = [(label, places[0] if len(places) == 1 else QUIET)]
    badges += [(sign, SIGN)] if sign else []
    _badges(pen, badges, about.loras)
    picture.resize(SIZE, Image.Resampling.LANCZOS).save(path, quality=90, optimize=True)


def _grid(pen: ImageDraw.ImageDraw, box: Box, ground: str) -> None:
    """Two by two results, each further from the first."""
    left, top, right, bottom = box
    pen.rectangle(box, fill=ground)
    for number, colors in enumerate((SCENES[0], SCENES[2], SCENES[1], RESULT)):
        wide, high = (right - left) / 2, (bottom - top) / 2
        x, y = left + number % 2 * wide, top + number // 2 * high
        draw_scene(pen, (x + 3, y + 3, x + wide - 3, y + high - 3), colors)


def _patched(picture: Image.Image, box: Box, padded: bool) -> None:
    """The first picture with a part of the result in it; padded, with more on both sides of it."""
    left, top, right, bottom = box
    whole = (0, 0, right - left, bottom - top)
    size = round(whole[2]), round(whole[3])
    first, second = Image.new("RGB", size), Image.new("RGB", size)
    draw_scene(ImageDraw.Draw(first), whole, SCENES[0])
    if padded:
        pen = ImageDraw.Draw(first)
        pen.rectangle((whole[2] * 0.22, 0, whole[2] * 0.78, whole[3]), outline=INK, width=2 * SCALE)
    else:
        draw_scene(ImageDraw.Draw(second), whole, RESULT)
        spot = Image.new("L", size)
        ImageDraw.Draw(spot).ellipse(_spot(whole), fill=255)
        first.paste(second, mask=spot)
    picture.paste(first, (round(left), round(top)))


def _halved(picture: Image.Image, box: Box) -> None:
    """One picture in two ways, left and right."""
    left, top, right, bottom = map(round, box)
    draw_scene(ImageDraw.Draw(picture), box, RESULT)
    other = Image.new("RGB", (right - left, bottom - top))
    draw_scene(ImageDraw.Draw(other), (0, 0, right - left, bottom - top), SCENES[1])
    middle = (right - left) // 2
    picture.paste(other.crop((middle, 0, right - left, bottom - top)), (left + middle, top))
    line = (left + middle, top, left + middle, bottom)
    ImageDraw.Draw(picture).line(line, fill=GROUND, width=4 * SCALE)


def _spot(box: Box) -> Box:
    """Where a picture is painted over, in the thumbnail."""
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    return left + 0.1 * wide, top + 0.34 * high, left + 0.62 * wide, top + 0.86 * high


def _inputs(pen: ImageDraw.ImageDraw, about: Contents) -> None:
    if about.pictures == 0:
        for number, width in enumerate((200, 220, 170, 120)):
            pen.rounded_rectangle(
                _box(50, 140 + 48 * number, 50 + width, 164 + 48 * number), 12 * SCALE, fill=QUIET
            )
        return
    side = 220 if about.pictures == 1 else 150
    for number in range(about.pictures):
        left, top = 40 + 38 * number, 110 + 72 * number if about.pictures > 1 else 110
        if about.pictures > 1:
            top -= 40
        box = _box(left, top, left + side, top + side * 0.95)
        pen.rounded_rectangle(_grown(box, 5), 10 * SCALE, fill=GROUND)
        draw_scene(pen, box, SCENES[number])
        if about.region and not about.padded and number == 0:
            pen.ellipse(_spot(box), fill=GROUND, outline=INK, width=2 * SCALE)


def draw_scene(pen: ImageDraw.ImageDraw, box: Box, colors: tuple[str, str, str, str]) -> None:
    """The usual sign for a picture: a sun and two hills."""
    sky, far, near, light = colors
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    pen.rectangle(box, fill=sky)
    radius = min(width, height) / 9
    sun = left + 0.74 * width, top + 0.27 * height
    pen.ellipse((sun[0] - radius, sun[1] - radius, sun[0] + radius, sun[1] + radius), fill=light)
    for peak, high, color in ((0.34, 0.40, far), (0.70, 0.60, near)):
        foot = 0.62 * (1 - high) * height
        # Cut at the frame: a foot outside it would end above the ground.
        points = [(left + peak * width, top + high * height)]
        for direction, edge in ((1, right), (-1, left)):
            reach = left + peak * width + direction * foot * 1.5
            cut = min(max(reach, left), right)
            share = abs(cut - points[0][0]) / (foot * 1.5)
            points.append((cut, top + high * height + share * (1 - high) * height))
            points.append((edge if cut == edge else cut, bottom))
        pen.polygon([points[4], points[3], points[0], points[1], points[2]], fill=color)


def _arrow(pen: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    middle = (top + bottom) / 2
    pen.line((left, middle, right - 8 * SCALE, middle), fill=INK, width=7 * SCALE)
    head = ((right - 22 * SCALE, top), (right, middle), (right - 22 * SCALE, bottom))
    pen.polygon(head, fill=INK)


def _badges(pen: ImageDraw.ImageDraw, badges: list[tuple[str, str]], loras: int) -> None:
    if loras:
        badges = [*badges, ("LoRA" if loras == 1 else f"{loras} LoRAs", LORA)]
    left = 40.0 * SCALE
    for text, color in badges:
        font = ImageFont.load_default(30 * SCALE)
        width = pen.textlength(text, font=font) + 36 * SCALE
        box = (left, 404 * SCALE, left + width, 452 * SCALE)
        pen.rounded_rectangle(box, 24 * SCALE, fill=color)
        pen.text((left + width / 2, 428 * SCALE), text, fill=INK, font=font, anchor="mm")
        left += width + 14 * SCALE
    if left > SIZE[0] * SCALE:
        raise ValueError(f"the thumbnail has no room for {badges}")


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return left * SCALE, top * SCALE, right * SCALE, bottom * SCALE


def _grown(box: Box, by: float) -> Box:
    return box[0] - by * SCALE, box[1] - by * SCALE, box[2] + by * SCALE, box[3] + by * SCALE

"""The registry's icon (square) and banner (21:9)."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ICON = 400
BANNER = (1680, 720)
OVERSAMPLED = 4
GROUND, INK, QUIET = "#171b21", "#eceae4", "#8d97a5"
HERE, LORA = "#2a8f85", "#7a5cc0"
# Sky, far hill, near hill, sun: before and after.
SCENE = ("#3d6386", "#86b8a6", "#4d8574", "#f4c95d")
RESULT = ("#4a5d8a", "#e9eef2", "#b7c8d6", "#f4c95d")
Box = tuple[float, float, float, float]


def draw_assets(folder: Path) -> None:
    """Write ``icon.png`` and ``banner.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(draw_icon(), (ICON, ICON), folder / "icon.png")
    _save(draw_banner(), BANNER, folder / "banner.png")


def draw_icon() -> Image.Image:
    """A picture over a picture, and a LoRA's three layers."""
    side = ICON * OVERSAMPLED
    picture = Image.new("RGB", (side, side), GROUND)
    _sign(ImageDraw.Draw(picture), 0, 0, side)
    return picture


def draw_banner() -> Image.Image:
    factor = OVERSAMPLED // 2
    width, height = BANNER[0] * factor, BANNER[1] * factor
    picture = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(picture)
    side = height * 0.8
    _sign(pen, height * 0.12, height * 0.1, side)
    left = height * 1.06
    pen.text(
        (left, height * 0.36),
        "FLUX.2 LoRA Edit",
        fill=INK,
        font=ImageFont.load_default(height * 0.145),
        anchor="lm",
    )
    for number, line in enumerate(
        ("LoRAs that are exact, or say why not.", "On your GPU or through RunComfy.")
    ):
        pen.text(
            (left, height * (0.54 + 0.1 * number)),
            line,
            fill=QUIET,
            font=ImageFont.load_default(height * 0.067),
            anchor="lm",
        )
    return picture


def _sign(pen: ImageDraw.ImageDraw, left: float, top: float, side: float) -> None:
    def box(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
        return left + a * side, top + b * side, left + c * side, top + d * side

    _scene(pen, box(0.09, 0.11, 0.66, 0.60), SCENE)
    pen.rounded_rectangle(box(0.28, 0.32, 0.93, 0.87), 0.05 * side, fill=GROUND)
    pen.rounded_rectangle(box(0.30, 0.34, 0.91, 0.85), 0.04 * side, fill=HERE)
    _scene(pen, box(0.325, 0.365, 0.885, 0.825), RESULT)
    # Three thin layers, each its own scale: a stack of LoRAs.
    for number, width in enumerate((0.30, 0.22, 0.14)):
        y = 0.70 + 0.075 * number
        pen.rounded_rectangle(box(0.07, y, 0.07 + width, y + 0.05), 0.025 * side, fill=LORA)


def _scene(pen: ImageDraw.ImageDraw, box: Box, colors: tuple[str, str, str, str]) -> None:
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


def _save(picture: Image.Image, size: tuple[int, int], path: Path) -> None:
    small = picture.resize(size, Image.Resampling.LANCZOS)
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)

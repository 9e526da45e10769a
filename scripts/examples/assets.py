"""The registry's icon (square) and banner (21:9), drawn with the signs of the thumbnails."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .thumbnails import GROUND, HERE, INK, LORA, QUIET, RESULT, SCENES, draw_scene

ICON = 400
BANNER = (1680, 720)
OVERSAMPLED = 4


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

    draw_scene(pen, box(0.09, 0.11, 0.66, 0.60), SCENES[0])
    pen.rounded_rectangle(box(0.28, 0.32, 0.93, 0.87), 0.05 * side, fill=GROUND)
    pen.rounded_rectangle(box(0.30, 0.34, 0.91, 0.85), 0.04 * side, fill=HERE)
    draw_scene(pen, box(0.325, 0.365, 0.885, 0.825), RESULT)
    # Three thin layers, each its own scale: a stack of LoRAs.
    for number, width in enumerate((0.30, 0.22, 0.14)):
        y = 0.70 + 0.075 * number
        pen.rounded_rectangle(box(0.07, y, 0.07 + width, y + 0.05), 0.025 * side, fill=LORA)


def _save(picture: Image.Image, size: tuple[int, int], path: Path) -> None:
    small = picture.resize(size, Image.Resampling.LANCZOS)
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)

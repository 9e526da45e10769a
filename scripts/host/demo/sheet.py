"""The one picture that the demo ends with: the photographs and the edits, labelled."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

WIDTH = 1800  # shown at half of it
GUTTER, MARGIN = 24, 36
GROUND, INK, QUIET = "#ffffff", "#1b1f24", "#6b7480"
TITLE, SUBTITLE, HEADING = 36, 28, 32
MOST_BYTES = 380_000
QUALITIES = (90, 84, 78, 72, 64, 56, 48)


class Cell(NamedTuple):
    """A picture, and the two lines below it; the second may be empty."""

    picture: Image.Image
    title: str
    subtitle: str = ""


def draw(
    cells: Sequence[Cell], heading: str = "", footing: str = "", columns: int = 0
) -> Image.Image:
    """The sheet: all cells of one size, that of the last picture's shape, in even rows."""
    even = len(cells) if len(cells) < 4 else {4: 2, 5: 3, 6: 3}.get(len(cells), 4)
    columns = columns or even
    rows = -(-len(cells) // columns)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GUTTER) // columns
    shape = cells[-1].picture.size
    height = round(width * shape[1] / shape[0])
    labels = 24 + TITLE + (14 + SUBTITLE if any(cell.subtitle for cell in cells) else 0)
    line = height + labels + GUTTER
    top = MARGIN + (HEADING + GUTTER if heading else 0)
    bottom = SUBTITLE + GUTTER if footing else 0
    sheet = Image.new("RGB", (WIDTH, top + rows * line + bottom + MARGIN - GUTTER), GROUND)
    pen = ImageDraw.Draw(sheet)
    if heading:
        _write(pen, MARGIN, MARGIN, WIDTH - 2 * MARGIN, heading, HEADING, INK)
    for number, cell in enumerate(cells):
        left = MARGIN + (number % columns) * (width + GUTTER)
        upper = top + (number // columns) * line
        sheet.paste(ImageOps.fit(cell.picture.convert("RGB"), (width, height)), (left, upper))
        under = upper + height + 16
        _write(pen, left, under, width, cell.title, TITLE, INK)
        _write(pen, left, under + TITLE + 10, width, cell.subtitle, SUBTITLE, QUIET)
    if footing:
        under = sheet.height - MARGIN - SUBTITLE
        _write(pen, MARGIN, under, WIDTH - 2 * MARGIN, footing, SUBTITLE, QUIET)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Write ``sheet`` as a JPEG of at most ``MOST_BYTES``: less fine, then smaller, until it is."""
    for width in (WIDTH, WIDTH * 3 // 4, WIDTH // 2):
        shown = sheet.resize((width, sheet.height * width // sheet.width), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            buffer = io.BytesIO()
            shown.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
            if buffer.tell() <= MOST_BYTES:
                path.write_bytes(buffer.getvalue())
                return
    path.write_bytes(buffer.getvalue())


def _write(
    pen: ImageDraw.ImageDraw, left: int, top: int, width: int, text: str, size: int, ink: str
) -> None:
    """One line of ``text``, cut where it would be wider than ``width``."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text = text.rstrip() + "..."
    pen.text((left, top), text, fill=ink, font=font)

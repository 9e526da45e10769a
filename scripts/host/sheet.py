"""Pictures on one sheet, with words: below each, beside the rows, above the columns, over all.

The demo's sheet and the fleet's contact sheets are drawn here. A picture given as a path is read
when its turn comes and forgotten again, so that a sheet costs its own pixels and one picture's.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

from .lettering import LEADING, cut, length, wrap, write

GROUND, INK, QUIET, BLANK, EDGE = "#ffffff", "#1b1f24", "#6b7480", "#f2f4f6", "#d5dae0"
UNREADABLE = "not readable"


class Cell(NamedTuple):
    """A picture or the path of one, and the lines below it: ``subtitle`` may hold several.

    Without a picture, or with one that cannot be read, the cell stays empty but for ``word``.
    """

    picture: Image.Image | Path | None
    title: str = ""
    subtitle: str = ""
    word: str = ""


class Measures(NamedTuple):
    """In pixels: the sheet's width, the spaces, the sizes of letters; ``side`` is the width of
    what stands beside the rows. ``crop``: fill the cell and lose the rest, or keep it whole."""

    width: int = 1800
    gutter: int = 24
    margin: int = 36
    title: int = 36
    subtitle: int = 28
    heading: int = 32
    side: int = 0
    shape: tuple[int, int] = (1, 1)
    crop: bool = False

    def labels(self, cells: Sequence[Cell]) -> int:
        """The height of the lines below each picture."""
        if not any(cell.title or cell.subtitle for cell in cells):
            return 0
        lines = max(len(cell.subtitle.splitlines()) for cell in cells)
        return 24 + self.title + (lines and 14 + self.subtitle + (lines - 1) * self.leading)

    @property
    def leading(self) -> int:
        """From one line below a picture to the next."""
        return round(self.subtitle * LEADING)


def draw(
    cells: Sequence[Cell],
    columns: int,
    measures: Measures,
    *,
    heading: Sequence[str] = (),
    footing: str = "",
    tops: Sequence[str] = (),
    sides: Sequence[str] = (),
) -> Image.Image:
    """The sheet: all cells of one size and shape, row after row of ``columns``.

    ``tops`` stand above the columns, ``sides`` beside the rows; what does not fit is cut.
    """
    width, gutter, margin, _, subtitle, size, side, shape, _ = measures
    first = margin + (side and side + gutter)
    wide = (width - first - margin - (columns - 1) * gutter) // columns
    high = max(1, round(wide * shape[1] / shape[0]))
    above = [wrap(text, wide, subtitle, 3) for text in tops]
    top = margin + _height(len(heading), size) + (gutter if heading else 0)
    under_tops = top + _height(max(map(len, above), default=0), subtitle)
    upper = under_tops + (gutter // 2 + subtitle // 2 if above else 0)
    rows = math.ceil(len(cells) / columns)
    line = high + measures.labels(cells) + gutter
    bottom = upper + rows * line + (subtitle + gutter if footing else 0)
    sheet = Image.new("RGB", (width, bottom + margin - gutter), GROUND)
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(heading):
        under = margin + round(number * size * LEADING)
        write(pen, margin, under, cut(text, width - 2 * margin, size), size, INK)
    for number, lines in enumerate(above):
        height = _height(len(lines), subtitle)  # all end just above their column
        _block(pen, (first + number * (wide + gutter), under_tops - height), lines, subtitle)
    for number, text in enumerate(sides):
        lines = wrap(text, side, subtitle, max(1, int(high / subtitle / LEADING)))
        middle = upper + number * line + max(0, (high - _height(len(lines), subtitle)) // 2)
        _block(pen, (margin, middle), lines, subtitle)
    for number, cell in enumerate(cells):
        left = first + number % columns * (wide + gutter)
        _cell(pen, sheet, cell, (left, upper + number // columns * line, wide, high), measures)
    if footing:
        under = sheet.height - margin - subtitle
        write(pen, margin, under, cut(footing, width - 2 * margin, subtitle), subtitle, QUIET)
    return sheet


def _height(lines: int, size: int) -> int:
    """Of so many lines: the last has nothing below it."""
    return size + round((lines - 1) * size * LEADING) if lines else 0


def _block(pen: ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[str], size: int) -> None:
    for number, text in enumerate(lines):
        write(pen, at[0], at[1] + round(number * size * LEADING), text, size, INK)


def _cell(
    pen: ImageDraw.ImageDraw,
    sheet: Image.Image,
    cell: Cell,
    box: tuple[int, int, int, int],
    measures: Measures,
) -> None:
    left, upper, wide, high = box
    picture, word = _shown(cell, (wide, high), measures.crop)
    if picture is None or picture.size != (wide, high):
        pen.rectangle((left, upper, left + wide - 1, upper + high - 1), fill=BLANK)
    if picture is None:
        pen.rectangle((left, upper, left + wide - 1, upper + high - 1), outline=EDGE)
        text = cut(word, wide, measures.subtitle)
        middle = left + (wide - length(text, measures.subtitle)) / 2
        write(pen, middle, upper + (high - measures.subtitle) / 2, text, measures.subtitle, QUIET)
    else:
        space = ((wide - picture.width) // 2, (high - picture.height) // 2)
        sheet.paste(picture, (left + space[0], upper + space[1]))
    under = upper + high + 16
    write(pen, left, under, cut(cell.title, wide, measures.title), measures.title, INK)
    under += measures.title + 10
    for number, text in enumerate(cell.subtitle.splitlines()):
        text = cut(text, wide, measures.subtitle)
        write(pen, left, under + number * measures.leading, text, measures.subtitle, QUIET)


def _shown(cell: Cell, size: tuple[int, int], crop: bool) -> tuple[Image.Image | None, str]:
    """The cell's picture in ``size`` or within it, or None and the word that stands there."""
    if cell.picture is None:
        return None, cell.word
    fit = ImageOps.fit if crop else ImageOps.contain
    if isinstance(cell.picture, Image.Image):
        return fit(_opaque(cell.picture), size), ""
    try:
        with Image.open(cell.picture) as picture:
            picture.draft("RGB", size)
            if crop or picture.width < size[0] or picture.height < size[1]:
                return fit(_opaque(picture), size), ""
            picture.thumbnail(size, Image.Resampling.LANCZOS)
            return _opaque(picture), ""
    # A picture of another program's may be broken in any way; the rest of the sheet is not.
    except Exception:
        return None, cell.word or UNREADABLE


def _opaque(picture: Image.Image) -> Image.Image:
    """In RGB; what is transparent shows the sheet's ground."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, GROUND), seen).convert("RGB")

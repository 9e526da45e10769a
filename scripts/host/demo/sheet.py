"""The one picture that the demo ends with: the photographs and the edits, labelled."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .. import sheet
from ..sheet import Cell

__all__ = ["Cell", "draw", "save"]

MEASURES = sheet.Measures(crop=True)
WIDTH = MEASURES.width  # shown at half of it
GUTTER, MARGIN = MEASURES.gutter, MEASURES.margin
TITLE, SUBTITLE, HEADING = MEASURES.title, MEASURES.subtitle, MEASURES.heading
MOST_BYTES = 380_000
QUALITIES = (90, 84, 78, 72, 64, 56, 48)


def draw(
    cells: Sequence[Cell], heading: str = "", footing: str = "", columns: int = 0
) -> Image.Image:
    """The sheet: all cells of one size, that of the last picture's shape, in even rows."""
    even = len(cells) if len(cells) < 4 else {4: 2, 5: 3, 6: 3}.get(len(cells), 4)
    measures = MEASURES._replace(shape=cells[-1].picture.size)
    above = [heading] if heading else []
    return sheet.draw(cells, columns or even, measures, heading=above, footing=footing)


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

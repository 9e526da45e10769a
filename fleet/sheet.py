"""Contact sheets: the pictures of a run side by side, each where its row's values put it.

With grids a sheet has axes: the last grid runs along its columns, the one before it down its rows,
and each combination of the other columns' values makes a sheet of its own. Without grids the
pictures stand in the table's order, forty to a sheet, each with its id and what differs.
"""

import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image

from host import sheet
from host.lettering import LEADING, length, wrap

PAGE, LINES = 40, 4
"""Pictures of one sheet without axes, and lines of values below each."""
MOST_VALUES, MOST_ROWS = 100, 20
"""Values on an axis of one sheet, and rows of the table beside a single axis; the rest go on on
further sheets."""
CELL, SMALL_CELL, SIDE = 512, 256, 8000
"""How wide a picture is shown at most, and small ones too, and about the longest side of a sheet,
in pixels."""
LARGE, LEAST = 28, 9
"""Sizes of letters."""
SAMPLE = 64
"""Pictures that are asked for their shape."""
QUALITY = 90
ABSENT, BETWEEN = "as in the graph", " \u00b7 "
"""The value of a column that a row leaves out, and what stands between two values."""
MOST_BYTES = 120
"""Of what a sheet's file is named after."""


class Tile(NamedTuple):
    """A picture of a row, and what the table says of the row, by column in the table's order.

    ``picture`` is None where there is none, and ``word`` says why: "failed", "not run".
    """

    id: str
    picture: Path | None
    labels: dict[str, str]
    word: str = ""


class Sheet(NamedTuple):
    """One sheet to draw; ``name`` tells its file from the others', and may be empty."""

    name: str
    cells: Sequence[sheet.Cell]
    columns: int
    heading: str
    tops: Sequence[str] = ()
    sides: Sequence[str] = ()


def draw_sheets(done: Sequence[Tile], axes: Sequence[str], folder: Path) -> list[Path]:
    """Write the contact sheets of ``done`` into ``folder`` and return their paths.

    ``done``: all tiles in the table's order, which the values on a sheet follow; several pictures
    of one row are several tiles. ``axes``: the columns of the grids, in their order. With one axis
    the table's rows go down the sheet. Columns that never differ are not shown.

    Writes ``sheet.jpg``, or ``sheet_<what it shows>.jpg`` where there are several, each whole or
    not at all; raises OSError where that cannot be done. A broken picture is an empty cell.
    """
    if not done:
        return []
    axes = [axis for axis in axes if any(axis in tile.labels for tile in done)]
    others = [column for column in _differing(done) if column not in axes[-2:]]
    names = _short([*axes[-2:], *others])
    if len(axes) > 1:
        sheets = list(_groups(done, axes[-2], axes[-1], others, names))
    else:
        sheets = list(_rows(done, axes[0], others, names) if axes else _pages(done, others, names))
    folder.mkdir(parents=True, exist_ok=True)
    files = _file_names([one.name for one in sheets])
    return [_write(one, folder / file) for one, file in zip(sheets, files, strict=True)]


def _pages(done: Sequence[Tile], others: Sequence[str], names: dict[str, str]) -> Iterator[Sheet]:
    pages = [done[start : start + PAGE] for start in range(0, len(done), PAGE)]
    for number, page in enumerate(pages):
        cells = []
        for tile in page:
            said = [f"{names[one]}: {tile.labels[one]}" for one in others if one in tile.labels]
            lines = "\n".join(" ".join(line.split()) for line in said[:LINES])
            cells.append(sheet.Cell(tile.picture, tile.id, lines, tile.word))
        first = number * PAGE
        heading = f"{first + 1} to {first + len(page)} of {len(done)}" if len(pages) > 1 else ""
        name = f"{number + 1:0{len(str(len(pages)))}}" if len(pages) > 1 else ""
        yield Sheet(name, cells, min(8, math.ceil(math.sqrt(1.5 * len(page)))), heading)


def _rows(
    done: Sequence[Tile], along: str, others: Sequence[str], names: dict[str, str]
) -> Iterator[Sheet]:
    """The axis along the columns, and down the rows all that else differs."""

    def row(tile: Tile) -> str:
        return BETWEEN.join(_said(tile, other, names) for other in others)

    yield from _grid([(row(tile), _said(tile, along, names), tile) for tile in done], [], MOST_ROWS)


def _groups(
    done: Sequence[Tile], down: str, along: str, others: Sequence[str], names: dict[str, str]
) -> Iterator[Sheet]:
    groups: dict[tuple[str, ...], list[tuple[str, str, Tile]]] = {}
    for tile in done:
        placed = (_said(tile, down, names), _said(tile, along, names), tile)
        groups.setdefault(tuple(_said(tile, one, names) for one in others), []).append(placed)
    for said, tiles in groups.items():
        yield from _grid(tiles, said, MOST_VALUES)


def _grid(
    placed: Sequence[tuple[str, str, Tile]], said: Sequence[str], most_rows: int
) -> Iterator[Sheet]:
    """The sheets of one group: one, but for rows of several pictures and for long axes."""
    cells: dict[tuple[str, str], list[Tile]] = {}
    for side, top, tile in placed:
        cells.setdefault((side, top), []).append(tile)
    sides = list(dict.fromkeys(side for side, _, _ in placed))
    tops = list(dict.fromkeys(top for _, top, _ in placed))
    copies = max(map(len, cells.values()))
    parts = [
        (sides[row : row + most_rows], tops[column : column + MOST_VALUES])
        for row in range(0, len(sides), most_rows)
        for column in range(0, len(tops), MOST_VALUES)
    ]
    for copy in range(copies):
        for part, (down, along) in enumerate(parts):
            words = [*said]
            words += [f"picture {copy + 1}"] if copies > 1 else []
            words += [f"part {part + 1} of {len(parts)}"] if len(parts) > 1 else []
            shown = [_cell(cells.get((side, top), []), copy) for side in down for top in along]
            beside = () if down == [""] else down
            yield Sheet("_".join(words), shown, len(along), BETWEEN.join(words), along, beside)


def _cell(tiles: Sequence[Tile], copy: int) -> sheet.Cell:
    """The ``copy``-th picture of a place, or the word that says why there is none."""
    if copy < len(tiles):
        return sheet.Cell(tiles[copy].picture, word=tiles[copy].word)
    return sheet.Cell(None, word=next((tile.word for tile in tiles if not tile.picture), ""))


def _said(tile: Tile, column: str, names: dict[str, str]) -> str:
    return f"{names[column]} {tile.labels.get(column, ABSENT)}"


def _differing(done: Sequence[Tile]) -> list[str]:
    """The columns that do not say the same of all rows, in the table's order."""
    columns = dict.fromkeys(column for tile in done for column in tile.labels)
    first = done[0].labels
    return [
        column
        for column in columns
        if any(tile.labels.get(column) != first.get(column) for tile in done)
    ]


def _short(columns: Sequence[str]) -> dict[str, str]:
    """Each column's ending from a dot on, long enough to be none of another's."""
    shorts = {}
    for column in columns:
        parts = column.split(".")
        endings = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        rest = [f".{other}" for other in columns if other != column]
        alone = (end for end in endings if not any(one.endswith(f".{end}") for one in rest))
        shorts[column] = next(alone, column)
    return shorts


def _file_names(names: Sequence[str]) -> list[str]:
    """A safe file name for each, no two the same in any case of letters."""
    taken: set[str] = set()
    files = []
    for name in names:
        safe = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", name)).strip("-.")
        safe = safe.encode("utf-8", "ignore")[:MOST_BYTES].decode("utf-8", "ignore")
        stem = start = f"sheet_{safe}" if safe else "sheet"
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{start}_{number}"
        taken.add(stem.casefold())
        files.append(f"{stem}.jpg")
    return files


def _write(one: Sheet, path: Path) -> Path:
    measures = _measures(one)
    heading = wrap(one.heading, measures.width - 2 * measures.margin, measures.heading, 3)
    picture = sheet.draw(
        one.cells,
        one.columns,
        measures,
        heading=heading if one.heading else (),
        tops=one.tops,
        sides=one.sides,
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        picture.save(partial, "JPEG", quality=QUALITY)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _measures(one: Sheet) -> sheet.Measures:
    """As large as the pictures are worth, and smaller until the sheet's sides are bounded."""
    sizes = _sizes(one.cells)
    wide = min(CELL, max(SMALL_CELL, *(width for width, _ in sizes)))
    shape = round(1000 * min(4.0, max(0.25, median(width / high for width, high in sizes))))
    while True:
        measures = _measures_of(one, wide)._replace(shape=(shape, 1000))
        rows = math.ceil(len(one.cells) / one.columns)
        line = wide * 1000 / shape + measures.labels(one.cells) + measures.gutter
        above = 2 * measures.margin + 8 * measures.heading * LEADING  # of words, at most
        excess = max(measures.width, above + rows * line) / SIDE
        if excess <= 1 or wide <= 16:
            return measures
        wide = min(wide - 1, int(wide / excess))


def _measures_of(one: Sheet, wide: int) -> sheet.Measures:
    size = max(LEAST, min(LARGE, wide // 12))
    gutter = max(2, wide // 24)
    beside = [line for text in one.sides for line in wrap(text, max(wide, 8 * size), size, 6)]
    side = math.ceil(max((length(line, size) for line in beside), default=0))
    inner = (side and side + gutter) + one.columns * (wide + gutter) - gutter
    return sheet.Measures(
        width=2 * (margin := max(8, wide // 14)) + inner,
        gutter=gutter,
        margin=margin,
        title=size,
        subtitle=size if one.tops else max(LEAST, round(size * 0.8)),
        heading=max(LEAST, round(size * 1.15)),
        side=side,
    )


def _sizes(cells: Sequence[sheet.Cell]) -> list[tuple[int, int]]:
    """Width and height of some of the pictures: of none at all, a square's."""
    found = []
    paths = [cell.picture for cell in cells if isinstance(cell.picture, Path)]
    for path in paths[:: max(1, len(paths) // SAMPLE)]:
        # Whatever is wrong with one is said in its cell.
        with suppress(Exception), Image.open(path) as picture:
            found.append(picture.size)
    return found or [(CELL, CELL)]

"""What to do, as rows: from a table, a folder of pictures, or a grid of values.

A row's id becomes the name of its pictures, so it must be a safe file name wherever the pictures
go. Whatever is wrong with a table is said at once: each kind with how many and the first of them.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .names import (
    LONGEST_ID,
    LONGEST_TAG,
    PICTURES,
    Refused,
    are_safe,
    check_ids,
    counted,
    distinct_tags,
    fitted,
    is_short,
    named,
    plain,
    quoted,
)

DELIMITERS = ",;\t|"


class Row(NamedTuple):
    """One edit. ``values``: column -> what the table says, a str from CSV, typed from the others.

    A column that the row leaves empty (an empty cell, a null) is not in ``values``.
    """

    id: str
    values: dict[str, Any]


class Line(NamedTuple):
    """A row as it stands in a file: ``place`` is how a person finds it there."""

    place: str
    values: dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """The rows of a ``.csv``, ``.jsonl`` or ``.parquet`` file, in its order.

    A column ``id`` names them; without it they are 00001, 00002, ... Raises Refused.
    """
    readers = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Refused(f"A table is a .csv, .jsonl or .parquet file; this is none.\n{path}")
    try:
        lines = reader(path)
    except OSError as error:
        raise Refused(f"The table cannot be read: {error.strerror or error}.\n{path}") from None
    if not lines:
        raise Refused(f"The table has no rows.\n{path}")
    return _named_rows(lines, path)


def read_folder(folder: Path, column: str) -> list[Row]:
    """A row for each picture of ``folder`` (not of folders in it), 2.png before 10.png.

    ``column`` gets the picture's absolute path. The id is the file's stem; where that is no safe
    name, or several pictures share it, with six digits that depend on the file's name alone.
    Raises Refused.
    """
    try:
        files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    except OSError as error:
        raise Refused(f"The folder cannot be read: {error.strerror or error}.\n{folder}") from None
    pictures = [file for file in files if file.suffix.lower() in PICTURES and file.is_file()]
    if not pictures:
        raise Refused(f"The folder has no picture ({' '.join(PICTURES)}).\n{folder}")
    pictures.sort(key=lambda file: _natural(file.name))
    ids = distinct_tags([(file.stem, file.name) for file in pictures], LONGEST_ID)
    return [
        Row(name, {column: str(file.absolute())}) for name, file in zip(ids, pictures, strict=True)
    ]


def cross(rows: Sequence[Row], grids: Sequence[str]) -> list[Row]:
    """Each row with each combination of the grids' values, or the combinations alone.

    A grid is ``column=a,b,c``, quoted as in CSV where a value holds a comma. Ids get readable
    endings (``cat-scale0.5-seed3``), or numbers where those would be long or the same; they depend
    on rows and grids alone. Raises Refused.
    """
    if not grids:
        return list(rows)
    axes = _axes(rows, grids)
    base = rows or [Row("", {})]
    product = list(itertools.product(*axes.values()))
    tags = list(itertools.product(*map(_axis_tags, axes, axes.values())))
    ids = ["-".join(filter(None, (row.id, *ending))) for row in base for ending in tags]
    if not any(ids):  # patterns alone: what they match makes the names
        ids = [_axis_name(next(iter(axes)))]
    if not are_safe(ids):
        width = max(5 if not rows else 1, len(str(len(product))))
        numbers = [f"{number:0{width}}" for number in range(1, len(product) + 1)]
        short = [fitted(row.id, LONGEST_ID - width - 1) for row in base]
        ids = [f"{one}-{number}".lstrip("-") for one in short for number in numbers]
    combined = (row.values | dict(zip(axes, one, strict=True)) for row in base for one in product)
    return [Row(name, values) for name, values in zip(ids, combined, strict=True)]


def _csv(path: Path) -> list[Line]:
    text = _text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[Line] = []
    header: list[str] = []
    problems: list[str] = []
    started, long = 1, []
    try:
        for cells in reader:
            place, started = f"line {started}", reader.line_num + 1
            if not any(map(str.strip, cells)):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                while header[-1] == "":  # each line ends in a delimiter
                    header.pop()
                problems = _header_problems(header, place)
                continue
            if any(map(str.strip, cells[len(header) :])):
                long.append(f"{place} ({len(cells)})")
            values = {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
            lines.append(Line(place, values))
    except csv.Error as error:
        problems.append(f"The row that begins in line {started} is no CSV: {error}. A quotation "
                        'mark inside a cell is written twice ("").')  # fmt: skip
    if long:
        problems.append(
            f"{len(long):,} rows have more cells than the header ({len(header)}): {named(long)}. "
            f'A cell that holds a "{delimiter}" stands in quotation marks.'
        )
    if problems:
        raise Refused(*problems, str(path))
    return lines


def _header_problems(header: Sequence[str], place: str) -> list[str]:
    problems = []
    twice = [name for position, name in enumerate(header) if name and name in header[:position]]
    if twice:
        problems.append(f"The header ({place}) names a column twice: {named(twice)}.")
    if "" in header:
        number = header.index("") + 1
        problems.append(f"The header ({place}) has no name for column {number}.")
    return problems


def _delimiter(text: str) -> str:
    """The one that parts the header into the most cells; a comma where none parts it."""

    def cells(delimiter: str) -> int:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            return len(next((row for row in reader if any(map(str.strip, row))), ()))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=cells)


def _json_lines(path: Path) -> list[Line]:
    lines, faults = [], []
    for number, text in enumerate(_text(path).split("\n"), 1):
        if not text.strip():
            continue
        place = f"line {number}"
        try:
            found = json.loads(text, object_pairs_hook=_object)
        except RecursionError:
            faults.append(f"{place} (too many brackets)")
        except ValueError as error:
            faults.append(f"{place} ({getattr(error, 'msg', error)})")
        else:
            if isinstance(found, dict):
                lines.append(Line(place, _present(found)))
            else:
                faults.append(f"{place} (a {type(found).__name__})")
    if faults:
        raise Refused(
            f"{counted(faults, 'line')} no JSON object of columns: {named(faults)}. "
            'A line is one row, {"prompt": "a heron", "seed": 1}.',
            str(path),
        )
    return lines


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len({name.strip() for name in found}) < len(pairs):
        raise ValueError("a column comes twice")
    return found


def _parquet(path: Path) -> list[Line]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise Refused(
            "A .parquet table needs pyarrow: pip install pyarrow, or save the table as .csv or "
            f".jsonl.\n{path}"
        ) from None
    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, ValueError) as error:
        raise Refused(f"The table is no Parquet file: {error}\n{path}") from None
    if problems := _header_problems([name.strip() for name in table.column_names], "schema"):
        raise Refused(*problems, str(path))
    rows = enumerate(table.to_pylist(), 1)
    return [Line(f"row {number}", _present(values)) for number, values in rows]


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.strip(): value
        for name, value in values.items()
        if value is not None and value != ""
    }  # fmt: skip


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(
            f"Line {line:,} is not UTF-8. Save the table as UTF-8 (in Excel: CSV UTF-8).\n{path}"
        ) from None


def _named_rows(lines: Sequence[Line], path: Path) -> list[Row]:
    if not any("id" in line.values for line in lines):
        width = max(5, len(str(len(lines))))
        return [Row(f"{number:0{width}}", line.values) for number, line in enumerate(lines, 1)]
    without = [line.place for line in lines if "id" not in line.values]
    problems = []
    if without:
        problems.append(
            f"{len(without):,} rows have no id, though others do: {named(without)}. Give each row "
            "an id, or leave the column out: they are numbered then."
        )
    given = [(_id(line.values.pop("id")), line) for line in lines if "id" in line.values]
    problems += check_ids([(one, line.place) for one, line in given])
    if problems:
        raise Refused(*problems, str(path))
    return [Row(one, line.values) for one, line in given]


def _id(value: Any) -> str:
    """As text; a list or a date gives a text that is no safe name, and is refused as one."""
    return str(value).strip()


def _axes(rows: Iterable[Row], grids: Iterable[str]) -> dict[str, list[str]]:
    """Column -> its values."""
    columns = {column for row in rows for column in row.values}
    axes: dict[str, list[str]] = {}
    problems = []
    for grid in grids:
        column, sign, text = grid.partition("=")
        column = column.strip()
        values = _grid_values(text)
        if not sign or not column or not values:
            problems.append(f"{quoted(grid)} is no grid: write column=value,value,...")
        elif column in axes or column in columns:
            where = "another grid" if column in axes else "the table"
            problems.append(f"The grid {quoted(grid)} sets a column that {where} sets too.")
        elif twice := [value for value in values if values.count(value) > 1]:
            problems.append(f"The grid {quoted(grid)} names {quoted(twice[0])} twice.")
        axes[column] = values
    if problems:
        raise Refused(*problems)
    return axes


def _grid_values(text: str) -> list[str]:
    """Empty where the text is no list of values."""
    try:
        cells = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        return []
    values = [cell.strip() for cell in cells]
    return values if all(values) else []


def _axis_tags(column: str, values: Sequence[str]) -> list[str]:
    """How the values of a grid's column show in the ids."""
    name = _axis_name(column)
    if len(values) == 1 and not is_short(values[0]):
        return ["" if "*" in values[0] or "?" in values[0] else name]
    if all(map(is_short, values)) and len({value.lower() for value in values}) == len(values):
        return [f"{name}{value}" for value in values]
    return [f"{name}{number}" for number in range(1, len(values) + 1)]


def _axis_name(column: str) -> str:
    return plain(column.rpartition(".")[2])[:LONGEST_TAG]


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts: Iterator[str] = iter(re.findall(r"[0-9]+|[^0-9]+", name.lower()))
    key = [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts]
    return [*key, (2, 0, name)]

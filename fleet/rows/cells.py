"""What each row sets: its cells by the schema, each value of a column read once.

What is wrong is counted by column and kind, so that 100,000 bad rows are a few lines of text.
"""

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .binding import Column
from .graph import Graph, Place
from .names import LONGEST_TAG, NAMED, distinct_tags, fitted, quoted
from .table import Row
from .values import (
    COMBO,
    DYNAMIC,
    PICTURE,
    SOCKET,
    Input,
    Picture,
    Several,
    Unfit,
    as_text,
    convert,
)


class Setting(NamedTuple):
    """What a cell sets. ``place``: (node id, input, value, or the absolute path of a picture);
    ``mark`` stands for it in fingerprints; ``label`` is what the table says."""

    place: tuple[str, str, Any]
    picture: bool
    mark: str
    label: str


class Draft(NamedTuple):
    """What becomes a job: a setting for each column, None where the row leaves it alone."""

    id: str
    settings: tuple[Setting | None, ...]
    labels: dict[str, str]


class Finding:
    """One kind of fault in one column: how many rows, the first of them, and the way out."""

    def __init__(self, remedy: str, value: str) -> None:
        self.remedy, self.value, self.count = remedy, value, 0
        self.rows: list[str] = []

    def text(self, column: str, kind: str) -> str:
        """A sentence for a person."""
        rows = "1 row" if self.count == 1 else f"{self.count:,} rows"
        column = " ".join(column.split())
        first = ", ".join(self.rows) + (", ..." if self.count > NAMED else "")
        return f"{column}: in {rows} ({first}) {self.value} {kind}. {self.remedy}"


class Findings:
    """What is wrong with cells, by column and kind."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Finding] = {}

    def add(self, column: str, unfit: Unfit, row: str, value: Any) -> None:
        """Count one row; the first few of a kind are kept."""
        finding = self.found.get((column, unfit.kind))
        if finding is None:
            remedy = unfit.remedy if isinstance(unfit.remedy, str) else unfit.remedy()
            finding = self.found[column, unfit.kind] = Finding(remedy, quoted(value))
        finding.count += 1
        if finding.count <= NAMED:
            finding.rows.append(row)

    def texts(self) -> list[str]:
        """A text a column and kind, the most frequent first."""
        found = sorted(self.found.items(), key=lambda item: -item[1].count)
        return [finding.text(column, kind) for (column, kind), finding in found]


class Reader:
    """Reads rows; ``findings`` holds what is wrong with them."""

    def __init__(self, graph: Graph, columns: Sequence[Column], folder: Path) -> None:
        self.graph, self.columns, self.folder = graph, columns, folder
        self.findings = Findings()
        self._numbers = {(column.node, column.input): n for n, column in enumerate(columns)}
        self._parents = [_parents(column) for column in columns]
        self._as_said = True
        """Whether all labels so far are the very values of the table."""

    def read(self, rows: Sequence[Row]) -> list[Draft]:
        """A draft a row, and where patterns match several options, one for each of them.

        A cell that ``findings`` speaks of is None. A column that dynamic combos decide about comes
        after theirs.
        """
        cells: list[list[Any]] = []
        for number in range(len(self.columns)):
            cells.append(self._column(number, rows, cells))
        for number, column in enumerate(self.columns):
            if column.forms[0].spec.kind == DYNAMIC:
                self._check_needed(number, rows, cells[number])
        drafts: list[Draft] = []
        every = zip(*cells, strict=True) if cells else itertools.repeat((), len(rows))
        for row, settings in zip(rows, every, strict=True):
            if not self._as_said and any(type(one) is list for one in settings):
                drafts += self._expanded(row, settings)
            else:
                drafts.append(self._draft(row.id, row, settings))
        return drafts

    def _column(self, number: int, rows: Sequence[Row], cells: Sequence[list[Any]]) -> list[Any]:
        """A Setting a row, None where the row has none, a list of them for a pattern."""
        column = self.columns[number]
        # By what the dynamic combos above are set to: the column's input, and the values read.
        books: dict[Any, tuple[Input | Unfit, dict[Any, Any]]] = {}
        settings: list[Any] = []
        for row, chosen in zip(rows, self._chosen(number, rows, cells), strict=False):
            value = row.values.get(column.name)
            if value is None or _UNKNOWN in chosen:
                settings.append(None)
                continue
            book = books.get(chosen)
            if book is None:
                book = books[chosen] = self._form(number, chosen), {}
            # What Python calls equal, a table may not mean: 1, 1.0 and true.
            key: Any = value if type(value) is str else (type(value), value)
            try:
                found = book[1].get(key)
            except TypeError:  # a list or an object
                key, found = None, None
            if found is None:
                found = book[1][key] = self._read(column, book[0], value)
            if type(found) is Unfit:
                self.findings.add(column.name, found, row.id, value)
                found = None
            settings.append(found)
        return settings

    def _chosen(
        self, number: int, rows: Sequence[Row], cells: Sequence[list[Any]]
    ) -> Iterable[tuple[Any, ...]]:
        """What the dynamic combos above a column are set to, for each row."""
        above = [self._choice(place, rows, cells) for place in self._parents[number]]
        return zip(*above, strict=False) if above else itertools.repeat(())

    def _choice(
        self, place: Place, rows: Sequence[Row], cells: Sequence[list[Any]]
    ) -> Iterable[Any]:
        own, number = self.graph.own_value(*place), self._numbers.get(place)
        if number is None:
            return itertools.repeat(own)
        name = self.columns[number].name
        return (
            one.place[2] if one is not None else _UNKNOWN if name in row.values else own
            for row, one in zip(rows, cells[number], strict=True)
        )

    def _form(self, number: int, options: Sequence[Any]) -> Input | Unfit:
        """The input that a column sets where the dynamic combos above it are set to ``options``."""
        column = self.columns[number]
        chosen = dict(zip((name for _, name in self._parents[number]), options, strict=True))
        wrong: dict[str, list[str]] = {}
        for form in column.forms:
            other = next((name for name, wanted in form.when if chosen[name] != wanted), None)
            if other is None:
                return form
            wrong.setdefault(other, []).extend(
                repr(key) for name, key in form.when if name == other
            )
        name, fitting = next(iter(wrong.items()))
        state = "is not set" if chosen[name] is None else f"is {chosen[name]!r}"
        address = f"{self.graph.title(column.node)}.{name}"
        return Unfit(
            f"has no place, because {name} {state}",
            f"Set {address} to {' or '.join(dict.fromkeys(fitting))} in the same row.",
        )

    def _read(self, column: Column, form: Input | Unfit, value: Any) -> Any:
        """A Setting, several of them for a pattern, or Unfit."""
        found = form if isinstance(form, Unfit) else convert(form.spec, value, self.folder)
        if isinstance(found, Unfit):
            return found
        if isinstance(found, Several):
            self._as_said = False
            return [self._setting(column, as_text(one), one) for one in found.options]
        text = as_text(value)
        self._as_said &= text is value
        return self._setting(column, text, found)

    def _setting(self, column: Column, text: str, value: Any) -> Setting:
        node, name = column.node, column.input
        if not isinstance(value, Picture):
            mark = f"{node}\0{name}\0{json.dumps(value)}"
            return Setting((node, name, value), False, mark, text)
        # Where the pictures' folder is moved with its table, they stay the same pictures.
        said = value.path.removeprefix(os.path.join(os.path.abspath(self.folder), ""))
        if os.path.isabs(text):
            self._as_said = False
            text = os.path.basename(text)
        mark = f"{node}\0{name}\0{json.dumps(said)} {value.size} {value.modified}"
        return Setting((node, name, value.path), True, mark, text)

    def _check_needed(self, number: int, rows: Sequence[Row], settings: Sequence[Any]) -> None:
        """What the chosen option of a dynamic combo asks for must be in the graph or the row."""
        column = self.columns[number]
        own = self.graph.nodes[column.node]["inputs"]
        needed: dict[Any, list[tuple[str, str]]] = {}
        for name, forms in self.graph.inputs[column.node].items():
            for form in forms if name not in own else ():
                if form.required and form.when and form.when[-1][0] == column.input:
                    other = self._numbers.get((column.node, name))
                    said = "" if other is None else self.columns[other].name
                    needed.setdefault(form.when[-1][1], []).append((name, said))
        if not needed:
            return
        for row, setting in zip(rows, settings, strict=True):
            option = None if setting is None else setting.place[2]
            for name, said in needed.get(option, ()):
                if said not in row.values:
                    address = f"{self.graph.title(column.node)}.{name}"
                    unfit = Unfit(f"needs {name} too", f"Add a column {address}.")
                    self.findings.add(column.name, unfit, row.id, option)

    def _expanded(self, row: Row, cells: Sequence[Any]) -> list[Draft]:
        axes = [cell if type(cell) is list else [cell] for cell in cells]
        tags = [_option_tags(cell) if type(cell) is list else [""] for cell in cells]
        drafts = []
        for settings, names in zip(itertools.product(*axes), itertools.product(*tags), strict=True):
            name = "-".join([row.id, *filter(None, names)])
            drafts.append(self._draft(fitted(name), row, settings))
        return drafts

    def _draft(self, name: str, row: Row, settings: tuple[Setting | None, ...]) -> Draft:
        if self._as_said:  # the table's own dictionary: 100,000 others would be 40 MB
            return Draft(name, settings, row.values)
        said = zip(self.columns, settings, strict=True)
        return Draft(name, settings, {one.name: setting.label for one, setting in said if setting})


def own_problems(graph: Graph, columns: Iterable[Column], rows: Sequence[Row]) -> list[str]:
    """What the graph itself sets and the server does not take, where a row leaves it so."""
    names = {(column.node, column.input): column.name for column in columns}
    problems = []
    for node, content in graph.nodes.items():
        for name, value in content["inputs"].items():
            unfit = _own_unfit(graph, node, name, value)
            said = names.get((node, name))
            if unfit and not (said and all(said in row.values for row in rows)):
                remedy = unfit.remedy if isinstance(unfit.remedy, str) else unfit.remedy()
                kind = graph.title(node)
                problems.append(
                    f"Node {node} ({kind}): the graph's own {name} {quoted(value)} {unfit.kind}. "
                    f"{remedy}"
                )
    return problems


def _own_unfit(graph: Graph, node: str, name: str, value: Any) -> Unfit | None:
    forms = [
        form
        for form in graph.inputs[node].get(name, ())
        if all(graph.own_value(node, above) == chosen for above, chosen in form.when)
    ]
    # Text is taken as it is; what is linked, or chosen several times, the server checks itself.
    if not forms or forms[0].spec.kind in ("STRING", SOCKET) or isinstance(value, (list, dict)):
        return None
    spec = forms[0].spec
    if spec.kind in (COMBO, PICTURE):
        # Some nodes find a file by its name alone; "[output]" is a picture of another folder.
        ends = {
            as_text(option).replace("\\", "/").rpartition("/")[2] for option in spec.options or ()
        }
        text = as_text(value)
        if spec.options is None or text.endswith("]") or text.rpartition("/")[2] in ends:
            return None
        spec = spec._replace(kind=COMBO)
    found = convert(spec, value, Path())
    return found if isinstance(found, Unfit) else None


_UNKNOWN = object()


def _parents(column: Column) -> tuple[Place, ...]:
    """The dynamic combos that decide whether a column's input exists."""
    names = {name: None for form in column.forms for name, _ in form.when}
    return tuple((column.node, name) for name in names)


def _option_tags(settings: Sequence[Setting]) -> list[str]:
    """How the options that a pattern matches show in the ids: by their file's stem."""
    texts = [setting.label for setting in settings]
    stems = [os.path.splitext(text.replace("\\", "/").rpartition("/")[2])[0] for text in texts]
    return distinct_tags(list(zip(stems, texts, strict=True)), LONGEST_TAG)

"""What an example is made of: a graph, where its nodes stand, and the words beside them."""

from collections.abc import Callable
from typing import NamedTuple

from host.graph import Graph

from .folding import Box
from .models import Family, File


class Column(NamedTuple):
    """Nodes below one another, in a frame if it has a title. A box goes by its own title."""

    title: str
    nodes: tuple[str, ...]


class Sheet(NamedTuple):
    """A graph, where its nodes stand, which are in boxes, the note's size, what is below it."""

    graph: Graph
    columns: tuple[Column, ...]
    boxes: tuple[Box, ...] = ()
    note: tuple[int, int] = (340, 480)
    below: tuple[str, ...] = ()


class Example(NamedTuple):
    """One template: its file name, what it shows, the files it needs (none for RunComfy).

    ``then`` says what to do next, and ``sign`` is a word more for the thumbnail.
    """

    name: str
    summary: str
    draw: Callable[[], Sheet]
    family: Family | None = None
    then: str = ""
    sign: str = ""

    @property
    def badge(self) -> str:
        """Where or on what it runs, in a word for the thumbnail."""
        if "RunComfy" not in self.name:
            return self.family.title if self.family else ""
        return "here and RunComfy" if self.family else "RunComfy"

    @property
    def note(self) -> str:
        """The text of its note, in Markdown."""
        parts = [f"## {self.name}\n\n{self.summary}"]
        if self.family:
            parts.append(_model(self.family))
        if self.then:
            parts.append(f"**Next**: {self.then}")
        return "\n\n".join(parts)


def _model(family: Family) -> str:
    """Which model, under which licence, on which GPU, and where its files come from."""
    total = sum(file.gigabytes for file in family.files)
    rows = "\n".join(_row(file) for file in family.files)
    return (
        f"**{family.title}**: {family.licence}. {total:.0f} GB of files; {family.memory}.\n\n"
        f"### Model links\n\n{rows}"
    )


def _row(file: File) -> str:
    return f"- models/{file.folder}: [{file.name}]({file.url}) {file.gigabytes:.1f} GB"

"""What an example is made of: a graph, where its nodes stand, and the words beside them."""

from collections.abc import Callable
from typing import NamedTuple

from host.graph import Graph

from .folding import Box
from .models import HUB, LORAS, WHICH_MODEL, Family, File

BOXES = (
    "**The box** opens by the icon at its corner. The node search has three like it for your own "
    "graphs: **Image Edit with LoRAs**, **Text to Image with LoRAs**, **Edit a Region**."
)
# Nodes 2.0 of the oldest frontends makes a note as tall as its text: what stands below one of
# these is clear of it.
TALL = 740


class Sheet(NamedTuple):
    """A graph, and where its nodes stand: columns from left to right, the note above the first.

    A box goes by its own title; a number is room. ``note`` is its size, ``fixed`` keeps the seeds.
    """

    graph: Graph
    columns: tuple[tuple[str | int, ...], ...]
    boxes: tuple[Box, ...] = ()
    note: tuple[int, int] = (440, 600)
    fixed: bool = False


def recipe_sheet(graph: Graph, left: tuple[str, ...], box: Box, *right: str) -> Sheet:
    """What goes in at the left, the box, what comes out at the right.

    Nothing stands between the two ends of a link, where it would seem to take part, and nothing
    below the LoRA stack, which grows with each LoRA.
    """
    return Sheet(graph, ((), left, (box.title,), right), (box,))


class Example(NamedTuple):
    """One template: its name, what it shows, the files it needs (none for RunComfy).

    ``then`` says what to do next.
    """

    name: str
    summary: str
    draw: Callable[[], Sheet]
    family: Family | None = None
    then: str = ""

    def note(self, sheet: Sheet) -> str:
        """The text of its note, in Markdown."""
        parts = [f"## {self.name}\n\n{self.summary}", *_loras(sheet.graph)]
        if self.family:
            parts.append(_model(self.family))
        parts.append(f"**Next**: {self.then}")
        return "\n\n".join([*parts, BOXES] if sheet.boxes else parts)


def _loras(graph: Graph) -> list[str]:
    """The LoRAs that a graph names, and the words that they wait for."""
    lines = []
    for entry in graph.prompt.values():
        for value in entry["inputs"].values():
            if isinstance(value, str) and value in LORAS:
                repo, lora = value.partition(":")[0], LORAS[value]
                words = ", ".join(f"**{literal(word)}**" for word in lora.triggers)
                said = f" Trigger words: {words}." if words else ""
                lines.append(f"- [{repo}]({HUB}/{repo}): {lora.about}.{said}")
    return ["**LoRA**, fetched on the first run:\n\n" + "\n".join(lines)] if lines else []


def literal(text: str) -> str:
    """Signs of Markdown and HTML as they are. A code span would be blue on blue in Nodes 2.0."""
    return text.replace("<", "\\<").replace(">", "\\>")


def _model(family: Family) -> str:
    """Which model, under which licence, on which GPU, and where its files come from."""
    total = sum(file.gigabytes for file in family.files)
    rows = "\n".join(_row(file) for file in family.files)
    return (
        f"**{family.title}**: {family.licence}. {total:.0f} GB of files; {family.memory}.\n\n"
        f"### Model links\n\n{rows}\n\n**Which model for which GPU memory?** {WHICH_MODEL}"
    )


def _row(file: File) -> str:
    return f"- models/{file.folder}: [{file.name}]({file.url}) {file.gigabytes:.1f} GB"

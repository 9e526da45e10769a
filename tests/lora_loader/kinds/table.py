"""The table: every kind of FLUX.2 LoRA file there is a producer for, and some nobody has made."""

from . import rows_libraries, rows_others, rows_trainers
from .kind import Kind


def all_kinds() -> list[Kind]:
    """In the order of the facts: producers first, then combinations."""
    rows = [
        *rows_libraries.diffusers(),
        *rows_libraries.peft(),
        *rows_trainers.fal(),
        *rows_trainers.ai_toolkit_rows(),
        *rows_trainers.musubi_rows(),
        *rows_trainers.onetrainer_rows(),
        *rows_libraries.simpletuner(),
        *rows_others.smaller(),
        *rows_others.combinations(),
    ]
    names = [kind.name for kind in rows]
    assert len(set(names)) == len(names), "two kinds share a name"
    return rows

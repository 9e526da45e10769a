"""What the documents say of the code is there: each name, each file and each folder."""

import re
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")
# At a line's start in a module: ``NAME = ...`` or ``NAME: Type = ...``.
CONSTANT = re.compile(r"^([A-Z][A-Z_]*)(?:: .*)? = ", re.MULTILINE)


def known() -> set[str]:
    """Every function, class and constant of the product by its dotted name, and all its endings."""
    names = [(one.path, one.name) for one in house.definitions()]
    for path, text in house.sources().items():
        names += [(path, name) for name in CONSTANT.findall(text)]
    found = set()
    for path, name in names:
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        parts = f"{module}.{name}".split(".")
        found |= {".".join(parts[start:]) for start in range(len(parts))}
    return found


def spans(document: str) -> list[str]:
    """What stands in backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", (ROOT / document).read_text("utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_function_that_is_named_exists(document):
    dotted = [name for name in spans(document) if re.fullmatch(r"\w+(\.\w+)+", name)]
    named = [name for name in dotted if not (ROOT / name).is_file() and not name.endswith(".py")]
    assert named
    assert sorted(set(named) - known()) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document):
    named = [name.split()[0] for name in spans(document) if re.match(r"[\w.]+/[\w./]*( |$)", name)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_names_every_room():
    rows = re.findall(r"^\| `([\w/]+)/` \|", (ROOT / DOCUMENTS[0]).read_text("utf-8"), re.MULTILINE)
    folders = {Path(path).parent.as_posix() for path in house.sources()}
    assert {row.partition("/")[0] for row in rows} == set(house.ROOMS)
    assert set(rows) <= folders
    assert {folder for folder in folders if folder.startswith("lora_loader/")} <= set(rows)


def test_the_page_stays_a_page():
    assert len((ROOT / DOCUMENTS[0]).read_text("utf-8").splitlines()) <= 60

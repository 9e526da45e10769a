"""What became of each row, in a file that outlives every process: ``DIR/.fleet/rows.jsonl``.

JSON lines, only ever appended to and flushed to the disk (fsync). A row is begun, perhaps several
times, and then it is done or failed; pictures are in their places before the line that says so. A
line that a crash has cut is skipped, and so is one of a row that was given other inputs since.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = ".fleet"
PART = ".part"
BEGUN, DONE, FAILED = "begun", "done", "failed"


@dataclass(frozen=True)
class Line:
    """One event of one row: ``key`` is the fingerprint of its inputs, ``server`` who had it,
    ``session`` the run of the driver, ``at`` the moment (Unix seconds).

    ``files`` are names below DIR, ``sha256`` theirs in the same order; ``seconds`` is the server's
    time for the prompt; ``usd`` is what a hosted row may cost, None where nothing is paid.
    """

    id: str
    key: str
    state: str
    server: str
    session: str = ""
    at: float | None = None
    seed: int | None = None
    seconds: float | None = None
    files: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    error: str = ""
    usd: float | None = None


_NAMES = frozenset(field.name for field in fields(Line))


def path_of(folder: Path) -> Path:
    """The journal of the run whose pictures go into ``folder``."""
    return folder / FOLDER / "rows.jsonl"


def read(folder: Path) -> Iterator[Line]:
    """Every line, in the order of writing; one that is torn or foreign is skipped."""
    with suppress(FileNotFoundError), path_of(folder).open("rb") as file:
        for text in file:
            with suppress(ValueError, TypeError, AttributeError, KeyError):
                values = json.loads(text)
                line = Line(**{name: values[name] for name in _NAMES & values.keys()})
                yield _tupled(line)


def ended(lines: Iterable[Line], keys: dict[str, str], folder: Path) -> dict[str, Line]:
    """The last end of each row of ``keys`` (id -> key), unless its inputs have changed since.

    A row whose pictures are gone from ``folder`` has not ended: they are made again.
    """
    found: dict[str, Line] = {}
    for line in lines:
        if keys.get(line.id) == line.key and line.state in (DONE, FAILED):
            found[line.id] = line
    return {
        name: line
        for name, line in found.items()
        if all((folder / file).is_file() for file in line.files)
    }


class Writer:
    """Appends lines. One process at a time holds one for a folder."""

    def __init__(self, folder: Path) -> None:
        path = path_of(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        if size:
            # A crash may have cut the last line: its rest must not swallow the next one.
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, line: Line, durably: bool = True) -> None:
        """With the kernel when this returns, and on the disk if ``durably``."""
        text = {name: value for name, value in asdict(line).items() if value not in (None, "", ())}
        self._file.write(json.dumps(text, separators=(",", ":")).encode() + b"\n")
        if durably:
            os.fsync(self._file.fileno())


def store(folder: Path, names: Sequence[str], contents: Sequence[bytes]) -> tuple[str, ...]:
    """Write pictures under their names, each whole or not at all; their sha256 in the same order.

    A name is one file of ``folder`` itself. Raises OSError.
    """
    digests = []
    for name, content in zip(names, contents, strict=True):
        write_atomically(folder / Path(name).name, content)
        digests.append(hashlib.sha256(content).hexdigest())
    return tuple(digests)


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file or what was there before, also where the power fails."""
    scratch = path.with_name(f".{uuid.uuid4().hex}{PART}")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Take away what a writer that was killed has left of a file."""
    for path in folder.glob(f".{'[0-9a-f]' * 32}{PART}"):
        path.unlink(missing_ok=True)


def _tupled(line: Line) -> Line:
    values: dict[str, Any] = vars(line)
    texts = (line.id, line.key, line.state, line.server, line.session, line.error)
    if not (all(isinstance(text, str) for text in texts)
            and isinstance(line.usd, int | float | None)):  # fmt: skip
        raise TypeError(line)
    return Line(**{**values, "files": tuple(line.files), "sha256": tuple(line.sha256)})

"""A file on its way: ``<target>.part`` and ``<target>.part.json``, which says what it is part of.

The order of the writes keeps a resume honest after a crash at any point: the old bytes go first,
then the note changes, then new bytes come.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .record import read_record, write_record

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Validator:
    """What names one version of a file at its server. ``total`` is its size in bytes."""

    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def condition(self) -> str | None:
        """What If-Range may hold (RFC 9110, 13.1.5): a strong ETag, else the date."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class Partial:
    """The part of ``target`` that is already here. ``key`` names where the bytes come from."""

    def __init__(self, target: Path, key: str) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._key = key

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def validator(self) -> Validator | None:
        """Which version the part belongs to; None when there is no part that can be continued."""
        note = read_record(self._note)
        if note is None or note.get("key") != self._key or self.size == 0:
            return None
        etag, date, total = note.get("etag"), note.get("last_modified"), note.get("total")
        return Validator(
            etag if isinstance(etag, str) else None,
            date if isinstance(date, str) else None,
            total if isinstance(total, int) else None,
        )

    def begin(self, validator: Validator) -> None:
        """An empty part of this version."""
        with open(self.path, "wb"):
            pass
        write_record(
            self._note,
            {
                "key": self._key,
                "etag": validator.etag,
                "last_modified": validator.last_modified,
                "total": validator.total,
            },
        )

    def open(self) -> BinaryIO:
        """The part, to be appended to; unbuffered, so that its size tells what was written."""
        return open(self.path, "ab", buffering=0)

    def hash_into(self, sha256: "hashlib._Hash", should_stop: Callable[[], None]) -> None:
        """Feeds the bytes that are here to ``sha256``."""
        with open(self.path, "rb") as file:
            while piece := file.read(_CHUNK):
                should_stop()
                sha256.update(piece)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.discard_note()

    def discard_note(self) -> None:
        self._note.unlink(missing_ok=True)

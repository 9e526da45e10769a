"""Files that survive a crash: the old one or the new one, never half of one."""

import errno
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_MAX_RECORD = 64 << 10  # bytes
_MOST_DIGITS = 40
_CHUNK = 4 << 20  # bytes
_PAUSE = 0.1  # seconds between two tries for a lock
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def record_of(path: Path) -> Path:
    """Where the note of the finished file ``path`` lies: ``<file>.json``."""
    return path.with_name(path.name + ".json")


def json_object(text: bytes) -> dict[str, Any] | None:
    """The object that a JSON text is; None for nonsense, a cut text, and any other value.

    A whole number of more than ``_MOST_DIGITS`` stays the text that it is: Python refuses to read
    one of thousands of digits, which may still be somebody's id.
    """
    try:
        value = json.loads(text, parse_int=lambda n: int(n) if len(n) <= _MOST_DIGITS else n)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_record(path: Path) -> dict[str, Any] | None:
    """The object in the JSON file ``path``; None where there is none or it is not ours."""
    try:
        with open(path, "rb") as file:
            return json_object(file.read(_MAX_RECORD))
    except OSError:
        return None


def write_record(path: Path, value: Mapping[str, object]) -> None:
    """Replaces ``path`` by ``value`` as JSON, durably. Raises OSError."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


@dataclass(frozen=True)
class Fetched:
    """A file on disk. ``sha256``, and what its source calls this ``revision``, where known.

    ``fetched``: False when it was here already, and then nothing was requested for it.
    """

    path: Path
    size: int
    sha256: str | None
    revision: str | None = None
    fetched: bool = False


def write_atomically(
    path: Path, data: bytes, *, private: bool = False, replace: bool = True
) -> None:
    """Writes a small file whole or not at all, durably. Raises OSError.

    private: only its owner may read it, from its first byte on. With ``replace`` false an existing
    file stays as it is.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(os.open(scratch, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            try:
                os.link(scratch, path)
            except OSError:  # it is there already, or the file system has no hard links
                replace = not os.path.lexists(path)
        if replace:
            os.replace(scratch, path)
        sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()


def sync_folder(folder: Path) -> None:
    """Makes renames in ``folder`` durable, where the system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot; the rename has happened
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(target: Path, should_stop: Callable[[], None]) -> Iterator[None]:
    """Holds ``.<target>.lock``; the system frees it when a process dies. A stop ends the wait.

    On a file system without locks the work goes on without one: a soft lock would outlive a
    killed process and block the file for good.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    try:
        while not lock.is_locked:
            should_stop()
            try:
                lock.acquire(timeout=0)
            except Timeout:
                time.sleep(_PAUSE)
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                logger.warning("The folder of %s knows no file locks.", target.name)
                break
        yield
    finally:
        lock.release()  # nothing, where it is not held


class PartFile:
    """A file on its way: ``<target>.part`` and ``<target>.part.json``, which says what it is of.

    size: bytes that are here and can be continued; those from earlier are hashed at once.
    sha256: of them. etag, last_modified, total (bytes): which version of the file they are of.

    The order of the writes keeps a resume honest after a crash at any point: the old bytes go
    first, then the note changes, then new bytes come.
    """

    def __init__(self, target: Path, key: str, should_stop: Callable[[], None]) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._key = key
        self.size, self.sha256 = 0, hashlib.sha256()
        note = read_record(self._note) or {}
        if note.get("key") != key or not self.path.exists():
            note = {}
        etag, date, total = note.get("etag"), note.get("last_modified"), note.get("total")
        self.etag: str | None = etag if isinstance(etag, str) else None
        self.last_modified: str | None = date if isinstance(date, str) else None
        self.total: int | None = total if isinstance(total, int) else None
        if note:
            with open(self.path, "rb") as file:
                while piece := file.read(_CHUNK):
                    should_stop()
                    self.sha256.update(piece)
                    self.size += len(piece)

    def begin(self, etag: str | None, last_modified: str | None, total: int | None) -> None:
        """An empty part of this version."""
        self.size, self.sha256 = 0, hashlib.sha256()
        self.etag, self.last_modified, self.total = etag, last_modified, total
        self.path.write_bytes(b"")
        version = {"etag": etag, "last_modified": last_modified, "total": total}
        write_record(self._note, {"key": self._key, **version})

    def append(self, file: BinaryIO, piece: bytes) -> None:
        """Writes ``piece`` to the part, opened unbuffered: what was written before an OSError
        counts."""
        view = memoryview(piece)
        while view:
            written = file.write(view)
            self.sha256.update(view[:written])
            self.size += written
            view = view[written:]

    def discard(self) -> None:
        """Removes the part and its note."""
        self.size, self.sha256, self.total = 0, hashlib.sha256(), None
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Gives the finished part its name, durably."""
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)
        sync_folder(target.parent)

"""Downloads that survive: resumed after any break, verified, and renamed into place at the end.

A kill at any moment leaves nothing, a part that can be resumed, or the complete file under its
name; never an incomplete file under its name. File names are the caller's alone: nothing that a
server says becomes a path.
"""

import logging
import os
from datetime import datetime, timezone
from pathlib import Path

from .errors import Occupied
from .lock import locked
from .order import Downloaded, Terms, Wanted
from .partial import Partial
from .record import read_record, record_of, sync_folder, write_record
from .transfer import Transfer

logger = logging.getLogger(__name__)


def finished(target: Path, key: str) -> Downloaded | None:
    """The file at ``target`` if its note says that it came from ``key`` and its size agrees."""
    record = read_record(record_of(target))
    if record is None or record.get("key") != key:
        return None
    size, sha256 = record.get("size"), record.get("sha256")
    try:
        if not isinstance(sha256, str) or not isinstance(size, int):
            return None
        return Downloaded(target, size, sha256, False) if target.stat().st_size == size else None
    except OSError:
        return None


def download(wanted: Wanted, terms: Terms) -> Downloaded:
    """``wanted`` on disk, fetched unless it is already there; only GET, so retries are safe.

    Raises :class:`Occupied` at once where another file is in the way and ``replace`` is off,
    :class:`NetworkError` (the part stays for the next time unless it is bad), what
    ``wanted.verify`` raises, what ``terms.should_stop`` raises, and OSError of the disk.
    """
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    with locked(wanted.target, terms.should_stop):
        there = finished(wanted.target, wanted.key)
        if there is not None and not wanted.again:
            # Perhaps from another process while this one waited, or from one that was killed
            # between giving the name and clearing up.
            Partial(wanted.target, wanted.key).discard()
            return there
        if not wanted.replace and _holds_another(wanted):
            raise Occupied(f"Another file is in the place.\n{wanted.target}")
        return _fetch(wanted, terms)


def _holds_another(wanted: Wanted) -> bool:
    record = read_record(record_of(wanted.target)) or {}
    return wanted.target.exists() and record.get("key") != wanted.key


def _fetch(wanted: Wanted, terms: Terms) -> Downloaded:
    transfer = Transfer(wanted, terms)
    resumed = transfer.resumes
    while True:
        transfer.fill()
        try:
            sha256 = transfer.check()
            break
        except Exception:
            transfer.part.discard()
            # A part from earlier may be to blame: once more, from the first byte.
            if not resumed:
                raise
            resumed = False
            logger.info("A resumed download did not add up; starting anew.")
    size = transfer.part.size
    # An older file goes before the note changes: a note never speaks of another file.
    wanted.target.unlink(missing_ok=True)
    write_record(
        record_of(wanted.target),
        {
            **wanted.origin,
            "key": wanted.key,
            "size": size,
            "sha256": sha256,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )
    os.replace(transfer.part.path, wanted.target)
    transfer.part.discard_note()
    sync_folder(wanted.target.parent)
    terms.progress(size, size)
    return Downloaded(wanted.target, size, sha256, True)

"""Downloads that survive: resumed after any break, verified, and renamed into place at the end.

A kill at any moment leaves nothing, a part that can be resumed, or the complete file under its
name; never an incomplete file under its name. File names are the caller's alone: nothing that a
server says becomes a path.
"""

import base64
import binascii
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from .client import Answer, Credentials, HttpClient
from .errors import (
    BadResponse,
    IntegrityError,
    NetworkError,
    NotEnoughSpace,
    Occupied,
    TooLarge,
    WebPage,
    shown,
)
from .files import PartFile, Version, locked, read_record, record_of, write_record

logger = logging.getLogger(__name__)

_SPARE = 64 << 20  # bytes of the disk that are left to others
_SYNC_EVERY = 32 << 20  # bytes between two flushes and looks at the free space
_PROGRESS_EVERY = 0.1  # seconds
_REAL_PROGRESS = 8 << 20  # bytes that earn a fresh set of attempts
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def no_progress(done: int, total: int | None) -> None:
    """The ``progress`` of a caller that does not care."""


def free_space(folder: Path) -> int:
    """Free bytes on the disk of ``folder``."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Wanted:
    """One file to have.

    url: where from. target: the finished file; its folder is made. key: names the content's
        origin (repository, revision and file, or the link): a part and a finished file are only
        used again for the same key. It is stored, so it must hold no secret.
    size, sha256: where known beforehand, else None. sha256 in hex.
    origin: what the note beside the file shall say of it; no secrets.
    verify: looks at the complete file before it gets its name; raises to refuse it.
    credentials: as for :meth:`HttpClient.stream`.
    """

    url: str
    target: Path
    key: str
    size: int | None = None
    sha256: str | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    verify: Callable[[Path], object] | None = None
    credentials: Credentials = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Downloaded:
    """A complete file. ``fetched``: False when it was already here."""

    path: Path
    size: int
    sha256: str
    fetched: bool


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


def download(
    wanted: Wanted,
    client: HttpClient,
    progress: Callable[[int, int | None], None] = no_progress,
    free_space: Callable[[Path], int] = free_space,
) -> Downloaded:
    """``wanted`` on disk, fetched unless it is already there; only GET, so retries are safe.

    progress: bytes done and in all. free_space: bytes that a folder's disk has left.

    Raises :class:`Occupied` at once where another file is in the way, :class:`NetworkError` (the
    part stays for the next time unless it is bad), what ``wanted.verify`` raises, what the
    client's ``should_stop`` raises, and OSError of the disk.
    """
    target = wanted.target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target, client.should_stop):
        part = PartFile(target, wanted.key, client.should_stop)
        there = finished(target, wanted.key)
        if there is not None:
            # Perhaps from another process while this one waited, or from one that was killed
            # between giving the name and clearing up.
            part.discard()
            return there
        if target.exists() and (read_record(record_of(target)) or {}).get("key") != wanted.key:
            raise Occupied(f"Another file is in the place.\n{target}")
        transfer = _Transfer(wanted, client, progress, free_space, part)
        sha256 = transfer.fetched()
        # An older file goes before the note changes: a note never speaks of another file.
        target.unlink(missing_ok=True)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        known = {"key": wanted.key, "size": part.size, "sha256": sha256, "date": now}
        write_record(record_of(target), {**wanted.origin, **known})
        part.become(target)
        progress(part.size, part.size)
        return Downloaded(target, part.size, sha256, True)


class _Transfer:
    """The bytes of one file into its part, over as many requests as it takes."""

    def __init__(
        self,
        wanted: Wanted,
        client: HttpClient,
        progress: Callable[[int, int | None], None],
        free_space: Callable[[Path], int],
        part: PartFile,
    ) -> None:
        self._wanted, self._client, self._part = wanted, client, part
        self._progress, self._free_space = progress, free_space
        self._total = wanted.size
        self._named_sha256: str | None = None  # what the server says besides
        self._reported = 0.0

    def fetched(self) -> str:
        """Brings the part to its full, checked size; its sha256.

        Raises NetworkError, after which the part stays unless it is bad.
        """
        resumed = self._part.size > 0
        while True:
            self._fill()
            try:
                return self._check()
            except Exception:
                self._part.discard()
                # A part from earlier may be to blame: once more, from the first byte.
                if not resumed:
                    raise
                resumed = False
                logger.info("A resumed download did not add up; starting anew.")

    def _fill(self) -> None:
        wanted, part, limits = self._wanted, self._part, self._client.limits
        if wanted.size is not None and wanted.size > limits.max_bytes:
            raise self._too_large(wanted.size)
        failures, mark = 0, part.size
        while True:
            if part.version is not None and part.size:  # from earlier: perhaps nothing is missing
                total = part.version.total if wanted.size is None else wanted.size
                if total == part.size:
                    self._total = total
                    return
            try:
                self._request()
                return
            except NetworkError as error:
                failures += 1
                if part.size - mark >= _REAL_PROGRESS:
                    failures, mark = 1, part.size
                if not error.retryable or failures >= limits.attempts:
                    raise
                if not isinstance(error, _Changed):
                    logger.info("%s Trying again.", str(error).partition("\n")[0])
                    self._client.wait(failures, error)

    def _check(self) -> str:
        """The sha256 of the full part, after length, sha256 and the caller's look were right."""
        wanted, part = self._wanted, self._part
        if self._total is not None and part.size != self._total:
            raise IntegrityError(f"{part.size:,} bytes arrived instead of {self._total:,}.")
        sha256 = part.sha256.hexdigest()
        named = wanted.sha256 or self._named_sha256
        if named is not None and sha256 != named.lower():
            raise IntegrityError(
                "The file that arrived is not the one the server announced (its sha256 differs)."
                f"\n{shown(wanted.url)}"
            )
        if wanted.verify is not None:
            wanted.verify(part.path)
        return sha256

    def _request(self) -> None:
        """One request: the rest of the file, or all of it."""
        wanted, part = self._wanted, self._part
        version = part.version if part.size else None
        headers = {}
        if version is not None and (version.condition is not None or wanted.sha256 is not None):
            headers["Range"] = f"bytes={part.size}-"
            if version.condition is not None:
                headers["If-Range"] = version.condition
        with self._client.stream(
            wanted.url, headers=headers, credentials=wanted.credentials
        ) as answer:
            if version is not None and answer.status == 206:
                self._total = self._check_range(answer, version)
            elif answer.status == 200:
                self._begin(answer)
            elif answer.status == 416 and headers:
                # The file has become shorter, or the part was too long: it is of no use.
                part.discard()
                raise _Changed("The file changed on the server.")
            else:
                raise answer.status_error()
            self._named_sha256 = _named_sha256(answer)
            self._store(answer)

    def _begin(self, answer: Answer) -> None:
        """A new part, after the answer's headers have been found plausible."""
        wanted = self._wanted
        if (answer.headers.get("Content-Type") or "").lower().startswith("text/html"):
            raise WebPage(
                "The link leads to a web page (perhaps a login), not to a file.\n"
                + shown(wanted.url)
            )
        encoded = answer.headers.get("Content-Encoding")
        length = None if encoded else answer.length  # the length is that of the encoded bytes
        if wanted.size is not None and length is not None and length != wanted.size:
            raise IntegrityError(
                f"The server sends {length:,} bytes where {wanted.size:,} were announced.\n"
                + shown(wanted.url)
            )
        if length is not None and length > self._client.limits.max_bytes:
            raise self._too_large(length)
        self._total = length if length is not None else wanted.size
        etag = None if encoded else answer.headers.get("ETag")
        date = None if encoded else answer.headers.get("Last-Modified")
        self._check_space(self._total or 0)
        self._part.begin(Version(etag, date, self._total))

    def _check_range(self, answer: Answer, version: Version) -> int | None:
        """The total that a 206 states, when it continues the part; else the part is dropped."""
        part = self._part
        match = _CONTENT_RANGE.fullmatch((answer.headers.get("Content-Range") or "").strip())
        total = int(match[3]) if match and match[3] != "*" else version.total
        etag = answer.headers.get("ETag")
        if (
            match is None
            or int(match[1]) != part.size
            or (total is not None and int(match[2]) + 1 != total)
            or (version.total is not None and total != version.total)
            or (version.etag and etag and version.etag != etag)
            or answer.headers.get("Content-Encoding")
        ):
            part.discard()
            raise _Changed("The file changed on the server.")
        if total is not None and total > self._client.limits.max_bytes:
            part.discard()
            raise self._too_large(total)
        self._check_space((total or part.size) - part.size)
        return total

    def _store(self, answer: Answer) -> None:
        part, since_look = self._part, 0
        self._progress(part.size, self._total)
        with part.open() as file:
            for piece in answer.pieces:
                if part.size + len(piece) > self._client.limits.max_bytes:
                    arrived = part.size + len(piece)
                    part.discard()
                    raise self._too_large(arrived)
                try:
                    part.append(file, piece)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise self._no_space() from error
                    raise
                since_look += len(piece)
                if since_look >= _SYNC_EVERY:
                    since_look = 0
                    self._check_space(0)
                    # In small portions, so that no flush holds up a stop for long.
                    os.fsync(file.fileno())
                if time.monotonic() - self._reported >= _PROGRESS_EVERY:
                    self._reported = time.monotonic()
                    self._progress(part.size, self._total)
            os.fsync(file.fileno())

    def _check_space(self, missing: int) -> None:
        if self._free_space(self._wanted.target.parent) < missing + _SPARE:
            raise self._no_space()

    def _no_space(self) -> NotEnoughSpace:
        return NotEnoughSpace(
            f"The disk is too full for {self._wanted.target.name}. Free some space and run again: "
            f"the download goes on where it stopped.\n{self._wanted.target.parent}"
        )

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(
            f"The file has {size / 1e9:.1f} GB or more; "
            f"{self._client.limits.max_bytes / 1e9:.1f} GB are allowed.\n{shown(self._wanted.url)}"
        )


def _named_sha256(answer: Answer) -> str | None:
    """The whole file's sha256 in hex, where the answer names it (RFC 9530, 3)."""
    match = _DIGEST.search(answer.headers.get("Repr-Digest") or "")
    if match is None or answer.headers.get("Content-Encoding"):
        return None
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error:
        return None


class _Changed(BadResponse):
    """The part does not belong to what the server has now; it is gone, start anew."""

    retryable = True

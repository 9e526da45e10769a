"""Downloads that survive: resumed after any break, verified, and renamed into place at the end.

A kill at any moment leaves nothing, a part that can be resumed, or the complete file under its
name; never an incomplete file under its name. File names are the caller's alone: nothing that a
server says becomes a path.
"""

import base64
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import errors
from .client import LEAST_SPEED_VARIABLE, QUOTA_VARIABLE, Answer, Credentials, HttpClient
from .files import Fetched, PartFile, locked, read_record, record_of, write_record

logger = logging.getLogger(__name__)

_SPARE = 64 << 20  # bytes of the disk that are left to others
_SYNC_EVERY = 32 << 20  # bytes between two flushes and looks at the free space
_PROGRESS_EVERY = 0.1  # seconds
_REAL_PROGRESS = 8 << 20  # bytes that earn a fresh set of attempts
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


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
    home: the folder whose files, with this one, the quota is for; by default the target's own.
    """

    url: str
    target: Path
    key: str
    size: int | None = None
    sha256: str | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    verify: Callable[[Path], object] | None = None
    credentials: Credentials = field(default_factory=dict, repr=False)
    home: Path | None = None


def download(
    wanted: Wanted,
    client: HttpClient,
    progress: Callable[[int, int | None], None],
    disk_usage: Callable[[Path], Any] = shutil.disk_usage,
) -> Fetched:
    """``wanted`` on disk, fetched unless it is already there; only GET, so retries are safe.

    progress: bytes done and in all. disk_usage: of a folder's disk, with ``free`` bytes.

    Raises :class:`Occupied` at once where another file is in the way, :class:`NetworkError` (the
    part stays for the next time unless it is bad), what ``wanted.verify`` raises, what the
    client's ``should_stop`` raises, and OSError of the disk.
    """
    target = wanted.target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target, client.should_stop):
        part = PartFile(target, wanted.key, client.should_stop)
        if target.exists():
            note = read_record(record_of(target)) or {}
            if note.get("key") != wanted.key:
                raise errors.Occupied(f"Another file is in the place.\n{target}")
            size, sha256 = note.get("size"), note.get("sha256")
            if isinstance(sha256, str) and target.is_file() and target.stat().st_size == size:
                # Perhaps from another process while this one waited, or from one that was killed
                # between giving the name and clearing up.
                part.discard()
                return Fetched(target, size, sha256)
        sha256 = _Transfer(wanted, client, progress, disk_usage, part).run()
        # An older file goes before the note changes: a note never speaks of another file.
        target.unlink(missing_ok=True)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        known = {"key": wanted.key, "size": part.size, "sha256": sha256, "date": now}
        write_record(record_of(target), {**wanted.origin, **known})
        part.become(target)
        progress(part.size, part.size)
        return Fetched(target, part.size, sha256, fetched=True)


@dataclass
class _Transfer:
    """The bytes of one file on their way into its part."""

    wanted: Wanted
    client: HttpClient
    progress: Callable[[int, int | None], None]
    disk_usage: Callable[[Path], Any]
    part: PartFile
    named_sha256: str | None = None  # what the server says besides
    reported: float = 0.0

    def run(self) -> str:
        """Fills the part; its sha256 after all that is known of it proved true.

        Raises NetworkError, and what the caller's look raises; a good part stays.
        """
        wanted, part = self.wanted, self.part
        resumed = part.size > 0
        while True:
            self._fill()
            sha256 = part.sha256.hexdigest()
            named = wanted.sha256 or self.named_sha256
            try:
                if part.total is not None and part.size != part.total:
                    arrived = f"{part.size:,} bytes arrived instead of {part.total:,}."
                    raise errors.IntegrityError(arrived)
                if named is not None and sha256 != named.lower():
                    raise errors.IntegrityError(
                        "The file that arrived is not the one the server announced "
                        "(its sha256 differs).",
                        wanted.url,
                    )
                if wanted.verify is not None:
                    wanted.verify(part.path)
                return sha256
            except Exception:
                part.discard()
                # A part from earlier may be to blame: once more, from the first byte.
                if not resumed:
                    raise
                resumed = False
                logger.info("A resumed download did not add up; starting anew.")

    def _fill(self) -> None:
        """All bytes, over as many requests as it takes."""
        wanted, part = self.wanted, self.part
        self._hold(wanted.size)
        failures, mark = 0, part.size
        while True:
            if wanted.size is not None:
                part.total = wanted.size
            if part.size and part.size == part.total:  # from earlier, and nothing is missing
                return
            try:
                return self._request()
            except errors.NetworkError as error:
                failures += 1
                if isinstance(error, _Changed):
                    part.discard()
                if part.size - mark >= _REAL_PROGRESS:
                    failures, mark = 1, part.size
                if not error.retryable or failures >= self.client.limits.attempts:
                    raise
                if not isinstance(error, _Changed):
                    logger.info("%s Trying again.", str(error).partition("\n")[0])
                    self.client.wait(failures, error)

    def _request(self) -> None:
        """One request: the rest of the file, or all of it."""
        wanted, part = self.wanted, self.part
        headers = {}
        # What If-Range may hold (RFC 9110, 13.1.5): a strong ETag, else the date.
        weak = part.etag is None or part.etag.startswith("W/")
        condition = part.last_modified if weak else part.etag
        if part.size and (condition or wanted.sha256):
            headers["Range"] = f"bytes={part.size}-"
            if condition:
                headers["If-Range"] = condition
        with self.client.stream(wanted.url, headers, wanted.credentials) as answer:
            encoded = bool(answer.headers.get("Content-Encoding"))
            if part.size and answer.status == 206:
                self._continue(answer, encoded)
            elif answer.status == 200:
                self._begin(answer, encoded)
            elif answer.status == 416 and headers:
                # The file has become shorter, or the part was too long: it is of no use.
                raise _Changed("The file changed on the server.")
            else:
                raise answer.status_error()
            # The whole file's sha256, where the answer names it (RFC 9530, 3).
            digest = _DIGEST.search(answer.headers.get("Repr-Digest") or "")
            if digest is not None and not encoded:
                self.named_sha256 = base64.b64decode(digest[1]).hex()
            self._store(answer)

    def _begin(self, answer: Answer, encoded: bool) -> None:
        """A new part, after the answer's headers have been found plausible."""
        wanted, headers = self.wanted, answer.headers
        if (headers.get("Content-Type") or "").lower().startswith("text/html"):
            raise errors.WebPage(
                "The link leads to a web page (perhaps a login), not to a file.", wanted.url
            )
        length, etag, date = answer.length, headers.get("ETag"), headers.get("Last-Modified")
        if encoded:  # then all three are those of the encoded bytes
            length = etag = date = None
        if wanted.size is not None and length is not None and length != wanted.size:
            raise errors.IntegrityError(
                f"The server sends {length:,} bytes where {wanted.size:,} were announced.",
                wanted.url,
            )
        total = length if length is not None else wanted.size
        self._hold(total)
        self.part.begin(etag, date, total)

    def _continue(self, answer: Answer, encoded: bool) -> None:
        """Holds a 206 against the part, which it must continue."""
        part = self.part
        match = _CONTENT_RANGE.fullmatch((answer.headers.get("Content-Range") or "").strip())
        total = int(match[3]) if match and match[3] != "*" else part.total
        etag = answer.headers.get("ETag")
        if (
            match is None
            or int(match[1]) != part.size
            or (total is not None and int(match[2]) + 1 != total)
            or (part.total is not None and total != part.total)
            or (part.etag and etag and part.etag != etag)
            or encoded
        ):
            raise _Changed("The file changed on the server.")
        part.total = total
        self._hold(total)

    def _store(self, answer: Answer) -> None:
        part, looked_at = self.part, self.part.size
        pace = (time.monotonic(), part.size)
        self.progress(part.size, part.total)
        with open(part.path, "ab", buffering=0) as file:
            for piece in answer.pieces:
                look = part.size - looked_at >= _SYNC_EVERY
                self._hold(part.size + len(piece), look)
                if look:
                    looked_at = part.size
                    # In small portions, so that no flush holds up a stop for long.
                    os.fsync(file.fileno())
                try:
                    part.append(file, piece)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise self._no_space() from error
                    raise
                pace = self._hold_pace(*pace)
                if time.monotonic() - self.reported >= _PROGRESS_EVERY:
                    self.reported = time.monotonic()
                    self.progress(part.size, part.total)
            os.fsync(file.fileno())

    def _hold(self, size: int | None, look: bool = True) -> None:
        """Holds a whole ``size`` against the cap and, on a ``look``, against the disk."""
        cap, folder = self.client.limits.max_bytes, self.wanted.target.parent
        if size is not None and size > cap:
            self.part.discard()
            raise errors.TooLarge(
                f"The file has {size / 1e9:.1f} GB or more; {cap / 1e9:.1f} GB are allowed.",
                self.wanted.url,
            )
        if look:
            more = max((size or 0) - self.part.size, 0)
            if self.disk_usage(folder).free < more + _SPARE:
                raise self._no_space()
            self._hold_quota(more)

    def _hold_quota(self, more: int) -> None:
        """Holds all that lies in the home, and ``more`` bytes, against the operator's quota."""
        quota, home = self.client.limits.quota, self.wanted.home or self.wanted.target.parent
        if quota is None:
            return
        used = 0
        for path in home.rglob("*"):
            with suppress(FileNotFoundError):  # a part of another worker has just become whole
                used += path.stat().st_size if path.is_file() else 0
        if used + more > quota:
            raise errors.NotEnoughSpace(
                f"With {self.wanted.target.name} the fetched files would come to "
                f"{(used + more) / 1e9:.1f} GB, and {QUOTA_VARIABLE} allows {quota / 1e9:g} GB. "
                f"Delete some that you no longer need, or raise it and restart ComfyUI.\n{home}"
            )

    def _hold_pace(self, began: float, size: int) -> tuple[float, int]:
        """Holds what came since ``began``, when ``size`` bytes were here, against the least speed.

        Where the next such time begins, and with how many bytes.
        """
        limits, part, now = self.client.limits, self.part, time.monotonic()
        if now - began < limits.slow_s or part.size == part.total:
            return began, size
        speed = (part.size - size) / (now - began)
        if speed < limits.least_speed:
            raise errors.TooSlow(
                f"The download has become too slow ({speed / 1024:.2g} KiB/s; "
                f"{limits.least_speed / 1024:g} is the least, {LEAST_SPEED_VARIABLE} in the "
                "environment changes it). Run again: it goes on where it stopped.",
                self.wanted.url,
            )
        return now, part.size

    def _no_space(self) -> errors.NotEnoughSpace:
        return errors.NotEnoughSpace(
            f"The disk is too full for {self.wanted.target.name}. Free some space and run again: "
            f"the download goes on where it stopped.\n{self.wanted.target.parent}"
        )


class _Changed(errors.BadResponse):
    """The part does not belong to what the server has now: start anew."""

    retryable = True

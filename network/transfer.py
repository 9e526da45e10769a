"""The bytes of one file into its part, over as many requests as it takes."""

import base64
import binascii
import errno
import hashlib
import logging
import os
import random
import re
import time
from typing import BinaryIO

from .errors import (
    BadResponse,
    HttpStatusError,
    IntegrityError,
    NetworkError,
    NotEnoughSpace,
    TooLarge,
    WebPage,
    shown,
)
from .order import Terms, Wanted
from .partial import Partial, Validator
from .public_http import Stream, open_stream

logger = logging.getLogger(__name__)

_SPARE = 64 << 20  # bytes of the disk that are left to others
_SYNC_EVERY = 32 << 20  # bytes between two flushes and looks at the free space
_PROGRESS_EVERY = 0.1  # seconds
_REAL_PROGRESS = 8 << 20  # bytes that earn a fresh set of attempts
_LONGEST_WAIT = 60.0  # seconds
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


class Transfer:
    """``part`` is what is here; nobody else may touch it meanwhile."""

    def __init__(self, wanted: Wanted, terms: Terms) -> None:
        self._wanted = wanted
        self._terms = terms
        self.part = Partial(wanted.target, wanted.key)
        self._sha256 = hashlib.sha256()
        self._hashed = 0  # bytes of the part that _sha256 has seen
        self._total = wanted.size
        self._named_sha256: str | None = None  # what the server says besides
        self._last_progress = 0.0

    @property
    def resumes(self) -> bool:
        """Whether there is a part from earlier to go on with."""
        return self.part.validator() is not None

    def fill(self) -> None:
        """Brings the part to its full size. Raises NetworkError; the part then stays."""
        if self._wanted.size is not None and self._wanted.size > self._terms.max_bytes:
            raise self._too_large(self._wanted.size)
        failures, mark = 0, self.part.size
        while not self._complete():
            try:
                self._request()
                return
            except NetworkError as error:
                failures += 1
                if self.part.size - mark >= _REAL_PROGRESS:
                    failures, mark = 1, self.part.size
                if not error.retryable or failures >= self._terms.attempts:
                    raise
                self._wait(error, failures)

    def check(self) -> str:
        """The sha256 of the full part, after length, sha256 and the caller's look were right.

        Raises IntegrityError, or what ``wanted.verify`` raises.
        """
        wanted, size = self._wanted, self.part.size
        if self._total is not None and size != self._total:
            raise IntegrityError(f"{size:,} bytes arrived instead of {self._total:,}.")
        sha256 = self._sha256.hexdigest()
        named = wanted.sha256 or self._named_sha256
        if named is not None and sha256 != named.lower():
            raise IntegrityError(
                "The file that arrived is not the one the server announced (its sha256 differs)."
                f"\n{shown(wanted.url)}"
            )
        if wanted.verify is not None:
            wanted.verify(self.part.path)
        return sha256

    def _complete(self) -> bool:
        """Whether a part from earlier lacks nothing, so that no request is needed."""
        validator = self.part.validator()
        if validator is None:
            return False
        total = self._wanted.size if self._wanted.size is not None else validator.total
        if total is None or self.part.size != total:
            return False
        self._total = total
        self._catch_up()
        return True

    def _request(self) -> None:
        """One request: the rest of the file, or all of it."""
        validator, offset = self.part.validator(), self.part.size
        headers = {}
        if validator is None:
            offset = 0
        elif validator.condition is not None or self._wanted.sha256 is not None:
            headers["Range"] = f"bytes={offset}-"
            if validator.condition is not None:
                headers["If-Range"] = validator.condition
        terms = self._terms
        with open_stream(
            self._wanted.url,
            max_bytes=terms.max_bytes,
            policy=terms.policy,
            headers=headers,
            credentials=terms.credentials,
            connect_timeout=terms.connect_timeout,
            idle_timeout=terms.idle_timeout,
            should_stop=terms.should_stop,
            transport=terms.transport,
        ) as stream:
            if validator is not None and stream.status == 206:
                self._total = self._check_range(stream, offset, validator)
                self._catch_up()
            elif stream.status == 200:
                self._begin(stream)
            elif stream.status == 416 and headers:
                # The file has become shorter, or the part was too long: it is of no use.
                self.part.discard()
                raise _Changed("The file changed on the server.")
            else:
                raise stream.status_error()
            self._named_sha256 = _named_sha256(stream)
            self._store(stream)

    def _begin(self, stream: Stream) -> None:
        """A new part, after the answer's headers have been found plausible."""
        if (stream.headers.get("Content-Type") or "").lower().startswith("text/html"):
            raise WebPage(
                "The link leads to a web page (perhaps a login), not to a file.\n"
                + shown(self._wanted.url)
            )
        encoded = stream.headers.get("Content-Encoding")
        length = None if encoded else stream.length  # the length is that of the encoded bytes
        expected = self._wanted.size
        if expected is not None and length is not None and length != expected:
            raise IntegrityError(
                f"The server sends {length:,} bytes where {expected:,} were announced.\n"
                + shown(self._wanted.url)
            )
        if length is not None and length > self._terms.max_bytes:
            raise self._too_large(length)
        self._total = length if length is not None else expected
        etag = None if encoded else stream.headers.get("ETag")
        date = None if encoded else stream.headers.get("Last-Modified")
        self._check_space(self._total or 0)
        self.part.begin(Validator(etag, date, self._total))
        self._sha256, self._hashed = hashlib.sha256(), 0

    def _check_range(self, stream: Stream, offset: int, validator: Validator) -> int | None:
        """The total that a 206 states, when it continues the part; else the part is dropped."""
        match = _CONTENT_RANGE.fullmatch((stream.headers.get("Content-Range") or "").strip())
        total = int(match[3]) if match and match[3] != "*" else validator.total
        etag = stream.headers.get("ETag")
        if (
            match is None
            or int(match[1]) != offset
            or (total is not None and int(match[2]) + 1 != total)
            or (validator.total is not None and total != validator.total)
            or (validator.etag and etag and validator.etag != etag)
            or stream.headers.get("Content-Encoding")
        ):
            self.part.discard()
            raise _Changed("The file changed on the server.")
        if total is not None and total > self._terms.max_bytes:
            self.part.discard()
            raise self._too_large(total)
        self._check_space((total or offset) - offset)
        return total

    def _catch_up(self) -> None:
        """Lets the hash see what is on disk, once."""
        if self._hashed != self.part.size:
            self._sha256 = hashlib.sha256()
            self.part.hash_into(self._sha256, self._terms.should_stop)
            self._hashed = self.part.size

    def _store(self, stream: Stream) -> None:
        since_look = 0
        self._report(force=True)
        with self.part.open() as file:
            for piece in stream.iter_bytes():
                if self._hashed + len(piece) > self._terms.max_bytes:
                    self.part.discard()
                    raise self._too_large(self._hashed + len(piece))
                self._append(file, piece)
                since_look += len(piece)
                if since_look >= _SYNC_EVERY:
                    since_look = 0
                    self._check_space(0)
                    # In small portions, so that no flush holds up a stop for long.
                    os.fsync(file.fileno())
                self._report()
            os.fsync(file.fileno())

    def _append(self, file: BinaryIO, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space() from error
            raise
        self._sha256.update(piece)
        self._hashed += len(piece)

    def _report(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._last_progress >= _PROGRESS_EVERY:
            self._last_progress = now
            self._terms.progress(self._hashed, self._total)

    def _check_space(self, missing: int) -> None:
        if self._terms.free_space(self._wanted.target.parent) < missing + _SPARE:
            raise self._no_space()

    def _wait(self, error: NetworkError, failures: int) -> None:
        """Backoff with jitter, or what the server asked for; stoppable."""
        pause = self._terms.backoff * 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        if isinstance(error, HttpStatusError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if isinstance(error, _Changed):
            pause = 0.0
        else:
            logger.info("%s Trying again.", str(error).partition("\n")[0])
        end = time.monotonic() + min(pause, _LONGEST_WAIT)
        while (left := end - time.monotonic()) > 0:
            self._terms.should_stop()
            time.sleep(min(left, 0.1))
        self._terms.should_stop()

    def _no_space(self) -> NotEnoughSpace:
        return NotEnoughSpace(
            f"The disk is too full for {self._wanted.target.name}. Free some space and run again: "
            f"the download goes on where it stopped.\n{self._wanted.target.parent}"
        )

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(
            f"The file has {size / 1e9:.1f} GB or more; {self._terms.max_bytes / 1e9:.1f} GB are "
            f"allowed.\n{shown(self._wanted.url)}"
        )


def _named_sha256(stream: Stream) -> str | None:
    """The whole file's sha256 in hex, where the answer names it (RFC 9530, 3)."""
    match = _DIGEST.search(stream.headers.get("Repr-Digest") or "")
    if match is None or stream.headers.get("Content-Encoding"):
        return None
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error:
        return None


class _Changed(BadResponse):
    """The part does not belong to what the server has now; it is gone, start anew."""

    retryable = True

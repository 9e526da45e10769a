"""Content-Encoding, in steps small enough that a bomb meets the byte cap first."""

import zlib
from collections.abc import Iterator
from typing import Protocol

from .errors import BadResponse

_STEP = 256 << 10  # decoded bytes at a time


class Decoder(Protocol):
    """Turns pieces of a body as sent into pieces as meant."""

    @property
    def finished(self) -> bool:
        """Whether the body may end here."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The decoded bytes of ``piece``, at most 256 KiB each, produced one by one."""


class Identity:
    finished = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class Inflate:
    """gzip and zlib ("deflate"), told apart by their first bytes."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)

    @property
    def finished(self) -> bool:
        return self._zlib.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        full = False
        # A full step may leave output inside zlib even when all input is taken.
        while (piece or full) and not self._zlib.eof:
            try:
                decoded = self._zlib.decompress(piece, _STEP)
            except zlib.error as error:
                raise BadResponse(f"{self._host} sends damaged compressed data.") from error
            piece = self._zlib.unconsumed_tail
            full = len(decoded) == _STEP
            if decoded:
                yield decoded


def decoder_for(encoding: str | None, host: str) -> Decoder:
    """The decoder of a Content-Encoding header. We ask for identity; some servers do not listen."""
    name = (encoding or "identity").strip().lower()
    if name in ("", "identity"):
        return Identity()
    if name in ("gzip", "x-gzip", "deflate"):
        return Inflate(host)
    raise BadResponse(f"{host} sends data in an encoding that was not asked for ({name[:20]}).")

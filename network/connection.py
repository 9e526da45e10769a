"""urllib3's connections, except for whom they dial, and what a body is read through.

The CONNECT of a proxy, TLS with its host name, requests and framing are urllib3's and the standard
library's beneath it. urllib3's pools and sessions are not used: they log every link with its query,
which is often a signature, and would hand a submission a connection that the server may just have
closed.
"""

import base64
import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from http.client import HTTPMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .address import Target
from .errors import BadResponse, TooLarge, Truncated

_STEP = 256 << 10  # bytes handed on or decoded at a time
_FLUSH = 0.2  # seconds after which a piece is handed on though not full


def trusted_authorities() -> ssl.SSLContext:
    """A TLS client that trusts certifi's list and the system's, where a company's own may lie."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


@dataclass(frozen=True)
class Transport:
    """How names become addresses, addresses sockets, and sockets secure: tests bring their own."""

    resolve: Callable[..., list[Any]] = socket.getaddrinfo
    dial: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection
    tls: Callable[[], ssl.SSLContext] = trusted_authorities

    @cached_property
    def context(self) -> ssl.SSLContext:
        """``tls()``, once: reading the authorities takes longer than a handshake."""
        context = self.tls()
        if urllib3.__version__.startswith("1."):
            # It matches the name by itself, and would not hand an address over to be matched.
            context.check_hostname = False
        return context


def connection_to(
    target: Target, proxy: str | None, transport: Transport, timeout: float
) -> HTTPConnection:
    """A connection that is still to be made. ``timeout`` in seconds holds until its TLS stands.

    Through the proxy, whose own address is the operator's word, unless the target is loopback.
    """
    if target.scheme == "http":  # which only a loopback origin may have
        return HTTPConnection(target.host, target.port, timeout=timeout)
    secure = partial(HTTPSConnection, timeout=timeout, ssl_context=transport.context)
    if proxy is None or target.loopback:
        return secure(target.host, target.port)
    parts = urlsplit(proxy)
    made = secure(parts.hostname or "", parts.port)
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    made.set_tunnel(target.host, target.port, headers)
    return made


def declared_length(headers: HTTPMessage) -> int | None:
    """The body's length in bytes as sent; None where only its end tells."""
    value = headers.get("Content-Length")
    if value is None or "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        return None
    if not (value.isascii() and value.isdigit()):
        raise BadResponse("The server declares a length that is not a number.")
    return int(value)


def body_of(
    response: http.client.HTTPResponse, target: Target, length: int | None, cap: int
) -> Iterator[bytes]:
    """The body as sent, in pieces of 256 KiB or 0.2 s: TLS hands over 16 KiB, each a turn of
    threads. What came before a fault is kept."""
    if length is not None and length > cap:
        raise _too_large(target, cap)
    size, ended = 0, False
    while not ended:
        end, joined = time.monotonic() + _FLUSH, bytearray()
        try:
            while len(joined) < _STEP and time.monotonic() < end and not ended:
                piece = response.read1(_STEP - len(joined))
                joined += piece
                ended = not piece
        finally:
            size += len(joined)
            if joined and size <= cap:
                yield bytes(joined)
        if size > cap:
            raise _too_large(target, cap)
    # Headers that were cut off leave an answer with neither a length nor a body.
    if size != length if length is not None else not (size or response.chunked):
        raise Truncated(f"{target.host} broke off after {size:,} bytes.")


def inflated(pieces: Iterator[bytes], encoding: str, target: Target, cap: int) -> Iterator[bytes]:
    """A body that was compressed though nobody asked for it, in small steps: a bomb meets the cap.

    urllib3's decoders take a stream that was cut for whole.
    """
    host, size = target.host, 0
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadResponse(
            f"{host} sends data in an encoding that was not asked for ({encoding[:20]})."
        )
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for piece in pieces:
        full = False
        # A full step may leave output inside zlib even when all input is taken.
        while (piece or full) and not inflater.eof:
            try:
                step = inflater.decompress(piece, _STEP)
            except zlib.error as error:
                raise BadResponse(f"{host} sends damaged compressed data.") from error
            piece, full = inflater.unconsumed_tail, len(step) == _STEP
            size += len(step)
            if size > cap:
                raise _too_large(target, cap)
            if step:
                yield step
    if not inflater.eof:
        raise Truncated(f"{host} broke off inside compressed data.")


def _too_large(target: Target, cap: int) -> TooLarge:
    return TooLarge(
        f"{target.host} sends more than the {cap:,} bytes that are taken here.", target.url
    )

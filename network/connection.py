"""urllib3's connections, except for whom they dial: the very address that was checked.

Looking up, checking and dialling are ours. The CONNECT of a proxy, TLS with its host name, requests
and framing are urllib3's and the standard library's beneath it. urllib3's pools and sessions are
not used: they log every link with its query, which is often a signature, and would hand a
submission a connection that the server may just have closed.
"""

import base64
import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .address import AddressPolicy, Target
from .errors import BadResponse, ConnectionFailed, TooLarge, Truncated

_MAX_ADDRESSES = 4
_STEP = 256 << 10  # bytes handed on or decoded at a time
_FLUSH = 0.2  # seconds after which a piece is handed on though not full


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of ``host`` in the system's order of preference."""
    found = []
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if address[0] not in found:
            found.append(str(address[0]))
    return found


def dial_address(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to the literal ``address``; names are never looked up here."""
    sock = socket.create_connection((address, port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def trusted_authorities() -> ssl.SSLContext:
    """A TLS client that trusts certifi's list and the system's, where a company's own may lie."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


@dataclass(frozen=True)
class Transport:
    """How names become addresses, addresses sockets, and sockets secure: tests bring their own."""

    resolve: Callable[[str, int], list[str]] = resolve_host
    dial: Callable[[str, int, float], socket.socket] = dial_address
    tls: Callable[[], ssl.SSLContext] = trusted_authorities

    @cached_property
    def context(self) -> ssl.SSLContext:
        """``tls()``, once: reading the authorities takes longer than a handshake."""
        context = self.tls()
        if urllib3.__version__.startswith("1."):
            # It matches the name by itself, and would not hand an address over to be matched.
            context.check_hostname = False
        return context


class _Checked:
    """What both of urllib3's connections become. Another thread may end one with ``hang_up``."""

    auto_open = 0  # one request on one connection, and never a second that nobody asked for
    # urllib3's own waits for a whole block where these bytes are to be seen as they come.
    getresponse: Any = http.client.HTTPConnection.getresponse

    def __init__(
        self, target: Target, policy: AddressPolicy, transport: Transport, *address: Any, **tls: Any
    ) -> None:
        super().__init__(*address, **tls)
        self._target, self._policy, self._transport = target, policy, transport
        self._guard = threading.Lock()
        self._handle: socket.socket | None = None
        self._over = False

    def _new_conn(self) -> socket.socket:
        """urllib3's hook for a connected socket: to the target, or to the operator's proxy."""
        host, port = self.host, self.port  # type: ignore[attr-defined]
        try:
            addresses = self._transport.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(f"{host} cannot be found; are you online?") from error
        if not addresses:
            raise ConnectionFailed(f"{host} has no address.")
        if self._tunnel_host is None:  # type: ignore[attr-defined]
            self._policy.check_addresses(self._target, addresses)
        failure: OSError = OSError("stopped")
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                sock = self._transport.dial(address, port, self.timeout)  # type: ignore[attr-defined]
            except OSError as error:
                failure = error
                continue
            with self._guard:
                if not self._over:
                    # TLS takes the socket over before it shakes hands; the copy stays in reach.
                    self._handle = sock.dup()
                    return sock
            sock.close()
            break
        raise failure

    def hang_up(self) -> None:
        """Wakes a thread that is blocked on the socket; from any thread, any number of times."""
        with self._guard:
            self._over = True
            handle, self._handle = self._handle, None
            if handle is not None:
                with handle:
                    try:
                        handle.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # it has ended by itself


class Http(_Checked, HTTPConnection):
    """Plain http, which only a loopback origin may have."""


class Https(_Checked, HTTPSConnection):
    """TLS to the target, perhaps through a proxy's tunnel."""

    assert_hostname = None  # urllib3 1.26 leaves this to its pools: the name that was asked for


def connection_to(
    target: Target, policy: AddressPolicy, transport: Transport, timeout: float
) -> Http | Https:
    """A connection that is still to be made. ``timeout`` in seconds holds until its TLS stands.

    Through the policy's proxy, whose own address is the operator's word, unless it is loopback.
    """
    if target.scheme == "http":
        return Http(target, policy, transport, target.host, target.port, timeout=timeout)
    tls = {"timeout": timeout, "ssl_context": transport.context}
    if policy.proxy is None or target.loopback:
        return Https(target, policy, transport, target.host, target.port, **tls)
    proxy = urlsplit(policy.proxy)
    made = Https(target, policy, transport, proxy.hostname, proxy.port, **tls)
    headers = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    made.set_tunnel(target.host, target.port, headers)
    return made


def body_of(
    response: http.client.HTTPResponse, target: Target, length: int | None, cap: int
) -> Iterator[bytes]:
    """The decoded body in pieces of at most 256 KiB; a bomb meets the cap first."""
    host, raw, decoded = target.host, 0, 0
    if length is not None and length > cap:
        raise _too_large(target, cap)
    # We ask for no encoding; some servers do not listen.
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise BadResponse(
            f"{host} sends data in an encoding that was not asked for ({encoding[:20]})."
        )
    inflater = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    for piece in _joined(response):
        raw += len(piece)
        if raw > cap:
            raise _too_large(target, cap)
        for part in (piece,) if inflater is None else _inflated(piece, inflater, host):
            decoded += len(part)
            if decoded > cap:
                raise _too_large(target, cap)
            yield part
    # Headers that were cut off leave an answer with neither a length nor a body.
    unframed = length is None and not response.chunked
    if (length is not None and raw != length) or (unframed and not raw):
        raise Truncated(f"{host} broke off after {raw:,} bytes.")
    if inflater is not None and not inflater.eof:
        raise Truncated(f"{host} broke off inside compressed data.")


def _joined(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The raw body in pieces of 256 KiB or 0.2 s: TLS hands over 16 KiB, each a turn of threads.

    What came before a fault is kept.
    """
    ended = False
    while not ended:
        end, joined = time.monotonic() + _FLUSH, bytearray()
        try:
            while len(joined) < _STEP and time.monotonic() < end and not ended:
                piece = response.read1(_STEP - len(joined))
                joined += piece
                ended = not piece
        finally:
            if joined:
                yield bytes(joined)


def _too_large(target: Target, cap: int) -> TooLarge:
    return TooLarge(
        f"{target.host} sends more than the {cap:,} bytes that are taken here.", target.url
    )


def _inflated(piece: bytes, inflater: "zlib._Decompress", host: str) -> Iterator[bytes]:
    """gzip and zlib in small steps. urllib3's decoders take a stream that was cut for whole."""
    full = False
    # A full step may leave output inside zlib even when all input is taken.
    while (piece or full) and not inflater.eof:
        try:
            step = inflater.decompress(piece, _STEP)
        except zlib.error as error:
            raise BadResponse(f"{host} sends damaged compressed data.") from error
        piece, full = inflater.unconsumed_tail, len(step) == _STEP
        if step:
            yield step


def declared_length(headers: HTTPMessage) -> int | None:
    """The body's length in bytes as sent; None where only its end tells."""
    value = headers.get("Content-Length")
    if value is None or "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        return None
    if not (value.isascii() and value.isdigit()):
        raise BadResponse("The server declares a length that is not a number.")
    return int(value)

"""The thread behind a stream: it makes the hops and moves the body, and may block at will."""

import http.client
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPMessage
from typing import NamedTuple
from urllib.parse import urljoin

from .address import AddressPolicy, Target
from .connection import Connection, Transport, translated
from .decoding import decoder_for
from .errors import (
    AddressRefused,
    BadResponse,
    NetworkError,
    TooLarge,
    TooManyRedirects,
    Truncated,
    shown,
)

USER_AGENT = "flux2-lora-edit (ComfyUI custom nodes)"
_SLICE = 0.1  # seconds between two looks at whether anybody still reads
_CHUNK = 256 << 10
_FLUSH = 0.2  # seconds after which a chunk is handed on though not full
_READ_AHEAD = 8  # chunks
_REDIRECTS = (301, 302, 303, 307, 308)


class Request(NamedTuple):
    target: Target
    policy: AddressPolicy
    headers: dict[str, str]
    credentials: dict[str, dict[str, str]]
    allowed_hosts: Callable[[str], bool] | None
    max_redirects: int
    max_bytes: int
    connect_timeout: float
    idle_timeout: float
    transport: Transport


class Hop(NamedTuple):
    """A new connection is being made: the clock for its headers starts anew."""


class Head(NamedTuple):
    status: int
    headers: HTTPMessage
    url: str


class End(NamedTuple):
    pass


Event = Hop | Head | bytes | End | Exception


class Pump(threading.Thread):
    """Makes the hops and moves the body into ``events``; ends soon after :meth:`abandon`."""

    def __init__(self, request: Request) -> None:
        super().__init__(name="flux2-lora-edit network", daemon=True)
        self.events: queue.Queue[Event] = queue.Queue(_READ_AHEAD)
        self._request = request
        self._abandoned = threading.Event()
        self._connection: Connection | None = None
        self._tls: ssl.SSLContext | None = None

    def abandon(self) -> None:
        """The consumer has left: wake the thread if it is blocked, and let it end."""
        self._abandoned.set()
        connection = self._connection
        if connection is not None:
            connection.abort()

    def run(self) -> None:
        try:
            self._follow()
        except _Abandoned:
            pass
        except NetworkError as error:
            self._try_put(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._try_put(translated(error, self._request.target.host))
        except Exception as error:  # a bug of ours must reach the caller, not die in a thread
            self._try_put(error)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _follow(self) -> None:
        request = self._request
        target = request.target
        first = target.authority
        credentials = request.credentials
        for _ in range(request.max_redirects + 1):
            if request.allowed_hosts is not None and not request.allowed_hosts(target.host):
                raise AddressRefused(f"{target.host} is not a host to fetch this from.")
            if target.authority != first:
                credentials = {}
            response = self._get(target, credentials.get(target.authority, {}))
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS:
                self._put(Head(response.status, response.headers, target.url))
                self._body(target, response)
                self._put(End())
                return
            if not location:
                raise BadResponse(f"{target.host} redirects to nowhere.")
            # http.client reads headers as Latin-1; links are UTF-8 where they are not ASCII.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace")
            target = request.policy.check(urljoin(target.url, location))
        raise TooManyRedirects(f"The link redirects in circles.\n{shown(request.target.url)}")

    def _get(self, target: Target, credentials: Mapping[str, str]) -> http.client.HTTPResponse:
        request = self._request
        if self._connection is not None:
            self._connection.close()
        self._put(Hop())
        tls = None
        if target.scheme == "https":
            # Reading the authorities takes longer than a handshake: once for all hops.
            tls = self._tls = self._tls or request.transport.tls()
        connection = Connection(
            target,
            request.policy,
            request.transport,
            tls,
            connect_timeout=request.connect_timeout,
            idle_timeout=request.idle_timeout,
        )
        self._connection = connection
        if self._abandoned.is_set():  # abandon() may have looked just before
            raise _Abandoned
        return connection.get(
            {
                "User-Agent": USER_AGENT,
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
                **request.headers,
                **credentials,
            }
        )

    def _body(self, target: Target, response: http.client.HTTPResponse) -> None:
        declared = declared_length(response.headers)
        cap = self._request.max_bytes
        if declared is not None and declared > cap:
            raise _too_large(target, cap)
        if response.status in (204, 304):
            return
        decode = decoder_for(response.headers.get("Content-Encoding"), target.host)
        raw = decoded = 0
        for piece in _pieces(response, target.host):
            raw += len(piece)
            if raw > cap:
                raise _too_large(target, cap)
            for part in decode.feed(piece):
                decoded += len(part)
                if decoded > cap:
                    raise _too_large(target, cap)
                self._put(part)
        # Headers that were cut off leave an answer with neither a length nor a body.
        unframed = declared is None and not response.chunked
        if (declared is not None and raw != declared) or (unframed and not raw):
            raise Truncated(f"{target.host} broke off after {raw:,} bytes.")
        if not decode.finished:
            raise Truncated(f"{target.host} broke off inside compressed data.")

    def _put(self, event: Event) -> None:
        while not self._abandoned.is_set():
            try:
                self.events.put(event, timeout=_SLICE)
                return
            except queue.Full:
                continue
        raise _Abandoned

    def _try_put(self, event: Event) -> None:
        try:
            self._put(event)
        except _Abandoned:
            pass


class _Abandoned(Exception):
    """Nobody reads any more."""


def _pieces(response: http.client.HTTPResponse, host: str) -> Iterator[bytes]:
    """The raw body, joined to at most 256 KiB or 0.2 s; what came before a fault is kept."""
    while True:
        started = time.monotonic()
        joined = bytearray()
        fault: Exception | None = None
        ended = False
        while len(joined) < _CHUNK and time.monotonic() - started < _FLUSH:
            try:
                piece = response.read1(_CHUNK - len(joined))
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault = error
                break
            if not piece:
                ended = True
                break
            joined += piece
        if joined:
            yield bytes(joined)
        if fault is not None:
            raise translated(fault, host) from fault
        if ended:
            return


def declared_length(headers: HTTPMessage) -> int | None:
    """The body's length in bytes as sent; None where only its end tells."""
    value = headers.get("Content-Length")
    if value is None or "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        return None
    if not (value.isascii() and value.isdigit()):
        raise BadResponse("The server declares a length that is not a number.")
    return int(value)


def _too_large(target: Target, cap: int) -> TooLarge:
    return TooLarge(
        f"{target.host} sends more than the {cap:,} bytes that are taken here.\n{shown(target.url)}"
    )

"""One request and its answer, made in a reader thread that may block at will.

Name look-up, connecting, TLS, headers and body all block there; who waits for them looks every
tenth of a second whether to stop. The thread ends soon after ``abandon``.
"""

import http.client
import io
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPMessage
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urljoin

from . import errors
from .address import Target
from .connection import body_of, connection_to, declared_length, inflated

if TYPE_CHECKING:
    from .client import HttpClient

_SLICE = 0.1  # seconds between two looks at whether anybody still reads, or wants to stop
_READ_AHEAD = 8  # pieces
_MAX_ADDRESSES = 4
_REDIRECTS = (301, 302, 303, 307, 308)


class Upload(io.BytesIO):
    """The body of a POST. Whether any of it may have left is known by whether it was read.

    ``withheld`` is asked before its first block: true keeps it here.
    """

    read_at: float | None = None  # time.monotonic() of the latest read
    withheld: Callable[[], bool] | None = None

    def read(self, size: int | None = -1) -> bytes:
        """The next block; asked for when all headers have been sent."""
        if self.read_at is None and self.withheld is not None and self.withheld():
            raise errors.ConnectionFailed("Nobody waits for it any more.")
        self.read_at = time.monotonic()
        return super().read(size)


class Answer(NamedTuple):
    """An answer whose body is still to be read, once.

    status: HTTP status of the last hop. headers: its headers, case-insensitive. url: its address,
    possibly with a signed query: not for messages. length: declared bytes of the body or None.
    pieces: the body, up to 256 KiB each and at most 0.2 s after their arrival; iterating raises
    :class:`NetworkError`, and the pieces before it are good.
    """

    status: int
    headers: HTTPMessage
    url: str
    length: int | None
    pieces: Iterator[bytes]

    def status_error(self) -> errors.HttpStatusError:
        """This answer's status as an error to raise."""
        return errors.HttpStatusError(self.status, self.url, self.headers)


_Event = Answer | bytes | None | Exception  # None: the body is complete


@dataclass
class Reader:
    """One exchange: makes the hops and hands over the head and the body, or the error instead.

    ``run`` belongs to a thread of its own, ``next`` and ``abandon`` to the one who waits.
    """

    client: "HttpClient"
    target: Target  # of the hop that is being made
    headers: Mapping[str, str]
    credentials: Mapping[str, Mapping[str, str]]
    upload: Upload | None
    began: float = field(default_factory=time.monotonic)
    hop_began: float = field(default_factory=time.monotonic)
    events: "queue.Queue[_Event]" = field(default_factory=lambda: queue.Queue(_READ_AHEAD))
    # The socket under all that blocks, and whether it is of no use any more.
    guard: threading.Lock = field(default_factory=threading.Lock)
    handle: socket.socket | None = None
    abandoned: bool = False

    def next(self) -> Answer | bytes | None:
        """The next event. Raises what ended the exchange.

        The patience here backs the socket's own timeout: it also covers a name look-up without
        end and headers that come one byte at a time.
        """
        limits, upload = self.client.limits, self.upload
        asked = time.monotonic()
        while True:
            self.client.should_stop()
            now = time.monotonic()
            sent = upload.read_at if upload is not None and upload.read_at else 0.0
            if limits.total_s is not None and now >= max(self.began, sent) + limits.total_s:
                raise errors.DeadlineExceeded(f"{self.target.host} took too long.")
            try:
                event = self.events.get(timeout=_SLICE)
            except queue.Empty:
                moved = max(asked, self.hop_began, sent)
                if now >= moved + limits.connect_s + limits.idle_s:
                    raise errors.Stalled(f"{self.target.host} does not answer.") from None
                continue
            if isinstance(event, Exception):
                raise event
            return event

    def abandon(self) -> None:
        """Nobody reads any more: wakes the thread wherever it blocks, and lets it end."""
        with self.guard:
            self.abandoned = True
            if self.handle is not None:
                with suppress(OSError):  # it has ended by itself
                    self.handle.shutdown(socket.SHUT_RDWR)
        while not self.events.empty():
            self.events.get_nowait()

    def run(self) -> None:
        """The thread itself."""
        end: _Event = None
        try:
            with closing(self._follow()) as events:
                for event in events:
                    self.events.put(event)
                    if self.abandoned:
                        return
        except (OSError, http.client.HTTPException, ValueError) as error:
            end = errors.translated(error, self.target.host)
        except Exception as error:  # a bug of ours must reach the caller, not die in a thread
            end = error
        self.events.put(end)

    def _follow(self) -> Generator[_Event, None, None]:
        """Hop by hop to the answer: its head, then its body."""
        client, target, credentials = self.client, self.target, self.credentials
        limits, first = client.limits, target
        for _ in range(limits.redirects + 1):
            if client.allowed_hosts is not None and not client.allowed_hosts(target.host):
                raise errors.AddressRefused(f"{target.host} is not a host to fetch this from.")
            if target.authority != self.target.authority:
                credentials = {}  # for good: a way back would be the other host's idea
            self.target = target
            with self._hop(credentials.get(target.authority, {})) as response:
                follow = limits.redirects > 0 and self.upload is None  # nothing is sent twice
                if response.status not in _REDIRECTS or not follow:
                    length = declared_length(response.headers)
                    pieces = cast(Iterator[bytes], iter(self.next, None))
                    yield Answer(response.status, response.headers, target.url, length, pieces)
                    if response.status in (204, 304):
                        return
                    body = body_of(response, target, length, limits.max_bytes)
                    # We ask for no encoding; some servers do not listen.
                    encoding = response.headers.get("Content-Encoding", "").strip().lower()
                    if encoding not in ("", "identity"):
                        body = inflated(body, encoding, target, limits.max_bytes)
                    yield from body
                    return
                location = response.headers.get("Location")
            if not location:
                raise errors.BadResponse(f"{target.host} redirects to nowhere.")
            # http.client reads headers as Latin-1; links are UTF-8 where they are not ASCII.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace")
            target = client.policy.check(urljoin(target.url, location))
        raise errors.TooManyRedirects("The link redirects in circles.", first.url)

    @contextmanager
    def _hop(self, credentials: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """One request on a connection of its own; the answer's body is unread."""
        client, target, upload = self.client, self.target, self.upload
        limits = client.limits
        self.hop_began = time.monotonic()
        connection: Any = connection_to(
            target, client.policy.proxy, client.transport, limits.connect_s
        )
        connection._new_conn = partial(self._dial, connection)  # urllib3's hook
        connection.auto_open = 0  # one request, and never a second that nobody asked for
        connection.assert_hostname = None  # urllib3 1.26 leaves it to its pools: the name dialled
        headers = {
            "Host": target.authority,
            "User-Agent": "flux2-lora-edit (ComfyUI custom nodes)",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **self.headers,
            **credentials,
        }
        if upload is not None:
            headers["Content-Length"] = str(upload.getbuffer().nbytes)
        try:
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):
                # An answer may have come before everything was taken: a refusal, for instance.
                method = "GET" if upload is None else "POST"
                connection.request(method, target.request_path, upload, headers)
            connection.sock.settimeout(limits.idle_s)
            # urllib3's own waits for a whole block where these bytes are to be seen as they come.
            with http.client.HTTPConnection.getresponse(connection) as response:
                yield response
        finally:
            connection.close()
            with self.guard:
                if self.handle is not None:
                    self.handle.close()
                    self.handle = None

    def _dial(self, connection: Any) -> socket.socket:
        """A socket to the very address that was checked: of the target, or of the proxy."""
        host, port, client = connection.host, connection.port, self.client
        try:
            found = client.transport.resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise errors.ConnectionFailed(f"{host} cannot be found; are you online?") from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if not addresses:
            raise errors.ConnectionFailed(f"{host} has no address.")
        if connection._tunnel_host is None:
            client.policy.check_addresses(self.target, addresses)
        failure: OSError = OSError("stopped")
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                sock = client.transport.dial((address, port), client.limits.connect_s)
            except OSError as error:
                failure = error
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.guard:
                if not self.abandoned:
                    # TLS takes the socket over before it shakes hands; the copy stays in reach.
                    self.handle = sock.dup()
                    return sock
            sock.close()
            break
        raise failure

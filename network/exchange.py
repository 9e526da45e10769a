"""One request and its answer, made in a reader thread that may block at will.

Name look-up, connecting, TLS, headers and body all block there; who waits for them looks every
tenth of a second whether to stop. The thread ends soon after ``abandon``.
"""

import http.client
import io
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPMessage
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urljoin

from .address import Target
from .connection import Http, Https, body_of, connection_to, declared_length
from .errors import (
    AddressRefused,
    BadResponse,
    DeadlineExceeded,
    HttpStatusError,
    Stalled,
    TooManyRedirects,
    retry_after,
    translated,
)

if TYPE_CHECKING:
    from .client import HttpClient

USER_AGENT = "flux2-lora-edit (ComfyUI custom nodes)"
THREAD_NAME = "flux2-lora-edit network"
_SLICE = 0.1  # seconds between two looks at whether anybody still reads, or wants to stop
_READ_AHEAD = 8  # pieces
_REDIRECTS = (301, 302, 303, 307, 308)


class Upload(io.BytesIO):
    """The body of a POST. Whether any of it may have left is known by whether it was read."""

    read_at: float | None = None  # time.monotonic() of the latest read

    def read(self, size: int | None = -1) -> bytes:
        """The next block; asked for when all headers have been sent."""
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

    def status_error(self) -> HttpStatusError:
        """This answer's status as an error to raise."""
        asked = retry_after(self.headers.get("Retry-After"))
        code = self.headers.get("X-Error-Code") or ""
        return HttpStatusError(self.status, self.url, code, asked)


_Event = Answer | bytes | None | Exception  # None: the body is complete


class Reader(threading.Thread):
    """Makes the hops and hands over the head and the body, or the error in their place."""

    def __init__(
        self,
        client: "HttpClient",
        target: Target,
        headers: Mapping[str, str],
        credentials: Mapping[str, Mapping[str, str]],
        upload: Upload | None,
    ) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self._client, self._target, self._upload = client, target, upload
        self._headers, self._credentials = headers, credentials
        self._events: queue.Queue[_Event] = queue.Queue(_READ_AHEAD)
        self._abandoned = threading.Event()
        self._began = self._hop_began = time.monotonic()
        self._host = target.host
        self._connection: Http | Https | None = None
        self._response: http.client.HTTPResponse | None = None

    def next(self) -> Answer | bytes | None:
        """The next event, for another thread. Raises what ended the exchange.

        The patience here backs the socket's own timeout: it also covers a name look-up without
        end and headers that come one byte at a time.
        """
        limits, upload = self._client.limits, self._upload
        asked = time.monotonic()
        while True:
            self._client.should_stop()
            now = time.monotonic()
            sent = upload.read_at if upload is not None and upload.read_at else 0.0
            if limits.total_s is not None and now >= max(self._began, sent) + limits.total_s:
                raise DeadlineExceeded(f"{self._host} took too long.")
            try:
                event = self._events.get(timeout=_SLICE)
            except queue.Empty:
                moved = max(asked, self._hop_began, sent)
                if now >= moved + limits.connect_s + limits.idle_s:
                    raise Stalled(f"{self._host} does not answer.") from None
                continue
            if isinstance(event, Exception):
                raise event
            return event

    def abandon(self) -> None:
        """Nobody reads any more: wakes the thread if it is blocked, and lets it end."""
        self._abandoned.set()
        if (connection := self._connection) is not None:
            connection.hang_up()

    def run(self) -> None:
        """The thread itself."""
        end: _Event = None
        try:
            for event in self._follow():
                if not self._put(event):
                    return
        except (OSError, http.client.HTTPException, ValueError) as error:
            end = translated(error, self._host)
        except Exception as error:  # a bug of ours must reach the caller, not die in a thread
            end = error
        finally:
            self._release()
        self._put(end)

    def _put(self, event: _Event) -> bool:
        while not self._abandoned.is_set():
            try:
                self._events.put(event, timeout=_SLICE)
                return True
            except queue.Full:
                continue
        return False

    def _release(self) -> None:
        """Lets the connection go; a redirect's body stays unread."""
        if self._response is not None:
            self._response.close()
        if self._connection is not None:
            self._connection.close()
            self._connection.hang_up()

    def _follow(self) -> Iterator[_Event]:
        """Hop by hop to the answer: its head, then its body."""
        client, target, credentials = self._client, self._target, self._credentials
        for _ in range(client.limits.redirects + 1):
            if client.allowed_hosts is not None and not client.allowed_hosts(target.host):
                raise AddressRefused(f"{target.host} is not a host to fetch this from.")
            if target.authority != self._target.authority:
                credentials = {}  # for good: a way back would be the other host's idea
            response = self._ask(target, credentials.get(target.authority, {}))
            follow = client.limits.redirects > 0 and self._upload is None  # nothing is sent twice
            if response.status not in _REDIRECTS or not follow:
                length = declared_length(response.headers)
                pieces = cast(Iterator[bytes], iter(self.next, None))
                yield Answer(response.status, response.headers, target.url, length, pieces)
                if response.status not in (204, 304):
                    yield from body_of(response, target, length, client.limits.max_bytes)
                return
            location = response.headers.get("Location")
            if not location:
                raise BadResponse(f"{target.host} redirects to nowhere.")
            # http.client reads headers as Latin-1; links are UTF-8 where they are not ASCII.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace")
            target = client.policy.check(urljoin(target.url, location))
        raise TooManyRedirects("The link redirects in circles.", self._target.url)

    def _ask(self, target: Target, credentials: Mapping[str, str]) -> http.client.HTTPResponse:
        """One request on a connection of its own; the answer's body is unread."""
        client, upload = self._client, self._upload
        self._release()
        self._host, self._hop_began = target.host, time.monotonic()
        connection = connection_to(target, client.policy, client.transport, client.limits.connect_s)
        self._connection = connection
        if self._abandoned.is_set():  # abandon() may have looked just before
            connection.hang_up()
        headers = {
            "Host": target.authority,
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **self._headers,
            **credentials,
        }
        if upload is not None:
            headers["Content-Length"] = str(upload.getbuffer().nbytes)
        connection.connect()
        method = "GET" if upload is None else "POST"
        try:
            connection.request(method, target.request_path, upload, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer may have come before everything was taken: a refusal, for instance
        connection.sock.settimeout(client.limits.idle_s)
        self._response = connection.getresponse()
        return self._response

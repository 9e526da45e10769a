"""GET over https to public addresses, hop by hop, within caps of bytes and time, stoppable.

Everything that can block (name look-up, connecting, TLS, headers, body) happens in a thread of the
stream's own; the caller waits in slices of a tenth of a second and polls ``should_stop`` between
them. So a stop is noticed at once whatever the other side does.
"""

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPMessage
from types import TracebackType

from .address import PUBLIC_ONLY, AddressPolicy
from .connection import SYSTEM, Transport
from .errors import BadResponse, DeadlineExceeded, HttpStatusError, Stalled, retry_after_seconds
from .pump import End, Event, Head, Hop, Pump, Request, declared_length

_SLICE = 0.1  # seconds between two looks at should_stop
_OWN_HEADERS = {"authorization", "cookie", "host", "proxy-authorization", "accept-encoding"}


def never_stop() -> None:
    """The ``should_stop`` of a caller that nobody can stop."""


def open_stream(
    url: str,
    *,
    max_bytes: int,
    policy: AddressPolicy = PUBLIC_ONLY,
    headers: Mapping[str, str] | None = None,
    credentials: Mapping[str, Mapping[str, str]] | None = None,
    allowed_hosts: Callable[[str], bool] | None = None,
    max_redirects: int = 5,
    connect_timeout: float = 10.0,
    idle_timeout: float = 30.0,
    deadline: float | None = None,
    should_stop: Callable[[], None] = never_stop,
    transport: Transport = SYSTEM,
) -> "Stream":
    """A GET of ``url``, redirects followed, as a context manager that yields a :class:`Stream`.

    max_bytes: most bytes of the body, as declared and as streamed, before and after decoding.
    headers: additional request headers; never credentials.
    credentials: host (``host`` for port 443, else ``host:port``) -> headers for that very host.
        They are dropped for good as soon as a redirect leaves the first host.
    allowed_hosts: called with the host of every hop; False refuses it.
    connect_timeout, idle_timeout: seconds to connect; to wait for headers or for the next byte.
    deadline: seconds for everything, counted from now.
    should_stop: raises to stop; called at least every 0.1 s, in the caller's thread.

    Any HTTP status other than a redirect is returned, not raised. Raises :class:`NetworkError`.
    """
    for name in headers or {}:
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"{name} is not the caller's to set; use credentials")
    return Stream(
        Request(
            policy.check(url),
            policy,
            dict(headers or {}),
            {host.lower(): dict(own) for host, own in (credentials or {}).items()},
            allowed_hosts,
            max_redirects,
            max_bytes,
            connect_timeout,
            idle_timeout,
            transport,
        ),
        None if deadline is None else time.monotonic() + deadline,
        should_stop,
    )


def fetch_bytes(
    url: str,
    *,
    max_bytes: int,
    allowed_hosts: Callable[[str], bool] | None = None,
    policy: AddressPolicy = PUBLIC_ONLY,
    headers: Mapping[str, str] | None = None,
    credentials: Mapping[str, Mapping[str, str]] | None = None,
    max_redirects: int = 5,
    connect_timeout: float = 10.0,
    idle_timeout: float = 30.0,
    deadline: float | None = None,
    should_stop: Callable[[], None] = never_stop,
    transport: Transport = SYSTEM,
) -> bytes:
    """The body of ``url``, of at most ``max_bytes``. Arguments as for :func:`open_stream`.

    Raises :class:`HttpStatusError` for any status but 200. Never retries.
    """
    with open_stream(
        url,
        max_bytes=max_bytes,
        allowed_hosts=allowed_hosts,
        policy=policy,
        headers=headers,
        credentials=credentials,
        max_redirects=max_redirects,
        connect_timeout=connect_timeout,
        idle_timeout=idle_timeout,
        deadline=deadline,
        should_stop=should_stop,
        transport=transport,
    ) as stream:
        if stream.status != 200:
            raise stream.status_error()
        return b"".join(stream.iter_bytes())


class Stream:
    """An answer whose body is still to be read. Use it as a context manager, once.

    status: HTTP status of the last hop. headers: its headers, case-insensitive. url: its address,
    possibly with a signed query: not for messages. length: declared bytes of the body or None.
    """

    status: int
    headers: HTTPMessage
    url: str
    length: int | None

    def __init__(
        self, request: Request, deadline: float | None, should_stop: Callable[[], None]
    ) -> None:
        self._host = request.target.host
        self._patience = request.connect_timeout + request.idle_timeout
        self._deadline = deadline
        self._should_stop = should_stop
        self._pump = Pump(request)

    def __enter__(self) -> "Stream":
        self._pump.start()
        try:
            while isinstance(event := self._next(), Hop):
                pass
            if not isinstance(event, Head):
                raise BadResponse(f"{self._host} gave no answer.")
        except BaseException:
            self._pump.abandon()
            raise
        self.status, self.headers, self.url = event
        self.length = declared_length(self.headers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pump.abandon()

    def iter_bytes(self) -> Iterator[bytes]:
        """The body in pieces of up to 256 KiB, at most 0.2 s apart from their arrival.

        Raises :class:`NetworkError`: the pieces before it are good.
        """
        while not isinstance(event := self._next(), End):
            if isinstance(event, bytes):
                yield event

    def status_error(self) -> HttpStatusError:
        """This answer's status as an error to raise."""
        return HttpStatusError(
            self.status,
            self.url,
            self.headers.get("X-Error-Code") or "",
            retry_after_seconds(self.headers.get("Retry-After")),
        )

    def _next(self) -> Event:
        """The pump's next event, or the error that ends the stream.

        The patience here backs the socket's own timeout: it also covers a name look-up without
        end and headers that come one byte at a time.
        """
        give_up = time.monotonic() + self._patience
        while True:
            self._should_stop()
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                raise DeadlineExceeded(f"{self._host} took too long.")
            try:
                event = self._pump.events.get(timeout=_SLICE)
            except queue.Empty:
                if now >= give_up:
                    raise Stalled(f"{self._host} does not answer.") from None
                continue
            if isinstance(event, Exception):
                raise event
            return event

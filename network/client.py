"""One client for everything that goes out: a GET as a stream or as bytes, and the one POST.

Redirects are followed by hand, hop by hop, each held to the policy. No cookies, no netrc, no proxy
but the policy's, no compression asked for; only ``get_bytes`` repeats, and only a GET.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from .address import PUBLIC_ONLY, AddressPolicy
from .connection import Transport
from .errors import LONGEST_WAIT_S, HttpStatusError, NetworkError
from .exchange import Answer, Reader, Upload

_OWN_HEADERS = {"authorization", "cookie", "host", "proxy-authorization", "accept-encoding"}

LEAST_SPEED_VARIABLE = "FLUX2_LORA_EDIT_MIN_KIB_PER_S"
QUOTA_VARIABLE = "FLUX2_LORA_EDIT_QUOTA_GB"

Credentials = Mapping[str, Mapping[str, str]]
"""Host (``host`` for port 443, else ``host:port``) -> headers for that very host."""


@dataclass(frozen=True)
class Limits:
    """How much and how long.

    max_bytes: most bytes of a body, as declared and as streamed, before and after decoding.
    connect_s: seconds to connect, for TLS, and for each block of an upload to leave.
    idle_s: to wait for headers or for the next byte.
    total_s: for everything; where something is uploaded, from its last block on.
    redirects: how many a GET follows; none makes a redirect an answer like any other.
    attempts: tries without real progress before giving up; backoff_s: seconds before the second.
    least_speed: bytes a second that a download brings on average, in each ``slow_s`` seconds of it;
        0 asks for none. A modem of 1996 brought 3,000.
    quota: most bytes that a download and all files of its home may come to; None sets no bound.
    """

    max_bytes: int = 5 << 30
    connect_s: float = 10.0
    idle_s: float = 30.0
    total_s: float | None = None
    redirects: int = 5
    attempts: int = 5
    backoff_s: float = 1.0
    least_speed: float = 1024.0
    slow_s: float = 60.0
    quota: int | None = None

    def told_by(self, env: Mapping[str, str]) -> "Limits":
        """These limits with the least speed and the quota that the operator set, if any.

        Raises ValueError, naming the variable.
        """
        speed, quota = _number(env, LEAST_SPEED_VARIABLE), _number(env, QUOTA_VARIABLE)
        return replace(
            self,
            least_speed=self.least_speed if speed is None else speed * 1024,
            quota=int(quota * 1e9) if quota else self.quota,
        )


@dataclass(frozen=True)
class HttpClient:
    """What may be reached, how long it may take, and who may stop it.

    should_stop: raises to stop; called at least every 0.1 s, in the caller's thread.
    allowed_hosts: called with the host of every hop; False refuses it. None: any that is public.
    """

    policy: AddressPolicy = PUBLIC_ONLY
    limits: Limits = field(default_factory=Limits)
    should_stop: Callable[[], None] = lambda: None
    transport: Transport = field(default_factory=Transport)
    allowed_hosts: Callable[[str], bool] | None = None

    def within(self, **limits: Any) -> "HttpClient":
        """This client with some of its limits changed."""
        return replace(self, limits=replace(self.limits, **limits))

    @contextmanager
    def stream(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
        upload: Upload | None = None,
    ) -> Iterator[Answer]:
        """A GET of ``url``, or a POST of ``upload``, as a context manager.

        headers: additional ones; never credentials. credentials: they are dropped for good as soon
        as a redirect leaves the first host.

        Any HTTP status is returned, not raised, but a redirect that a GET follows. Raises
        NetworkError.
        """
        for name in headers or {}:
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is not the caller's to set; use credentials")
        keyed = {host.lower(): own for host, own in (credentials or {}).items()}
        reader = Reader(self, self.policy.check(url), headers or {}, keyed, upload)
        threading.Thread(target=reader.run, name="flux2-lora-edit network", daemon=True).start()
        try:
            yield cast(Answer, reader.next())  # it hands over an answer first, or an error
        finally:
            reader.abandon()

    def get_bytes(self, url: str, credentials: Credentials | None = None) -> bytes:
        """The body of ``url``; passing faults are tried again within the limits.

        Raises :class:`HttpStatusError` for any status but 200, and NetworkError.
        """
        failures = 0
        while True:
            try:
                with self.stream(url, credentials=credentials) as answer:
                    if answer.status != 200:
                        raise answer.status_error()
                    return b"".join(answer.pieces)
            except NetworkError as error:
                failures += 1
                if not error.retryable or failures >= self.limits.attempts:
                    raise
                self.wait(failures, error)

    def wait(self, failures: int, error: NetworkError) -> None:
        """The pause after so many failures, which a stop ends."""
        asked = error.retry_after if isinstance(error, HttpStatusError) else None
        first = self.limits.backoff_s * random.uniform(0.75, 1.25)  # noqa: S311
        end = time.monotonic() + backoff(failures, first, LONGEST_WAIT_S, asked)
        while (left := end - time.monotonic()) > 0:
            self.should_stop()
            time.sleep(min(left, 0.1))
        self.should_stop()


def _number(env: Mapping[str, str], name: str) -> float | None:
    text = env.get(name, "").strip()
    try:
        value = float(text or "0")
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise ValueError(f"{name} must be a number such as 20 or 0.5; 0 sets no bound")
    return value if text else None


def backoff(failures: int, first: float, longest: float, asked: float | None) -> float:
    """Seconds to wait after so many failures: ``first``, doubled up to ``longest``, or ``asked``.

    ``asked`` is the server's Retry-After; the longer of the two holds.
    """
    return max(min(first * 2.0 ** min(failures - 1, 10), longest), asked or 0.0)

"""Every way the outside can fail, as one short sentence a user can act on.

A message never holds a query string, a fragment or a credential: links are shown through
:func:`shown`, because the query of a download link is often its signature.
"""

import math
import ssl
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, IncompleteRead, RemoteDisconnected
from urllib.parse import urlsplit

from urllib3.util.ssl_match_hostname import CertificateError

LONGEST_WAIT_S = 60.0
"""Who asks for more in Retry-After is asked again anyway, at that pace."""

_STATUS = {
    401: "The server asks for a login",
    403: "The server refuses access",
    404: "The server has no such file",
    410: "The file is gone from the server",
    416: "The server cannot continue the download",
    429: "The server asks to slow down",
    451: "The file is withheld for legal reasons",
}


def shown(url: str) -> str:
    """``scheme://host[:port]/path`` of ``url``, printable and at most 200 characters long."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        text = f"{parts.scheme}://{host}{parts.path}"
    except ValueError:
        return "(unreadable link)"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:197] + "..."


class NetworkError(Exception):
    """Base of this room's errors. ``retryable``: the same request may well succeed later.

    ``url``, if any, follows the message as it may be shown.
    """

    retryable = False

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(f"{message}\n{shown(url)}" if url else message)


class AddressRefused(NetworkError):
    """The link is not https, or not to a public address."""


class ConnectionFailed(NetworkError):
    """The host has no address, refuses, or breaks off before it answered."""

    retryable = True


class TlsFailed(NetworkError):
    """The certificate is not valid for the host, or TLS could not be agreed."""


class Stalled(NetworkError):
    """Nothing arrived for the idle timeout."""

    retryable = True


class DeadlineExceeded(NetworkError):
    """The caller's total time is up."""


class Truncated(NetworkError):
    """The answer ended before its declared end."""

    retryable = True


class BadResponse(NetworkError):
    """The answer is not HTTP as it should be (framing, encoding, redirect without a target)."""


class TooManyRedirects(NetworkError):
    """A redirect loop, or a chain longer than allowed."""


class TooLarge(NetworkError):
    """The answer declares, or streams, more bytes than the caller takes."""


class HttpStatusError(NetworkError):
    """An HTTP status that is not the wanted one.

    ``status`` and ``url`` are those of the last hop, ``error_code`` is the Hugging Face header
    X-Error-Code (else empty), ``retry_after`` is the server's Retry-After in seconds.
    """

    def __init__(self, status: int, url: str, headers: HTTPMessage) -> None:
        fault = "The server has a fault of its own; try again later"
        other = fault if status >= 500 else "The server gave an unexpected answer"
        super().__init__(f"{_STATUS.get(status, other)} (HTTP {status}).", url)
        self.status = status
        self.url = url
        self.error_code = headers.get("X-Error-Code") or ""
        self.retry_after = retry_after(headers.get("Retry-After"))
        self.retryable = status in (408, 425, 429) or status >= 500


class NotEnoughSpace(NetworkError):
    """The disk, or the operator's quota, cannot hold the file."""


class TooSlow(NetworkError):
    """Bytes come, but fewer than the least speed asks for."""


class Occupied(NetworkError):
    """Another worker has just put another file where this one was to go."""


class WebPage(NetworkError):
    """A web page came in the file's place: a login, an error, or a page's own address."""


class IntegrityError(NetworkError):
    """All bytes arrived, but they are not the promised file (length, sha256, or its header)."""


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """A Retry-After header in seconds, at most LONGEST_WAIT_S; it is a number or an HTTP date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (TypeError, ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        seconds = (when - (now or datetime.now(timezone.utc))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT_S)


def translated(error: Exception, host: str) -> NetworkError:
    """What urllib3's connections, ssl and sockets raise, as this room's errors."""
    if isinstance(error, ssl.SSLCertVerificationError | CertificateError):
        reason = getattr(error, "verify_message", error)
        return TlsFailed(
            f"The certificate of {host} is not valid for it ({reason}). "
            "A company network that inspects TLS must have its authority in the system's store."
        )
    if isinstance(error, TimeoutError):
        return Stalled(f"{host} does not answer.")
    broken_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError, IncompleteRead, RemoteDisconnected)
    if isinstance(error, broken_off):
        return ConnectionFailed(f"{host} broke the connection off.")
    if isinstance(error, ssl.SSLError):
        return TlsFailed(f"No secure connection to {host} ({error.reason or 'TLS error'}).")
    if isinstance(error, HTTPException | ValueError):
        return BadResponse(f"{host} gave an answer that is not HTTP ({type(error).__name__}).")
    if isinstance(error, ConnectionError):
        return ConnectionFailed(f"{host} refused or broke off the connection.")
    if str(error).startswith("Tunnel connection failed"):
        return ConnectionFailed(f"The proxy refuses to connect to {host}.")
    return ConnectionFailed(f"{host} cannot be reached ({error.__class__.__name__}).")

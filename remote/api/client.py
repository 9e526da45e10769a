"""Five calls to RunComfy's Model API over a session that the caller brings.

Blocking; meant for worker threads. The token is put on each request by hand, in the Authorization
header and only for the API's own origin; redirects are never followed, cookies and environment
proxies never used. Nothing here repeats a call: what may be asked again is the job's decision.
"""

import io
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProxyError

from ..errors import OutcomeUnknown, Refused, RequestRejected, Transient
from .answers import Answer, explain, parse_body, retry_after

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes; a result with a few addresses is under 4 KiB, the catalogue's page under 100 KiB."""

MAY_HAVE_RUN = (
    "It may have been accepted and billed: look at your generations on RunComfy before you run it "
    "again."
)
_REFUSING = frozenset({400, 401, 402, 403, 404, 422, 429})
_FINAL = frozenset({400, 401, 402, 403, 404, 405, 410, 422})
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class _SystemTls(HTTPAdapter):
    """Trusts the system's certificate authorities (a company's own) besides those of requests."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)


def new_session(proxy: str | None = None, tls: ssl.SSLContext | None = None) -> requests.Session:
    """A session as this client needs it: no netrc, cookies or proxies from the environment."""
    session = requests.Session()
    session.trust_env = False
    if tls is not None:
        session.mount("https://", _SystemTls(tls))
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "flux2-lora-edit"
    if proxy:
        session.proxies = {"https": proxy}
    return session


def is_request_id(text: object) -> bool:
    """Whether a text can stand in the API's paths as an id, without changing the path."""
    return isinstance(text, str) and bool(_REQUEST_ID.fullmatch(text)) and ".." not in text


@dataclass(frozen=True)
class ModelApi:
    """The Model API at one origin, for one account.

    ``connect_s`` and ``read_s`` bound the silence on a socket, ``answer_s`` the silence after a
    submission (its last megabytes may still be on their way when the wait begins); ``total_s``
    bounds one whole answer, so that a server which drips bytes cannot hold a worker for ever.
    """

    session: requests.Session
    origin: str
    token: str = field(repr=False)
    connect_s: float = 10.0
    read_s: float = 60.0
    answer_s: float = 180.0
    total_s: float = 120.0
    clock: Callable[[], float] = time.monotonic

    def close(self) -> None:
        """Close the connections now; a session alone leaves them to the garbage collector."""
        for adapter in self.session.adapters.values():
            manager: Any = getattr(adapter, "poolmanager", None)
            for key in list(manager.pools.keys()) if manager is not None else ():
                manager.pools[key].close()
        self.session.close()

    def submit(self, model_id: str, payload: dict[str, Any]) -> str:
        """Send one paid job, once, and give its request id.

        Raises Refused when the API says that it did not take it, OutcomeUnknown for everything
        else: no answer, a 5xx, a redirect, a cut or unreadable body, an answer without an id.
        """
        secrets = (self.token, *_long_texts(payload))
        body = json.dumps(payload, allow_nan=False).encode()
        try:
            answer = self._call("POST", f"/v1/models/{quote(model_id, safe='/')}", body)
        except _NeverSent as error:
            raise Refused(
                f"RunComfy could not be reached ({error}): nothing was submitted and nothing is "
                "billed. Check the connection and run again."
            ) from None
        except Transient as error:
            raise OutcomeUnknown(
                f"The submission's answer was lost ({error}). {MAY_HAVE_RUN}"
            ) from None
        if 200 <= answer.status < 300 and answer.body is not None:
            request_id = answer.body.get("request_id")
            if is_request_id(request_id):
                return str(request_id)
        if answer.length and answer.meaning in _REFUSING:
            raise Refused(
                f"Nothing was submitted and nothing is billed. {explain(answer, *secrets)}",
                answer.meaning,
            )
        if 200 <= answer.status < 300 and answer.meaning == answer.status:
            reason = f"HTTP {answer.status} without a usable request id."
        else:
            reason = explain(answer, *secrets)
        raise OutcomeUnknown(f"The submission got no usable answer: {reason} {MAY_HAVE_RUN}")

    def status(self, request_id: str) -> dict[str, Any]:
        """The job's state. Raises Transient (ask again) or RequestRejected (a final no)."""
        return self._ask("GET", f"/v1/requests/{request_id}/status", request_id)

    def result(self, request_id: str) -> dict[str, Any]:
        """The job's result with its cost, or its current state. Raises like ``status``."""
        return self._ask("GET", f"/v1/requests/{request_id}/result?include_cost=true", request_id)

    def cancel(self, request_id: str) -> str:
        """Ask once for a queued job's end: ``cancelled``, ``not_cancellable`` or what else it says.

        Raises like ``status``.
        """
        body = self._ask("POST", f"/v1/requests/{request_id}/cancel", request_id)
        outcome = body.get("outcome") or body.get("status")
        return str(outcome).strip().lower()[:40] if outcome else "unknown"

    def price(self, model_id: str) -> dict[str, Any]:
        """The model's catalogue entry (``base_price_usd``, ...). Raises like ``status``."""
        return self._ask("GET", f"/v1/models/{quote(model_id, safe='/')}", "")

    def _ask(self, method: str, path: str, request_id: str) -> dict[str, Any]:
        answer = self._call(method, path, None)
        meaning = answer.meaning
        if 200 <= meaning < 300 and answer.body is not None:
            return answer.body
        if meaning in _FINAL and answer.body is not None:
            raise RequestRejected(explain(answer, self.token), meaning, request_id)
        if 200 <= meaning < 300:
            raise Transient("the answer was not the API's (a proxy or an error page)")
        raise Transient(explain(answer, self.token), answer.retry_after)

    def _call(self, method: str, path: str, body: bytes | None) -> Answer:
        """One HTTP exchange. Raises Transient when no whole answer came back."""
        started = self.clock()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with self.session.request(
                method,
                self.origin + path,
                # As a stream it is sent in small blocks, each under the timeout; bytes would go
                # in one sendall whose timeout is the whole upload's.
                data=None if body is None else io.BytesIO(body),
                headers=headers,
                timeout=(self.connect_s, self.read_s if body is None else self.answer_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                data = self._read(response, started)
                wait = retry_after(response.headers.get("Retry-After"))
                return Answer(response.status_code, len(data), parse_body(data), wait)
        except (requests.RequestException, OSError, ValueError) as error:
            # The exception's own text names addresses and may quote headers: its kind is enough.
            kind = _NeverSent if _never_sent(error) else Transient
            raise kind(_reason(error)) from None

    def _read(self, response: requests.Response, started: float) -> bytes:
        data = bytearray()
        for piece in response.iter_content(64 * 1024):
            data += piece
            if len(data) > MAX_ANSWER:
                raise Transient(f"the answer is larger than {MAX_ANSWER} bytes")
            if self.clock() - started > self.total_s:
                raise Transient(f"the answer took longer than {self.total_s:.0f} s")
        expected = response.headers.get("Content-Length", "")
        encoded = response.headers.get("Content-Encoding")
        # urllib3 says so itself from version 2 on.
        if expected.isdigit() and not encoded and len(data) < int(expected):
            raise Transient("the answer was cut short")
        return bytes(data)


class _NeverSent(Transient):
    """The connection was never made, so the API has seen nothing of the request."""


def _never_sent(error: Exception) -> bool:
    """Whether an error came before the first byte: no address, no connection, no valid TLS."""
    cause = error.args[0] if error.args else None
    if not isinstance(error, requests.ConnectionError) or not isinstance(cause, MaxRetryError):
        return False
    reason = cause.reason
    if isinstance(reason, NewConnectionError | ConnectTimeoutError | ProxyError):
        return True
    inner = reason.args[0] if reason is not None and reason.args else None
    return isinstance(inner, ssl.SSLCertVerificationError)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the connection is not secure (certificate)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the answer was cut short"
    if isinstance(error, requests.ConnectionError):
        return "the connection failed or broke"
    return f"the answer could not be read ({type(error).__name__})"


def _long_texts(payload: dict[str, Any]) -> list[str]:
    """The prompt and the addresses, which an error body may echo; short words stay readable."""
    texts = [payload.get("prompt"), *payload.get("image_urls", [])]
    return [text for text in texts if isinstance(text, str) and len(text) >= 8]

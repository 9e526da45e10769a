"""Five calls to RunComfy's Model API through the client that the caller brings.

Blocking; meant for worker threads. The token is put on each request by hand, in the Authorization
header and only for the API's own origin; redirects are never followed. Nothing here repeats a
call: what may be asked again is the job's decision.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ...network import errors
from ...network.client import HttpClient
from ...network.exchange import Upload
from ...network.files import json_object
from ..errors import OutcomeUnknown, Refused, RemoteError, RequestRejected, Transient
from .answers import Answer, explain

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes; a result with a few addresses is under 4 KiB, the catalogue's page under 100 KiB."""

MAY_HAVE_RUN = (
    "It may have been accepted and billed: look at your generations on RunComfy before you run it "
    "again."
)
_REFUSING = frozenset({400, 401, 402, 403, 404, 422, 429})
_FINAL = frozenset({400, 401, 402, 403, 404, 405, 410, 422})
_REASONS: dict[type[Exception], str] = {
    errors.Stalled: "no answer in time",
    errors.AddressRefused: "its address is not a public one",
    errors.DeadlineExceeded: "the answer took longer than {total_s:.0f} s",
    errors.TooLarge: f"the answer is larger than {MAX_ANSWER} bytes",
    errors.TlsFailed: "the connection is not secure (certificate)",
    errors.Truncated: "the answer was cut short",
    errors.ConnectionFailed: "the connection failed or broke",
}
MAX_REQUEST_ID = 4096
"""Characters of an id that is kept, word for word; RunComfy's are UUIDs."""
_SHOWN_ID = 300


def is_request_id(text: object) -> bool:
    """Whether a text can be asked for in the API's paths, where it stands percent-quoted."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_REQUEST_ID:
        return False
    return text not in (".", "..") and not any("\ud800" <= c <= "\udfff" for c in text)


@dataclass(frozen=True)
class ModelApi:
    """The Model API at one origin, for one account.

    ``connect_s`` and ``read_s`` bound the silence on a socket, ``answer_s`` the silence after a
    submission (its last megabytes may still be on their way when the wait begins); ``total_s``
    bounds one whole answer, so that a server which drips bytes cannot hold a worker for ever.
    """

    http: HttpClient
    origin: str
    token: str = field(repr=False)
    connect_s: float = 10.0
    read_s: float = 60.0
    answer_s: float = 180.0
    total_s: float = 120.0

    def submit(
        self, model_id: str, payload: dict[str, Any], withheld: Callable[[], bool] | None = None
    ) -> str:
        """Send one paid job, once, and give its request id; ``withheld`` keeps it here at the last.

        Raises Refused when the API says that it did not take it, OutcomeUnknown for everything
        else: no answer, a 5xx, a redirect, a cut or unreadable body, an answer without an id.
        """
        # The prompt and the addresses, which an error body may echo; short words stay readable.
        texts = (payload.get("prompt"), *payload.get("image_urls", []))
        secrets = (self.token, *(t for t in texts if isinstance(t, str) and len(t) >= 8))
        body = Upload(json.dumps(payload, allow_nan=False).encode())
        body.withheld = withheld
        try:
            answer = self._call(f"/v1/models/{quote(model_id, safe='/')}", body, self.answer_s)
        except Transient as error:
            if body.read_at is None:
                raise Refused(
                    f"RunComfy could not be reached ({error}): nothing was submitted and nothing "
                    "is billed. Check the connection and run again."
                ) from None
            raise OutcomeUnknown(
                f"The submission's answer was lost ({error}). {MAY_HAVE_RUN}"
            ) from None
        try:
            return _accepted(answer, *secrets)
        except RemoteError:
            raise
        except Exception as error:  # paid, perhaps: an answer that breaks its reader is no refusal
            raise OutcomeUnknown(
                f"The submission's answer could not be read ({type(error).__name__}). "
                f"{MAY_HAVE_RUN}"
            ) from None

    def status(self, request_id: str) -> dict[str, Any]:
        """The job's state. Raises Transient (ask again) or RequestRejected (a final no)."""
        return self._ask(f"/v1/requests/{quote(request_id, safe='')}/status", request_id)

    def result(self, request_id: str) -> dict[str, Any]:
        """The job's result with its cost, or its current state. Raises like ``status``."""
        path = f"/v1/requests/{quote(request_id, safe='')}/result?include_cost=true"
        return self._ask(path, request_id)

    def cancel(self, request_id: str) -> str:
        """Ask once for a queued job's end: ``cancelled``, ``not_cancellable`` or what else it says.

        Raises like ``status``.
        """
        path = f"/v1/requests/{quote(request_id, safe='')}/cancel"
        body = self._ask(path, request_id, Upload(b""))
        outcome = body.get("outcome") or body.get("status")
        return outcome.strip().lower()[:40] if isinstance(outcome, str) and outcome else "unknown"

    def price(self, model_id: str) -> dict[str, Any]:
        """The model's catalogue entry (``base_price_usd``, ...). Raises like ``status``."""
        return self._ask(f"/v1/models/{quote(model_id, safe='/')}")

    def _ask(self, path: str, request_id: str = "", upload: Upload | None = None) -> dict[str, Any]:
        answer = self._call(path, upload, self.read_s)
        meaning, code = answer.meaning, answer.error_code // 1000
        if 200 <= meaning < 300 and answer.body is not None:
            return answer.body
        if 200 <= meaning < 300:
            told = "the answer was not the API's (a proxy or an error page)"
            raise Transient(told, status=answer.status)
        try:
            told = explain(answer, self.token)
        except Exception as error:
            told = f"its answer could not be read ({type(error).__name__})"
        # A gateway's 404 is no word of the API's about the job: that one carries the API's code.
        if meaning in _FINAL and code in _FINAL:
            raise RequestRejected(told, request_id, status=code)
        raise Transient(told, status=meaning, retry_after=answer.retry_after)

    def _call(self, path: str, upload: Upload | None, silence_s: float) -> Answer:
        """One HTTP exchange. Raises Transient when no whole answer came back."""
        http = self.http.within(
            max_bytes=MAX_ANSWER,
            connect_s=self.connect_s,
            idle_s=silence_s,
            total_s=self.total_s if upload is None else silence_s + self.total_s,
            redirects=0,
        )
        headers = {"Accept": "application/json"}
        if upload is not None and upload.getbuffer().nbytes:
            headers["Content-Type"] = "application/json"
        try:
            url = http.policy.check(self.origin + path)
            token = {url.authority: {"Authorization": f"Bearer {self.token}"}}
            with http.stream(url.url, headers=headers, credentials=token, upload=upload) as answer:
                data = b"".join(answer.pieces)
            wait = errors.retry_after(answer.headers.get("Retry-After"))
            return Answer(answer.status, len(data), json_object(data), wait)
        except Exception as error:
            # Of whatever kind: no answer. Its own text names addresses, so its kind is enough.
            reason = _REASONS.get(type(error), "the answer could not be read ({kind})")
            if isinstance(error, errors.Stalled) and upload is not None and upload.read_at is None:
                reason = "no connection in time"
            kind = type(error).__name__
            raise Transient(reason.format(total_s=self.total_s, kind=kind)) from None


def _accepted(answer: Answer, *secrets: str) -> str:
    """The id in a submission's answer. Raises Refused or OutcomeUnknown, as ``submit`` does."""
    good = 200 <= answer.status < 300
    given = (answer.body or {}).get("request_id")
    request_id = str(given) if type(given) is int else given
    if good and isinstance(request_id, str) and is_request_id(request_id):
        return request_id
    if answer.length and answer.meaning in _REFUSING:
        raise Refused(
            f"Nothing was submitted and nothing is billed. {explain(answer, *secrets)}",
            status=answer.meaning,
        )
    reason, named = f"HTTP {answer.status} without a usable request id.", ""
    if not good or answer.meaning != answer.status:
        reason = explain(answer, *secrets)
    if given not in (None, ""):
        # It cannot be asked for, but it may be all that tells the job: word for word, as JSON.
        named = json.dumps(given)[:MAX_REQUEST_ID]
        reason += f" It names the request {named[:_SHOWN_ID]}."
    raise OutcomeUnknown(
        f"The submission got no usable answer: {reason} {MAY_HAVE_RUN}",
        request_id if isinstance(request_id, str) and is_request_id(request_id) else named,
        status=answer.meaning,
    )

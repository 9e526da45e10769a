"""What the API's answers mean: JSON bodies, error codes, and one sentence for each.

Documented codes: 400001 identifier, 400002 balance, 400004 token or account, 403001 permission,
404001 not found, 422001 validation with ``detail``, 500001. Some RunComfy APIs answer HTTP 200
with such a code in the body, so a 2xx body is looked through for one too.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import clean


class Answer(NamedTuple):
    """One HTTP answer: status, bytes, parsed JSON object (None if none), seconds to wait."""

    status: int
    length: int
    body: dict[str, Any] | None
    retry_after: float | None

    @property
    def error_code(self) -> int:
        """The API's own code, 0 where there is none (a failed JOB's code is not the answer's)."""
        body = self.body or {}
        if 200 <= self.status < 300 and "request_id" in body and "status" in body:
            return 0
        for place in (body, body.get("error"), body.get("detail")):
            if isinstance(place, Mapping):
                for key in ("error_code", "code"):
                    value = place.get(key)
                    if isinstance(value, str) and value.isascii() and value.isdigit():
                        value = int(value)
                    if isinstance(value, int) and 400_000 <= value <= 599_999:
                        return value
        return 0

    @property
    def meaning(self) -> int:
        """The HTTP status; for a 2xx body with an error code, that code's class (400 to 599)."""
        if 200 <= self.status < 300 and self.error_code:
            return self.error_code // 1000
        return self.status


def parse_body(data: bytes) -> dict[str, Any] | None:
    """A JSON object, or None: HTML, a list, a cut body and nonsense are all no answer."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def explain(answer: Answer, *secrets: str) -> str:
    """One sentence for an answer that is not a success, with the API's own words cleaned."""
    code, meaning = answer.error_code, answer.meaning
    words = message_of(answer.body, *secrets)
    if code == 400002 or meaning == 402:
        text = "The RunComfy account's balance is too low; top it up."
    elif code == 400004 or meaning == 401:
        text = "RunComfy does not accept the token or the account; check the token."
    elif meaning == 403:
        text = "The account may not use this model or request."
    elif meaning == 404:
        text = "RunComfy does not know the model or request (it never was, was deleted or expired)."
    elif meaning == 413:
        text = "The request is too large for RunComfy; send fewer or smaller pictures."
    elif 300 <= meaning < 400:
        text = "RunComfy's address redirects elsewhere, where the token is not sent."
    elif meaning == 422:
        text = "RunComfy finds the inputs invalid."
    elif meaning == 429:
        text = "RunComfy asks to slow down; wait a little."
    elif meaning >= 500:
        text = "RunComfy has a fault of its own."
    else:
        text = "RunComfy answered with an error."
    number = f"{answer.status}" + (f", code {code}" if code else "")
    return f"{text} (HTTP {number})" + (f' It says: "{words}".' if words else "")


def message_of(body: Mapping[str, Any] | None, *secrets: str) -> str:
    """The human part of an error body: ``detail[]`` with its field paths, or a message; cleaned.

    The rejected value itself (``input`` of a detail) is never shown: it may be the prompt.
    """
    if not body:
        return ""
    detail = body.get("detail")
    if isinstance(detail, list):
        lines = [_detail_line(item) for item in detail[:5]]
        return clean("; ".join(filter(None, lines)), *secrets)
    for key in ("message", "error_message", "msg", "detail", "error"):
        value = body.get(key)
        if isinstance(value, str) and value.strip():
            return clean(value, *secrets)
        if isinstance(value, Mapping) and (inner := message_of(value, *secrets)):
            return inner
    return ""


def _detail_line(item: object) -> str:
    if not isinstance(item, Mapping):
        return item if isinstance(item, str) else ""
    place = item.get("loc")
    path = ""
    if isinstance(place, list):
        for part in place:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part != "body":
                path += f".{part}" if path else str(part)
    message = item.get("msg") or item.get("message") or ""
    return f"{path}: {message}" if path and message else f"{path}{message}"

"""What the API says, in one vocabulary, and one sentence for each of its errors.

Documented codes: 400001 identifier, 400002 balance, 400004 token or account, 403001 permission,
404001 not found, 422001 validation with ``detail``, 500001. Some RunComfy APIs answer HTTP 200
with such a code in the body, so a 2xx body is looked through for one too. ``/status`` documents
in_queue, in_progress, completed and cancelled, and no failure; ``/result`` says succeeded or
failed too, and RunComfy's own clients know more spellings. So success and failure are read from
``/result`` alone, and an unknown state means: keep asking. Here alone foreign text is made fit to
be shown.
"""

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

MAX_FOREIGN_TEXT = 300
_LOOKED_AT = 64 * MAX_FOREIGN_TEXT  # characters of a foreign text; a longer secret is in none
_MAX_DEPTH = 5  # of an error within an error
_MAX_PATH = 10  # steps of a field's path
_MAX_NUMBER = 40  # characters of a number that comes as a text
_CODE = re.compile(r"[45][0-9]{5}")

_HIDDEN = (
    (re.compile(r"(bearer\s+)[^\s\"'<>]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"data:[\w.+-]*/[\w.+-]*(?:;[\w.=+-]+)*,[^\s\"'<>]*", re.IGNORECASE), "data:***"),
    (re.compile(r"(https?://)[^\s/@\"'<>]+@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", re.IGNORECASE), r"\1?***"),
)
"""What is never shown of foreign text, and what stands in its place; in this order."""


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
                    if isinstance(value, str) and _CODE.fullmatch(value):
                        value = int(value)
                    if type(value) is int and 400_000 <= value <= 599_999:
                        return value
        return 0

    @property
    def meaning(self) -> int:
        """The HTTP status; for a 2xx body with an error code, that code's class (400 to 599)."""
        if 200 <= self.status < 300 and self.error_code:
            return self.error_code // 1000
        return self.status


_BALANCE = "The RunComfy account's balance is too low; top it up."
_TOKEN = "RunComfy does not accept the token or the account; check the token."  # noqa: S105
_SENTENCES = {
    400002: _BALANCE,
    402: _BALANCE,
    400004: _TOKEN,
    401: _TOKEN,
    403: "The account may not use this model or request.",
    404: "RunComfy does not know the model or request (it never was, was deleted or expired).",
    413: "The request is too large for RunComfy; send fewer or smaller pictures.",
    422: "RunComfy finds the inputs invalid.",
    429: "RunComfy asks to slow down; wait a little.",
    3: "RunComfy's address redirects elsewhere, where the token is not sent.",
    5: "RunComfy has a fault of its own.",
}
"""By the API's code, the status, or the status's class."""


def explain(answer: Answer, *secrets: str) -> str:
    """One sentence for an answer that is not a success, with the API's own words cleaned."""
    code, meaning = answer.error_code, answer.meaning
    words = message_of(answer.body, *secrets)
    text = _SENTENCES.get(code) or _SENTENCES.get(meaning) or _SENTENCES.get(meaning // 100)
    text = (text or "RunComfy answered with an error.").removesuffix(".")
    number = f"{answer.status}" + (f", code {code}" if code else "")
    return f"{text} (HTTP {number})." + (f' It says: "{words}".' if words else "")


def message_of(body: Mapping[str, Any] | None, *secrets: str, depth: int = _MAX_DEPTH) -> str:
    """The human part of an error body: ``detail[]`` with its field paths, or a message; cleaned.

    The rejected value itself (``input`` of a detail) is never shown: it may be the prompt.
    """
    if not body or not depth:
        return ""
    detail = body.get("detail")
    if isinstance(detail, list):
        lines = [_detail_line(item) for item in detail[:5]]
        return clean("; ".join(filter(None, lines)), *secrets)
    for key in ("message", "error_message", "msg", "detail", "error"):
        value = body.get(key)
        if isinstance(value, str) and value.strip():
            return clean(value, *secrets)
        if isinstance(value, Mapping):
            if inner := message_of(value, *secrets, depth=depth - 1):
                return inner
    return ""


def _detail_line(item: object) -> str:
    if not isinstance(item, Mapping):
        return item if isinstance(item, str) else ""
    place = item.get("loc")
    parts = place[:_MAX_PATH] if isinstance(place, list) else []
    steps = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts
             if isinstance(part, int | str) and part != "body"]  # fmt: skip
    path = "".join(steps).removeprefix(".")
    message = item.get("msg") or item.get("message")
    message = message if isinstance(message, str) else ""
    return f"{path}: {message}" if path and message else f"{path}{message}"


def clean(text: object, *secrets: str) -> str:
    """Foreign text made fit for a message: one line, bounded, without secrets or signed addresses.

    A list or a table is none, and no text at all: it may be nested deeper than Python can follow.
    ``secrets`` (the token, the prompt) are replaced wherever they stand, as they are or escaped.
    """
    shown = "" if isinstance(text, list | Mapping) else str(text)
    forms = [
        form
        for secret in secrets
        if len(secret) <= _LOOKED_AT  # a picture inside the request takes seconds, for nothing
        for form in (secret, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1])
    ]
    line, *hidden = (
        " ".join("".join(c if c.isprintable() else " " for c in long).split())
        for long in (shown[:_LOOKED_AT], *forms)
    )
    for form in filter(None, hidden):
        line = line.replace(form, "***")
    for pattern, instead in _HIDDEN:
        line = pattern.sub(instead, line)
    return line if len(line) <= MAX_FOREIGN_TEXT else line[: MAX_FOREIGN_TEXT - 3] + "..."


class Phase(Enum):
    """What a job is doing."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


_WORDS = {
    Phase.QUEUED: "in_queue queued pending waiting submitted",
    # Asked to cancel is not ended: it may still run, so nothing is concluded from it.
    Phase.RUNNING: "starting in_progress processing running cancellation_requested",
    Phase.SUCCEEDED: "completed succeeded success",
    Phase.FAILED: "failed error timeout",
    Phase.CANCELLED: "cancelled canceled",
}
_PHASES = {word: phase for phase, words in _WORDS.items() for word in words.split()}


def phase_of(status: object) -> Phase:
    """The phase that a state of the API's means, UNKNOWN for any other word or kind of value."""
    return _PHASES.get(status.strip().lower() if isinstance(status, str) else "", Phase.UNKNOWN)


def queue_position(body: Mapping[str, Any]) -> int | None:
    """Jobs ahead in the queue, where the answer says so."""
    value = body.get("queue_position")
    return value if type(value) is int and 0 <= value < 1_000_000 else None


class Result(NamedTuple):
    """A ``/result`` answer. ``cost`` in US dollars, None where it is not said."""

    phase: Phase
    images: tuple[str, ...]
    videos: int
    cost: float | None
    message: str
    created_at: str
    finished_at: str


def read_result(body: Mapping[str, Any], *secrets: str) -> Result:
    """A ``/result`` body taken apart; ``secrets`` are cleaned out of its error text."""
    images, videos = _media(body.get("output"))
    phase = phase_of(body.get("status"))
    if "status" not in body and images:
        phase = Phase.SUCCEEDED  # a picture is there: nothing is gained by asking on
    error = body.get("error")
    created, finished = (
        clean(when)[:40] if isinstance(when, str | int | float) else ""
        for when in (body.get("created_at"), body.get("finished_at"))
    )
    message = clean(error, *secrets) if isinstance(error, str) else ""
    return Result(
        phase,
        tuple(images),
        videos,
        number(body.get("cost"), 1_000_000),
        message or (message_of(body, *secrets) if phase is Phase.FAILED else ""),
        created,
        finished,
    )


def _media(output: object) -> tuple[list[str], int]:
    """Picture addresses, in order and each once, and how many videos stand beside them.

    ``output`` is an object with ``image``, ``images``, ``video``, ``videos``, a single address, or
    a list of either, however deep.
    """
    images: dict[str, None] = {}
    videos, todo = 0, [output]
    while todo:
        item = todo.pop()
        if isinstance(item, str) and item.strip():
            images[item.strip()] = None
        elif isinstance(item, list):
            todo += reversed(item)
        elif isinstance(item, Mapping):
            todo += (item.get(key) for key in ("url", "images", "image"))
            for key in ("video", "videos"):
                value = item.get(key)
                videos += len(value) if isinstance(value, list) else bool(value)
    return list(images), videos


def number(value: object, below: float) -> float | None:
    """A number from 0 to ``below``, also where it comes as a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > _MAX_NUMBER:
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < below else None

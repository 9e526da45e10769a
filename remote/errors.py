"""Everything that can go wrong with a hosted job, and the one place that cleans foreign text.

Each error's text says what is wrong, what it means for the bill and what to do. None carries the
token, the prompt, a picture or a signed address; ``request_id`` is kept wherever there is one.
"""

import json
import re

MAX_FOREIGN_TEXT = 300

_DATA_URI = re.compile(r"data:[\w.+-]*/[\w.+-]*(?:;[\w.=+-]+)*,[^\s\"'<>]*", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", re.IGNORECASE)
_USER = re.compile(r"(https?://)[^\s/@\"'<>]+@", re.IGNORECASE)
_BEARER = re.compile(r"(bearer\s+)[^\s\"'<>]+", re.IGNORECASE)


def clean(text: object, *secrets: str) -> str:
    """Foreign text made fit for a message: one line, bounded, without secrets or signed addresses.

    ``secrets`` (the token, the prompt) are replaced wherever they stand, as they are or escaped.
    """
    line = _one_line(str(text)[: 64 * MAX_FOREIGN_TEXT])
    for secret in secrets:
        plain, escaped = json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1]
        for form in filter(None, map(_one_line, (secret, plain, escaped))):
            line = line.replace(form, "***")
    line = _BEARER.sub(r"\1***", line)
    line = _DATA_URI.sub("data:***", line)
    line = _USER.sub(r"\1***@", line)
    line = _QUERY.sub(r"\1?***", line)
    return line if len(line) <= MAX_FOREIGN_TEXT else line[: MAX_FOREIGN_TEXT - 3] + "..."


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class RemoteError(Exception):
    """A hosted job that gave no picture."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class InvalidInput(RemoteError):
    """Refused here, before anything was sent. ``field`` is the node's own input."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CredentialError(RemoteError):
    """No token, an unusable one, or an API address that a token must not be sent to."""


class JournalError(RemoteError):
    """The record of paid requests cannot be written; nothing was submitted."""


class Refused(RemoteError):
    """The API answered that it did not take the job: nothing was submitted, nothing is billed."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class OutcomeUnknown(RemoteError):
    """No usable answer to the submission: it may have been accepted. Never submitted again."""


class Transient(RemoteError):
    """A question about a job that went unanswered; asked again until the deadline."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestRejected(RemoteError):
    """The API answers questions about the job with a final no (token, permission, no such id)."""

    def __init__(self, message: str, status: int, request_id: str = "") -> None:
        super().__init__(message, request_id)
        self.status = status


class JobFailed(RemoteError):
    """The job ended without a picture."""


class JobCancelled(RemoteError):
    """The job was cancelled before it ran."""


class TimedOut(RemoteError):
    """The deadline passed; the job goes on and its result can be fetched by its id."""


class MediaError(RemoteError):
    """The job succeeded, but its picture was refused or could not be read."""


class Stopped(RemoteError):
    """The user pressed Stop; the text says what became of the job."""

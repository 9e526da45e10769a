"""What the API says about a job, in one vocabulary.

``/status`` documents in_queue, in_progress, completed and cancelled, and no failure; ``/result``
says succeeded or failed too. RunComfy's own clients know more spellings. So success and failure
are read from ``/result`` alone, and an unknown state means: keep asking.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from .answers import message_of
from .errors import clean


class Phase(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


_PHASES = {
    "in_queue": Phase.QUEUED,
    "queued": Phase.QUEUED,
    "pending": Phase.QUEUED,
    "waiting": Phase.QUEUED,
    "submitted": Phase.QUEUED,
    # Asked to end, not ended: it may still run, so nothing is concluded from it.
    "cancellation_requested": Phase.RUNNING,
    "starting": Phase.RUNNING,
    "in_progress": Phase.RUNNING,
    "processing": Phase.RUNNING,
    "running": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "succeeded": Phase.SUCCEEDED,
    "success": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
    "error": Phase.FAILED,
    "timeout": Phase.FAILED,
    "cancelled": Phase.CANCELLED,
    "canceled": Phase.CANCELLED,
}


def phase_of(status: object) -> Phase:
    return (
        _PHASES.get(status.strip().lower(), Phase.UNKNOWN)
        if isinstance(status, str)
        else (Phase.UNKNOWN)
    )


def queue_position(body: Mapping[str, Any]) -> int | None:
    """Jobs ahead in the queue, where the answer says so."""
    value = body.get("queue_position")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1_000_000:
        return None
    return value


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
    message = clean(error, *secrets) if isinstance(error, str) else ""
    return Result(
        phase,
        tuple(images),
        videos,
        _cost(body.get("cost")),
        message or (message_of(body, *secrets) if phase is Phase.FAILED else ""),
        _time(body.get("created_at")),
        _time(body.get("finished_at")),
    )


def _media(output: object) -> tuple[list[str], int]:
    """Picture addresses, in order and each once, and how many videos stand beside them.

    ``output`` is an object with ``image``, ``images``, ``video``, ``videos``, a single address, or
    a list of either.
    """
    images: list[str] = []
    videos = 0
    if isinstance(output, str):
        images = [output]
    elif isinstance(output, list):
        for item in output[:64]:
            more, count = _media(item)
            images, videos = images + more, videos + count
    elif isinstance(output, Mapping):
        for key in ("image", "images", "url"):
            more, _ = _media(output[key]) if output.get(key) else ([], 0)
            images += more
        for key in ("video", "videos"):
            value = output.get(key)
            videos += len(value) if isinstance(value, list) else bool(value)
    return list(dict.fromkeys(address.strip() for address in images if address.strip())), videos


def _cost(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e6 else None


def _time(value: object) -> str:
    return clean(value)[:40] if isinstance(value, str | int | float) else ""

"""What a run tells: a line while it goes on, a summary, and the ``info`` output."""

from collections.abc import Sequence
from typing import Any

from .api.answers import Phase
from .api.client import is_request_id
from .api.models import MODELS
from .job import Job
from .journal import SUBMITTING, UNKNOWN, Entry

OPEN = "open"
"""The word that stands for every open request in ``resume_request_id``."""
_RENEWED = (
    "Some open requests were made with another RunComfy token; RunComfy decides whether this one "
    "may fetch them."
)


def progress_text(
    jobs: Sequence[Job], elapsed: float, price: str, notices: Sequence[str] = ()
) -> str:
    """What the jobs are doing, in one line; only what RunComfy said, no invented percent.

    Notices stand in the next lines: each text replaces the one before it on the node.
    """
    count = {phase: sum(job.phase is phase for job in jobs) for phase in Phase}
    places = [j.position for j in jobs if j.phase is Phase.QUEUED and j.position is not None]
    many = len(jobs) > 1
    parts = [f"{count[Phase.SUCCEEDED]} of {len(jobs)} done"] if many else []
    if count[Phase.RUNNING]:
        parts.append(f"{count[Phase.RUNNING]} running" if many else "Running")
    if count[Phase.QUEUED]:
        queued = f"{count[Phase.QUEUED]} queued" if many else "In queue"
        parts.append(queued + (f" (position {min(places)})" if places else ""))
    if count[Phase.FAILED]:
        parts.append(f"{count[Phase.FAILED]} failed")
    parts.append(f"{elapsed:.0f} s")
    line = " · ".join(filter(None, [*parts, price]))
    said = dict.fromkeys([*notices, *(job.notice for job in jobs)])
    return "\n".join(filter(None, [line, *said]))


def info_of(
    jobs: Sequence[Job],
    open_requests: Sequence[Entry],
    price: str,
    notices: Sequence[str],
    seconds: float,
    spent: float,
) -> dict[str, Any]:
    """The ``info`` output, without prompt, pictures, addresses or account.

    ``cost_usd`` is what RunComfy states, None where it states nothing. A request that was submitted
    by an earlier run (or is resumed by its id) is ``fetched_again``, and its cost is not of this
    run. ``spent``: US dollars of what this process submitted and fetched.
    """
    rows: list[dict[str, Any]] = [
        {
            "request_id": job.request_id,
            "seed": job.payload.get("seed"),
            "status": "succeeded" if job.result else "failed",
            "fetched_again": bool(job.before),
            "cost_usd": getattr(job.result, "cost", None),
            "created_at": getattr(job.result, "created_at", None),
            "finished_at": getattr(job.result, "finished_at", None),
            "seconds": job.seconds,
            "pictures": len(job.pictures),
            "error": str(job.error) if job.error else None,
        }
        for job in jobs
    ]
    paid = [row["cost_usd"] for row in rows if not row["fetched_again"]]
    known = [cost for cost in paid if cost is not None]
    return {
        "model": jobs[0].model_id,
        "image_size": jobs[0].payload.get("image_size"),
        "notices": notices,
        "seconds": round(seconds, 3),
        "cost_usd": round(sum(known), 6) if known else 0.0 if not paid else None,
        "cost_since_start_usd": round(spent, 6),
        "cost_of_open_usd": round(sum(entry.usd or 0.0 for entry in open_requests), 6),
        "price": price or None,
        "requests": rows,
        "open_requests": [open_row(entry) for entry in open_requests],
    }


def summary(info: dict[str, Any]) -> str:
    """What the run came to, in a line; notices and what went wrong with some in the next ones."""
    rows, cost = info["requests"], info["cost_usd"]
    done = [row for row in rows if row["status"] == "succeeded"]
    again = sum(row["fetched_again"] for row in done)
    line = f"{len(done)} of {len(rows)} delivered · {info['seconds']:.0f} s"
    if cost is not None and again < len(rows):
        line += f" · cost ${cost:g}"
    if again:
        line += " · already paid" if again == len(rows) else f" · {again} already paid"
    errors = dict.fromkeys(row["error"] for row in rows if row["error"])
    return "\n".join([line, *info["notices"], *errors])


def open_notice(entries: Sequence[Entry], account: str) -> str:
    """What is open of earlier runs, and how it is had for nothing. ``account``: this run's."""
    text = (
        f"{len(entries)} earlier RunComfy requests are open. To fetch them without paying again, "
        f"press Fetch in Settings, FLUX.2 LoRA Edit, RunComfy, or write '{OPEN}' into "
        "resume_request_id."
    )
    return text if all(entry.account == account for entry in entries) else f"{text} {_RENEWED}"


def open_row(entry: Entry) -> dict[str, Any]:
    """An open request for a listing: what may be resumed, or looked for at RunComfy."""
    return {
        "key": entry.key,
        "request_id": entry.request_id,
        "state": entry.state,
        "model": entry.model,
        "started": round(entry.started),
    }


def history_row(entry: Entry, prompt: str) -> dict[str, Any]:
    """A request for the settings page: what it was, what it cost, what became of it.

    ``cost_usd``: what RunComfy states, its catalogue's price until then; None where it is not known
    that RunComfy took it. ``prompt``: its beginning, where that is known.
    """
    kinds = [model.mode for model in MODELS.values() if model.model_id == entry.model]
    taken = is_request_id(entry.request_id) and entry.state not in (SUBMITTING, UNKNOWN)
    what = " · ".join(filter(None, [*kinds, entry.title]))
    return open_row(entry) | {
        "what": what, "prompt": prompt, "cost_usd": entry.usd if taken else None
    }  # fmt: skip

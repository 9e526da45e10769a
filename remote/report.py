"""What a run tells: a line while it goes on, a summary, and the ``info`` output."""

import json
from collections.abc import Sequence
from typing import Any

from .api.answers import Phase
from .job import Job
from .journal import Entry


def progress_text(jobs: Sequence[Job], elapsed: float, price: str) -> str:
    """What the jobs are doing, in one line; only what RunComfy said, no invented percent."""
    count = {phase: sum(job.phase is phase for job in jobs) for phase in Phase}
    places = [j.position for j in jobs if j.phase is Phase.QUEUED and j.position is not None]
    parts = []
    if len(jobs) > 1:
        parts.append(f"{count[Phase.SUCCEEDED]} of {len(jobs)} done")
    if count[Phase.RUNNING]:
        parts.append(f"{count[Phase.RUNNING]} running" if len(jobs) > 1 else "Running")
    if count[Phase.QUEUED]:
        queued = f"{count[Phase.QUEUED]} queued" if len(jobs) > 1 else "In queue"
        parts.append(queued + (f" (position {min(places)})" if places else ""))
    if count[Phase.FAILED]:
        parts.append(f"{count[Phase.FAILED]} failed")
    parts.append(f"{elapsed:.0f} s")
    return " · ".join([*parts, price] if price else parts)


def cost_of(jobs: Sequence[Job]) -> float | None:
    """US dollars that RunComfy states for the finished jobs; None where it states none."""
    costs = [job.result.cost for job in jobs if job.result is not None]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 6) if known else None


def summary(jobs: Sequence[Job], elapsed: float, notices: Sequence[str]) -> str:
    """What the run came to, in a line; notices and what went wrong with some in the next ones."""
    done, cost = sum(job.result is not None for job in jobs), cost_of(jobs)
    line = f"{done} of {len(jobs)} delivered · {elapsed:.0f} s"
    if cost is not None:
        line += f" · cost ${cost:g}"
    errors = dict.fromkeys(str(job.error) for job in jobs if job.error is not None)
    return "\n".join([line, *notices, *errors])


def info_text(
    jobs: Sequence[Job],
    open_requests: Sequence[Entry],
    price: str,
    notices: Sequence[str],
    seconds: float,
) -> str:
    """The ``info`` output: JSON without prompt, pictures, addresses or account."""
    rows = []
    for job in jobs:
        result = job.result
        rows.append(
            {
                "request_id": job.request_id,
                "seed": job.payload.get("seed"),
                "status": "succeeded" if result else "failed",
                "cost_usd": result.cost if result else None,
                "created_at": result.created_at if result else None,
                "finished_at": result.finished_at if result else None,
                "seconds": job.seconds,
                "pictures": len(job.pictures),
                "error": str(job.error) if job.error else None,
            }
        )
    info = {
        "model": jobs[0].model_id,
        "image_size": jobs[0].payload.get("image_size"),
        "notices": notices,
        "seconds": round(seconds, 3),
        "cost_usd": cost_of(jobs),
        "price": price or None,
        "requests": rows,
        "open_requests": [open_row(entry) for entry in open_requests],
    }
    return json.dumps(info, indent=2, ensure_ascii=False)


def open_row(entry: Entry) -> dict[str, Any]:
    """An open request for a listing: what may be resumed, or looked for at RunComfy."""
    return {
        "key": entry.key,
        "request_id": entry.request_id,
        "state": entry.state,
        "model": entry.model,
        "started": round(entry.started),
    }

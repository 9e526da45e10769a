"""Stop: a job that has not ended is cancelled once while it is queued, else left to run there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .api.answers import Phase, phase_of
from .context import start
from .errors import RemoteError, Stopped
from .journal import DELIVERED, LEFT

if TYPE_CHECKING:
    from .job import Job

logger = logging.getLogger(__name__)

_RESUME = (
    "it will finish and bill. To fetch its result without paying again, put this id into "
    "resume_request_id."
)
_RUNNING = (
    f"Stopped waiting. The job already runs at RunComfy, which cannot be cancelled: {_RESUME}"
)
_NOT_OURS = (
    "Stopped waiting. The request was submitted before, so it was not cancelled; run it again to "
    "fetch its result without paying again."
)
_UNCONFIRMED = (
    "Stopped. The job was asked to cancel, but RunComfy has not confirmed it: if it runs, "
    f"{_RESUME}"
)


async def fate(job: Job, sending: asyncio.Future[str]) -> str:
    """What became of a submission that Stop met on its way; waits a bounded moment for it."""
    done, _ = await asyncio.wait({sending}, timeout=job.context.pace.settle_s)
    if not done:
        return (
            "Stopped while the job was being sent; its answer is still awaited in the background. "
            "If it is accepted it is cancelled there; until then the same request is not sent "
            "again."
        )
    try:
        told = sending.result()
    except Stopped as stopped:
        return str(stopped)
    except RemoteError as error:
        return f"Stopped. {error}"
    # Accepted in the moment before the thread could see Stop: the cancel is ours to send.
    return told or await leave(job)


async def leave(job: Job) -> str:
    """Let go of a job within the pace's ``settle_s``; what became of it, and of the money.

    The one cancel call goes on in its thread if it takes longer, and writes its outcome.
    """
    if job.running:
        await job.settle(LEFT)
        return f"{_RUNNING}\n{job.request_id}"
    cancelling = start(lambda: cancel(job))
    await asyncio.wait({cancelling}, timeout=job.context.pace.settle_s)
    return cancelling.result() if cancelling.done() else f"{_UNCONFIRMED}\n{job.request_id}"


def cancel(job: Job) -> str:
    """Ask once, blocking, for a queued job's end; what came of it."""
    job.write(LEFT)  # first: a crash before the answer leaves it open
    if job.is_anothers or job.before == DELIVERED:
        return f"{_NOT_OURS}\n{job.request_id}"
    told = _UNCONFIRMED
    try:
        outcome = job.context.api.cancel(job.request_id)
        if phase_of(outcome) is Phase.CANCELLED:
            job.write("cancelled", usd=None)
            told = "Stopped. The job was still queued and is cancelled."
        elif outcome == "not_cancellable":
            told = _RUNNING
    except Exception as error:  # noqa: BLE001 (whatever it is, the job is not lost)
        logger.info("RunComfy: cancelling %s was not confirmed (%s)", job.request_id, error)
    return f"{told}\n{job.request_id}"

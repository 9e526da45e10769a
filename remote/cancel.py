"""Stop: a job that has not ended is cancelled once while it is queued, else left to run there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .api.answers import Phase, phase_of
from .context import UNSENT, start
from .errors import RemoteError, Stopped
from .journal import DELIVERED, LEFT

if TYPE_CHECKING:
    from .job import Job

logger = logging.getLogger(__name__)

_RESUME = (
    "will finish and bill. To fetch it without paying again, press Fetch beside its id in "
    "Settings, FLUX.2 LoRA Edit, RunComfy, or put the id into resume_request_id."
)
_RUNNING = f"Stopped waiting. What already runs at RunComfy cannot be cancelled: it {_RESUME}"
_NOT_OURS = (
    "Stopped waiting. What was submitted before was not cancelled; run the same again to fetch it "
    "without paying again."
)
_UNCONFIRMED = (
    "Stopped. RunComfy was asked to cancel and has not confirmed it: what runs all the same "
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


def fates(jobs: Sequence[Job]) -> str:
    """What became of stopped jobs: the same words once, with the ids of all whose fate they are."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        found.setdefault(str(job.error).removesuffix(job.request_id), []).append(job.request_id)
    unsent = len(found.pop(UNSENT, ()))
    told = [words + "\n".join(ids) for words, ids in found.items()]
    if unsent:
        told.append(f"Not submitted: {unsent}." if told else UNSENT)
    return "\n".join(told)


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
            told = "Stopped. What was still queued is cancelled."
        elif outcome == "not_cancellable":
            told = _RUNNING
    except Exception as error:  # noqa: BLE001 (whatever it is, the job is not lost)
        logger.info("RunComfy: cancelling %s was not confirmed (%s)", job.request_id, error)
    return f"{told}\n{job.request_id}"

"""The end of caring for a job that has not ended: cancelled once while it is queued, else left."""

import logging
from typing import NamedTuple

from . import journal as record
from .desk import Desk
from .errors import RemoteError
from .journal import Entry
from .states import Phase, phase_of

logger = logging.getLogger(__name__)


class Left(NamedTuple):
    """A job after Stop. ``outcome``: cancelled, running, unconfirmed, or unsent."""

    entry: Entry
    outcome: str

    @property
    def told(self) -> str:
        """One sentence for the user: what became of the job, and of the money."""
        request_id = self.entry.request_id
        if self.outcome == "unsent":
            return "Stopped before anything was submitted."
        if self.outcome == "cancelled":
            return f"Stopped. The job was still queued and is cancelled.\n{request_id}"
        if self.outcome == "running":
            return (
                "Stopped waiting. The job already runs at RunComfy, which cannot be cancelled: it "
                "will finish and bill. To fetch its result without paying again, put this id into "
                f"resume_request_id.\n{request_id}"
            )
        return (
            "Stopped. The job was asked to cancel, but RunComfy has not confirmed it: if it runs, "
            "it will finish and bill. To fetch its result without paying again, put this id into "
            f"resume_request_id.\n{request_id}"
        )


async def leave(desk: Desk, entry: Entry, phase: Phase) -> Left:
    """Let go of a job last seen in ``phase``; waits no longer than the pace's ``settle_s``.

    The one cancel call goes on in its thread if it takes longer, and writes its outcome.
    """
    if phase is Phase.RUNNING:
        await desk.settle(lambda: desk.mark(entry, record.LEFT))
        return Left(entry, "running")
    return await desk.settle(lambda: cancel(desk, entry)) or Left(entry, "unconfirmed")


def cancel(desk: Desk, entry: Entry) -> Left:
    """Ask once, blocking, for a queued job's end, and write what came of it."""
    desk.mark(entry, record.LEFT)  # first: a crash before the answer leaves it open
    try:
        outcome = desk.api.cancel(entry.request_id)
    except RemoteError as error:
        logger.info("RunComfy: cancelling %s was not confirmed (%s)", entry.request_id, error)
        return Left(entry, "unconfirmed")
    if phase_of(outcome) is Phase.CANCELLED:
        return Left(desk.mark(entry, "cancelled"), "cancelled")
    return Left(entry, "running" if outcome == "not_cancellable" else "unconfirmed")

"""A submitted job, asked about until it has a result.

Whatever ends the wait (Stop, the deadline, a sibling's failure, a final no) is written into the
journal and told with the request id, so that the result can be fetched later without paying again.
"""

import asyncio
import logging

from . import journal as record
from .desk import Desk
from .errors import JobCancelled, JobFailed, RequestRejected, Stopped, TimedOut, Transient
from .journal import Entry
from .leaving import leave
from .states import Phase, Result, phase_of, queue_position, read_result
from .worker import Interrupted, pause

logger = logging.getLogger(__name__)


async def follow(desk: Desk, entry: Entry) -> Result:
    """Ask about a job until it has succeeded; gives its result, with at least one picture.

    Raises JobFailed, JobCancelled, RequestRejected, TimedOut or Stopped, each with the id. A
    cancelled task (a sibling node failed) is settled like Stop and stays cancelled.
    """
    watch = _Watch(desk, entry)
    try:
        return await watch.result()
    except Interrupted:
        left = await leave(desk, entry, watch.phase)
        raise Stopped(left.told, entry.request_id) from None
    except asyncio.CancelledError:
        logger.info("RunComfy: %s", (await leave(desk, entry, watch.phase)).told)
        raise
    except asyncio.TimeoutError:
        await desk.settle(lambda: desk.mark(entry, record.LEFT))
        raise TimedOut(
            "The job took longer than timeout_minutes and goes on at RunComfy, where it will "
            "finish and bill. Nothing is lost: put this id into resume_request_id to fetch the "
            f"result without paying again.\n{entry.request_id}",
            entry.request_id,
        ) from None


class _Watch:
    """The polling of one job. ``phase`` is the last one seen of queued and running."""

    def __init__(self, desk: Desk, entry: Entry) -> None:
        self.desk, self.entry = desk, entry
        self.phase = Phase.QUEUED
        self.began = desk.clock()
        self.failures = self.empty = 0
        self.warned = False

    @property
    def elapsed(self) -> float:
        return self.desk.clock() - self.began

    async def result(self) -> Result:
        desk = self.desk
        while True:
            wait = desk.pace.between_polls(self.elapsed)
            try:
                result = await self._look()
                self.failures = 0
                if result is not None:
                    return await self._conclude(result)
            except Transient as error:
                self.failures += 1
                wait = max(desk.pace.before_retry(self.failures), error.retry_after or 0.0)
            except RequestRejected as error:
                if error.status != 404 or not self._is_new():
                    raise await self._rejected(error) from None
            await pause(
                min(wait * desk.spread(0.85, 1.15), desk.left_s),
                desk.interrupted,
                desk.sleep,
                desk.clock,
            )

    def _is_new(self) -> bool:
        """Whether the job was submitted a moment ago, so that not all servers may know it yet."""
        return self.entry.state == record.ACCEPTED and self.elapsed < self.desk.pace.missing_s

    async def _look(self) -> Result | None:
        """One poll; a result when the job has ended for good, None to ask again."""
        desk, request_id = self.desk, self.entry.request_id
        body = await desk.ask(lambda: desk.api.status(request_id))
        phase = phase_of(body.get("status"))
        desk.report(phase, queue_position(body), self.elapsed)
        if phase in (Phase.QUEUED, Phase.RUNNING):
            self.phase = phase
            return None
        if phase is Phase.UNKNOWN and not self.warned:
            self.warned = True
            logger.warning("RunComfy: %s has a state unknown to this node; asking on", request_id)
        answer = await desk.ask(lambda: desk.api.result(request_id))
        result = read_result(answer, desk.api.token)
        if not result.phase.ended:
            return None  # /status runs ahead of /result, which alone decides
        if result.phase is Phase.SUCCEEDED and not result.images:
            self.empty += 1  # the picture's address may follow a moment after the state
            return result if self.empty >= desk.pace.empty_tries else None
        return result

    async def _conclude(self, result: Result) -> Result:
        """A final result: given on when it has pictures, else told and its entry closed."""
        desk, entry, request_id = self.desk, self.entry, self.entry.request_id
        billed = f" RunComfy states a cost of ${result.cost:g}." if result.cost else ""
        if result.phase is Phase.SUCCEEDED and result.images:
            return result
        if result.phase is Phase.CANCELLED:
            await desk.settle(lambda: desk.mark(entry, "cancelled"))
            text = f"The job was cancelled at RunComfy.{billed}\n{request_id}"
            raise JobCancelled(text, request_id)
        await desk.settle(lambda: desk.mark(entry, "failed"))
        if result.phase is Phase.FAILED:
            said = f'It says: "{result.message}".' if result.message else "It gives no reason."
            text = f"The job failed at RunComfy. {said}"
        else:
            held = "a video and no picture" if result.videos else "no picture"
            text = f"The job succeeded at RunComfy, but its result holds {held}."
        raise JobFailed(f"{text}{billed}\n{request_id}", request_id)

    async def _rejected(self, error: RequestRejected) -> RequestRejected:
        desk, entry = self.desk, self.entry
        gone = error.status in (404, 410)
        await desk.settle(lambda: desk.mark(entry, "gone" if gone else record.LEFT))
        if gone:
            advice = "Results expire; look at your generations on RunComfy."
        else:
            advice = "The job is not lost: put this id into resume_request_id afterwards."
        text = f"{error} {advice}\n{entry.request_id}"
        return RequestRejected(text, error.status, entry.request_id)

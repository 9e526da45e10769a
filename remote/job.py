"""The life of one paid request: intend, submit, follow, fetch, deliver.

The intent is in the journal before the POST, which is sent once, and the id as soon as it is
known. Whatever ends the wait (Stop, the deadline, a sibling's failure, a final no) is written too
and told with the id, so that the result can be fetched later without paying again. An entry is
changed, and closed, by ``Job.write`` alone.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from . import errors
from .api.answers import Phase, Result, phase_of, queue_position, read_result
from .api.client import MAY_HAVE_RUN
from .cancel import cancel, fate, leave
from .context import UNSENT, Interrupted, JobContext, finish, start
from .journal import ACCEPTED, LEFT, UNKNOWN, Entry
from .pictures.media import MAX_BYTES, Picture, UnreadablePicture, fetch_pictures
from .plan import may_take_addresses_only

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One request and what became of it; one with an ``entry`` is only followed, never submitted.

    ``phase`` and ``position`` (in the queue) are of the last answered poll; ``error`` says why
    there are no pictures, ``seconds`` how long it all took.
    """

    context: JobContext
    model_id: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    entry: Entry | None = None
    phase: Phase = Phase.UNKNOWN
    position: int | None = None
    result: Result | None = None
    pictures: list[Picture] = field(default_factory=list)
    error: errors.RemoteError | None = None
    seconds: float | None = None
    running: bool = False  # by the last poll that told either of queued and running
    _warned: bool = False
    _empty: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def request_id(self) -> str:
        """RunComfy's id of it, empty until known."""
        return self.entry.request_id if self.entry else ""

    def write(self, state: str, request_id: str = "") -> None:
        """The entry's new state. Money is committed: a full disk must not lose the id in hand."""
        entry = self.entry
        if entry is None:
            return
        try:
            self.entry = self.context.journal.mark(entry, state, request_id)
        except errors.JournalError as error:
            known = request_id or entry.request_id
            logger.error("RunComfy: request %s is %s, but: %s", known or "(no id)", state, error)
            self.entry = replace(entry, state=state, request_id=known)

    async def settle(self, state: str) -> None:
        """``write`` off the loop, awaited for a bounded moment only."""
        writing = start(lambda: self.write(state))
        await asyncio.wait({writing}, timeout=self.context.pace.settle_s)

    # Intend and submit.

    async def submit(self) -> None:
        """Submit the one paid request; its id is in ``entry`` afterwards.

        Raises Refused, OutcomeUnknown, JournalError, TimedOut or Stopped. The thread that sends
        also writes the journal, so an answer is recorded even when nobody waits for it any more;
        a job that is accepted after Stop is cancelled there, once.
        """
        context = self.context
        context.should_stop()
        if context.left_s <= 0:
            raise errors.TimedOut("timeout_minutes was over before this request was submitted.")
        sending = start(self._send)
        try:
            limit = min(context.pace.submit_s, context.left_s)
            told = await finish(sending, context.interrupted, limit)
        except Interrupted:
            self._stopped.set()
            raise errors.Stopped(await fate(self, sending)) from None
        except asyncio.CancelledError:
            self._stopped.set()
            logger.info("RunComfy: %s", await fate(self, sending))
            raise
        except asyncio.TimeoutError:
            self._given_up.set()
            await self.settle(UNKNOWN)
            raise errors.OutcomeUnknown(
                f"The submission got no answer in time. {MAY_HAVE_RUN} If the answer still comes, "
                "its id stands among the open requests."
            ) from None
        if told:
            raise errors.Stopped(told, self.request_id)
        self.phase = Phase.QUEUED

    def _send(self) -> str:
        """The POST, its intent before and its outcome after; what Stop made of it, else empty."""
        context = self.context
        self.entry = context.journal.intend(self.model_id, self.payload)
        if self._stopped.is_set():
            self.write("dismissed")
            return UNSENT
        try:
            request_id = context.api.submit(self.model_id, self.payload)
        except errors.Refused as error:
            self.write("refused")
            if error.status not in (400, 422):
                raise
            hint = may_take_addresses_only(self.payload)
            raise errors.Refused(f"{error}{hint}", status=error.status) from None
        except BaseException:
            self.write(UNKNOWN)
            raise
        self.write(LEFT if self._given_up.is_set() else ACCEPTED, request_id)
        logger.info("RunComfy: submitted %s as %s", self.model_id, request_id)
        return cancel(self) if self._stopped.is_set() else ""

    # Follow.

    async def follow(self) -> Result:
        """Ask about the job until it has succeeded; gives its result, with a picture at least.

        Raises JobFailed, JobCancelled, RequestRejected, TimedOut or Stopped, each with the id. A
        cancelled task (a sibling node failed) is settled like Stop and stays cancelled.
        """
        try:
            return await self._poll()
        except Interrupted:
            raise errors.Stopped(await leave(self), self.request_id) from None
        except asyncio.CancelledError:
            logger.info("RunComfy: %s", await leave(self))
            raise
        except asyncio.TimeoutError:
            await self.settle(LEFT)
            raise errors.TimedOut.of(
                self.request_id,
                "The job took longer than timeout_minutes and goes on at RunComfy, where it will "
                "finish and bill. Nothing is lost: put this id into resume_request_id to fetch the "
                "result without paying again.",
            ) from None

    async def _poll(self) -> Result:
        context, pace = self.context, self.context.pace
        began, failures = time.monotonic(), 0
        while True:
            wait = pace.between_polls(time.monotonic() - began)
            try:
                result = await self._look()
                failures = 0
                if result is not None and result.phase is Phase.SUCCEEDED and result.images:
                    return result
                if result is not None:
                    raise await self._failed(result)
            except errors.Transient as error:
                failures += 1
                wait = pace.before_retry(failures, error.retry_after)
            except errors.RequestRejected as error:
                # Submitted a moment ago: not all of the API's servers may know it yet.
                is_new = self.entry is not None and self.entry.state == ACCEPTED
                is_new = is_new and time.monotonic() - began < pace.missing_s
                if error.status != 404 or not is_new:
                    raise await self._rejected(error) from None
            await context.pause(wait, context.deadline)

    async def _look(self) -> Result | None:
        """One poll; a result when the job has ended for good, None to ask again."""
        context, api, request_id = self.context, self.context.api, self.request_id
        body = await context.ask(lambda: api.status(request_id))
        self.phase, self.position = phase_of(body.get("status")), queue_position(body)
        context.report()
        if self.phase in (Phase.QUEUED, Phase.RUNNING):
            self.running = self.phase is Phase.RUNNING
            return None
        if self.phase is Phase.UNKNOWN and not self._warned:
            self._warned = True
            logger.warning("RunComfy: %s has a state unknown to this node; asking on", request_id)
        result = read_result(await context.ask(lambda: api.result(request_id)), api.token)
        if result.phase in (Phase.QUEUED, Phase.RUNNING, Phase.UNKNOWN):
            return None  # /status runs ahead of /result, which alone decides
        if result.phase is Phase.SUCCEEDED and not result.images:
            self._empty += 1  # the picture's address may follow a moment after the state
            return result if self._empty >= context.pace.empty_tries else None
        return result

    async def _failed(self, result: Result) -> errors.RemoteError:
        """A final result without pictures: its entry closed, told with what it costs."""
        billed = f" RunComfy states a cost of ${result.cost:g}." if result.cost else ""
        if result.phase is Phase.CANCELLED:
            await self.settle("cancelled")
            return errors.JobCancelled.of(
                self.request_id, f"The job was cancelled at RunComfy.{billed}"
            )
        await self.settle("failed")
        if result.phase is Phase.FAILED:
            said = f'It says: "{result.message}".' if result.message else "It gives no reason."
            text = f"The job failed at RunComfy. {said}"
        else:
            held = "a video and no picture" if result.videos else "no picture"
            text = f"The job succeeded at RunComfy, but its result holds {held}."
        hint = may_take_addresses_only(self.payload)
        return errors.JobFailed.of(self.request_id, text + billed + hint)

    async def _rejected(self, error: errors.RequestRejected) -> errors.RemoteError:
        """A final no to a question about the job, told with what it means for the job."""
        if error.status in (404, 410):
            state, advice = "gone", "Results expire; look at your generations on RunComfy."
        else:
            state = LEFT
            advice = "The job is not lost: put this id into resume_request_id afterwards."
        await self.settle(state)
        return errors.RequestRejected.of(self.request_id, f"{error} {advice}")

    # Fetch. The run closes the entry once it has handed the pictures on.

    async def fetch(self, result: Result, max_bytes: int = MAX_BYTES) -> list[Picture]:
        """The pictures of a result, in order; ``result.notice`` says what was left out.

        Raises MediaError or Stopped; the entry then stays open, to be resumed for nothing.
        """
        context = self.context
        end = time.monotonic() + max(context.left_s, context.pace.download_s)
        try:
            found, notice = await fetch_pictures(context, result.images, end, max_bytes)
        except (UnreadablePicture, Interrupted, asyncio.CancelledError) as error:
            await self.settle(LEFT)
            if isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, Interrupted):
                raise errors.Stopped.of(
                    self.request_id,
                    "Stopped while downloading. The picture is made and billed: put this id into "
                    "resume_request_id to fetch it without paying again.",
                ) from None
            raise errors.MediaError.of(
                self.request_id,
                f"The job succeeded, but its picture was not taken: {error}. The job is billed and "
                "its result stays at RunComfy: open it there, or put this id into "
                "resume_request_id to try again without paying.",
            ) from None
        self.result, self.pictures = result._replace(notice=notice), found
        return found

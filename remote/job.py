"""The life of one paid request: claim, submit, follow, fetch, hand over.

The same request that was submitted before is followed instead. Else the intent is in the journal
before the POST, which is sent once, and the id as soon as it is known. Whatever ends the wait
(Stop, the deadline, a sibling's failure, a final no) is written too and told with the id, so that
the result can be fetched later without paying again. An entry is changed by ``Job.write`` alone.
"""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from . import errors
from .api.answers import Phase, Result, phase_of, queue_position, read_result
from .api.client import MAY_HAVE_RUN, is_request_id
from .cancel import cancel, fate, leave
from .context import TICK, UNSENT, Interrupted, JobContext, finish, start
from .journal import ACCEPTED, DELIVERED, LEFT, SUBMITTING, UNKNOWN, Entry
from .pictures.media import MAX_BYTES, Picture, UnreadablePicture, fetch_pictures
from .plan import may_take_addresses_only

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One request and what became of it; one with an ``entry`` is only followed, never submitted.

    ``usd``: its cost as RunComfy states it, the catalogue's price before that. ``before``: the
    state in which its entry was found, empty for a request that this job submitted. ``phase`` and
    ``position`` (in the queue) are of the last answered poll; ``error`` says why there are no
    pictures, ``notice`` what else to know, ``seconds`` how long it all took.
    """

    context: JobContext
    model_id: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    entry: Entry | None = None
    usd: float | None = None
    before: str = ""
    phase: Phase = Phase.UNKNOWN
    position: int | None = None
    result: Result | None = None
    pictures: list[Picture] = field(default_factory=list)
    error: errors.RemoteError | None = None
    notice: str = ""
    seconds: float | None = None
    running: bool = False  # by the last poll that told either of queued and running
    _warned: bool = False
    _empty: int = 0
    is_whole: bool = True  # no picture of the result is left to be fetched another time
    is_anothers: bool = False  # another living process works on it, and writes its entry
    _denied: tuple[float, int] | None = None  # since when (monotonic), and how often in a row
    _besides: set[str] = field(default_factory=set)  # entries whose results cannot be had
    _stopped: bool = False
    _let_go: threading.Event = field(default_factory=threading.Event)  # nothing may leave any more

    @property
    def request_id(self) -> str:
        """RunComfy's id of it, empty until known."""
        return self.entry.request_id if self.entry else ""

    def write(self, state: str, **changes: Any) -> None:
        """The entry's new state. Money is committed: a full disk must not lose the id in hand."""
        entry = self.entry
        if entry is None or self.is_anothers:
            return
        if state == LEFT and self.before == DELIVERED:
            state = DELIVERED  # nothing is open that was not so before
        try:
            self.entry = self.context.journal.mark(entry, state, **changes)
        except Exception as error:  # noqa: BLE001 (whatever it is)
            self.entry = replace(entry, state=state, **changes)
            logger.error("RunComfy: request %s is %s, but: %s", self.request_id, state, error)

    async def settle(self, state: str, **changes: Any) -> None:
        """``write`` off the loop, awaited for a bounded moment only."""
        writing = start(lambda: self.write(state, **changes))
        await asyncio.wait({writing}, timeout=self.context.pace.settle_s)

    # Claim and submit.

    async def submit(self) -> None:
        """Submit the one paid request, or find that it was; its id is in ``entry`` afterwards.

        Raises Refused, OutcomeUnknown, Unresolved, JournalError, TimedOut or Stopped. The thread
        that sends also writes the journal, so an answer is recorded even when nobody waits for it
        any more; a job that is accepted after Stop is cancelled there, once.
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
            self._stopped = True
            self._let_go.set()
            raise errors.Stopped(await fate(self, sending)) from None
        except asyncio.CancelledError:
            self._stopped = True
            self._let_go.set()
            logger.info("RunComfy: %s", await fate(self, sending))
            raise
        except asyncio.TimeoutError:
            self._let_go.set()
            if self.entry is None:
                raise errors.TimedOut(
                    "The record of requests was busy, or another ComfyUI was submitting the same "
                    "request, until the time was over. Nothing was submitted."
                ) from None
            await self.settle(UNKNOWN)
            raise errors.OutcomeUnknown(
                f"The submission got no answer in time. {MAY_HAVE_RUN} If the answer still comes, "
                "its id stands among the open requests."
            ) from None
        if told:
            raise errors.Stopped(told, self.request_id)

    def _send(self) -> str:
        """The POST, its intent before and its outcome after; what Stop made of it, else empty."""
        context = self.context
        if not self._claim():
            return cancel(self) if self._stopped else ""
        if self._let_go.is_set():
            self.write("dismissed")
            return UNSENT
        try:
            request_id = context.api.submit(self.model_id, self.payload, self._let_go.is_set)
        except errors.Refused as error:
            self.write("refused")
            if error.status not in (400, 422):
                raise
            hint = may_take_addresses_only(self.payload)
            raise errors.Refused(f"{error}{hint}", status=error.status) from None
        except BaseException as error:
            self.write(UNKNOWN, request_id=getattr(error, "request_id", ""))
            raise
        self.phase = Phase.QUEUED
        self.write(LEFT if self._let_go.is_set() else ACCEPTED, request_id=request_id)
        logger.info("RunComfy: submitted %s as %s", self.model_id, request_id)
        return cancel(self) if self._stopped else ""

    def _claim(self) -> bool:
        """Whether this job is to submit the request, ``entry`` being its intent by now.

        Else ``entry`` is that of the same request, submitted before. Raises Unresolved.
        """
        journal = self.context.journal
        while True:
            entry, is_new = journal.claim(self.model_id, self.payload, self.usd, self._besides)
            if is_new:
                self.entry = entry
                return True
            if is_request_id(entry.request_id):
                break
            if entry.state != SUBMITTING or not journal.is_worked_on(entry):
                when = datetime.fromtimestamp(entry.started).strftime("%Y-%m-%d %H:%M")
                raise errors.Unresolved(
                    f"This very request was submitted on {when} and its answer was lost, so it may "
                    "have been accepted and billed. It is not submitted again. Look at your "
                    "generations on RunComfy. If it is there, write its id beside the open request "
                    "in Settings, FLUX.2 LoRA Edit, RunComfy and run again, or only fetch it by "
                    "resume_request_id. If not, dismiss it there, or change the seed, which makes "
                    "it another request."
                )
            if self._let_go.is_set():  # it is being submitted at this moment: its id will come
                raise errors.Stopped(UNSENT)
            time.sleep(TICK)
        self.adopt(entry)
        return False

    def adopt(self, entry: Entry) -> None:
        """Follow the request of an entry that was found; while another process does, only read."""
        journal = self.context.journal
        self.before, self.entry = entry.state, entry
        busy = entry.is_underway and journal.is_worked_on(entry)
        self.is_anothers = busy and (entry.worker or entry.session) != journal.session
        if not busy:
            self.write(ACCEPTED, worker=journal.session)

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
                failures, self._denied = 0, None
                if result is not None and result.phase is Phase.SUCCEEDED and result.images:
                    return result
                if result is not None:
                    raise await self._failed(result)
            except errors.Transient as error:
                failures += 1
                if self._is_denied(error):
                    raise await self._rejected(error) from None
                wait = pace.before_retry(failures, error.retry_after)
            except errors.RequestRejected as error:
                # Submitted a moment ago, here or by another job with the same request: not all of
                # the API's servers may know it yet.
                is_new = bool(self.payload) and self.before != DELIVERED
                if error.status != 404 or not is_new or time.monotonic() - began >= pace.missing_s:
                    raise await self._rejected(error) from None
            await context.pause(wait, context.deadline)

    def _is_denied(self, error: errors.Transient) -> bool:
        """Whether a gateway's own 4xx, which says nothing of the job, has come for too long."""
        if not 400 <= error.status < 500 or error.status in (408, 425, 429):
            self._denied = None
            return False
        since, count = self._denied or (time.monotonic(), 0)
        self._denied = since, count + 1
        return count >= 2 and time.monotonic() - since >= self.context.pace.denied_s

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
            await self.settle("cancelled", usd=result.cost)
            return errors.JobCancelled.of(
                self.request_id, f"The job was cancelled at RunComfy.{billed}"
            )
        await self.settle("failed", usd=result.cost)
        if result.phase is Phase.FAILED:
            said = f'It says: "{result.message}".' if result.message else "It gives no reason."
            text = f"The job failed at RunComfy. {said}"
        else:
            held = "a video and no picture" if result.videos else "no picture"
            text = f"The job succeeded at RunComfy, but its result holds {held}."
        hint = may_take_addresses_only(self.payload)
        return errors.JobFailed.of(self.request_id, text + billed + hint)

    async def _rejected(self, error: errors.RemoteError) -> errors.RemoteError:
        """A final no to a question about the job, told with what it means for the job."""
        is_word = isinstance(error, errors.RequestRejected)  # the API's own, not a gateway's
        mine = self.entry is not None and self.entry.account == self.context.journal.account
        state, advice = LEFT, "The job is not lost: put this id into resume_request_id afterwards."
        if is_word and not mine:
            advice = "It was made with another token: set that one, then resume it."
        elif is_word and self.before == UNKNOWN:
            state = UNKNOWN
            advice = (
                "Its id is of an unclear answer. Look at your generations on RunComfy. To submit "
                "it anew, dismiss the open request in Settings, FLUX.2 LoRA Edit, RunComfy, or "
                "change the seed."
            )
        elif is_word and error.status in (404, 410):
            state, advice = "gone", "Results expire; look at your generations on RunComfy."
        await self.settle(state)
        kind: type[errors.RemoteError] = errors.RequestRejected
        if self.before and self.payload and is_word:  # the same request, found in the record
            gone = state == "gone" or not mine
            kind = errors.Gone if gone else errors.Unresolved if state == UNKNOWN else kind
        return kind.of(self.request_id, f"{error} {advice}")

    def forget(self) -> None:
        """Let go of an entry whose result cannot be had: ``submit`` then makes a new request."""
        if self.entry is not None:
            self._besides.add(self.entry.key)
        self.entry, self.before, self.is_anothers = None, "", False

    # Fetch. The run closes the entry once it has handed the pictures on.

    async def fetch(self, result: Result, max_bytes: int = MAX_BYTES) -> list[Picture]:
        """The pictures of a result that could be taken, in order; ``notice`` says what was not.

        Raises MediaError or Stopped; the entry then stays open, to be resumed for nothing.
        """
        context = self.context
        end = time.monotonic() + max(context.left_s, context.pace.download_s)
        try:
            found, notice, lost = await fetch_pictures(context, result.images, end, max_bytes)
        except (UnreadablePicture, Interrupted, asyncio.CancelledError) as error:
            gone = self.before == DELIVERED and getattr(error, "gone", False)
            await self.settle("gone" if gone else LEFT)
            if isinstance(error, asyncio.CancelledError):
                raise
            if gone:
                raise errors.Gone.of(self.request_id, f"Its picture is gone: {error}.") from None
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
        self.result, self.pictures, self.is_whole = result, found, not lost
        for reason in lost:
            notice += (
                f" One of {len(result.images)} pictures of a result was not taken: {reason}. The "
                "request stays open: put its id into resume_request_id to try again without "
                f"paying.\n{self.request_id}"
            )
        self.notice = f"{self.notice} {notice}".strip()
        known = self.entry.usd if self.entry else self.usd  # of one found again that day's price
        self.usd = known if result.cost is None else result.cost
        return found

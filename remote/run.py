"""The front door: one run, from the user's settings (or known ids) to pictures.

One request gives one picture, so a batch is N requests with seeds in a row, sent one after the
other and waited for together. A refusal or an unclear answer stops further submissions (the next
would fare the same and may cost); what was already accepted goes on, and its pictures are kept.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial

from .account import Account
from .api.answers import Phase
from .api.client import is_request_id
from .api.models import read_price
from .context import JobContext, finish, start
from .errors import InvalidInput, JournalError, OutcomeUnknown, Refused, RemoteError, Stopped
from .job import Job
from .journal import LEFT, Entry, Journal
from .pictures.media import Picture
from .plan import MAX_BATCH, Settings, make_plan
from .report import info_of, progress_text, summary

logger = logging.getLogger(__name__)

OPEN = "open"
"""The word that stands for every open request in ``resume_request_id``."""
MAX_RESUMED = 16
MAX_MINUTES = 240
PARALLEL = 4
"""Requests under way at a time; RunComfy publishes no limit, and its queue gains by no more."""
NOT_TAKEN = (Refused, OutcomeUnknown, JournalError)


class Run:
    """One run of the node.

    ``open_account`` reads the account from the disk, ``interrupted`` tells whether the user has
    pressed Stop, ``show`` puts a line of text on the node's face.
    """

    def __init__(
        self,
        open_account: Callable[[], Account],
        interrupted: Callable[[], bool],
        show: Callable[[str], None],
        timeout_minutes: float = 30,
    ) -> None:
        _check_range("timeout_minutes", timeout_minutes, MAX_MINUTES)
        self.open_account, self.interrupted, self.show = open_account, interrupted, show
        self.began = time.monotonic()
        self.deadline = self.began + 60.0 * timeout_minutes
        self.jobs: list[Job] = []
        self.open_requests: list[Entry] = []
        self.notices: list[str] = []
        self.price = ""
        self._said = ""

    async def generate(self, settings: Settings) -> list[Picture]:
        """Submit one request a seed; the pictures of all that gave some.

        Raises a RemoteError when there is no picture at all.
        """
        _check_range("batch_count", settings.batch_count, MAX_BATCH)
        context = await self._open()
        planning = start(partial(make_plan, settings, context.policy, context.should_stop))
        plan = await finish(planning, self.interrupted)
        self.notices = plan.notices
        model_id = plan.model.model_id

        def ask_price() -> None:  # nothing waits for it
            self.price = read_price(context.api, model_id)

        start(ask_price)
        return await self._run([Job(context, model_id, payload) for payload in plan.payloads])

    async def resume(self, text: str) -> list[Picture]:
        """Fetch the results of known ids, or of all open ones; submits and prices nothing."""
        context = await self._open()
        entries = await finish(start(partial(resumed, context.journal, text)), self.interrupted)
        return await self._run([Job(context, entry.model, entry=entry) for entry in entries])

    async def deliver(self) -> tuple[str, str, str]:
        """Close the journal's entries of all pictures, handed on; (ids, info, summary)."""
        done = [job for job in self.jobs if job.pictures]
        await asyncio.gather(*(job.settle("delivered") for job in done))
        seconds = time.monotonic() - self.began
        info = info_of(self.jobs, self.open_requests, self.price, self.notices, seconds)
        told = summary(info)
        self.show(told)
        logger.info("RunComfy: %s", told)
        text = json.dumps(info, indent=2, ensure_ascii=False)
        return "\n".join(job.request_id for job in done), text, told

    async def _open(self) -> JobContext:
        """The surroundings of the account's jobs; what earlier runs left open is said."""
        account = await finish(start(self.open_account), self.interrupted)
        self.open_requests = await finish(start(account.journal.open_requests), self.interrupted)
        if self.open_requests:
            ids = ", ".join(e.request_id or f"({e.state}, no id)" for e in self.open_requests[-5:])
            text = (
                f"{len(self.open_requests)} earlier RunComfy requests are open: {ids}. Write "
                f"'{OPEN}' into resume_request_id to fetch them without paying again."
            )
            logger.warning("RunComfy: %s", text)
            self.show(text)
        return JobContext(*account, self.interrupted, self.deadline, self._progress)

    async def _run(self, jobs: list[Job]) -> list[Picture]:
        self.jobs = jobs
        try:
            await run_all(jobs)
        except BaseException:
            # Fetched but not handed on: they stay open, to be fetched again for nothing.
            await asyncio.gather(*(job.settle(LEFT) for job in jobs if job.pictures))
            raise
        pictures = [picture for job in jobs for picture in job.pictures]
        if not pictures:
            errors = [job.error for job in jobs if job.error is not None]
            if len(errors) > 1:
                told = "\n".join(dict.fromkeys(map(str, errors)))
                errors[0].args = (f"None of {len(errors)} requests gave a picture.\n{told}",)
            raise errors[0]
        return pictures

    def _progress(self) -> None:
        text = progress_text(self.jobs, time.monotonic() - self.began, self.price)
        if text != self._said:
            self._said = text
            self.show(text)


async def run_all(jobs: Sequence[Job], parallel: int = PARALLEL) -> None:
    """Bring every job to its pictures or its ``error``; raises Stopped when the user stopped."""
    gate, sending = asyncio.Semaphore(parallel), asyncio.Lock()

    async def one(job: Job) -> None:
        async with gate:
            began = time.monotonic()
            try:
                if job.entry is None:
                    async with sending:
                        untaken = [j.error for j in jobs if isinstance(j.error, NOT_TAKEN)]
                        if untaken:
                            raise Refused(
                                "Not submitted, because the request before it was not taken: "
                                f"{untaken[0]}"
                            )
                        await job.submit()
                job.context.report()
                await job.fetch(await job.follow())
                job.phase = Phase.SUCCEEDED
            except RemoteError as error:  # known before the next one is let in to send
                job.error, job.phase = error, Phase.FAILED
            finally:
                job.seconds = round(time.monotonic() - began, 3)

    ended = await asyncio.gather(*map(one, jobs), return_exceptions=True)
    for error in ended:
        if error is not None:  # not one of ours: a fault of this program
            raise error
    stopped = [str(job.error) for job in jobs if isinstance(job.error, Stopped)]
    if stopped:
        raise Stopped("\n".join(dict.fromkeys(stopped)))


def resumed(journal: Journal, text: str) -> list[Entry]:
    """The entries that ``resume_request_id`` means. Raises InvalidInput or JournalError."""
    if text.strip().lower() == OPEN:
        ids = [entry.request_id for entry in journal.open_requests() if entry.request_id]
        if not ids:
            raise InvalidInput(
                "There is no open request of this account with an id to resume. Empty "
                "resume_request_id to run the prompt."
            )
        ids = ids[-MAX_RESUMED:]
    else:
        ids = list(dict.fromkeys(filter(None, re.split(r"[\s,;]+", text))))
    if not 1 <= len(ids) <= MAX_RESUMED or not all(map(is_request_id, ids)):
        raise InvalidInput(
            f"resume_request_id takes one to {MAX_RESUMED} request ids, or the word '{OPEN}' for "
            "all open requests. Empty it to run the prompt."
        )
    return [journal.adopt(request_id) for request_id in ids]


def _check_range(name: str, value: float, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidInput(f"{name} is {value:g}; it takes 1 to {most}.")

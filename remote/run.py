"""The front door: one run, from the user's settings (or known ids) to pictures.

One request gives one picture, so a batch is N requests with seeds in a row, and a list of settings
is one run of them all: planned and priced before the first is sent, sent one after the other, and
waited for together. A refusal or an unclear answer stops further submissions (the next would fare
the same and may cost); what was already accepted goes on, and its pictures are kept.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial

from .account import Account
from .api.answers import Phase, clean
from .api.client import MAY_HAVE_RUN, is_request_id
from .api.models import Price, read_price
from .cancel import fates
from .context import JobContext, finish, start
from .errors import (
    Gone,
    InvalidInput,
    JournalError,
    OutcomeUnknown,
    Refused,
    RemoteError,
    Stopped,
)
from .job import Job
from .journal import ACCEPTED, DELIVERED, HANDED, LEFT, MAX_OPEN, Entry, Journal
from .pictures.media import Picture
from .plan import Plan, Settings, make_plan
from .report import OPEN, info_of, open_notice, progress_text, summary

logger = logging.getLogger(__name__)

MAX_RESUMED = 16
MAX_MINUTES = 240
PARALLEL = 4
"""Requests under way at a time; RunComfy publishes no limit, and its queue gains by no more."""
PRICE_S = 10.0
"""Seconds that a price is waited for, which is shown before it is paid."""
SETTLE_S = 2.0
"""Seconds that the record is waited for when a run ends badly; it is written all the same."""
NOT_TAKEN = (Refused, OutcomeUnknown, JournalError)


class Run:
    """One run of the node.

    ``open_account`` reads the account from the disk, ``interrupted`` tells whether the user has
    pressed Stop, ``show`` puts a line of text on the node's face and raises nothing.
    """

    def __init__(
        self,
        open_account: Callable[[], Account],
        interrupted: Callable[[], bool],
        show: Callable[[str], object],
        timeout_minutes: float = 30,
    ) -> None:
        if not 1 <= timeout_minutes <= MAX_MINUTES:
            raise InvalidInput(
                f"timeout_minutes is {timeout_minutes:g}; it takes 1 to {MAX_MINUTES}."
            )
        self.open_account, self.interrupted, self.show = open_account, interrupted, show
        self.began = time.monotonic()
        self.deadline = self.began + 60.0 * timeout_minutes
        self.jobs: list[Job] = []
        self.open_requests: list[Entry] = []
        self.notices: list[str] = []
        self.earlier = ""  # what is open of earlier runs, said as long as it is so
        self.price = Price()
        self._said = ""

    async def generate(
        self, items: Sequence[Settings], max_cost: float = 0.0
    ) -> list[list[Picture]]:
        """Submit one request a seed of each item; the pictures of those items that gave some.

        ``max_cost``: US dollars that the whole run may cost, 0 for no limit. Raises a RemoteError
        when there is no picture at all, and before anything is sent when an item is not fit.
        """
        if not max_cost >= 0:  # nor is NaN
            raise InvalidInput(f"max_cost is {max_cost:g}; it takes 0 (no limit) or more.")
        context = await self._open()
        if len(self.open_requests) >= MAX_OPEN:
            raise InvalidInput(
                f"{len(self.open_requests)} RunComfy requests are open, and no more are recorded. "
                f"Fetch them ('{OPEN}' in resume_request_id), or dismiss them in Settings, FLUX.2 "
                "LoRA Edit, RunComfy."
            )
        encoded: dict[object, tuple[str, str]] = {}
        plans = []
        for number, settings in enumerate(items, start=1):
            policy, stop = context.policy, context.should_stop
            planning = start(partial(make_plan, settings, policy, stop, encoded))
            try:
                plans.append(await finish(planning, self.interrupted))
            except InvalidInput as error:
                if len(items) > 1:
                    error.args = (f"Item {number} of {len(items)}: {error} Nothing was submitted.",)
                raise
        self.notices += dict.fromkeys(notice for plan in plans for notice in plan.notices)
        await self._tell_price(context, plans, max_cost)
        per_item = [
            [Job(context, plan.model.model_id, body, usd=self.price.usd) for body in plan.payloads]
            for plan in plans
        ]
        return await self._run(per_item)

    async def resume(self, text: str) -> list[list[Picture]]:
        """Fetch the results of known ids, or of all open ones; submits and prices nothing."""
        context = await self._open()
        entries = await finish(start(partial(resumed, context.journal, text)), self.interrupted)
        self.jobs = [Job(context, entry.model) for entry in entries]
        for job, entry in zip(self.jobs, entries, strict=True):
            await finish(start(partial(job.adopt, entry)), self.interrupted)
        return await self._run([self.jobs])

    async def hand_over(self) -> tuple[str, str, str]:
        """All pictures go to the host now; (ids, info, summary). ``close`` says what it made of it.

        Until then their entries count as open, unless this process lives.
        """
        done = [job for job in self.jobs if job.result]
        await asyncio.gather(*(j.settle(HANDED, usd=j.usd) for j in done))
        taken = {job.request_id for job in done}
        still = [entry for entry in self.open_requests if entry.request_id not in taken]
        session = self.account.session
        session.spent += sum(job.usd or 0.0 for job in done if not job.before)
        if still:
            self.notices.append(open_notice(still, self.account.journal.account))
        seconds = time.monotonic() - self.began
        info = info_of(self.jobs, still, self.price.text, self.notices, seconds, session.spent)
        told = summary(info)
        self.show(told)
        logger.info("RunComfy: %s", told)
        text = json.dumps(info, indent=2, ensure_ascii=False)
        return "\n".join(job.request_id for job in done), text, told

    async def lost(self, error: BaseException) -> BaseException:
        """What to raise for an error that keeps fetched pictures from the host: it has their ids.

        They are open from now on, to be fetched again for nothing.
        """
        closing = start(partial(self.close, held=False))
        await asyncio.wait({closing}, timeout=SETTLE_S)
        ids = [job.request_id for job in self.jobs if job.result]
        if not ids or isinstance(error, Stopped) or not isinstance(error, Exception):
            return error
        logger.error("RunComfy: not handed on", exc_info=error)
        return RemoteError(
            f"{type(error).__name__}: {clean(error)}\nThe pictures are made, paid and not lost: "
            "run the same again, or put their ids into resume_request_id, to fetch them without "
            "paying again.\n" + "\n".join(ids)
        )

    def close(self, held: bool) -> None:
        """Write, blocking, whether the host holds the pictures; else they are open, for nothing.

        No job is followed any more: none may look as if this process did.
        """
        for job in self.jobs:
            if job.entry and job.payload:
                self.account.session.prompts[job.entry.key] = clean(job.payload["prompt"])[:60]
            if job.result or (job.entry and job.entry.state == ACCEPTED):
                job.write(DELIVERED if held and job.result and job.is_whole else LEFT)

    async def _open(self) -> JobContext:
        """The surroundings of the account's jobs; what earlier runs left open is said."""
        self.account = account = await finish(start(self.open_account), self.interrupted)
        journal = account.journal
        self.open_requests = await finish(start(journal.open_requests), self.interrupted)
        if self.open_requests:
            self.earlier = open_notice(self.open_requests, journal.account)
            ids = ", ".join(entry.request_id or entry.state for entry in self.open_requests[-5:])
            logger.warning("RunComfy: %s %s", self.earlier, ids)
            self.show(self.earlier)
        api, policy = account.api, account.policy
        return JobContext(api, journal, policy, self.interrupted, self.deadline, self._progress)

    async def _tell_price(
        self, context: JobContext, plans: Sequence[Plan], max_cost: float
    ) -> None:
        """What the run costs, on the node's face before anything is sent. Raises InvalidInput.

        Requests that turn out to be paid already cost less than this, never more.
        """
        prices = []
        for model_id in dict.fromkeys(plan.model.model_id for plan in plans):
            try:
                asked = start(partial(read_price, context.api, model_id))
                prices.append(await finish(asked, self.interrupted, PRICE_S))
            except asyncio.TimeoutError:
                prices.append(Price())
        known = [price.usd for price in prices if price.usd is not None]
        self.price = max(prices, key=lambda price: price.usd or 0.0)
        count = sum(len(plan.payloads) for plan in plans)
        if len(known) == len(prices):
            total = round(count * max(known), 6)
            if 0 < max_cost < total:
                raise InvalidInput(
                    f"{count} requests at {self.price.text} come to ${total:g}, and max_cost is "
                    f"${max_cost:g}. Nothing was submitted. Raise max_cost, or run fewer."
                )
            many = f"{count} requests × {self.price.text} = " if count > 1 else ""
            told = [f"{many}${total:g} for this run", *self.notices, self.earlier]
            self.show("\n".join(filter(None, told)))
        elif max_cost > 0:
            of = f" (it says {self.price.text})" if self.price.text else ""
            raise InvalidInput(
                f"max_cost is ${max_cost:g}, but RunComfy's catalogue tells no price per picture "
                f"of this model{of}, so nothing was submitted. Run again later, or set max_cost to "
                "0 for no limit."
            )

    async def _run(self, per_item: list[list[Job]]) -> list[list[Picture]]:
        self.jobs = [job for jobs in per_item for job in jobs]
        await run_all(self.jobs)
        self.notices += dict.fromkeys(job.notice for job in self.jobs if job.notice)
        found = [[picture for job in jobs for picture in job.pictures] for jobs in per_item]
        if any(found):
            return list(filter(None, found))
        errors = [job.error for job in self.jobs if job.error is not None]
        if len(errors) > 1:
            told = "\n".join(dict.fromkeys(map(str, errors)))
            errors[0].args = (f"None of {len(errors)} requests gave a picture.\n{told}",)
        raise errors[0]

    def _progress(self) -> None:
        seconds, notices = time.monotonic() - self.began, [*self.notices, self.earlier]
        text = progress_text(self.jobs, seconds, self.price.text, notices)
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
                await _obtain(job, jobs, sending)
                job.phase = Phase.SUCCEEDED
            except RemoteError as error:
                job.error, job.phase = error, Phase.FAILED
            except Exception as error:  # a fault of this program or of the machine
                logger.exception("RunComfy: request %s", job.request_id or "(no id)")
                if job.request_id:
                    await job.settle(LEFT)
                job.error, job.phase = _unexpected(job, error), Phase.FAILED
            finally:
                job.seconds = round(time.monotonic() - began, 3)

    for ended in await asyncio.gather(*map(one, jobs), return_exceptions=True):
        if ended is not None:
            raise ended
    stopped = [job for job in jobs if isinstance(job.error, Stopped)]
    if stopped:
        raise Stopped(fates(stopped))


async def _obtain(job: Job, jobs: Sequence[Job], sending: asyncio.Lock) -> None:
    """The pictures of one job: of its own request, or of the same one submitted before."""
    while not job.pictures:
        async with sending:
            untaken = [j.error for j in jobs if isinstance(j.error, NOT_TAKEN)]
            if untaken and job.entry is None:
                raise Refused(
                    f"Not submitted, because the request before it was not taken: {untaken[0]}"
                )
            try:
                if job.entry is None:
                    await job.submit()
            except NOT_TAKEN as error:  # known before the next one is let in to send
                job.error = error
                raise
        job.context.report()
        try:
            await job.fetch(await job.follow())
        except Gone as gone:
            job.forget()
            job.notice = (
                "The same request was made before, but its result cannot be had any more; a new "
                f"one is submitted and paid. ({gone})"
            )
            logger.warning("RunComfy: %s", job.notice)
            job.context.report()  # told before it is paid


def _unexpected(job: Job, error: Exception) -> RemoteError:
    """A fault that nobody foresaw, told with what it means for the job."""
    text = f"An unexpected fault ended this request here ({type(error).__name__}: {clean(error)})."
    if not job.request_id:
        return RemoteError(text if job.entry is None else f"{text} {MAY_HAVE_RUN}")
    return RemoteError.of(
        job.request_id,
        f"{text} The job is not lost: put this id into resume_request_id, or run the same again, "
        "to fetch its result without paying again.",
    )


def resumed(journal: Journal, text: str) -> list[Entry]:
    """The entries that ``resume_request_id`` means. Raises InvalidInput or JournalError."""
    if text.strip().lower() == OPEN:
        ids = [entry.request_id for entry in journal.open_requests()]
        ids = list(filter(is_request_id, ids))[-MAX_RESUMED:]
        if not ids:
            raise InvalidInput(
                "There is no open request of this account with an id to resume. Empty "
                "resume_request_id to run the prompt."
            )
    else:
        ids = list(dict.fromkeys(filter(None, re.split(r"[\s,;]+", text))))
    if not 1 <= len(ids) <= MAX_RESUMED or not all(map(is_request_id, ids)):
        raise InvalidInput(
            f"resume_request_id takes one to {MAX_RESUMED} request ids, or the word '{OPEN}' for "
            "all open requests. Empty it to run the prompt."
        )
    return [journal.adopt(request_id) for request_id in ids]

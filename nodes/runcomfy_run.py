"""One run of the RunComfy node: plan, price, submit, wait, deliver."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from comfy.model_management import processing_interrupted

from ..remote import journal as record
from ..remote.batch import Request, run_all
from ..remote.client import is_request_id
from ..remote.desk import Desk
from ..remote.errors import InvalidInput, JobFailed, RemoteError, Stopped
from ..remote.job import follow
from ..remote.journal import Entry
from ..remote.media import fetch_pictures
from ..remote.payload import may_take_addresses_only
from ..remote.price import Price, read_price
from ..remote.worker import Interrupted, finish, start
from .runcomfy_account import Account, folder, open_account
from .runcomfy_inputs import Chosen, Plan, make_plan
from .runcomfy_outputs import Delivery, progress_text

logger = logging.getLogger(__name__)
T = TypeVar("T")

OPEN = "open"
MAX_RESUMED = 16


class Run:
    """One execution of the node. ``show`` puts a line of text on the node's face."""

    def __init__(self, show: Callable[[str], None], timeout_minutes: float) -> None:
        self.show = show
        self.began = time.monotonic()
        self.deadline = self.began + 60.0 * timeout_minutes
        self.requests: list[Request] = []
        self.open_requests: list[Entry] = []
        self.plan: Plan | None = None
        self.model = ""
        self._desk: Desk | None = None
        self._pricing: asyncio.Future[Price | None] | None = None
        self._said = ""

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def price(self) -> Price | None:
        """The live price once it has arrived; nothing waits for it."""
        asked = self._pricing
        known = asked is not None and asked.done() and not asked.exception()
        return asked.result() if asked is not None and known else None

    async def generate(self, chosen: Chosen) -> list[Request]:
        """Submit one request a seed and wait for all; raises when there is no picture at all."""
        account = await self._open()
        plan = self.plan = await self._work(
            partial(make_plan, chosen, account.policy, processing_interrupted)
        )
        self._pricing = start(partial(_ask_price, account, plan.schema.model_id))
        self.requests = [Request(payload["seed"], payload) for payload in plan.payloads]
        await self._run(account, plan.schema.model_id)
        return self.requests

    async def resume(self, text: str) -> list[Request]:
        """Fetch the results of known ids, or of all open ones; submits and prices nothing."""
        account = await self._open()
        entries = await self._work(
            lambda: [account.journal.adopt(request_id) for request_id in _ids(account, text)]
        )
        self.requests = [Request(entry=entry) for entry in entries]
        await self._run(account, entries[0].model)
        return self.requests

    async def delivered(self) -> None:
        """Close the journal's entries of all pictures that are handed on."""
        await self._mark_done("delivered")

    async def _open(self) -> Account:
        account = await self._work(open_account)
        self.open_requests = await self._work(account.journal.open_requests)
        if self.open_requests:
            ids = ", ".join(e.request_id or f"({e.state}, no id)" for e in self.open_requests[-5:])
            text = (
                f"{len(self.open_requests)} earlier RunComfy requests are open: {ids}. Write "
                f"'{OPEN}' into resume_request_id to fetch them without paying again."
            )
            logger.warning("RunComfy: %s", text)
            self._say(text)
        return account

    async def _run(self, account: Account, model: str) -> None:
        self.model = model
        desk = self._desk = Desk(
            account.api(),
            account.journal,
            processing_interrupted,
            self.deadline,
            report=lambda phase, position, elapsed: self._progress(),
        )
        try:
            await run_all(
                desk,
                model,
                self.requests,
                partial(self._serve, account),
                lambda own: replace(own, api=account.api()),
            )
        except BaseException:
            # Fetched but not handed on: they stay open, to be fetched again for nothing.
            await self._mark_done(record.LEFT)
            raise
        if not any(request.outcome for request in self.requests):
            raise _all_failed([r.error for r in self.requests if r.error is not None])

    async def _serve(self, account: Account, desk: Desk, entry: Entry) -> Delivery:
        self._progress()
        try:
            result = await follow(desk, entry)
        except JobFailed as error:
            sent = next((r.payload for r in self.requests if r.entry is entry), None) or {}
            raise JobFailed(f"{error}{may_take_addresses_only(sent)}", error.request_id) from None
        return Delivery(result, await fetch_pictures(desk, entry, result, account.policy))

    async def _mark_done(self, state: str) -> None:
        desk = self._desk
        done = [r.entry for r in self.requests if r.outcome is not None and r.entry is not None]
        if done and desk is not None:
            await desk.settle(lambda: [desk.mark(entry, state) for entry in done])

    def _progress(self) -> None:
        self._say(progress_text(self.requests, self.elapsed, self.price))

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self.show(text)

    async def _work(self, work: Callable[[], T]) -> T:
        """Blocking work off the loop; Stop ends the wait."""
        try:
            return await finish(start(work), processing_interrupted)
        except Interrupted:
            raise Stopped("Stopped before anything was submitted.") from None


def _ask_price(account: Account, model: str) -> Price | None:
    return read_price(account.api(), model, folder() / "prices.json")


def _ids(account: Account, text: str) -> list[str]:
    """The ids that ``resume_request_id`` means."""
    if text.strip().lower() == OPEN:
        ids = [e.request_id for e in account.journal.open_requests() if e.request_id]
        if not ids:
            raise InvalidInput(
                "resume_request_id",
                "There is no open request of this account with an id to resume. Empty "
                "resume_request_id to run the prompt.",
            )
        return ids[-MAX_RESUMED:]
    ids = list(dict.fromkeys(filter(None, re.split(r"[\s,;]+", text))))
    if len(ids) > MAX_RESUMED or not all(is_request_id(request_id) for request_id in ids):
        raise InvalidInput(
            "resume_request_id",
            f"resume_request_id takes one to {MAX_RESUMED} request ids, or the word '{OPEN}' for "
            "all open requests. Empty it to run the prompt.",
        )
    return ids


def _all_failed(errors: list[RemoteError]) -> RemoteError:
    """The one error of a run without a picture; several are told together."""
    first = errors[0]
    if len(errors) > 1:
        texts = dict.fromkeys(str(error) for error in errors)
        first.args = (f"None of {len(errors)} requests gave a picture.\n" + "\n".join(texts),)
    return first

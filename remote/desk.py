"""What every step of a job needs, handed in from outside: API, journal, clock, Stop, progress."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .client import ModelApi
from .errors import JournalError, Transient
from .journal import Entry, Journal
from .states import Phase
from .worker import finish, start

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How often to ask, in seconds. A poll comes at most ``share`` of the elapsed time late.

    ``settle_s`` bounds what is done after Stop; ``missing_s`` is how long a new job may be unknown
    to the API's other servers (404); ``empty_tries`` is how often a success without a picture is
    looked at again. A download gets ``download_s`` even when the job used up the deadline (results
    expire), and is asked again after ``idle_s`` without a byte. ``submit_s`` and ``call_s`` bound a
    whole submission (with its upload) and a whole question, however slowly the bytes come.
    """

    poll_first: float = 0.5
    poll_longest: float = 3.0
    share: float = 0.08
    retry_first: float = 0.5
    retry_longest: float = 15.0
    settle_s: float = 0.6
    missing_s: float = 15.0
    empty_tries: int = 4
    submit_s: float = 600.0
    call_s: float = 130.0
    download_s: float = 60.0
    idle_s: float = 20.0

    def between_polls(self, elapsed: float) -> float:
        return min(max(self.share * elapsed, self.poll_first), self.poll_longest)

    def before_retry(self, failures: int) -> float:
        return min(self.retry_first * 2.0 ** min(failures - 1, 10), self.retry_longest)


def _silent(phase: Phase, position: int | None, elapsed: float) -> None:
    return None


@dataclass(frozen=True)
class Desk:
    """One job's surroundings. ``deadline`` is on ``clock``.

    ``report(phase, position, elapsed)`` is called after every answered poll.
    """

    api: ModelApi
    journal: Journal
    interrupted: Callable[[], bool]
    deadline: float
    report: Callable[[Phase, int | None, float], None] = _silent
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
    spread: Callable[[float, float], float] = random.uniform

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return max(self.deadline - self.clock(), 0.0)

    async def ask(self, work: Callable[[], T]) -> T:
        """One blocking question off the loop, within the deadline and seeing Stop.

        Raises ``Interrupted``, Transient after ``call_s``, or ``asyncio.TimeoutError`` at the
        deadline, besides what ``work`` raises.
        """
        if self.left_s <= 0:
            raise asyncio.TimeoutError
        try:
            return await finish(start(work), self.interrupted, min(self.left_s, self.pace.call_s))
        except asyncio.TimeoutError:
            if self.left_s <= 0:
                raise
            raise Transient("no whole answer in time") from None

    async def settle(self, work: Callable[[], T]) -> T | None:
        """Short cleanup off the loop, awaited for a bounded moment; None if it takes longer."""
        future = start(work)
        await asyncio.wait({future}, timeout=self.pace.settle_s)
        return future.result() if future.done() else None

    def mark(self, entry: Entry, state: str, request_id: str = "") -> Entry:
        """Write a state once money is committed: a full disk must not lose the id in hand."""
        try:
            return self.journal.mark(entry, state, request_id)
        except JournalError as error:
            known = request_id or entry.request_id
            logger.error("RunComfy: request %s is %s, but: %s", known or "(no id)", state, error)
            return replace(entry, state=state, request_id=known)

"""What every step of a job needs, handed in from outside, and its blocking work off the loop.

A thread that waits on a socket cannot be interrupted, only abandoned. asyncio's own pool is not
used: ComfyUI runs each prompt in its own loop, and closing a loop waits for its pool's threads, so
one hung connection would hold the queue after Stop. These are daemon threads, one a call; their
waiting is bounded by the socket timeouts of what they run.
"""

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..network.address import AddressPolicy
from ..network.client import backoff
from .api.client import ModelApi
from .errors import Stopped, Transient
from .journal import Journal

T = TypeVar("T")

TICK = 0.1
"""Seconds between two looks at Stop; half of the promised 0.2 s."""
UNSENT = "Stopped before anything was submitted."


class Interrupted(Stopped):
    """The user pressed Stop; once a job is under way, the job tells its own fate instead."""

    def __init__(self) -> None:
        super().__init__(UNSENT)


def start(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``work`` in a thread of its own; the future may be awaited, or dropped."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # Looked at once here: a dropped future must not log a traceback.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def run() -> None:
        try:
            end: Callable[[], object] = partial(future.set_result, work())
        except BaseException as error:  # noqa: B036 (handed to the one who awaits)
            end = partial(future.set_exception, error)
        try:
            loop.call_soon_threadsafe(lambda: future.done() or end())
        except RuntimeError:  # the loop is closed: the prompt ended, nobody waits any more
            return

    threading.Thread(target=run, name="runcomfy", daemon=True).start()
    return future


async def finish(
    future: asyncio.Future[T], interrupted: Callable[[], bool], limit: float = math.inf
) -> T:
    """The future's result, raising ``Interrupted`` within a TICK of a stop.

    ``limit`` in seconds raises ``asyncio.TimeoutError``. The work itself goes on in its thread.
    """
    end = time.monotonic() + limit
    while not future.done():
        if interrupted():
            raise Interrupted
        left = end - time.monotonic()
        if left <= 0:
            raise asyncio.TimeoutError
        await asyncio.wait({future}, timeout=min(TICK, left))
    return future.result()


@dataclass(frozen=True)
class Pace:
    """How often to ask, in seconds. A poll comes at most ``share`` of the elapsed time late.

    ``settle_s`` bounds what is done after Stop; ``missing_s`` is how long a new job may be unknown
    to the API's other servers (404), ``denied_s`` how long a gateway may deny a job with an error
    of its own; ``empty_tries`` is how often a success without a picture is
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
    denied_s: float = 60.0
    missing_s: float = 15.0
    empty_tries: int = 4
    submit_s: float = 600.0
    call_s: float = 130.0
    download_s: float = 60.0
    idle_s: float = 20.0

    def between_polls(self, elapsed: float) -> float:
        """Seconds to the next poll of a job that is ``elapsed`` seconds old."""
        return min(max(self.share * elapsed, self.poll_first), self.poll_longest)

    def before_retry(self, failures: int, asked: float | None = None) -> float:
        """Seconds to wait after so many failures in a row; ``asked``: by Retry-After."""
        return backoff(failures, self.retry_first, self.retry_longest, asked)


@dataclass(frozen=True)
class JobContext:
    """The surroundings of a run's jobs. ``deadline`` is on the monotonic clock.

    ``report`` is called after every answered poll; ``policy`` says where pictures may come from.
    """

    api: ModelApi
    journal: Journal
    policy: AddressPolicy
    interrupted: Callable[[], bool]
    deadline: float
    report: Callable[[], None] = lambda: None
    pace: Pace = field(default_factory=Pace)
    spread: Callable[[float, float], float] = random.uniform

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return max(self.deadline - time.monotonic(), 0.0)

    def should_stop(self) -> None:
        """Raises ``Interrupted`` once the user has stopped."""
        if self.interrupted():
            raise Interrupted

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

    async def pause(self, wait: float, end: float) -> None:
        """Sleep about ``wait`` seconds (spread, so that jobs do not ask in step), not beyond
        ``end`` on the monotonic clock, raising ``Interrupted`` within a TICK of a stop."""
        end = min(time.monotonic() + wait * self.spread(0.85, 1.15), end)
        while (left := end - time.monotonic()) > 0:
            self.should_stop()
            await asyncio.sleep(min(TICK, left))
        self.should_stop()

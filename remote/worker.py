"""Blocking work off the event loop, left behind at once when the user stops.

A thread that waits on a socket cannot be interrupted, only abandoned. asyncio's own pool is not
used: ComfyUI runs each prompt in its own loop, and closing a loop waits for its pool's threads, so
one hung connection would hold the queue after Stop. These are daemon threads, one a call; their
waiting is bounded by the socket timeouts of what they run.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TICK = 0.1
"""Seconds between two looks at Stop; half of the promised 0.2 s."""


def start(work: Callable[[], T], name: str = "runcomfy") -> asyncio.Future[T]:
    """Run ``work`` in a thread of its own; the future may be awaited, or dropped."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
            future.exception()  # marks it as seen: a dropped future must not log a traceback
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as caught:  # noqa: B036 (handed to the one who awaits)
            error = caught
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:  # the loop is closed: the prompt ended, nobody waits any more
            return

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def finish(
    future: asyncio.Future[T], interrupted: Callable[[], bool], limit: float | None = None
) -> T:
    """The future's result, raising ``Interrupted`` within a TICK of a stop.

    ``limit`` in seconds raises ``asyncio.TimeoutError``. The work itself goes on in its thread.
    """
    loop = asyncio.get_running_loop()
    end = None if limit is None else loop.time() + limit
    while not future.done():
        if interrupted():
            raise Interrupted
        left = TICK if end is None else min(TICK, end - loop.time())
        if left <= 0:
            raise asyncio.TimeoutError
        await asyncio.wait({future}, timeout=left)
    return future.result()


async def pause(
    seconds: float,
    interrupted: Callable[[], bool],
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sleep, raising ``Interrupted`` within a TICK of a stop."""
    end = clock() + seconds
    while True:
        if interrupted():
            raise Interrupted
        left = end - clock()
        if left <= 0:
            return
        await sleep(min(TICK, left))


class Interrupted(Exception):
    """The user pressed Stop; internal, turned into Stopped with the job's fate."""

"""Several requests of one run: sent one after the other, waited for together, none lost to another.

One request gives one picture, so a batch is N requests with seeds in a row. A refusal or an
unclear answer stops further submissions (the next would fare the same and may cost); what was
already accepted goes on, and its pictures are kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .desk import Desk
from .errors import JournalError, OutcomeUnknown, Refused, RemoteError, Stopped, TimedOut
from .journal import Entry
from .states import Phase
from .submission import submit

PARALLEL = 4
"""Requests under way at a time; RunComfy publishes no limit, and its queue gains by no more."""


@dataclass
class Request:
    """One request of a run and what became of it. ``picture`` work is the caller's.

    ``phase`` and ``position`` are the last ones seen; ``error`` says why there is no picture.
    """

    seed: int | None = None
    payload: dict[str, Any] | None = None
    entry: Entry | None = None
    phase: Phase = Phase.UNKNOWN
    position: int | None = None
    outcome: Any = None
    error: RemoteError | None = None
    seconds: float | None = None

    @property
    def request_id(self) -> str:
        return self.entry.request_id if self.entry else ""


async def run_all(
    desk: Desk,
    model_id: str,
    requests: Sequence[Request],
    serve: Callable[[Desk, Entry], Awaitable[Any]],
    renewed: Callable[[Desk], Desk],
    parallel: int = PARALLEL,
) -> None:
    """Bring every request to its ``outcome`` or ``error``; raises Stopped when the user stopped.

    A request with an ``entry`` is only followed, never submitted. ``serve`` follows one and
    fetches its pictures; ``renewed`` gives a request a desk of its own (its own connection).
    """
    gate, sending = asyncio.Semaphore(parallel), asyncio.Lock()
    refused: list[RemoteError] = []

    async def one(request: Request) -> None:
        async with gate:
            began = desk.clock()
            own = renewed(replace(desk, report=_reporter(desk, request)))
            try:
                if request.entry is None:
                    async with sending:
                        request.entry = await _send(own, model_id, request, refused)
                    request.phase = Phase.QUEUED
                request.outcome = await serve(own, request.entry)
                request.phase = Phase.SUCCEEDED
            except RemoteError as error:
                request.error = error
                request.phase = Phase.FAILED
            finally:
                request.seconds = round(desk.clock() - began, 3)

    ended = await asyncio.gather(*(one(r) for r in requests), return_exceptions=True)
    for error in ended:
        if error is not None:  # not one of ours: a fault of this program
            raise error
    stopped = [str(r.error) for r in requests if isinstance(r.error, Stopped)]
    if stopped:
        raise Stopped("\n".join(dict.fromkeys(stopped)))


async def _send(desk: Desk, model_id: str, request: Request, refused: list[RemoteError]) -> Entry:
    if refused:
        raise Refused(f"Not submitted, because the request before it was not taken: {refused[0]}")
    if desk.left_s <= 0:
        raise TimedOut("timeout_minutes was over before this request was submitted.")
    try:
        return await submit(desk, model_id, request.payload or {})
    except (Refused, OutcomeUnknown, JournalError) as error:
        refused.append(error)
        raise


def _reporter(desk: Desk, request: Request) -> Callable[[Phase, int | None, float], None]:
    def report(phase: Phase, position: int | None, elapsed: float) -> None:
        request.phase, request.position = phase, position
        desk.report(phase, position, elapsed)

    return report

"""Every fault of the stand-in against one whole job each, eight side by side, as a table.

``python tests/remote/write_faults.py`` writes the table to FAULTS.md beside this file.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from remote_support import PROMPT, context_at, new_token, resumed, whole_job
from standin_faults import FAULTS, Fault
from standin_server import Standin, Timing

from flux2_lora_edit.remote.errors import (
    JobCancelled,
    JobFailed,
    MediaError,
    OutcomeUnknown,
    Refused,
    RequestRejected,
    Stopped,
    TimedOut,
)

_NAMES = {
    Refused: "refused",
    OutcomeUnknown: "unknown",
    JobFailed: "failed",
    JobCancelled: "cancelled",
    RequestRejected: "rejected",
    TimedOut: "timed_out",
    MediaError: "media",
    Stopped: "stopped",
}
# In the names of faults that only a bound ends.
LATE = ("hang", "slow")
# The journal's last word for each end; every paid picture that was not fetched stays open.
CLOSED = {"delivered", "refused", "failed", "cancelled", "gone"}


@dataclass(frozen=True)
class Row:
    """What one fault came to. ``resumed``: an open id was fetched afterwards, the fault gone."""

    fault: Fault
    actual: str
    message: str
    submissions: int
    jobs: int
    cancels: int
    seconds: float
    state: str
    known_id: bool
    resumed: str


async def run_fault(standin: Standin, fault: Fault, folder: Path) -> Row:
    """One job under one fault; the submission is timed, counted and its journal read back."""
    token = new_token()
    stops = fault.at == "cancel"
    # A stop is pressed while the job is queued; long queues are for those alone.
    account = standin.state.account(token, fault.name, Timing(30 if stops else 0.05, 0.05))
    slow = fault.expect == "timed_out" or fault.name in ("media_500_always", "media_hang_always")
    began = time.monotonic()
    context = context_at(
        standin,
        folder,
        token,
        interrupted=lambda: stops and account.counts.get("status", 0) > 0,
        seconds=3.0 if slow else 120.0,
    )
    if not any(word in fault.name for word in LATE):  # what answers at all has time to
        patient = dict.fromkeys(("connect_s", "read_s", "answer_s", "total_s"), 60.0)
        context = replace(context, api=replace(context.api, **patient))
    try:
        await whole_job(context)
        actual, message = "delivered", ""
    except tuple(_NAMES) as error:
        actual, message = _NAMES[type(error)], str(error)
    seconds = time.monotonic() - began
    if stops:
        await asyncio.sleep(0.6)  # the cancel's own thread writes its outcome
    entries = [e for e in context.journal.entries() if e.account == context.journal.account]
    entry = entries[-1]
    again = ""
    if entry.is_open and entry.request_id and not stops:
        account.fault = ""
        later = context_at(standin, folder, token, session="later")
        try:
            await resumed(later, later.journal.adopt(entry.request_id))
            again = "yes"
        except tuple(_NAMES) as error:
            again = _NAMES[type(error)]
    return Row(
        fault,
        actual,
        message,
        account.submissions,
        len(account.jobs),
        account.counts.get("cancel", 0),
        seconds,
        entry.state,
        bool(entry.request_id),
        again,
    )


async def run_all(standin: Standin, folder: Path, side_by_side: int = 12) -> list[Row]:
    gate = asyncio.Semaphore(side_by_side)

    async def one(fault: Fault) -> Row:
        async with gate:
            return await run_fault(standin, fault, folder)

    # The long ones first, so that they do not make a tail.
    order = sorted(FAULTS.values(), key=lambda f: f.expect != "timed_out")
    rows = await asyncio.gather(*(one(fault) for fault in order))
    places = {name: place for place, name in enumerate(FAULTS)}
    return sorted(rows, key=lambda row: places[row.fault.name])


def as_table(rows: list[Row], leaks: list[str]) -> str:
    lines = [
        "# Faults of the hosted API, and what the client makes of each",
        "",
        "Written by `python tests/remote/write_faults.py`: one whole job (submit, poll, result, "
        "picture) per fault, through real sockets against `scripts/standin`. *Jobs* is what a "
        "server would bill; *resumed* tells whether a job left open was fetched afterwards "
        "without a new submission.",
        "",
        f"{len(rows)} faults; at most {max(row.submissions for row in rows)} submission each; "
        f"{sum(row.actual != row.fault.expect for row in rows)} not as expected; "
        f"{len(leaks)} leaks (tokens or requests that reached another origin or the storage).",
        "",
        "| fault | strikes at | expected | actual | submissions | jobs | journal | resumed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.fault.name} | {row.fault.at} | {row.fault.expect} | {row.actual} | "
        f"{row.submissions} | {row.jobs} | {row.state} | {row.resumed} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


__all__ = ["CLOSED", "PROMPT", "Row", "as_table", "run_all"]

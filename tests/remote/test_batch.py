"""Several jobs of one run: sent in a row, bounded, partial success kept, resumed for free."""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest
from remote_support import MODEL, context_at, new_token, payload, settings
from standin_server import Standin, Timing

from flux2_lora_edit.remote.account import Account
from flux2_lora_edit.remote.api.answers import Phase
from flux2_lora_edit.remote.context import JobContext
from flux2_lora_edit.remote.errors import (
    JobFailed,
    JournalError,
    OutcomeUnknown,
    Refused,
    Stopped,
    TimedOut,
)
from flux2_lora_edit.remote.job import Job
from flux2_lora_edit.remote.journal import LEFT
from flux2_lora_edit.remote.run import Run, run_all
from flux2_lora_edit.remote.sessions import Session


def batch(jobs: list[Job], parallel: int = 4) -> None:
    asyncio.run(run_all(jobs, parallel))


def jobs_of(context: JobContext, count: int) -> list[Job]:
    return [Job(context, MODEL, payload(seed)) for seed in range(count)]


def test_all_delivered_in_order(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    jobs = jobs_of(context_at(standin, tmp_path, token), 6)
    batch(jobs)
    assert [job.payload["seed"] for job in account.jobs] == list(range(6))
    assert [r.request_id for r in jobs] == [job.id for job in account.jobs]
    assert all(r.phase is Phase.SUCCEEDED and r.error is None and r.seconds > 0 for r in jobs)
    assert len({float(r.pictures[0].rgb.mean()) for r in jobs}) == 6, "each its own seed"


def test_no_more_than_so_many_at_a_time(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.3))
    jobs = jobs_of(context_at(standin, tmp_path, token), 4)
    began = time.monotonic()
    batch(jobs, parallel=2)
    assert time.monotonic() - began > 0.6
    births = [job.born for job in account.jobs]
    assert births[2] - births[0] > 0.3


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("submit_400_balance", Refused, "not taken"),
        ("submit_500_after", OutcomeUnknown, "not taken"),
    ],
)
def test_what_is_refused_or_unclear_stops_the_next_submission(
    standin: Standin, tmp_path: Path, fault: str, kind: type, words: str
) -> None:
    token = new_token()
    account = standin.state.account(token, fault)
    jobs = jobs_of(context_at(standin, tmp_path, token), 3)
    batch(jobs)
    assert account.submissions == 1
    assert isinstance(jobs[0].error, kind)
    assert all(isinstance(r.error, Refused) and words in str(r.error) for r in jobs[1:])


def test_partial_success_is_kept(standin: Standin, tmp_path: Path) -> None:
    """The second job fails at RunComfy: the first and the third are delivered."""
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    jobs = jobs_of(context_at(standin, tmp_path, token), 3)
    strike = standin.state.strike

    def only_the_second(struck, times: int) -> bool:
        return strike(struck, times)

    account.fault = "result_failed"
    original = standin._strike

    def aimed(at: str, exchange) -> bool:
        second = exchange.job is not None and exchange.job.payload["seed"] == 1
        return second and original(at, exchange)

    standin._strike = aimed  # type: ignore[method-assign]
    try:
        batch(jobs)
    finally:
        del standin._strike
    assert [r.pictures != [] for r in jobs] == [True, False, True]
    assert isinstance(jobs[1].error, JobFailed) and account.submissions == 3


def test_stop_settles_all_of_them_within_a_second(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(30, 30))
    seen: list[float] = []

    def interrupted() -> bool:
        """Pressed once all that fit are queued and were asked about."""
        if account.submissions == 4 and account.counts.get("status", 0) >= 8:
            seen.append(time.monotonic())
        return bool(seen)

    context = context_at(standin, tmp_path, token, interrupted, seconds=30)
    with pytest.raises(Stopped) as caught:
        batch(jobs_of(context, 6))
    assert time.monotonic() - seen[0] < 20, "a job takes 30 s"
    assert account.submissions == 4, "those behind the limit were never sent"
    assert account.counts["cancel"] == 4 and all(job.cancelled for job in account.jobs)
    # Said once, with all the ids.
    assert str(caught.value).splitlines() == [
        "Stopped. What was still queued is cancelled.",
        *(job.id for job in account.jobs),
        "Not submitted: 2.",
    ]


def test_what_is_open_is_said_as_long_as_it_is_so(standin: Standin, tmp_path: Path) -> None:
    """From the first line to the last; and what is fetched again is not told as paid again."""
    token = new_token()
    account = standin.state.account(token, timing=Timing(0.2, 0.05))
    context = context_at(standin, tmp_path, token)
    (left,) = jobs_of(context, 1)
    asyncio.run(left.submit())
    left.write(LEFT)

    def run(ids: str = "") -> list[str]:
        told: list[str] = []
        own = Account(context.api, context.journal, context.policy, Session())
        one = Run(lambda: own, lambda: False, told.append)
        asyncio.run(one.resume(ids) if ids else one.generate([settings(seed=1)]))
        asyncio.run(one.hand_over())
        return told

    said = run()
    assert len(said) >= 3 and "for this run" in said[1]
    assert all("1 earlier RunComfy requests are open" in text for text in said)
    assert "cost $0.021" in said[-1]
    *_, last = run(left.request_id)
    assert last.endswith("· already paid") and "$" not in last
    assert account.submissions == 2


def test_time_that_is_up_submits_nothing_more(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 30))
    jobs = jobs_of(context_at(standin, tmp_path, token, seconds=2.0), 2)
    batch(jobs, parallel=1)
    assert account.submissions == 1
    assert all(isinstance(r.error, TimedOut) for r in jobs)
    assert "before this request was submitted" in str(jobs[1].error)


def test_known_ids_are_fetched_and_nothing_is_submitted(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    first = jobs_of(context_at(standin, tmp_path, token), 2)
    batch(first)
    later = context_at(standin, tmp_path, token, session="later")
    again = [Job(later, entry=later.journal.adopt(job.request_id)) for job in first]
    batch(again)
    assert account.submissions == 2
    for old, new in zip(first, again, strict=True):
        assert (old.pictures[0].rgb == new.pictures[0].rgb).all()


def test_a_fault_of_this_program_is_not_swallowed(
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is in the log, the paid id in the error, and open at once; the next one goes on."""
    whole = Job.follow

    async def follow(job: Job):  # noqa: ANN202
        if job.payload["seed"] == 0:
            raise ZeroDivisionError
        return await whole(job)

    monkeypatch.setattr(Job, "follow", follow)
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    jobs = jobs_of(context_at(standin, tmp_path, token), 2)
    with caplog.at_level(logging.ERROR):
        batch(jobs)
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" in str(jobs[0].error)
    assert str(jobs[0].error).endswith(account.jobs[0].id) and jobs[1].pictures
    assert [e.request_id for e in jobs[0].context.journal.open_requests()] == [account.jobs[0].id]


def test_a_journal_that_fails_stops_the_batch(standin: Standin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    token = new_token()
    jobs = jobs_of(context_at(standin, tmp_path / "file" / "x", token), 2)
    batch(jobs)
    assert isinstance(jobs[0].error, JournalError) and isinstance(jobs[1].error, Refused)
    assert standin.state.account(token).submissions == 0


def test_an_id_in_hand_outlives_a_full_disk(
    standin: Standin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The intent is written; then the disk fills: the picture still comes, the id is logged."""
    token = new_token()
    context = context_at(standin, tmp_path, token)

    class FullLater:
        def __init__(self, journal) -> None:
            self.journal = journal

        def __getattr__(self, name: str):
            return getattr(self.journal, name)

        def mark(self, *what: object, **more: object) -> None:
            raise JournalError("the disk is full")

    jobs = jobs_of(replace(context, journal=FullLater(context.journal)), 1)
    batch(jobs)
    assert jobs[0].pictures != []
    assert jobs[0].request_id in caplog.text

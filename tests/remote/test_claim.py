"""The same request is submitted once: by two jobs, two processes, two tokens; and never late."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from loopback import until
from remote_support import MODEL, QUICK, context_at, new_token, payload, whole_job
from standin_server import Standin, Timing

from flux2_lora_edit.remote import journal as record
from flux2_lora_edit.remote.context import JobContext
from flux2_lora_edit.remote.errors import (
    OutcomeUnknown,
    RequestRejected,
    Stopped,
    TimedOut,
    Unresolved,
)
from flux2_lora_edit.remote.job import Job
from flux2_lora_edit.remote.run import run_all
from flux2_lora_edit.remote.sessions import Session, lives


def one(context: JobContext, seed: int = 7) -> Job:
    job = Job(context, MODEL, payload(seed))
    asyncio.run(run_all([job]))
    return job


def test_a_delivered_request_is_fetched_again(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    asyncio.run(whole_job(context_at(standin, tmp_path, token)))
    again = one(context_at(standin, tmp_path, token, session="later"))
    assert again.pictures and again.before == "delivered" and account.submissions == 1
    assert one(context_at(standin, tmp_path, token), seed=8).before == ""
    assert account.submissions == 2


@pytest.mark.parametrize("state", ["left", "unknown", "accepted", "handed", "dismissed"])
def test_what_a_dead_process_paid_is_fetched(standin: Standin, tmp_path: Path, state: str) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    dead = context_at(standin, tmp_path, token, session="dead")
    request_id = dead.api.submit(MODEL, payload())
    dead.journal.mark(dead.journal.claim(MODEL, payload(), None)[0], state, request_id=request_id)
    assert one(context_at(standin, tmp_path, token)).pictures and account.submissions == 1


@pytest.mark.parametrize("state", ["submitting", "unknown"])
def test_an_outcome_that_nobody_knows_is_not_paid_again(
    standin: Standin, tmp_path: Path, state: str
) -> None:
    token = new_token()
    account = standin.state.account(token)
    dead = context_at(standin, tmp_path, token, session="dead")
    dead.journal.mark(dead.journal.claim(MODEL, payload(), None)[0], state)
    job = one(context_at(standin, tmp_path, token))
    assert isinstance(job.error, Unresolved) and account.submissions == 0
    for way_out in ("resume_request_id", "dismiss", "seed"):
        assert way_out in str(job.error)


@pytest.mark.parametrize("fault", ["submit_digits_after", "submit_dots_id_after"])
def test_a_garbled_id_closes_nothing(standin: Standin, tmp_path: Path, fault: str) -> None:
    """What stands where the id should cannot be asked for: looked for by hand, never paid again."""
    token = new_token()
    account = standin.state.account(token, fault)
    context = context_at(standin, tmp_path, token)
    assert isinstance(one(context).error, OutcomeUnknown)
    for _ in range(2):
        job = one(context)
        assert isinstance(job.error, Unresolved) and "Look at your generations" in str(job.error)
        assert account.submissions == 1
        assert [entry.state for entry in context.journal.open_requests()] == ["unknown"]


def test_two_at_once_pay_once(standin: Standin, tmp_path: Path) -> None:
    """Two jobs with the same request in two processes (here: sessions that live): one POST."""
    token = new_token()
    account = standin.state.account(token, timing=Timing(0.1, 0.3, answer_s=0.2))

    def living(session: str) -> JobContext:
        context = context_at(standin, tmp_path, token, session=session)
        return replace(context, journal=replace(context.journal, lives=lambda name: True))

    jobs = [Job(living(session), MODEL, payload()) for session in ("one", "two", "one")]

    async def both() -> None:
        await asyncio.gather(*(run_all([job]) for job in jobs))

    asyncio.run(both())
    assert account.submissions == 1 and all(job.pictures for job in jobs)
    assert {job.is_anothers for job in jobs} == {True, False}, "whoever comes first submits it"


def test_stop_does_not_cancel_another_process_s_job(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(30, 30))
    first = context_at(standin, tmp_path, token, session="first")
    request_id = first.api.submit(MODEL, payload())
    entry = first.journal.claim(MODEL, payload(), None)[0]
    first.journal.mark(entry, record.ACCEPTED, request_id=request_id)
    context = context_at(
        standin, tmp_path, token, lambda: account.counts.get("status", 0) > 1, session="second"
    )
    context = replace(context, journal=replace(context.journal, lives=lambda name: True))
    assert context.journal.open_requests() == [], "it is in the first one's hands"
    with pytest.raises(Stopped, match="not cancelled"):
        asyncio.run(whole_job(context))
    assert "cancel" not in account.counts
    assert context.journal.entries()[-1].state == "accepted", "it is the first one's to close"


def test_what_is_gone_is_told_and_paid_once_more(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    asyncio.run(whole_job(context_at(standin, tmp_path, token)))
    account.jobs.clear()
    told: list[tuple[int, str]] = []
    context = context_at(standin, tmp_path, token, session="later")
    job = Job(context, MODEL, payload())
    job.context = replace(context, report=lambda: told.append((account.submissions, job.notice)))
    asyncio.run(run_all([job]))
    assert job.pictures and account.submissions == 2
    assert any(n == 1 and "a new one is submitted and paid" in text for n, text in told)
    assert [e.state for e in context.journal.entries()] == ["gone", "accepted"]


def test_a_server_that_does_not_know_it_yet_is_asked_again(
    standin: Standin, tmp_path: Path
) -> None:
    """A second job with the request that was accepted a moment ago: not gone, not paid again."""
    token = new_token()
    account = standin.state.account(token, "status_404_at_first", Timing(0, 0.05))
    dead = context_at(standin, tmp_path, token, session="dead")
    request_id = dead.api.submit(MODEL, payload())
    entry = dead.journal.claim(MODEL, payload(), None)[0]
    dead.journal.mark(entry, "accepted", request_id=request_id)
    assert one(context_at(standin, tmp_path, token)).pictures and account.submissions == 1


@pytest.mark.parametrize("fault", ["status_404_page", "status_404_detail", "result_404_page"])
def test_a_gateways_no_ends_no_job(standin: Standin, tmp_path: Path, fault: str) -> None:
    token = new_token()
    account = standin.state.account(token, fault, Timing(0, 0.05))
    assert one(context_at(standin, tmp_path, token)).pictures and account.submissions == 1


def test_a_gateways_no_for_too_long_is_told_and_stays_open(
    standin: Standin, tmp_path: Path
) -> None:
    token = new_token()
    standin.state.account(token, "status_404_page_always", Timing(0, 0.05))
    pace = replace(QUICK, denied_s=0.2)
    context = context_at(standin, tmp_path, token, seconds=60, pace=pace)
    job = one(context)
    assert isinstance(job.error, RequestRejected) and job.request_id in str(job.error)
    assert [entry.state for entry in context.journal.open_requests()] == ["left"]


def test_a_picture_that_expired_is_paid_once_more(standin: Standin, tmp_path: Path) -> None:
    token = new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    asyncio.run(whole_job(context_at(standin, tmp_path, token)))
    first = account.jobs[0].id
    plain = standin._media

    def expired(handler: object, path: str) -> None:
        if first in path:
            return standin._plain(handler, 403, {"message": "expired"})
        return plain(handler, path)

    standin._media = expired  # type: ignore[method-assign]
    try:
        job = one(context_at(standin, tmp_path, token))
    finally:
        del standin._media
    assert job.pictures and account.submissions == 2 and "is gone" in job.notice


def test_another_token_is_asked_for_and_its_no_closes_nothing(
    standin: Standin, tmp_path: Path
) -> None:
    token, other = new_token(), new_token()
    account = standin.state.account(token, timing=Timing(0, 0.05))
    stranger = standin.state.account(other, timing=Timing(0, 0.05))
    mine = context_at(standin, tmp_path, token)
    asyncio.run(whole_job(mine))
    theirs = context_at(standin, tmp_path, other)
    theirs = replace(theirs, journal=replace(theirs.journal, origin=mine.journal.origin))
    job = one(theirs)
    assert job.pictures and stranger.submissions == 1 and "another token" in job.notice
    assert one(mine).before == "delivered" and account.submissions == 1
    resume = Job(theirs)
    resume.adopt(mine.journal.adopt(account.jobs[0].id))
    asyncio.run(run_all([resume]))
    assert isinstance(resume.error, RequestRejected) and "another token" in str(resume.error)
    standin.state._accounts[other] = account  # the same user's, renewed
    assert one(theirs).before and len(account.jobs) == 1


def test_a_post_never_leaves_after_the_run_gave_up(standin: Standin, tmp_path: Path) -> None:
    """The journal is busy until the time is over: nothing is sent then, and that is said."""
    token = new_token()
    account = standin.state.account(token)
    context = context_at(standin, tmp_path, token, seconds=0.4)
    context.journal.folder.mkdir(exist_ok=True)
    with filelock.FileLock(f"{context.journal.path}.lock", thread_local=False):
        with pytest.raises(TimedOut, match="Nothing was submitted"):
            asyncio.run(whole_job(context))
    until(lambda: bool(context.journal.entries()))
    until(lambda: context.journal.entries()[-1].state == "dismissed")
    assert account.submissions == 0
    assert one(context_at(standin, tmp_path, token)).pictures, "and it may be run again"


def test_a_connection_that_opens_too_late_sends_nothing(standin: Standin, tmp_path: Path) -> None:
    """The run gives up while the connection is being made."""
    token = new_token()
    account = standin.state.account(token)
    context = context_at(standin, tmp_path, token, seconds=20, pace=replace(QUICK, submit_s=0.2))
    http = context.api.http

    class Late:
        """A transport that connects once the run has given up."""

        def __getattr__(self, name: str) -> object:
            return getattr(http, name)

        def within(self, **limits: object) -> object:
            time.sleep(0.6)
            return http.within(**limits)

    context = replace(context, api=replace(context.api, http=Late()))
    with pytest.raises(OutcomeUnknown):
        asyncio.run(whole_job(context))
    until(lambda: context.journal.entries()[-1].state == "refused")
    assert account.jobs == [], "the head may have gone, the body did not"
    assert [e.state for e in context.journal.entries()] == ["refused"]


def test_who_lives(tmp_path: Path) -> None:
    """A process holds its lock until it ends; what a dead one left is taken away."""
    me = Session()
    me.hold(tmp_path)
    me.hold(tmp_path)
    assert lives(tmp_path, me.name) and not lives(tmp_path, "0" * 16)
    assert not lives(tmp_path, "../../etc/passwd")
    (tmp_path / f"{'a' * 16}.lock").write_text("")
    Session().hold(tmp_path)
    assert {p.stem for p in tmp_path.glob("*.lock")} >= {me.name}
    assert not (tmp_path / f"{'a' * 16}.lock").exists()


def test_a_known_cost_is_kept_where_a_later_answer_tells_none(
    standin: Standin, tmp_path: Path
) -> None:
    token = new_token()
    standin.state.account(token, timing=Timing(0, 0.05))
    first = one(context_at(standin, tmp_path, token))
    assert first.usd and first.entry
    first.write("delivered", usd=first.usd)
    job = Job(context_at(standin, tmp_path, token))
    job.adopt(first.entry)

    async def again() -> None:
        await job.fetch((await job.follow())._replace(cost=None))

    asyncio.run(again())
    assert job.usd == first.usd

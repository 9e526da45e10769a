"""SIGKILL at 20 random moments of a job: no second submission, and nothing lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_support import context_at, journal_of, new_token
from standin_server import Standin, Timing

from flux2_lora_edit.remote.job import Job

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")

MOMENTS = 20


class Runner:
    """The process that forks one child a job."""

    def __init__(self, origin: str, folder: Path) -> None:
        script = Path(__file__).with_name("kill_child.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), origin, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def whole(self, token: str) -> float:
        """Seconds of a job that nobody kills."""
        began = time.monotonic()
        self.process.stdin.write(f"{token} 0\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        assert self.process.stdout.readline() == "ended\n"
        return time.monotonic() - began

    def killed_after(self, token: str, seed: int, seconds: float) -> None:
        self.process.stdin.write(f"{token} {seed}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        time.sleep(seconds)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        assert self.process.stdout.readline() == "ended\n"


@pytest.fixture
def runner(standin: Standin, tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(standin.origin, tmp_path)
    yield runner
    runner.process.stdin.close()
    runner.process.wait(10)


def test_killed_at_random_moments(standin: Standin, runner: Runner, tmp_path: Path) -> None:
    moments = random.Random(4)
    seen: set[str] = set()
    timing = Timing(0.1, 0.15, answer_s=0.03)
    whole = []
    for _ in range(3):  # the first one waits for the imports
        token = new_token()
        standin.state.account(token, timing=timing)
        whole.append(runner.whole(token))
    for number in range(MOMENTS):
        token = new_token()
        account = standin.state.account(token, timing=timing)
        # Spread over the whole job, each fourth over the moments round the submission.
        limit = min(whole[1:]) * (0.3 if number % 4 == 0 else 1.1)
        runner.killed_after(token, number, moments.uniform(0.0, limit))
        time.sleep(0.05)  # what was already on the wire still arrives
        assert account.submissions <= 1, "the dead submit nothing"
        journal = journal_of(tmp_path, token, "restarted", standin.origin)
        (entry,) = [e for e in journal.entries() if e.account == journal.account] or [None]
        seen.add(entry.state if entry else "nothing")
        if entry is None:
            assert account.submissions == 0, "nothing is sent before its intent is written"
            continue
        if entry.state == "delivered":
            continue
        assert [e.key for e in journal.open_requests()] == [entry.key], "it is shown as open"
        if account.jobs and entry.request_id:
            assert entry.request_id == account.jobs[0].id
            asyncio.run(resume(standin, tmp_path, token, entry.request_id))
            assert journal.open_requests() == []
        elif account.jobs:
            assert entry.state == "submitting", "the intent tells where to look"
        assert account.submissions <= 1, "a resume submits nothing"
    assert "accepted" in seen and len(seen) >= 2, f"the moments must be spread: {seen}"


async def resume(standin: Standin, folder: Path, token: str, request_id: str) -> None:
    context = context_at(standin, folder, token, session="restarted")
    job = Job(context, entry=context.journal.adopt(request_id))
    pictures = await job.fetch(await job.follow())
    assert pictures[0].rgb.shape == (32, 32, 3)
    job.write("delivered")

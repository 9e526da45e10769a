"""What the stand-in remembers: accounts by token, their jobs, and counts of what it was asked."""

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

PRICE_USD = 0.021


@dataclass
class Timing:
    """Seconds that a job waits and runs, and seconds before any answer is given."""

    queue_s: float = 1.0
    run_s: float = 4.0
    answer_s: float = 0.0


@dataclass
class Job:
    """One accepted request. Its state follows from the time alone, and from a cancel."""

    id: str
    model: str
    payload: dict[str, Any]
    timing: Timing
    born: float = field(default_factory=time.monotonic)
    created_at: float = field(default_factory=time.time)
    cancelled: bool = False

    @property
    def age(self) -> float:
        return time.monotonic() - self.born

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.age < self.timing.queue_s:
            return "in_queue"
        return "in_progress" if self.age < self.timing.queue_s + self.timing.run_s else "completed"


@dataclass
class Account:
    """One token's jobs. ``fault`` is what goes wrong for this account, ``struck`` how often."""

    timing: Timing
    fault: str = ""
    struck: int = 0
    jobs: list[Job] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def submissions(self) -> int:
        """POSTs of jobs that reached the server, whatever became of them."""
        return self.counts.get("submit", 0)


class State:
    """All accounts. Every method is safe to call from the server's threads and from a test."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.default_fault = ""
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._leaks: list[str] = []

    def account(self, token: str, fault: str = "", timing: Timing | None = None) -> Account:
        """The account of a token, made on first sight; a fault or a timing given is set."""
        with self._lock:
            account = self._accounts.get(token)
            if account is None:
                account = self._accounts[token] = Account(
                    timing or self.timing, fault or self.default_fault
                )
            if fault:
                account.fault, account.struck = fault, 0
            if timing:
                account.timing = timing
            return account

    def count(self, account: Account, what: str) -> None:
        with self._lock:
            account.counts[what] = account.counts.get(what, 0) + 1

    def strike(self, account: Account, times: int) -> bool:
        """Whether the account's fault still strikes; ``times`` 0 is for ever."""
        with self._lock:
            if times and account.struck >= times:
                return False
            account.struck += 1
            return True

    def new_job(self, account: Account, model: str, payload: dict[str, Any]) -> Job:
        job = Job(str(uuid.uuid4()), model, payload, account.timing)
        with self._lock:
            account.jobs.append(job)
            del account.jobs[:-2000]
        return job

    def job(self, job_id: str, account: Account | None = None) -> tuple[Account, Job] | None:
        """A job with its account; only that account's own where one is given."""
        with self._lock:
            owners = [account] if account else list(self._accounts.values())
            for owner in owners:
                for job in owner.jobs:
                    if job.id == job_id:
                        return owner, job
        return None

    def position(self, account: Account, job: Job) -> int:
        """Jobs of the account that wait before this one, itself counted."""
        with self._lock:
            waiting = [j for j in account.jobs if j.status == "in_queue"]
            return waiting.index(job) + 1 if job in waiting else 0

    def leak(self, what: str) -> None:
        """Note a secret that arrived where it must never be sent."""
        with self._lock:
            self._leaks.append(what)

    @property
    def leaks(self) -> list[str]:
        with self._lock:
            return list(self._leaks)

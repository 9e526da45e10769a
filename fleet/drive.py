"""The driver: Ray, the ledger, passes of Ray Data over what is left, and the line of progress.

A pass is a Ray Data dataset of the rows that are left, mapped by a pool of servers; its restarts,
retries and queues are Ray's. Most runs are one pass. What Ray would wait for for ever, a server on
a machine that does not come back, ends a pass, and the next one goes without it.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .ledger import SILENT_S, Ledger, Stats
from .progress import Progress
from .rows.plan import Job
from .worker import Setup, Worker

LOOK_S = 0.5
MANIFEST_S = 60.0
THREADS = 8
"""Of the ledger: pictures are written side by side."""
MOST_IDLE_PASSES = 2


class Crew(NamedTuple):
    """How many servers, and what each takes of a GPU; a core where there is none."""

    servers: int
    gpus: float
    here: bool  # on the driver's machine alone


class Order(NamedTuple):
    """What is to be run, chunk after chunk; ``folder`` is DIR, ``usd`` what a hosted row costs."""

    folder: Path
    chunks: list[list[Job]]
    usd: dict[str, float]
    setup: Setup
    crew: Crew
    max_cost: float | None
    again: bool


@contextmanager
def cluster(address: str | None, servers: int | None, dashboard: bool) -> Iterator[str]:
    """Join the cluster at ``address``, or make one of this machine; gives the dashboard's address,
    "" where there is none. Raises ConnectionError when no cluster answers.
    """
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address is None:
        # Servers mostly wait for one another's cores; a core is Ray's word for "one more server".
        cores = max(os.cpu_count() or 1, servers or 1)
        options |= {"num_cpus": cores, "include_dashboard": dashboard}
    # Without "local" it would join whatever cluster was started on this machine.
    context = ray.init(address=address or "local", **options)
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        ray.shutdown()


def crew_of(servers: int | None, gpu: bool, here: bool) -> Crew:
    """A server a GPU of the cluster, or one where it has none or none is to be used."""
    gpus = int(ray.cluster_resources().get("GPU", 0)) if gpu else 0
    wanted = servers or gpus or 1
    # More servers than GPUs share them evenly.
    return Crew(wanted, 1.0 / math.ceil(wanted / gpus) if gpus else 0.0, here)


def run(order: Order, show: Progress, manifest: Callable[[], object]) -> None:
    """Run the rows that are left, until each has an end or the user stops it.

    ``manifest`` is called now and then, and at the end. Raises RuntimeError with what kept the
    servers from working at all.
    """
    keys = {job.id: job.key for chunk in order.chunks for job in chunk}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Nobody's work is lost with it: what it must know is in the journal.
    ledger = (
        ray.remote(Ledger)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=THREADS,
            scheduling_strategy=here,
        )  # fmt: skip
        .remote(
            str(order.folder), order.setup.session, keys, order.usd, order.max_cost, order.again
        )
    )
    conduct = ray.remote(_conduct).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    watch = _Watch(ledger, show, manifest)
    try:
        with watch.signals():
            over, idle = False, 0
            while not over and (left := set(ray.get(ledger.left.remote()))):
                before = watch.look().made
                chunks = [
                    [json.dumps(job._asdict()) for job in chunk if job.id in left]
                    for chunk in order.chunks
                ]
                reference = conduct.remote(
                    [chunk for chunk in chunks if chunk], order.setup, order.crew, ledger
                )
                over = watch.until_over(reference)
                idle = idle + 1 if watch.look().made == before else 0
                if idle == MOST_IDLE_PASSES:
                    raise RuntimeError("no server does anything; see the logs in .fleet/")
    finally:
        manifest()


def _conduct(chunks: list[list[str]], setup: Setup, crew: Crew, ledger: Any) -> None:
    """One pass, as a task of its own: to end it is to cancel it."""
    import pyarrow
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = [pyarrow.table({"job": chunk}) for chunk in chunks]
    more: dict[str, Any] = {}
    if crew.here:
        node = ray.get_runtime_context().get_node_id()
        more["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    dataset = ray.data.from_arrow(blocks).map_batches(
        Worker,
        fn_constructor_args=(setup, ledger),
        batch_size=None,
        # The next chunk takes milliseconds to arrive, and one that waits could be run elsewhere.
        compute=ray.data.ActorPoolStrategy(
            size=min(crew.servers, len(blocks)), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=0 if crew.gpus else 1,
        num_gpus=crew.gpus,
        **more,
    )
    for _ in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        pass


class _Watch:
    """Looks after a pass: progress, Ctrl-C, and whether anything can still come of it."""

    def __init__(self, ledger: Any, show: Progress, manifest: Callable[[], object]) -> None:
        self._ledger, self._show, self._manifest = ledger, show, manifest
        self._stops = 0
        self._written = time.monotonic()

    def look(self) -> Stats:
        return Stats(*ray.get(self._ledger.stats.remote(self._stops > 0)))

    @contextmanager
    def signals(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) drains, the second one stops at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self._stops += 1

    def until_over(self, reference: Any) -> bool:
        """Wait for the end of a pass; whether it was the user's, so that no other is to follow.

        Raises RuntimeError when servers do not start.
        """
        lost_since, said = None, False
        while True:
            done, _ = ray.wait([reference], timeout=LOOK_S)
            stats = self.look()
            self._show.line(stats)
            if done:
                return self._outcome(reference)
            if self._stops and not said:
                said = True
                self._show.say("finishing the rows that are being made; once more stops at once")
            waiting = stats.held - stats.lost
            if self._stops > 1 or (self._stops and not waiting):
                ray.cancel(reference, force=True)
                return True
            everything = self._show.rows - stats.done - stats.failed - stats.over
            # Its machine may come back in that time; the rows that others have go on meanwhile.
            if stats.lost and stats.lost == everything:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > SILENT_S:
                    self._show.say(f"{stats.lost} rows were on servers that are gone; again")
                    ray.cancel(reference, force=True)
                    return False
            else:
                lost_since = None
            if time.monotonic() - self._written > MANIFEST_S:
                self._manifest()
                self._written = time.monotonic()

    def _outcome(self, reference: Any) -> bool:
        try:
            ray.get(reference)
        except ray.exceptions.WorkerCrashedError:
            return False  # the pass was killed, not what it does
        except ray.exceptions.RayTaskError as error:
            told = _cause(error)
            if "No module named 'host'" in told or "No module named 'fleet'" in told:
                told = (
                    "A machine of the cluster does not find the fleet: start Ray on it with "
                    "./scripts/fleet ray start, from a checkout at this one's path."
                )
            raise RuntimeError(told) from error
        return self._stops > 0


def _cause(error: BaseException) -> str:
    """The innermost sentence: Ray wraps what a server said in what it said about it."""
    while getattr(error, "cause", None) or error.__cause__:
        error = getattr(error, "cause", None) or error.__cause__  # type: ignore[assignment]
    return str(error)

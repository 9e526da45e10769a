"""SIGKILL of real hosts at random moments: each paid job is held, open or told; none is paid twice.

    python tests/campaign/kill.py --seed 1 --kills 200

Two ComfyUI processes share one user directory and one token, against the loopback stand-in. In each
round a graph is pressed, one host (now and then both) is killed at a random moment, and the graph
is pressed again, in the restarted host or in the other one, until its pictures are held. A request
that the node calls unresolved is resolved as a user does: the stand-in knows whether the job
exists; it is resumed by its id if it does, else dismissed and pressed again. The exit status is 1
when the rule is broken. Needs COMFYUI_PATH, and POSIX.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "scripts")]

from hosts import Host, Zygote  # noqa: E402
from ledger import Request  # noqa: E402
from stage import Campaign, carry_out, command_line, graph, say, shown  # noqa: E402
from standin_server import Timing  # noqa: E402
from watched import POINTS, Dropped  # noqa: E402

KINDS = {
    "single": 3, "list": 4, "batch": 3, "both": 4, "beside bad input": 1, "beside refused": 1,
    "beside failing": 2,
}  # fmt: skip
"""What is pressed, and how often; what fails beside it ends it soon."""
PHASES = {
    "": "before POST", "submit": "POST arrived", "created": "accepted, no answer yet",
    "answered": "answered", "status": "polling", "result": "result", "media": "download begun",
    "half": "half downloaded", "preview": "preview", "previewed": "after preview",
    "hold": "later in the prompt", "saving": "saving", "saved": "saved",
    "ending": "before the prompt's end", "ended": "after the prompt's end",
}  # fmt: skip


class Trigger:
    """Kills at the ``nth`` time that ``point`` is reached, after ``delay`` seconds.

    ``last`` is the last point seen before the kill. The empty point is the moment of the press;
    ``drop``: the request that is on its way then is lost with its sender.
    """

    def __init__(
        self, victims: Sequence[Host], point: str, nth: int, delay: float, drop: bool
    ) -> None:
        self.victims, self.point, self.nth, self.delay = victims, point, nth, delay
        self.drop, self.seen, self.last = drop, 0, ""
        self.fired = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        with self._lock:
            if self.fired.is_set():
                return
            self.last = point or self.last
            self.seen += point == self.point
            struck = point == self.point and self.seen == self.nth
            if struck and self.delay:
                threading.Timer(self.delay, self.fire).start()
            elif struck:
                self._kill()
        if struck and self.drop and point == "submit":
            raise Dropped

    def fire(self) -> None:
        with self._lock:
            if not self.fired.is_set():
                self._kill()

    def _kill(self) -> None:
        for victim in self.victims:
            victim.kill()
        self.fired.set()


class Plan(NamedTuple):
    """One round, all of it drawn from its number and the campaign's seed."""

    kind: str
    requests: tuple[Request, ...]
    hold: bool
    point: str
    nth: int
    delay: float
    drop: bool
    timing: Timing
    victim: int
    both_die: bool
    survivor: bool
    sibling_s: float
    again: bool


def draw_plan(seed: int, number: int) -> Plan:
    chance = random.Random(f"{seed}-{number}")
    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
    base = chance.randrange(1_000_000)
    words = f"campaign {seed} round {number}"
    if kind == "list":
        requests = tuple(Request(f"{words} item {item}", base) for item in range(3))
    elif kind == "batch":
        requests = (Request(words, base), Request(words, base + 1))
    else:
        requests = (Request(words, base),)
    # A graph whose other node fails at once does not come far.
    point = chance.choice(("", *(POINTS[:4] if kind.startswith("beside") else POINTS)))
    queue, run = chance.choice([(0.0, 0.0), (0.0, 0.2), (0.1, 0.3), (0.3, 0.5)])
    return Plan(
        kind, requests,
        hold=chance.random() < 0.7 or point == "hold",
        point=point,
        nth=chance.randint(1, len(requests)) if point in POINTS[:7] else 1,
        delay=chance.choice([0.0, 0.0, 0.0, chance.uniform(0.0, 0.02), chance.uniform(0.0, 0.2)])
        if point else chance.uniform(0.001, 0.1),
        drop=chance.random() < 0.4,
        timing=Timing(queue, run, chance.choice([0.0, 0.0, 0.05])),
        victim=chance.randrange(2),
        both_die=chance.random() < 0.1,
        survivor=chance.random() < 0.5,
        sibling_s=chance.uniform(0.1, 0.8),
        again=chance.random() < 0.3,
    )  # fmt: skip


class KillCampaign(Campaign):
    """Rounds of one kill each, or of two at once."""

    def __init__(self, folder: Path, seed: int, zygote: Zygote | None = None) -> None:
        super().__init__(folder, zygote)
        self.seed, self.kills = seed, 0
        self.phases: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.finished: list[Request] = []

    def round(self, number: int) -> None:
        """Press, kill, and press again until the pictures are held; the rule is checked twice."""
        plan = draw_plan(self.seed, number)
        self.where = f"round {number} ({plan.kind})"
        for host in self.hosts:
            host.ready()
        self.account.timing = plan.timing
        self._kill_one(plan)
        self.ledger.check_once(self.where)
        alive = [host for host in self.hosts if host.alive]
        for host in self.hosts:
            if not host.alive:
                host.fork()
        if not alive:
            alive = [self.hosts[0].ready()]
        self.check_kept(alive)
        self.account.timing = Timing(0, 0.1)
        restarted = self.hosts[plan.victim]
        prompt = graph(plan.kind, plan.requests, plan.hold, plan.sibling_s)
        self.settle(alive[0] if plan.survivor else restarted, prompt, plan.requests)
        if not self.missing(plan.requests):
            self.finished += [r for r in plan.requests if r not in self.ledger.by_hand]
        for host in self.hosts:
            host.ready()
        self.ledger.check_once(self.where)
        self.check_kept(self.hosts)
        if plan.again and self.finished:
            self._once_more(restarted)

    def _kill_one(self, plan: Plan) -> None:
        victim = self.hosts[plan.victim]
        dying = list(self.hosts) if plan.both_die else [victim]
        trigger = Trigger(dying, plan.point, plan.nth, plan.delay, plan.drop)
        self.standin.hook = trigger
        pressing = list(self.hosts) if plan.kind == "both" else [victim]
        prompt = graph(plan.kind, plan.requests, plan.hold, plan.sibling_s)
        threads = [threading.Thread(target=self.press, args=(h, prompt)) for h in pressing]
        for thread in threads:
            thread.start()
        trigger("")
        # One that never gets to its point is killed after its end.
        while any(thread.is_alive() for thread in threads) and not trigger.fired.is_set():
            trigger.fired.wait(0.05)
        trigger.fire()
        for host in dying:
            host.bury()
        for thread in threads:
            thread.join()
        self.standin.hook = lambda point: None
        self.standin.quiet()
        self.kills += len(dying)
        phase = PHASES[trigger.last]
        self.phases[phase] += 1
        self.kinds[plan.kind] += 1
        self.where += f", killed at {phase!r}{', both' if plan.both_die else ''}"

    def _once_more(self, host: Host) -> None:
        """What was delivered long ago, in a host that does not know it: fetched for nothing."""
        request = random.Random(f"{self.where}").choice(self.finished)
        before = len(self.ledger.payments())
        self.press(host, graph("single", [request]))
        if len(self.ledger.payments()) != before:
            self.ledger.violations.append(f"{self.where}: a delivered request was paid again")

    def report(self) -> str:
        """The figures."""
        return "\n".join(
            [
                f"seed {self.seed}: {sum(self.kinds.values())} rounds, {self.kills} kills, "
                f"{self.presses} presses, {sum(host.starts for host in self.hosts)} hosts started",
                f"moments: {shown(self.phases)}",
                f"graphs: {shown(self.kinds)}",
                self.money(),
            ]
        )


def run(folder: Path, options: argparse.Namespace) -> KillCampaign:
    """So many kills, in rounds from number ``first`` on."""
    began = time.monotonic()
    with KillCampaign(folder, options.seed) as campaign:
        number = options.first
        while campaign.kills < options.kills:
            known = len(campaign.ledger.violations)
            campaign.round(number)
            number += 1
            for violation in campaign.ledger.violations[known:]:
                say(f"VIOLATION {violation}")
            if number % 10 == 0:
                say(f"{campaign.kills} kills, {time.monotonic() - began:.0f} s")
    return campaign


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the round to begin with")
    return carry_out(parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())

"""A fault at every step of a paid run in a real host: the id is told, in ``open``, and paid once.

    python tests/campaign/inject.py --seed 1 [--step NAME] [--what RuntimeError]

A case is a step of the pack (a function, before or after it ran), and what strikes there: an
exception, Stop, or the failure of a node beside it. The rule is checked at once, in the same host,
and again after the same graph was pressed once more. Needs COMFYUI_PATH, and POSIX.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "scripts")]

from hosts import Host, Zygote  # noqa: E402
from ledger import Request, request_of  # noqa: E402
from stage import (  # noqa: E402
    PROMPT_S,
    Campaign,
    carry_out,
    command_line,
    graph,
    say,
    shown,
    unresolved,
)
from standin_server import Timing  # noqa: E402

from host.events import Result  # noqa: E402


class Step(NamedTuple):
    """A function of the pack as its module knows it, and when the fault strikes."""

    module: str
    function: str
    when: str = "before"


# The one place that names the pack's functions; a name that is gone fails the case.
STEPS = {
    "account": Step("remote.account", "open_account"),
    "open list": Step("remote.journal", "Journal.open_requests"),
    "inputs": Step("nodes.runcomfy", "settings_of"),
    "plan": Step("remote.plan", "make_plan"),
    "payload": Step("remote.plan", "build"),
    "price": Step("remote.api.models", "read_price"),
    "claim": Step("remote.journal", "Journal.claim"),
    "recorded": Step("remote.journal", "Journal._append", "after"),
    "the POST": Step("remote.api.client", "ModelApi.submit"),
    "after the answer": Step("remote.api.client", "ModelApi.submit", "after"),
    "mark": Step("remote.journal", "Journal.mark"),
    "marked": Step("remote.journal", "Journal.mark", "after"),
    "sent": Step("remote.job", "Job._send", "after"),
    "submitted": Step("remote.job", "Job.submit", "after"),
    "poll": Step("remote.api.client", "ModelApi.status"),
    "polled": Step("remote.api.client", "ModelApi.status", "after"),
    "progress": Step("remote.report", "progress_text"),
    "result": Step("remote.api.client", "ModelApi.result", "after"),
    "read result": Step("remote.api.answers", "read_result"),
    "media": Step("remote.pictures.media", "fetch_picture"),
    "downloaded": Step("remote.pictures.media", "fetch_picture", "after"),
    "decode": Step("remote.pictures.media", "decode"),
    "fetched": Step("remote.job", "Job.fetch", "after"),
    "stacking": Step("nodes.runcomfy", "as_batches"),
    "preview": Step("ui", "PreviewImage.__init__"),
    "previewed": Step("ui", "PreviewImage.__init__", "after"),
    "hand over": Step("remote.run", "Run.hand_over"),
    "handed over": Step("remote.run", "Run.hand_over", "after"),
    "close": Step("remote.run", "Run.close"),
    "info": Step("remote.report", "info_of"),
    "summary": Step("remote.report", "summary"),
}
ONE_JOB = tuple(STEPS)[tuple(STEPS).index("claim") : tuple(STEPS).index("fetched") + 1]
"""What each job does; the others are done once a run."""
EXCEPTIONS = ("RuntimeError", "MemoryError", "RecursionError", "OSError", "ValueError")
ODD = ("CancelledError", "KeyboardInterrupt")
"""Not an Exception: the host itself may end with it, so no text is asked for."""
ACTIONS = ("stop", "sibling")
HANGS_S = 8.0
AFTER_S = 1.5


class Case(NamedTuple):
    """One strike: at which step, what, at which call of it, in which graph."""

    step: str
    what: str
    nth: int
    kind: str


def all_cases(seed: int) -> list[Case]:
    """Every step with everything that may strike there, in single graphs, batches and lists."""
    chance = random.Random(seed)
    cases = []
    for step in STEPS:
        for what in (*EXCEPTIONS, *ODD, *ACTIONS):
            kind = chance.choice(("single", "batch", "list"))
            if what == "sibling":
                kind = "beside failing"
            many = kind in ("batch", "list") and step in ONE_JOB
            nth = chance.randint(1, 2) if many else 1
            cases.append(Case(step, what, nth, kind))
    return cases


def short_cases(seed: int) -> list[Case]:
    """Each step once, with a fault that the seed draws."""
    chance = random.Random(seed)
    cases = []
    for step in STEPS:
        what = chance.choice((*EXCEPTIONS, *ACTIONS))
        kind = "beside failing" if what == "sibling" else chance.choice(("single", "list"))
        cases.append(Case(step, what, 1, kind))
    return cases


class InjectCampaign(Campaign):
    """The cases, one after the other on the first host."""

    def __init__(self, folder: Path, zygote: Zygote | None = None) -> None:
        super().__init__(folder, zygote, places="a")
        self.cases: Counter[str] = Counter()
        self.unstruck: list[str] = []
        self.restarts = 0

    def case(self, number: int, case: Case) -> None:
        """Strike, check the rule at once, press again, check it again."""
        self.where = f"case {number} {case.step!r} {case.what} (call {case.nth}, {case.kind})"
        requests = requests_of(number, case.kind)
        host = self.hosts[0].ready()
        self.account.timing = Timing(0, 0.1 if case.what in ACTIONS else 0)
        step = STEPS[case.step]
        order = {"module": step.module, "name": step.function, "when": step.when}
        order |= {"what": case.what, "nth": case.nth}
        reply = host.client.http.post(f"{host.url}/campaign/strike", json=order, timeout=20)
        if reply.status_code == 400:
            self.ledger.violations.append(f"{self.where}: {reply.json()['error']}")
            return
        prompt = graph(case.kind, requests, sibling_s=-1.0)
        result = self._struck(host, prompt, case)
        self.cases[case.what] += 1
        self.standin.quiet()
        self.ledger.check_once(self.where)
        self._told(result, case, requests)
        self.check_kept([host.ready()])
        # The sibling goes on failing; ours alone is pressed again.
        again = graph("single" if case.kind == "beside failing" else case.kind, requests)
        self.settle(host, again, requests)
        self.ledger.check_once(self.where)
        self.check_kept([host])

    def _struck(self, host: Host, prompt: dict, case: Case) -> Result | None:
        """The press that is struck; a host that such an exception has ended is killed."""
        try:
            result = host.press(prompt, HANGS_S if case.what in ODD else PROMPT_S)
            if result.error is not None:
                self.errors[result.error.exception_type.rpartition(".")[2]] += 1
        except TimeoutError as error:
            result = None
            if case.what not in ODD:
                self.ledger.violations.append(f"{self.where}: a prompt hangs: {error}")
        except OSError:
            result = None
        self.presses += 1
        if result is None:
            self.restarts += 1
            host.kill()
            host.bury()
            return None
        http, url = host.client.http, f"{host.url}/campaign/strike"
        end = time.monotonic() + AFTER_S  # what follows the prompt's end
        while not http.get(url, timeout=20).json()["struck"] and time.monotonic() < end:
            time.sleep(0.05)
        if not http.delete(url, timeout=20).json()["struck"]:
            self.unstruck.append(self.where)
        return result

    def _told(self, result: Result | None, case: Case, requests: Iterable[Request]) -> None:
        """The error of a run names each job that it paid for and did not hand over."""
        if result is None or result.error is None or case.what in (*ODD, *ACTIONS):
            return
        held, text = self.ledger.held(), result.error.message
        text += "\n".join(told for _, told in result.texts)
        for job in self.ledger.payments():
            request = request_of(job)
            if request in requests and request not in held and job.id not in text:
                if not unresolved(result) and case.step != "after the answer":
                    self.ledger.violations.append(
                        f"{self.where}: the error does not tell {job.id}: {result.error.message!r}"
                    )

    def report(self) -> str:
        """The figures."""
        return "\n".join(
            [
                f"{sum(self.cases.values())} cases ({shown(self.cases)}), {self.presses} presses, "
                f"{self.restarts} hosts restarted, {len(self.unstruck)} never struck",
                self.money(),
            ]
        )


def requests_of(number: int, kind: str) -> tuple[Request, ...]:
    words = f"injected {number}"
    if kind == "list":
        return tuple(Request(f"{words} item {item}", number) for item in range(3))
    if kind == "batch":
        return (Request(words, number), Request(words, number + 1))
    return (Request(words, number),)


def run(folder: Path, options: argparse.Namespace) -> InjectCampaign:
    with InjectCampaign(folder) as campaign:
        cases = short_cases(options.seed) if options.short else all_cases(options.seed)
        for number, case in enumerate(cases):
            if options.step in (None, case.step) and options.what in (None, case.what):
                known = len(campaign.ledger.violations)
                campaign.case(number, case)
                for violation in campaign.ledger.violations[known:]:
                    say(f"VIOLATION {violation}")
        say("\n".join(f"never struck: {where}" for where in campaign.unstruck))
    return campaign


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--short", action="store_true", help="each step once")
    parser.add_argument("--step", choices=STEPS, help="this step alone")
    parser.add_argument("--what", help="this fault alone")
    return carry_out(parser.parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())

"""What every campaign has: two hosts on one user directory, the stand-in, the ledger, a user."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hosts import Host, Zygote
from ledger import Ledger, Request, ids_unknown, request_of
from standin_server import Timing
from watched import REFUSED, Watched

from host.client import Prompt
from host.events import Result

TOKEN = "token-of-the-kill-campaign"  # noqa: S105
NODE = "Flux2EditRunComfy"
UNRESOLVED = ("Unresolved", "OutcomeUnknown")
"""The errors that leave it to the user to look whether the job exists."""
ATTEMPTS = 6
PROMPT_S = 30.0
"""Seconds after which a prompt hangs: its jobs are made in less than one."""
KEPT_S = 3.0
"""Seconds after a prompt's end in which the pack has seen whether the host holds its pictures."""


def graph(
    kind: str, requests: Sequence[Request], hold: bool = False, sibling_s: float = 0
) -> Prompt:
    """What is pressed: the hosted node (for a list with the prompts linked in) and its pictures."""
    first = requests[0]
    prompt: Prompt = {
        "1": {"class_type": NODE, "inputs": hosted(first.prompt, first.seed)},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "k"}},
    }
    if kind == "list":
        text = "\n".join(request.prompt for request in requests)
        prompt["lines"] = {"class_type": "CampaignLines", "inputs": {"text": text}}
        prompt["1"]["inputs"]["prompt"] = ["lines", 0]
    elif kind == "batch":
        prompt["1"]["inputs"]["batch_count"] = len(requests)
    elif kind in ("beside bad input", "beside refused"):
        bad = " " if kind == "beside bad input" else f"{REFUSED} {first.prompt}"
        prompt["2"] = {"class_type": NODE, "inputs": hosted(bad, first.seed)}
        shown = {"images": ["2", 0], "filename_prefix": "never"}
        prompt["save2"] = {"class_type": "SaveImage", "inputs": shown}
    elif kind == "beside failing":
        prompt["2"] = {"class_type": "CampaignFail", "inputs": {"seconds": sibling_s}}
    if hold:
        prompt["hold"] = {"class_type": "CampaignHold", "inputs": {"images": ["1", 0]}}
        prompt["save"]["inputs"]["images"] = ["hold", 0]
    return prompt


def hosted(words: str, seed: int, **more: object) -> dict[str, object]:
    """The inputs of the node under test."""
    return {
        "prompt": words, "mode": "auto", "image_size": "square", "guidance_scale": 2.5,
        "num_inference_steps": 28, "seed": seed, "output_format": "png", "batch_count": 1, **more,
    }  # fmt: skip


class Campaign:
    """Two hosts and what happens to them; a context manager that ends everything it started."""

    def __init__(self, folder: Path, zygote: Zygote | None = None, places: str = "ab") -> None:
        self.standin = Watched(timing=Timing(0, 0), picture_side=16)
        self.account = self.standin.state.account(TOKEN)
        self._own = None if zygote else Zygote(Path(os.environ["COMFYUI_PATH"]), folder)
        environment = {
            "RUNCOMFY_API_BASE": self.standin.origin,
            "RUNCOMFY_API_TOKEN": TOKEN,
            "HOME": str(folder),
        }
        start = (zygote or self._own, folder, environment)
        self.hosts = [Host(*start, name) for name in places]
        for host in self.hosts:
            host.fork()
        self.ledger = Ledger(self.standin, self.account, [host.output for host in self.hosts])
        self.errors: Counter[str] = Counter()
        self.resolved = self.dismissed = self.presses = 0
        self.where = ""

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *error: object) -> None:
        for host in self.hosts:
            host.kill()
        if self._own:
            self._own.close()
        self.standin.close()

    def press(self, host: Host, prompt: Prompt) -> Result | None:
        """One press; None when the host died. What was said is kept."""
        self.presses += 1
        try:
            result = host.press(prompt, PROMPT_S)
        except TimeoutError as error:
            self.ledger.violations.append(f"{self.where}: a prompt hangs: {error}")
            host.kill()
            host.bury()
            return None
        except OSError:
            return None
        self.ledger.told += "\n".join(text for _, text in result.texts)
        if result.error is not None:
            self.ledger.told += f"\n{result.error.message}"
            kind = result.error.exception_type.rpartition(".")[2]
            self.errors[kind] += 1
        return result

    def check_kept(self, living: Sequence[Host]) -> None:
        """Each payment is held, open or told, within a moment of the prompt's end."""
        end = time.monotonic() + KEPT_S
        while True:
            listed = {e["key"]: e for host in living for e in host.ready().open_requests()}
            lost = self.ledger.lost(list(listed.values()), [host.temp for host in living])
            if not lost or time.monotonic() > end:
                break
            time.sleep(0.1)
        if self.ledger.last_lost > self.ledger.most_lost:  # said once, not at each look
            self.ledger.most_lost = self.ledger.last_lost
            self.ledger.violations.append(f"{self.where}: {lost}")

    def settle(self, host: Host, prompt: Prompt, requests: Sequence[Request]) -> None:
        """Press the same graph again, then what is still missing, until all pictures are held."""
        host.ready()
        for attempt in range(ATTEMPTS):
            result = self.press(host, prompt)
            if result is None:
                self.ledger.violations.append(f"{self.where}: host {host.name} gave no answer")
                host.ready()
                continue
            self.ledger.check_once(self.where)
            missing = self.missing(requests)
            if missing and unresolved(result):
                self._by_hand(host, missing)
                missing = self.missing(requests)
            if not missing:
                return
            prompt = graph("single", [missing[attempt % len(missing)]])
        said = result and (result.error.message if result.error else result.status)
        self.ledger.violations.append(f"{self.where}: never delivered: {missing}; {said}")

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Those of them whose pictures are not held."""
        held = self.ledger.held()
        return [request for request in requests if request not in held]

    def _by_hand(self, host: Host, missing: Sequence[Request]) -> None:
        """As a user: fetch what exists at RunComfy by its id, dismiss what does not."""
        for job in self.ledger.payments():
            if request_of(job) in missing:
                inputs = hosted("", 0, resume_request_id=job.id)
                prompt = graph("single", missing)
                prompt["1"]["inputs"] = inputs
                self.press(host, prompt)
                self.resolved += 1
                self.ledger.by_hand.add(request_of(job))
        for living in self.hosts:
            if living.alive:
                for key in ids_unknown(living.ready().open_requests(), self.account):
                    living.dismiss(key)
                    self.dismissed += 1

    def report(self) -> str:
        """All figures of the campaign."""
        return self.money()

    def money(self) -> str:
        """The figures of the rule."""
        ledger, found = self.ledger, self.ledger.violations
        payments, distinct = len(ledger.payments()), ledger.distinct()
        undelivered = sum("never delivered" in text for text in found)
        return "\n".join(
            [
                f"errors seen: {shown(self.errors)}",
                f"payments {payments}, distinct requests {distinct}, "
                f"paid twice {payments - distinct}, lost {ledger.most_lost}, "
                f"never delivered {undelivered}",
                f"by hand: {self.resolved} resumed, {self.dismissed} dismissed; secrets leaked: "
                f"{len(self.standin.state.leaks)}; violations: {len(found)}",
            ]
        )


def unresolved(result: Result) -> bool:
    """Whether the node leaves it to the user to look at RunComfy."""
    error = result.error
    return error is not None and (
        any(name in error.exception_type for name in UNRESOLVED)
        or "Look at your generations" in error.message
    )


def shown(count: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in count.most_common()) or "none"


def say(text: str) -> None:
    """A line for who waits for the figures."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """The options that all campaigns have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="a new folder for the hosts' files, kept afterwards")
    return parser


def carry_out(
    options: argparse.Namespace, campaign: Callable[[Path, argparse.Namespace], Campaign]
) -> int:
    """A campaign from the command line: its figures printed, status 1 for any violation."""
    folder = Path(options.keep or tempfile.mkdtemp(prefix="campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        ended = campaign(folder, options)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    say(ended.report())
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if ended.ledger.violations else 0

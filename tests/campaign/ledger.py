"""The money rule, checked from outside: payments against requests, pictures against payments.

Every accepted job that was not cancelled in time is a payment. A picture is held when a whole file
with its pixels lies in an output folder, or among what the nodes of a living host show. Nothing of
the pack is imported here.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from standin_server.state import Account, Job
from watched import Watched


class Request(NamedTuple):
    """What a user asks for, once: another seed or another prompt is another request."""

    prompt: str
    seed: int


def request_of(job: Job) -> Request:
    return Request(str(job.payload["prompt"]), int(job.payload["seed"]))


class Ledger:
    """What was paid, what is held, and what was said; ``violations`` grows as they are found."""

    def __init__(self, standin: Watched, account: Account, outputs: Iterable[Path]) -> None:
        self.standin, self.account, self.outputs = standin, account, list(outputs)
        self.told = ""
        self.violations: list[str] = []
        self.last_lost = self.most_lost = 0
        self.by_hand: set[Request] = set()
        self.ended: set[str] = set()
        self._seen: dict[tuple[str, int, int], bytes | None] = {}
        self._pictures: dict[bytes, Request] = {}
        self._known: set[str] = set()
        self._twice: set[str] = set()

    def payments(self) -> list[Job]:
        """Every job that costs: not those that were cancelled, or that the API ended badly."""
        jobs = list(self.account.jobs)
        return [job for job in jobs if not job.cancelled and job.id not in self.ended]

    def held(self, temps: Iterable[Path] = ()) -> set[Request]:
        """The requests whose picture lies whole in an output folder, or in one of ``temps``."""
        for job in self.payments():
            if job.id not in self._known:
                self._known.add(job.id)
                data = self.standin._picture(job)
                self._pictures[pixels(Image.open(io.BytesIO(data)))] = request_of(job)
        found = set()
        for folder in (*self.outputs, *temps):
            for path in folder.glob("*.png"):
                place = (str(path), path.stat().st_mtime_ns, path.stat().st_size)
                if place not in self._seen:
                    self._seen[place] = read(path)
                found.add(self._seen[place])
        requests = (self._pictures.get(picture) for picture in found if picture is not None)
        return {request for request in requests if request is not None}

    def check_once(self, where: str) -> None:
        """No distinct request was paid twice."""
        count = Counter(json.dumps([j.model, j.payload], sort_keys=True) for j in self.payments())
        for key, times in count.items():
            if times > 1 and key not in self._twice:
                self._twice.add(key)
                _, payload = json.loads(key)
                named = f"{payload['prompt']!r} seed {payload['seed']}"
                self.violations.append(f"{where}: paid {times} times: {named}")

    def lost(self, open_requests: list[dict], temps: Iterable[Path]) -> str:
        """What is neither held, open with its id, nor told; empty when nothing is.

        ``temps``: where living hosts keep what their nodes show. An open request without an id, or
        with one that no job has, stands for a submission whose answer was lost or garbled.
        """
        held, ids = self.held(temps), {entry["request_id"] for entry in open_requests}
        missing = [
            job
            for job in self.payments()
            if request_of(job) not in held and job.id not in ids and job.id not in self.told
        ]
        count = len(missing) - len(ids_unknown(open_requests, self.account))
        named = ", ".join(f"{job.id} {request_of(job)}" for job in missing)
        self.last_lost = max(count, 0)
        return f"lost {count}: neither held, open nor told: {named}" if count > 0 else ""

    def distinct(self) -> int:
        """The number of distinct requests that were paid."""
        return len({json.dumps([j.model, j.payload], sort_keys=True) for j in self.payments()})


def ids_unknown(open_requests: list[dict], account: Account) -> list[str]:
    """The keys of open requests that lead to no job: without an id, or with one of no job."""
    known = {job.id for job in account.jobs}
    return [entry["key"] for entry in open_requests if entry["request_id"] not in known]


def read(path: Path) -> bytes | None:
    """The pixels of a whole picture; None of a torn one."""
    try:
        with Image.open(path) as image:
            return pixels(image)
    except (OSError, SyntaxError, ValueError):
        return None


def pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()

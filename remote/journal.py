"""The record of paid requests: written before the money is spent, read before it is spent again.

One file of JSON lines, only ever appended to and flushed to the disk (fsync), shared by all
ComfyUI processes of one user behind a lock, readable by its owner alone. A line holds times, the
model, a request id, a state, size, seed and counts, and fingerprints (HMAC under a private salt);
never a token, a prompt, a picture or an address. A request that is ended stays in it, so that the
same one is fetched again and not paid again; the newest ``MAX_CLOSED`` of those are kept. An open
one is never dropped.
"""

import hashlib
import hmac
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import filelock

from ..network.files import sync_folder, write_atomically
from .errors import JournalError

logger = logging.getLogger(__name__)

SUBMITTING = "submitting"  # the intent: written before the POST
ACCEPTED = "accepted"  # the id is known, the result not yet fetched
UNKNOWN = "unknown"  # no usable answer to the POST
LEFT = "left"  # stopped or timed out here; the job went on there
HANDED = "handed"  # given to a host that may still lose it: its prompt has not ended
DELIVERED = "delivered"
OPEN_STATES = frozenset({SUBMITTING, ACCEPTED, UNKNOWN, LEFT, HANDED})
FRUITLESS = frozenset({"refused", "failed", "cancelled", "gone"})
STATES = OPEN_STATES | FRUITLESS | {DELIVERED, "dismissed"}

OWNER_FILE = 0o600
MAX_CLOSED = 2000
MAX_OPEN = 2000
MAX_HISTORY = 100
COMPACT_BYTES = 3 * 1024 * 1024  # twice what both of these take
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One request: ``key`` is ours, ``request_id`` RunComfy's (empty until known).

    ``payload`` is a fingerprint of what was sent, ``origin`` of where to, ``account`` of that and
    the token; ``started`` and ``changed`` are Unix seconds. ``session`` names the process that
    submitted it, ``worker`` the one that follows it by now, if it is another. ``usd``: its cost as
    RunComfy states it, the catalogue's price before that, None where neither is known. ``title``:
    its size, seed and counts in words, empty for one that was resumed by its id alone.
    """

    key: str
    state: str
    model: str
    account: str
    payload: str
    session: str
    started: float
    changed: float
    request_id: str = ""
    origin: str = ""
    worker: str = ""
    usd: float | None = None
    title: str = ""

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to be fetched, or to be looked for."""
        return self.state in OPEN_STATES

    @property
    def is_underway(self) -> bool:
        """Whether a process works on it, or worked until it died."""
        return self.state in (SUBMITTING, ACCEPTED, HANDED)


@dataclass(frozen=True)
class Journal:
    """The journal in one folder, for one account, written by one process (``session``).

    ``lives`` tells of another session whether its process runs. Raises JournalError when the lock
    or the disk does not serve.
    """

    folder: Path
    salt: bytes
    account: str
    session: str
    now: Callable[[], float] = time.time
    lock_s: float = 10.0
    origin: str = ""
    lives: Callable[[str], bool] = lambda session: False

    @property
    def path(self) -> Path:
        """The file of JSON lines."""
        return self.folder / "requests.jsonl"

    def claim(
        self, model: str, payload: dict[str, Any], usd: float | None, besides: Container[str] = ()
    ) -> tuple[Entry, bool]:
        """The entry of this very request where there is one, else that of an intent to submit it.

        One step for all processes: of two that come with the same request one submits it. Gives
        whether it is an intent (on the disk when this returns); ``besides``: keys not to be found.
        """
        text = json.dumps(payload, sort_keys=True).encode()
        fingerprint = hmac.new(self.salt, text, hashlib.sha256).hexdigest()[:24]
        with self._locked():
            known = [
                entry
                for entry in self.entries(fingerprint)
                if entry.payload == fingerprint and entry.model == model
                and entry.key not in besides and self._is_ours(entry)
                and (entry.state not in FRUITLESS if entry.request_id
                     else entry.is_open)
            ]  # fmt: skip
            if known:
                return max(known, key=lambda entry: bool(entry.request_id)), False
            now = self.now()
            title = [str(payload.get("image_size")), f"seed {payload.get('seed')}"]
            for word, name in (("pictures", "image_urls"), ("LoRAs", "loras")):
                title += [f"{word}: {len(payload[name])}"] if payload.get(name) else []
            entry = Entry(
                uuid.uuid4().hex, SUBMITTING, model, self.account, fingerprint, self.session, now,
                now, origin=self.origin, usd=usd, title=" · ".join(title),
            )  # fmt: skip
            try:
                self._append(entry)
            except BaseException:  # its line may stand there all the same: nothing was sent
                with suppress(Exception):
                    self._append(replace(entry, state="dismissed"))
                raise
        return entry, True

    def mark(self, entry: Entry, state: str, **changes: Any) -> Entry:
        """Write a request's new state (and what else of it changes); on the disk on return."""
        if state not in STATES:
            raise ValueError(f"no such state: {state}")
        changed = replace(entry, state=state, changed=self.now(), **changes)
        with self._locked():
            self._append(changed)
        return changed

    def adopt(self, request_id: str) -> Entry:
        """The entry of an id that is to be fetched, a new one where the journal has none.

        Nothing is written. Whose it is, the API decides: a token may have been renewed.
        """
        for entry in reversed(self.entries()):
            if entry.request_id == request_id:
                return entry
        now = self.now()
        return Entry(
            uuid.uuid4().hex, LEFT, "", self.account, "", self.session, now, now, request_id,
            origin=self.origin,
        )  # fmt: skip

    def entries(self, holding: str = "") -> list[Entry]:
        """Every request's last state, oldest first. A torn or foreign line is skipped.

        ``holding``: only of lines that hold this text.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(_unusable(self.path, error)) from None
        found: dict[str, Entry] = {}
        for line in data.splitlines():
            if holding.encode() in line and (entry := _parse(line)):
                # An id once known stays known, whatever order two threads wrote in.
                known = found.get(entry.key)
                if known and known.request_id and not entry.request_id:
                    entry = replace(entry, request_id=known.request_id)
                found[entry.key] = entry
        return list(found.values())  # in the order of their first lines: a clock may jump

    def open_requests(self) -> list[Entry]:
        """This user's requests without an outcome, except those that a living process works on.

        Those of another token at the same API are among them: whose they are, the API decides.
        """
        found = [entry for entry in self.entries() if entry.is_open and self._is_ours(entry)]
        looked = replace(self, lives=cache(self.lives))  # once a process
        return [e for e in found if not (e.is_underway and looked.is_worked_on(e))]

    def history(self) -> list[Entry]:
        """This user's newest ``MAX_HISTORY`` requests, the newest first, whatever their state."""
        found = [entry for entry in reversed(self.entries()) if self._is_ours(entry)]
        return found[:MAX_HISTORY]

    def is_worked_on(self, entry: Entry) -> bool:
        """Whether the process that an entry names as the last one at work runs, this one or not."""
        worker = entry.worker or entry.session
        return worker == self.session or self.lives(worker)

    def _is_ours(self, entry: Entry) -> bool:
        """An entry of 0.1.0 names no origin: another account's may be of this one."""
        return entry.account == self.account or entry.origin in ("", self.origin)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes."""
        lock = filelock.FileLock(f"{self.path}.lock", timeout=self.lock_s, mode=OWNER_FILE)
        try:
            private_folder(self.folder)
            with lock.acquire(poll_interval=0.01):
                yield
        except (OSError, filelock.Timeout) as error:
            raise JournalError(_unusable(self.path, error)) from None

    def _append(self, entry: Entry) -> None:
        """Called under the lock."""
        owned = partial(os.open, mode=OWNER_FILE)
        with open(self.path, "ab+", buffering=0, opener=owned) as file:
            size = file.seek(0, os.SEEK_END)
            line = json.dumps(vars(entry), separators=(",", ":")).encode() + b"\n"
            if size:
                # A crash may have cut the last line: its rest must not swallow this one.
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            if file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        if not size:
            sync_folder(self.folder)
        if size > COMPACT_BYTES:
            self._compact()

    def _compact(self) -> None:
        """Rewrite the file with one line a request, the oldest closed ones gone; under the lock."""
        entries = self.entries()
        closed = [entry.key for entry in entries if not entry.is_open]
        dropped = set(closed[:-MAX_CLOSED])
        kept = [entry for entry in entries if entry.key not in dropped]
        lines = (json.dumps(vars(entry), separators=(",", ":")) + "\n" for entry in kept)
        write_atomically(self.path, "".join(lines).encode(), private=True)
        logger.info("RunComfy journal: compacted to %d requests", len(kept))


_FIELDS: dict[str, Any] = {
    **dict.fromkeys((field.name for field in fields(Entry)), str),
    "started": int | float,
    "changed": int | float,
    "usd": int | float | None,
}


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter (on Windows the user profile's own rights)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix":
        folder.chmod(0o700)


def _parse(line: bytes) -> Entry | None:
    """An entry that a version of this pack wrote; fields that this one does not know are left."""
    try:
        read = json.loads(line)
        entry = Entry(**{name: read[name] for name in _FIELDS.keys() & read.keys()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    right = all(isinstance(getattr(entry, name), kinds) for name, kinds in _FIELDS.items())
    return entry if right and entry.state in STATES and 0 <= entry.started < 1e11 else None


def _unusable(path: Path, error: Exception) -> str:
    if isinstance(error, filelock.Timeout):
        why, way = "is locked by another process", "Run again when it is free."
    else:
        why, way = f"is unusable ({type(error).__name__})", "Make the folder writable."
    return (
        f"The record of RunComfy requests {why}. Without it a paid job could be lost, so nothing "
        f"is submitted. {way}\n{path}"
    )

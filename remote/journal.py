"""The record of paid requests: written before the money is spent, read after a crash.

One file of JSON lines, only ever appended to and flushed to the disk (fsync), shared by all
ComfyUI processes of one user behind a lock, readable by its owner alone. A line holds times, the
model, a request id, a state and fingerprints (HMAC under a private salt); never a token, a prompt,
a picture or an address. It stays bounded: finished requests go first, then the oldest.
"""

import hashlib
import hmac
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
OPEN_STATES = frozenset({SUBMITTING, ACCEPTED, UNKNOWN, LEFT})
STATES = OPEN_STATES | {"delivered", "refused", "failed", "cancelled", "gone", "dismissed"}

OWNER_FILE = 0o600
MAX_ENTRIES = 400
OPEN_DAYS = 30
COMPACT_BYTES = 512 * 1024  # about 1500 lines
MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One request: ``key`` is ours, ``request_id`` RunComfy's (empty until known).

    ``payload`` is a fingerprint of what was sent, ``account`` of who sent it; ``started`` and
    ``changed`` are Unix seconds, ``session`` names the process that wrote it.
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

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to be fetched, or to be looked for."""
        return self.state in OPEN_STATES


@dataclass(frozen=True)
class Journal:
    """The journal in one folder, for one account, written by one process (``session``).

    Raises JournalError when the lock or the disk does not serve.
    """

    folder: Path
    salt: bytes
    account: str
    session: str
    now: Callable[[], float] = time.time
    lock_s: float = 10.0

    @property
    def path(self) -> Path:
        """The file of JSON lines."""
        return self.folder / "requests.jsonl"

    def intend(self, model: str, payload: dict[str, Any]) -> Entry:
        """Write that a job is about to be submitted; on the disk when this returns."""
        text = json.dumps(payload, sort_keys=True).encode()
        fingerprint = hmac.new(self.salt, text, hashlib.sha256).hexdigest()[:24]
        now = self.now()
        entry = Entry(
            uuid.uuid4().hex, SUBMITTING, model, self.account, fingerprint, self.session, now, now
        )
        self._append(entry)
        return entry

    def mark(self, entry: Entry, state: str, request_id: str = "") -> Entry:
        """Write a request's new state (and its id); on the disk when this returns."""
        if state not in STATES:
            raise ValueError(f"no such state: {state}")
        changed = replace(
            entry, state=state, request_id=request_id or entry.request_id, changed=self.now()
        )
        self._append(changed)
        return changed

    def adopt(self, request_id: str) -> Entry:
        """The entry of an id that is to be fetched, a new one where the journal has none.

        Nothing is written. Raises JournalError when it belongs to another account.
        """
        for entry in self.entries():
            if entry.request_id == request_id:
                if entry.account != self.account:
                    raise JournalError(
                        "This request was made with another RunComfy token or API address. Set "
                        "the one that it was made with, then resume it.",
                        request_id,
                    )
                return entry
        now = self.now()
        return Entry(
            uuid.uuid4().hex, LEFT, "", self.account, "", self.session, now, now, request_id
        )

    def entries(self) -> list[Entry]:
        """Every request's last state, oldest first. A torn or foreign line is skipped."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(_unusable(self.path, error)) from None
        found: dict[str, Entry] = {}
        for line in data.splitlines():
            if entry := _parse(line):
                # An id once known stays known, whatever order two threads wrote in.
                known = found.get(entry.key)
                if known and known.request_id and not entry.request_id:
                    entry = replace(entry, request_id=known.request_id)
                found[entry.key] = entry
        return sorted(found.values(), key=lambda entry: entry.started)

    def open_requests(self) -> list[Entry]:
        """This account's requests without an outcome, except those that this process works on."""
        return [
            entry
            for entry in self.entries()
            if entry.is_open
            and entry.account == self.account
            and (entry.session != self.session or entry.state in (UNKNOWN, LEFT))
        ]

    def _append(self, entry: Entry) -> None:
        lock = filelock.FileLock(f"{self.path}.lock", timeout=self.lock_s, mode=OWNER_FILE)
        owned = partial(os.open, mode=OWNER_FILE)
        try:
            private_folder(self.folder)
            with lock.acquire(poll_interval=0.01):
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
        except (OSError, filelock.Timeout) as error:
            raise JournalError(_unusable(self.path, error)) from None

    def _compact(self) -> None:
        """Rewrite the file with one line a request, the oldest gone; called under the lock."""
        month_ago = self.now() - OPEN_DAYS * 86400
        fresh = [e for e in self.entries() if not e.is_open or e.changed > month_ago]
        kept = sorted(fresh, key=lambda e: (e.is_open, e.changed))[-MAX_ENTRIES:]
        kept.sort(key=lambda e: e.started)
        lines = (json.dumps(vars(entry), separators=(",", ":")) + "\n" for entry in kept)
        write_atomically(self.path, "".join(lines).encode(), private=True)
        logger.info("RunComfy journal: compacted to %d requests", len(kept))


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter (on Windows the user profile's own rights)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix":
        folder.chmod(0o700)


def _parse(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (entry.key, entry.state, entry.model, entry.account, entry.payload, entry.request_id)
    numbers = (entry.started, entry.changed)
    well_formed = all(isinstance(t, str) for t in texts) and entry.state in STATES
    return entry if well_formed and all(isinstance(n, int | float) for n in numbers) else None


def _unusable(path: Path, error: Exception) -> str:
    if isinstance(error, filelock.Timeout):
        why, way = "is locked by another process", "Run again when it is free."
    else:
        why, way = f"is unusable ({type(error).__name__})", "Make the folder writable."
    return (
        f"The record of RunComfy requests {why}. Without it a paid job could be lost, so nothing "
        f"is submitted. {way}\n{path}"
    )

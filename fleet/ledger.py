"""The one place that a row's events and pictures come to: an actor beside the driver.

Servers ask it before each row and bring what they made; it alone writes below DIR. What it must not
forget is in the journal, so that one that is killed goes on where it was.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from . import journal
from .journal import BEGUN, DONE, FAILED, Line

MOST_ATTEMPTS = 4
"""A row that took a server with it so often is not given to another one."""
SILENT_S = 30.0
"""A server that has not been heard of for so long is gone; it is heard of every BEAT_S."""
BEAT_S = 3.0
GO, ENDED, STOP = "go", "ended", "stop"


class Stats(NamedTuple):
    """Counts of this run's rows; ``made`` is of this session alone.

    ``servers``: those that are heard of. ``lost``: rows that a silent server holds. ``over``: rows
    that the limit of cost kept from beginning; ``usd`` is what all rows so far may have cost.
    """

    done: int
    failed: int
    held: int
    lost: int
    over: int
    made: int
    servers: int
    usd: float
    errors: list[str]


class Ledger:
    """The rows of ``keys`` (id -> key) below ``folder``; ``usd`` is what a paid one may cost.

    ``session`` names the run of the driver. ``max_cost``: US dollars that all rows of this folder
    may cost together, None for no limit. ``again``: rows that have failed are tried again.
    """

    def __init__(
        self,
        folder: str,
        session: str,
        keys: dict[str, str],
        usd: dict[str, float],
        max_cost: float | None = None,
        again: bool = False,
    ) -> None:
        self._folder, self._session = Path(folder), session
        self._keys, self._usd, self._max_cost = keys, usd, max_cost
        journal.sweep(self._folder)
        lines = list(journal.read(self._folder))
        self._state = {
            name: line.state for name, line in journal.ended(lines, keys, self._folder).items()
        }
        if again:
            self._state = {name: state for name, state in self._state.items() if state == DONE}
        self._attempts: Counter[str] = Counter()
        self._files: dict[str, tuple[str, ...]] = {}
        # What a row has cost is spent, also where its inputs are others by now.
        self._paid: dict[tuple[str, str], float] = {}
        for line in lines:
            if line.state == BEGUN and line.session == session:
                self._attempts[line.id] += 1
            elif line.state in (DONE, FAILED):
                self._files[line.id] = line.files
                self._attempts[line.id] = 0
            if line.usd is not None:
                self._paid[line.id, line.key] = line.usd
        self._spent = sum(self._paid.values())
        self._writer = journal.Writer(self._folder)
        # Whoever begins a row does not wait for another one's pictures.
        self._lock = Lock()
        self._storing: set[str] = set()
        self._holder: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        self._over: set[str] = set()
        self._errors: list[str] = []
        self._draining = False
        self._made = 0

    def beat(self, server: str) -> None:
        """``server`` lives."""
        self._heard[server] = time.monotonic()

    def take(self, server: str, rows: Sequence[str]) -> list[str]:
        """``server`` is given these rows, perhaps after another one; those that are still to do."""
        self.beat(server)
        with self._lock:
            left = [row for row in rows if row in self._keys and row not in self._state]
            self._holder |= dict.fromkeys(left, server)
            return left

    def begin(self, server: str, row: str) -> str:
        """May ``server`` run ``row`` now: GO, ENDED (it is done or failed) or STOP.

        Written before the answer, and with it what the row may cost.
        """
        self.beat(server)
        with self._lock:
            return self._begin(server, row)

    def _begin(self, server: str, row: str) -> str:
        if row in self._state or row not in self._keys:
            return ENDED
        if self._draining:
            self._holder = {name: who for name, who in self._holder.items() if who != server}
            return STOP
        if self._attempts[row] >= MOST_ATTEMPTS:
            self._end(server, row, FAILED, error=(
                f"The server died {MOST_ATTEMPTS} times while it ran this row: is there memory "
                "enough for it? Its log's end is in .fleet/ beside the pictures."
            ))  # fmt: skip
            return ENDED
        usd = self._usd.get(row)
        # A row that was begun before is not paid twice: its request is found again.
        if usd is not None and (row, self._keys[row]) not in self._paid:
            if self._max_cost is not None and self._spent + usd > self._max_cost + 1e-9:
                self._holder.pop(row, None)
                self._over.add(row)
                return ENDED
            self._paid[row, self._keys[row]] = usd
            self._spent += usd
        self._attempts[row] += 1
        self._holder[row] = server
        # Only what is paid must outlive a power cut: another row is but run again.
        self._write(row, BEGUN, server, usd is not None)
        return GO

    def end(
        self, server: str, row: str, suffixes: Sequence[str], pictures: Sequence[bytes],
        seed: int | None, seconds: float | None,
    ) -> None:  # fmt: skip
        """``row`` is done: its pictures, each with its suffix (".png"), are on the disk on return.

        A second time, from a server that was thought dead, changes nothing. Raises OSError.
        """
        self.beat(server)
        with self._lock:
            if self._state.get(row) == DONE or row in self._storing:
                return
            self._storing.add(row)
        names = [f"{row}_{number}{suffix}" for number, suffix in enumerate(suffixes, 1)]
        try:
            digests = journal.store(self._folder, names, pictures)
            with self._lock:
                for old in set(self._files.get(row, ())) - set(names):
                    (self._folder / Path(old).name).unlink(missing_ok=True)
                self._end(
                    server, row, DONE, seed=seed, seconds=seconds, files=tuple(names),
                    sha256=digests,
                )  # fmt: skip
        finally:
            self._storing.discard(row)

    def fail(self, server: str, row: str, error: str, seed: int | None = None) -> None:
        """``row`` failed for a reason of its own and is not tried again in this run."""
        self.beat(server)
        with self._lock:
            if row not in self._state:
                self._end(server, row, FAILED, seed=seed, error=error)

    def picture(self, server: str, path: str) -> bytes:
        """A reference picture from the driver's disk, for ``server``. Raises OSError."""
        self.beat(server)
        return Path(path).read_bytes()

    def keep_log(self, server: str, text: str) -> None:
        """The end of a dead server's log, beside the journal."""
        name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in server)
        journal.write_atomically(
            self._folder / journal.FOLDER / f"{name}.log", text.encode("utf-8", "replace")
        )

    def stats(self, draining: bool = False) -> Stats:
        """How the run stands; ``draining``: no row begins from now on."""
        with self._lock:
            return self._stats(draining)

    def _stats(self, draining: bool) -> Stats:
        self._draining = self._draining or draining
        now, beats = time.monotonic(), dict(self._heard)  # a beat waits for nobody
        living = {server for server, heard in beats.items() if now - heard < SILENT_S}
        now_heard = sum(now - heard < 3 * BEAT_S for heard in beats.values())
        states = list(self._state.values())
        lost = sum(holder not in living for holder in self._holder.values())
        errors, self._errors = self._errors, []
        return Stats(
            states.count(DONE), states.count(FAILED), len(self._holder), lost, len(self._over),
            self._made, now_heard, self._spent, errors,
        )  # fmt: skip

    def left(self) -> list[str]:
        """The rows without an end that may still begin."""
        with self._lock:
            return [row for row in self._keys if row not in self._state and row not in self._over]

    def _write(self, row: str, state: str, server: str, durably: bool = True, **more: Any) -> None:
        at = round(time.time(), 3)
        line = Line(row, self._keys[row], state, server, self._session, at, usd=self._usd.get(row))
        self._writer.append(replace(line, **more), durably)

    def _end(self, server: str, row: str, state: str, **more: Any) -> None:
        self._write(row, state, server, **more)
        self._state[row] = state
        self._files[row] = more.get("files", ())
        self._attempts[row] = 0
        self._holder.pop(row, None)
        self._made += 1
        if more.get("error"):
            self._errors.append(f"{row}: {more['error'].splitlines()[0]}")


def columns(folder: Path, rows: Sequence[str], keys: dict[str, str]) -> dict[str, list[Any]]:
    """The manifest's columns, a row each in the order of ``rows``, as the journal tells them."""
    found = journal.ended(journal.read(folder), keys, folder)
    lines = [found.get(row) for row in rows]
    return {
        "row": list(rows),
        "status": [line.state if line else "not run" for line in lines],
        "seed": [line.seed if line else None for line in lines],
        "seconds": [line.seconds if line else None for line in lines],
        "server": [line.server if line else None for line in lines],
        "files": [list(line.files) if line else [] for line in lines],
        "sha256": [list(line.sha256) if line else [] for line in lines],
        "cost_usd": [line.usd if line else None for line in lines],
        "error": [line.error or None if line else None for line in lines],
    }

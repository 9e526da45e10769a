"""``./scripts/fleet run`` as a process, all that belongs to it, and what it leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0


class Ended(NamedTuple):
    """A run that ended by itself: its status, its last line on standard output, and its words."""

    status: int
    summary: dict[str, Any]
    told: str


class Fleet:
    """Runs with one graph, base directory and DIR (``out``). A context manager: nothing of it
    is left running."""

    def __init__(self, folder: Path, base: Path, graph: dict[str, Any]) -> None:
        self.folder, self.base, self.out = folder, base, folder / "out"
        self.graph = folder / "graph.json"
        self.graph.write_text(json.dumps(graph), "utf-8")
        self.process: subprocess.Popen[str] | None = None
        self._runs = 0

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            for pid in [*self.members(), self.process.pid]:
                _kill(pid)

    def table(self, rows: Iterable[dict[str, Any]]) -> list[str]:
        """Write the rows as a table; the options that name it."""
        path = self.folder / "rows.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        return ["--table", str(path)]

    def start(self, *options: str, environment: dict[str, str] | None = None) -> None:
        self._runs += 1
        command = [sys.executable, str(ROOT / "scripts" / "fleet"), "run", str(self.graph)]
        command += ["--out", str(self.out), "--base", str(self.base), "--cpu", *options]
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def wait(self) -> Ended:
        """The end of the run that was started. Raises subprocess.TimeoutExpired."""
        assert self.process
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        lines = printed.strip().splitlines()
        told = self._log.read_text("utf-8")
        last = lines[-1] if lines and lines[-1].startswith("{") else "{}"
        return Ended(self.process.returncode, json.loads(last), told)

    def run(self, *options: str, environment: dict[str, str] | None = None) -> Ended:
        self.start(*options, environment=environment)
        return self.wait()

    @property
    def _log(self) -> Path:
        return self.folder / f"run{self._runs}.log"

    def members(self, word: str = "") -> list[int]:
        """The processes below the driver whose command line holds ``word``."""
        assert self.process
        return [pid for pid in below(self.process.pid) if word in _command(pid)]

    def everywhere(self, word: str) -> list[int]:
        """Processes of this machine whose command line holds ``word`` and this base directory."""
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        found = [pid for pid in pids if word in _command(pid)]
        return [pid for pid in found if str(self.base) in _command(pid)]

    def servers(self) -> list[int]:
        return self.members("guarded_main.py")

    def workers(self) -> list[int]:
        return self.members("MapWorker")

    def journal(self) -> list[dict[str, Any]]:
        """Whole lines of it, so far."""
        path = self.out / ".fleet" / "rows.jsonl"
        if not path.exists():
            return []
        return [
            json.loads(line) for line in path.read_text("utf-8").splitlines() if line[-1:] == "}"
        ]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a state of a run that goes on; its value."""
        assert self.process
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := condition():
                return found
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the run ended before {what}:\n{self._log.read_text('utf-8')}"
                )
            time.sleep(0.05)
        raise AssertionError(f"no {what} in {PATIENCE_S:.0f} s:\n{self._log.read_text('utf-8')}")

    def ended(self) -> int:
        """How many rows have an end."""
        return len({line["id"] for line in self.journal() if line["state"] != "begun"})

    def kill_driver(self) -> None:
        """And wait until its servers and actors are gone as well: nobody had to end them.

        Two agents of Ray's own take two minutes to notice that they are alone.
        """
        assert self.process
        below = [*self.servers(), *self.workers(), *self.members("ray::Ledger")]
        _kill(self.process.pid)
        self.process.wait()
        deadline = time.monotonic() + PATIENCE_S
        while any(_lives(pid) for pid in below):
            if time.monotonic() > deadline:
                raise AssertionError([_command(pid) for pid in below if _lives(pid)])
            time.sleep(0.1)


def below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found, waiting, children = [], [pid], _children()
    while waiting:
        waiting += (own := children.get(waiting.pop(), []))
        found += own
    return found


def kill(pid: int) -> None:
    """SIGKILL a process of ours; one that has just ended is no fault."""
    _kill(pid)


def check(fleet: Fleet, rows: Iterable[str]) -> dict[str, int]:
    """Every row exactly once, each picture whole and as recorded; counts of the journal."""
    lines = fleet.journal()
    done = Counter(line["id"] for line in lines if line["state"] == "done")
    assert done == Counter(list(rows)), "a row is missing, or was done twice"
    for line in lines:
        for name, digest in zip(line.get("files", ()), line.get("sha256", ()), strict=True):
            content = (fleet.out / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest, name
    files = {path.name for path in fleet.out.glob("*.png")}
    assert files == {name for line in lines for name in line.get("files", ())}
    assert not list(fleet.out.glob(".*.part"))
    return Counter(line["state"] for line in lines)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name in brackets: state, parent.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        found.setdefault(parent, []).append(int(path.parent.name))
    return found


def _command(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode("utf-8", "replace")
        )
    except OSError:
        return ""


def _lives(pid: int) -> bool:
    return bool(_command(pid))  # a zombie has none

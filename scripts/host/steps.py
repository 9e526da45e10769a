"""Long steps, told: what runs, how long it has run, and the end of its output when it fails."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT = 20.0
TAIL_LINES = 15
# What pip and uv print when they cannot reach an index.
NETWORK_WORDS = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "No route to host",
    "Connection refused",
    "error sending request",
    "dns error",
    "No matching distribution found",
)


class SetupError(RuntimeError):
    """What is missing on this machine and what to do about it, in one readable message."""


class StepFailed(SetupError):
    """A command of the setup failed."""


def say(text: str) -> None:
    """One line for the person who waits."""
    print(f"[host] {text}", flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a long step and tell how long it took."""
    say(f"{title} ...")
    began = time.monotonic()
    yield
    say(f"{title}: {time.monotonic() - began:.1f} s")


def run_logged(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command with its output in ``log``, with a sign of life every 20 s.

    Raises StepFailed with the end of the output, and the likely cause first.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=dict(environment) if environment is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=HEARTBEAT)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  still at it after {time.monotonic() - began:.0f} s")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status:
        raise StepFailed(_explain(status, log))


def _explain(status: int, log: Path) -> str:
    text = log.read_text("utf-8", "replace")
    lines = [f"The command ended with status {status}; its whole output is in {log}"]
    if any(word in text for word in NETWORK_WORDS):
        lines.insert(
            0,
            "The package index could not be reached, or does not have what is needed: check the "
            "network, and pip's own settings (pip config list).",
        )
    if "No space left on device" in text:
        lines.insert(0, "The disk is full: set FLUX2_LORA_EDIT_CACHE to a folder on another disk.")
    return "\n".join(lines + ["  " + line for line in text.splitlines()[-TAIL_LINES:]])

"""A short run of each campaign, always the same cases; ``fuzz.py`` runs them by the million."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
HERE = Path(__file__).resolve().parent
COUNTS = {"headers": 1500, "answers": 4000, "pictures": 3000}


@pytest.mark.parametrize("kind", COUNTS)
def test_no_case_ends_otherwise_than_promised(kind: str) -> None:
    """In a process of its own, whose memory is limited: a case may break what it runs in."""
    command = [sys.executable, str(HERE / "fuzz.py"), kind, "--seed", "0", "--count"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(COUNTS[kind])], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"{COUNTS[kind]} cases" in done.stdout and " 0 faults" in done.stdout


def test_a_fault_is_told_with_the_number_that_repeats_it() -> None:
    """The campaign itself must be able to fail: a case that runs out of memory, told as it is."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fuzz; fuzz.prepare()\n"
        "import pictures\n"
        "pictures.run = lambda room, given: [0] * 10**10 if len(given.data) % 50 == 0 else 'fine'\n"
        "fuzz.limit_memory(); done = fuzz.campaign('pictures', 0, 0, 300)\n"
        "print(len(done['faults']), done['faults'][0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(HERE)], capture_output=True, text=True, check=True
    )
    assert "FAULT" in done.stdout and "MemoryError" in done.stdout.splitlines()[-1]

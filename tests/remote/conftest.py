"""One stand-in for the whole room; every test has accounts (tokens) of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin_faults import Standin
from standin_server import Timing

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def standin() -> Iterator[Standin]:
    with Standin(timing=Timing(0.05, 0.05), picture_side=32) as server:
        yield server

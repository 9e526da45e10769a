"""Every fault of the stand-in's library, through real sockets: the fault table."""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from fault_table import CLOSED, PROMPT, Row, as_table, run_all
from standin_faults import FAULTS, Standin
from standin_faults.media import ADDRESSES

ELSEWHERE = {*(name for name, _ in ADDRESSES), "redirect_elsewhere", "redirect_inside"}
NAMED = {"submit_list_id_after", "submit_dots_id_after", "submit_digits_after",
         "submit_endless_id_after"}  # fmt: skip
"""What the answer has in the place of an id cannot be one; it is kept word for word."""
TABLE = Path(__file__).with_name("FAULTS.md")


class Sweep:
    """All rows, and what the process held before and after."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda entry: self.log.append(entry.getMessage())  # type: ignore[method-assign]
        root = logging.getLogger("flux2_lora_edit")
        root.addHandler(handler)
        level = root.level
        root.setLevel(logging.DEBUG)
        with Standin(picture_side=32) as standin:
            before = held()
            self.rows = {r.fault.name: r for r in asyncio.run(run_all(standin, folder))}
            self.leaks = standin.state.leaks
        root.removeHandler(handler)
        root.setLevel(level)
        self.journal = (folder / "requests.jsonl").read_text(encoding="utf-8")
        self.grown = settled_growth(before)


def held() -> int:
    """Open files and sockets of this process, 0 where the system does not tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def settled_growth(before: int, seconds: float = 60.0) -> tuple[int, list[str]]:
    """Files and worker threads more than before, once what was abandoned has run out."""
    end = time.monotonic() + seconds
    while True:
        workers = [t.name for t in threading.enumerate() if t.name == "runcomfy"]
        more = held() - before
        if (more <= 0 and not workers) or time.monotonic() > end:
            return more, workers
        time.sleep(0.05)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("faults"))


def test_the_library_is_large() -> None:
    assert len(FAULTS) >= 80


@pytest.mark.parametrize("name", FAULTS)
def test_fault(sweep: Sweep, name: str) -> None:
    row: Row = sweep.rows[name]
    fault = row.fault
    assert row.actual == fault.expect, row.message
    assert row.submissions == 1, "a submission is sent once, whatever comes back"
    taken = fault.at != "submit" or fault.creates
    assert row.jobs == (1 if taken else 0)
    assert row.cancels == (1 if fault.at == "cancel" else 0)
    assert row.known_id == (fault.at != "submit" or fault.expect == "delivered" or name in NAMED)
    if name in NAMED:
        assert row.resumed == "rejected", "it was no id, and that closes nothing"
    elif row.state not in CLOSED and row.known_id and fault.at != "cancel":
        assert row.resumed == "yes", "a paid picture that was not delivered can be fetched later"
    if fault.expect in ("unknown", "timed_out", "media"):
        assert row.state not in CLOSED
    if row.known_id and row.message and name not in NAMED:
        assert "\n" in row.message, "the id stands alone on the last line"
    if name.removeprefix("media_") in ELSEWHERE:
        assert "not RunComfy's storage" in row.message, "refused by its address, not by luck"
    for secret in ("token-", PROMPT, "topsecret", "Bearer t", "base64"):
        assert secret not in row.message
    assert len(row.message) < 1200


def test_no_secret_reached_another_origin_or_the_storage(sweep: Sweep) -> None:
    assert sweep.leaks == []


def test_nothing_secret_in_the_journal_or_the_log(sweep: Sweep) -> None:
    text = sweep.journal + "\n".join(sweep.log)
    assert "submitted" in text
    for secret in ("token-", PROMPT, "topsecret", "http://127", "Bearer"):
        assert secret not in text


def test_no_file_socket_or_thread_is_left(sweep: Sweep) -> None:
    assert sweep.grown[0] <= 0
    assert sweep.grown[1] == []


def test_the_committed_table_is_of_this_library(sweep: Sweep) -> None:
    """FAULTS.md is written by ``python tests/remote/write_faults.py``."""
    committed = TABLE.read_text(encoding="utf-8")
    assert committed == as_table(list(sweep.rows.values()), [])

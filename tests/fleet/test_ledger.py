"""The ledger by itself: who may begin what, what is paid, and what a crash leaves behind."""

import hashlib
import json

import pytest

from flux2_lora_edit.fleet import journal
from flux2_lora_edit.fleet import ledger as book
from flux2_lora_edit.fleet.ledger import ENDED, GO, MOST_ATTEMPTS, STOP, Ledger, columns

KEYS = {f"r{n}": f"key-{n}" for n in range(4)}


@pytest.fixture
def open_ledger(tmp_path):
    def make(keys=KEYS, usd=(), session="first", **limits):
        return Ledger(str(tmp_path), session, dict(keys), dict(usd), **limits)

    return make


def make(ledger, row, *pictures, server="one"):
    assert ledger.begin(server, row) == GO
    ledger.end(server, row, [".png"] * len(pictures), list(pictures), 7, 1.5)


def test_a_row_is_done_once_its_pictures_are_there(open_ledger, tmp_path):
    ledger = open_ledger()
    make(ledger, "r1", b"first", b"second")
    assert (tmp_path / "r1_1.png").read_bytes() == b"first"
    assert (tmp_path / "r1_2.png").read_bytes() == b"second"
    assert ledger.begin("two", "r1") == ENDED
    # A server that was thought dead brings the same row again.
    ledger.end("two", "r1", [".png"], [b"other"], 7, 1.5)
    assert (tmp_path / "r1_1.png").read_bytes() == b"first"
    told = columns(tmp_path, list(KEYS), KEYS)
    assert told["status"] == ["not run", "done", "not run", "not run"]
    assert told["sha256"][1][0] == hashlib.sha256(b"first").hexdigest()
    assert (told["seed"][1], told["seconds"][1], told["server"][1]) == (7, 1.5, "one")


def test_the_next_session_goes_on(open_ledger, tmp_path):
    ledger = open_ledger()
    make(ledger, "r0", b"a")
    make(ledger, "r1", b"b")
    ledger.begin("one", "r2")
    ledger.fail("one", "r3", "KSampler (node 4): too large")
    again = open_ledger(session="second")
    assert again.left() == ["r2"] and again.begin("two", "r2") == GO
    assert open_ledger(session="third", again=True).left() == ["r2", "r3"]
    (tmp_path / "r0_1.png").unlink()
    assert open_ledger(session="fourth").left() == ["r0", "r2"], "its picture is gone"
    changed = {**KEYS, "r1": "another prompt"}
    assert open_ledger(changed, session="fifth").left() == ["r0", "r1", "r2"]


def test_fewer_pictures_than_before_leave_none_of_the_old(open_ledger, tmp_path):
    make(open_ledger(), "r0", b"a", b"b")
    other = open_ledger({**KEYS, "r0": "other"}, session="second")
    make(other, "r0", b"c")
    assert sorted(path.name for path in tmp_path.glob("r0*")) == ["r0_1.png"]


@pytest.mark.parametrize("tail", [b'{"id": "r0", "key"', b"\x00\xff\xfe", b"[1, 2]", b'{"id": 7}'])
def test_a_line_that_was_cut_hurts_no_other(open_ledger, tmp_path, tail):
    make(open_ledger(), "r1", b"a")
    path = journal.path_of(tmp_path)
    path.write_bytes(path.read_bytes() + tail)
    (tmp_path / f".{'0' * 32}.part").write_bytes(b"half of a picture")
    ledger = open_ledger(session="second")
    make(ledger, "r2", b"b")
    assert open_ledger(session="third").left() == ["r0", "r3"]
    states = [line.state for line in journal.read(tmp_path) if line.id == "r2"]
    assert states == ["begun", "done"], "the line after it is one of its own"
    assert not list(tmp_path.glob(".*.part"))


def test_a_row_that_takes_its_server_with_it_is_given_up(open_ledger, tmp_path):
    """Counted over ledgers that were killed, within the driver's session alone."""
    open_ledger(session="earlier").begin("one", "r0")
    for _ in range(MOST_ATTEMPTS):
        assert open_ledger().begin("one", "r0") == GO
    assert open_ledger().begin("one", "r0") == ENDED
    told = columns(tmp_path, ["r0"], KEYS)
    assert told["status"] == ["failed"] and "died 4 times" in told["error"][0]


def test_after_ctrl_c_nothing_begins(open_ledger):
    ledger = open_ledger()
    assert ledger.take("one", ["r0", "r1"]) == ["r0", "r1"]
    assert ledger.begin("one", "r0") == GO
    assert ledger.stats(draining=True).held == 2
    ledger.end("one", "r0", [".png"], [b"a"], None, None)
    assert ledger.begin("one", "r1") == STOP
    assert ledger.stats().held == 0 and ledger.stats().done == 1


def test_the_rows_of_a_silent_server_are_told_apart(open_ledger, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(book.time, "monotonic", lambda: now[0])
    ledger = open_ledger()
    ledger.take("one", ["r0", "r1"])
    ledger.take("two", ["r2"])
    now[0] += book.SILENT_S
    ledger.beat("two")
    stats = ledger.stats()
    assert (stats.held, stats.lost, stats.servers) == (3, 2, 1)
    ledger.take("three", ["r0", "r1"])
    assert ledger.stats().lost == 0


def test_no_more_than_the_limit_is_spent(open_ledger):
    usd = dict.fromkeys(KEYS, 0.02)
    ledger = open_ledger(usd=usd, max_cost=0.05)
    make(ledger, "r0", b"a")
    assert ledger.begin("one", "r1") == GO  # and the server dies: it may be paid
    ledger = open_ledger(usd=usd, max_cost=0.05, session="second")
    assert ledger.begin("one", "r2") == ENDED
    assert ledger.begin("one", "r1") == GO, "its request is found again, and not paid twice"
    ledger.fail("one", "r1", "refused")
    assert ledger.left() == ["r3"]
    assert ledger.begin("one", "r3") == ENDED and ledger.left() == []
    stats = ledger.stats()
    assert (stats.over, round(stats.usd, 6)) == (2, 0.04)
    # Other inputs of the same row are another request.
    other = open_ledger({**KEYS, "r0": "other"}, usd, max_cost=0.05, session="third")
    assert other.begin("one", "r0") == ENDED


def test_pictures_stay_in_the_folder(tmp_path):
    journal.store(tmp_path, ["../outside.png"], [b"a"])
    assert (tmp_path / "outside.png").exists() and not (tmp_path.parent / "outside.png").exists()


def test_every_line_names_its_moment(open_ledger, tmp_path):
    make(open_ledger(), "r0", b"a")
    lines = [json.loads(line) for line in journal.path_of(tmp_path).read_text().splitlines()]
    assert [line["state"] for line in lines] == ["begun", "done"]
    assert all(line["at"] > 1e9 and line["session"] == "first" for line in lines)

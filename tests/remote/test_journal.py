"""The record of paid requests: durable, shared, bounded, private, per account."""

import json
import multiprocessing
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from remote_support import MODEL, PROMPT, intent, journal_of, new_token, payload, recorded

from flux2_lora_edit.remote import journal as record
from flux2_lora_edit.remote.errors import JournalError
from flux2_lora_edit.remote.journal import Journal
from flux2_lora_edit.remote.report import history_row


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_of(tmp_path / "private", "token-a")


def later(journal: Journal, session: str = "another") -> Journal:
    """The same user's ComfyUI, started anew."""
    return replace(journal, session=session)


def test_a_request_from_intent_to_delivery(journal: Journal) -> None:
    entry = intent(journal)
    assert [e.state for e in journal.entries()] == ["submitting"]
    entry = journal.mark(entry, record.ACCEPTED, request_id="id-1")
    entry = journal.mark(entry, "delivered")
    (found,) = journal.entries()
    assert found == entry
    assert (found.state, found.request_id, found.is_open) == ("delivered", "id-1", False)
    assert later(journal).open_requests() == []


@pytest.mark.parametrize("state", sorted(record.OPEN_STATES))
def test_what_a_dead_process_left_is_open(journal: Journal, state: str) -> None:
    entry = recorded(journal, state, "id-1")
    assert [e.key for e in later(journal).open_requests()] == [entry.key]
    mine = [e.key for e in journal.open_requests()]
    assert mine == ([entry.key] if state in ("unknown", "left") else []), "not its own running ones"


def test_a_renewed_token_strands_nothing(journal: Journal, tmp_path: Path) -> None:
    """The API decides whose a request is: it is listed, and may be resumed by its id."""
    recorded(journal, record.ACCEPTED, "id-1")
    renewed = replace(journal_of(tmp_path / "private", "token-b", "another"), origin=journal.origin)
    (entry,) = renewed.open_requests()
    assert (entry.request_id, entry.account) == ("id-1", journal.account)
    assert renewed.adopt("id-1").key == entry.key
    elsewhere = journal_of(tmp_path / "private", "token-a", "another", "https://other.example")
    assert elsewhere.open_requests() == [], "of another API's requests nothing is known there"


def test_a_record_of_before_is_read(journal: Journal) -> None:
    """Version 0.1.0 wrote no origin, worker, price or title; a later version may write more."""
    entry = {"key": "k", "state": "left", "model": "m", "account": "other", "payload": "p",
             "session": "s", "started": 1.5, "changed": 2, "request_id": "id-1"}  # fmt: skip
    journal.folder.mkdir()
    lines = [entry, {**entry, "key": "l", "of a later version": [1]}]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [e.key for e in journal.open_requests()] == ["k", "l"]
    (row, _) = (history_row(entry, "") for entry in journal.history())
    assert (row["what"], row["cost_usd"], row["request_id"]) == ("", None, "id-1")


def test_the_same_request_is_claimed_once(journal: Journal) -> None:
    body = payload()
    first = intent(journal, body)
    for state in (record.SUBMITTING, record.UNKNOWN):
        first = journal.mark(first, state)
        assert later(journal).claim(MODEL, payload(), None) == (first, False), "its outcome is open"
    for state in (record.ACCEPTED, record.LEFT, record.HANDED, record.DELIVERED, "dismissed"):
        first = journal.mark(first, state, request_id="id-1")
        assert later(journal).claim(MODEL, payload(), 0.02) == (first, False)
    assert (
        journal.claim("another model", body, None)[1] and journal.claim(MODEL, payload(8), None)[1]
    )
    assert journal.claim(MODEL, body, None, {first.key})[1], "its result cannot be had"
    for state in sorted(record.FRUITLESS):
        body = payload(prompt=state)
        journal.mark(intent(journal, body), state, request_id="id-2")
        assert journal.claim(MODEL, body, None)[1], "it gave nothing: it may be tried again"
    journal.mark(intent(journal, payload(9)), "dismissed")
    assert journal.claim(MODEL, payload(9), None)[1], "the user says that it never was"


def test_the_history_is_the_newest_of_whatever_state(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    states = sorted(record.STATES)
    for number in range(record.MAX_HISTORY + 1):
        recorded(journal, states[number % len(states)], f"id-{number}")
    shown = journal.history()
    assert len(shown) == record.MAX_HISTORY == 100
    assert [shown[0].request_id, shown[-1].request_id] == ["id-100", "id-1"]
    assert {entry.state for entry in shown} == set(states)
    elsewhere = journal_of(journal.folder, "token-b", origin="https://other.example")
    assert elsewhere.history() == [], "another API's are not shown"


@pytest.mark.parametrize("state", sorted(record.STATES))
def test_a_cost_is_told_where_runcomfy_took_the_request(journal: Journal, state: str) -> None:
    body = payload()
    entry = journal.claim(MODEL, body, 0.02)[0]
    assert history_row(entry, "")["cost_usd"] is None, "on its way"
    entry = journal.mark(entry, state, request_id="id-1")
    row = history_row(entry, "a secret")
    assert row["cost_usd"] == (None if state in ("submitting", "unknown") else 0.02)
    assert (row["what"], row["prompt"]) == ("text to image · square · seed 7", "a secret")
    assert history_row(replace(entry, request_id=""), "")["cost_usd"] is None


def test_a_living_process_keeps_its_jobs(journal: Journal) -> None:
    for state in sorted(record.OPEN_STATES):
        recorded(journal, state, state)
    other = replace(later(journal), lives=lambda session: session == journal.session)
    assert [e.state for e in other.open_requests()] == ["left", "unknown"]
    assert len(later(journal).open_requests()) == len(record.OPEN_STATES)


def test_an_id_from_elsewhere_may_be_resumed_and_writes_nothing(journal: Journal) -> None:
    entry = journal.adopt("id-9")
    assert (entry.request_id, entry.account) == ("id-9", journal.account)
    assert not journal.path.exists()
    journal.mark(entry, "delivered")
    assert [e.request_id for e in journal.entries()] == ["id-9"]


def test_an_id_once_known_stays_known(journal: Journal) -> None:
    entry = intent(journal)
    journal.mark(entry, record.LEFT, request_id="id-1")  # the late thread, with the answer
    journal.mark(entry, record.UNKNOWN)  # the one who gave up waiting, without it
    (found,) = journal.entries()
    assert (found.state, found.request_id) == ("unknown", "id-1")


@pytest.mark.parametrize(
    "damage",
    [b'{"key": "half', b"\x00\xff\n", b"[]\n", b'{"key": 1}\n', b"null\n", b'"x"\n',
     b'{"key":"k","state":"odd","model":"","account":"","payload":"","session":"","started":0,'
     b'"changed":0,"request_id":""}\n', b"[" * 50_000],
)  # fmt: skip
def test_a_torn_or_foreign_line_harms_no_other(journal: Journal, damage: bytes) -> None:
    intent(journal)
    with open(journal.path, "ab") as file:
        file.write(damage)
    entry = intent(journal)
    assert [e.state for e in journal.entries()] == ["submitting", "submitting"]
    journal.mark(entry, record.ACCEPTED, request_id="id-2")
    assert [e.state for e in journal.entries()] == ["submitting", "accepted"]


def test_nothing_of_the_request_is_in_it(journal: Journal) -> None:
    body = payload(images=["data:image/png;base64,QUJD", "https://example.com/my-picture.png"])
    journal.mark(intent(journal, body), record.ACCEPTED, request_id="id-1")
    text = journal.path.read_text(encoding="utf-8")
    for secret in ("token-a", PROMPT, "QUJD", "my-picture", "0123456789abcdef"):
        assert secret not in text
    keys = set(json.loads(text.splitlines()[0]))
    assert keys == {"key", "state", "model", "account", "payload", "session", "started",
                    "changed", "request_id", "origin", "worker", "usd", "title"}  # fmt: skip
    assert json.loads(text.splitlines()[0])["title"] == "square · seed 7 · pictures: 2"
    # The fingerprint is salted: a guessed prompt cannot be confirmed from the file alone.
    other = intent(replace(journal, salt=b"other"), body)
    assert other.payload != journal.entries()[0].payload


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_it_is_its_owners_alone(journal: Journal) -> None:
    old = os.umask(0)
    try:
        intent(journal)
    finally:
        os.umask(old)
    assert stat.S_IMODE(journal.folder.stat().st_mode) == 0o700
    for file in journal.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_it_stays_bounded_and_keeps_what_is_open(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "COMPACT_BYTES", 20_000)
    monkeypatch.setattr(record, "MAX_CLOSED", 20)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the disk is not what is tested
    kept = [recorded(journal, record.LEFT, f"open-{n}") for n in range(5)]
    sizes = []
    for number in range(150):
        recorded(journal, "delivered", f"id-{number}")
        sizes.append(journal.path.stat().st_size)
    assert max(sizes) < 25_000 and min(sizes[60:]) < 12_000, "grows, and is cut"
    assert {e.key for e in kept} <= {e.key for e in journal.entries()}
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_a_clock_that_jumps_drops_no_open_id(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "COMPACT_BYTES", 0)
    for now in (1000.0, 1000.0 + 400 * 86400, 5.0):
        recorded(replace(journal, now=lambda now=now: now), record.LEFT, f"at-{now:.0f}")
    assert [e.request_id for e in journal.entries()] == ["at-1000", "at-34561000", "at-5"]


def test_a_journal_that_cannot_be_written_stops_the_money(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = journal_of(tmp_path / "file" / "folder", new_token())
    with pytest.raises(JournalError, match="nothing is submitted"):
        intent(journal)


def test_a_held_lock_is_waited_for_and_bounded(journal: Journal) -> None:
    intent(journal)
    held = filelock.FileLock(f"{journal.path}.lock", thread_local=False)
    with held, pytest.raises(JournalError, match="locked"):
        intent(replace(journal, lock_s=0.05))
    with held:
        threading.Timer(0.15, held.release).start()
        intent(journal)


def _write_many(folder: str, number: int) -> None:
    journal = journal_of(Path(folder), "token-a", f"process-{number}")
    for index in range(15):
        recorded(journal, record.ACCEPTED, f"{number}-{index}")


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_processes_share_it_without_losing_a_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(str(tmp_path), n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    entries = journal_of(tmp_path, "token-a").entries()
    assert len(entries) == 60 and {e.state for e in entries} == {"accepted"}
    assert {e.request_id for e in entries} == {f"{n}-{i}" for n in range(4) for i in range(15)}


def test_each_line_is_on_the_disk_before_the_call_returns(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(handle) or real(handle))
    intent(journal)
    assert len(synced) == 2, "the file, and the folder that has its new name"
    journal.mark(journal.entries()[0], record.LEFT)
    assert len(synced) == 3

"""Downloads through real sockets, with every fault that a file server has shown us."""

import base64
import errno
import hashlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import Exchange, Route, Server, Stop, ranged, stop_after

from flux2_lora_edit.network import download as transfer
from flux2_lora_edit.network import errors
from flux2_lora_edit.network.client import (
    LEAST_SPEED_VARIABLE,
    QUOTA_VARIABLE,
    HttpClient,
    Limits,
)
from flux2_lora_edit.network.download import Wanted, download
from flux2_lora_edit.network.files import Fetched, locked

BODY = random.Random(7).randbytes(700_001)
SHA256 = hashlib.sha256(BODY).hexdigest()
TWIN = random.Random(9).randbytes(len(BODY))
OTHER = random.Random(8).randbytes(600_000)


class Room:
    """One folder, one server, one file to have."""

    def __init__(self, folder: Path, server: Server, client: HttpClient) -> None:
        self.target = folder / "loras" / "a.safetensors"
        self.part = self.target.with_name("a.safetensors.part")
        self.note = self.target.with_name("a.safetensors.part.json")
        self.server = server
        self.client = client

    def wanted(self, **changes: Any) -> Wanted:
        given = {"url": self.server.origin + "/f?sig=SECRET", "target": self.target, "key": "k"}
        return Wanted(**{**given, **changes})

    def get(
        self,
        wanted: Wanted | None = None,
        should_stop: Callable[[], None] = lambda: None,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
        free_space: Callable[[Path], int] = lambda folder: 1 << 40,
        **limits: float,
    ) -> Fetched:
        client = replace(self.client, should_stop=should_stop).within(**limits)
        usage = lambda folder: SimpleNamespace(free=free_space(folder))  # noqa: E731
        return download(wanted or self.wanted(), client, progress, usage)

    def files(self) -> list[str]:
        """What lies in the folder, without the lock."""
        names = os.listdir(self.target.parent)
        return sorted(name for name in names if not name.endswith(".lock"))

    def leave_part(self, size: int, etag: str | None = '"v1"', **note: Any) -> None:
        """What a download that was killed after ``size`` bytes has left."""
        self.target.parent.mkdir(exist_ok=True)
        self.part.write_bytes(BODY[:size])
        fields = {"key": "k", "etag": etag, "last_modified": None, "total": len(BODY)}
        self.note.write_text(json.dumps({**fields, **note}))

    def asked(self) -> list[str | None]:
        return [seen.headers.get("range") for seen in self.server.requests]


@pytest.fixture
def room(tmp_path: Path, server: Server, client: HttpClient) -> Room:
    return Room(tmp_path, server, client.within(attempts=5, backoff_s=0.01))


DONE = ["a.safetensors", "a.safetensors.json"]


def test_a_file_arrives_with_its_note(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    reports: list[tuple[int, int | None]] = []
    looked: list[str] = []

    def verify(path: Path) -> None:
        assert path.read_bytes() == BODY
        assert not room.target.exists()
        looked.append(path.name)

    wanted = room.wanted(origin={"source": "somewhere"}, verify=verify, sha256=SHA256.upper())
    got = room.get(wanted, progress=lambda done, total: reports.append((done, total)))
    assert got == Fetched(room.target, len(BODY), SHA256, fetched=True)
    assert room.target.read_bytes() == BODY
    assert looked == ["a.safetensors.part"]
    assert room.files() == DONE
    note = json.loads((room.target.parent / "a.safetensors.json").read_text())
    assert note["source"] == "somewhere"
    assert (note["size"], note["sha256"], note["key"]) == (len(BODY), SHA256, "k")
    assert note["date"].startswith("20")
    assert reports[0] == (0, len(BODY))
    assert reports[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_a_file_that_is_here_makes_no_request(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.get()
    room.server.requests.clear()
    assert room.get() == Fetched(room.target, len(BODY), SHA256, fetched=False)
    assert not room.server.requests


def test_a_part_is_continued(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(300_000)
    reports: list[tuple[int, int | None]] = []
    assert room.get(progress=lambda *report: reports.append(report)).sha256 == SHA256
    assert room.asked() == ["bytes=300000-"]
    assert room.server.requests[0].headers["if-range"] == '"v1"'
    assert reports[0] == (300_000, len(BODY))
    assert room.files() == DONE


def test_a_date_will_do_where_the_etag_is_weak(room: Room) -> None:
    date = "Sat, 21 Nov 2026 07:00:00 GMT"
    room.server.routes["/f"] = ranged(BODY, etag=date)
    room.leave_part(300_000, etag='W/"v1"', last_modified=date)
    room.get()
    assert room.server.requests[0].headers["if-range"] == date
    assert room.target.read_bytes() == BODY


def test_a_part_without_a_validator_is_only_continued_when_the_sha256_is_known(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(300_000, etag=None)
    room.get()
    room.target.unlink()
    room.leave_part(300_000, etag=None)
    room.get(room.wanted(sha256=SHA256))
    assert room.asked() == [None, "bytes=300000-"]
    assert room.target.read_bytes() == BODY


@pytest.mark.parametrize(
    "note", [{"key": "another"}, {"key": None}], ids=["another source", "no key"]
)
def test_a_part_of_something_else_is_not_continued(room: Room, note: dict[str, Any]) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(300_000, **note)
    room.get()
    assert room.asked() == [None]
    assert room.target.read_bytes() == BODY


def test_a_part_without_a_readable_note_is_not_continued(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    for note in ("", "{", "[]", "[" * 5000):
        room.leave_part(300_000)
        room.note.write_text(note)
        room.get()
        room.target.unlink()
    assert room.asked() == [None] * 4


def test_a_part_that_lacks_nothing_needs_no_request(room: Room) -> None:
    room.leave_part(len(BODY))
    assert room.get(room.wanted(sha256=SHA256)).sha256 == SHA256
    assert not room.server.requests


def test_a_part_of_a_changed_file_starts_anew(room: Room) -> None:
    """The server heeds If-Range and sends the new file whole."""
    room.server.routes["/f"] = ranged(OTHER, etag='"v2"')
    room.leave_part(300_000)
    room.get()
    assert room.target.read_bytes() == OTHER


def ignores_if_range(body: bytes, etag: str | None, total: int) -> Route:
    def route(exchange: Exchange) -> None:
        asked = exchange.seen.headers.get("range")
        named: dict[str, object] = {} if etag is None else {"ETag": etag}
        if not asked:
            exchange.answer(200, body, **named)
            return
        start = int(asked[6:].partition("-")[0])
        span = f"bytes {start}-{total - 1}/{total}"
        exchange.answer(206, body[start:], Content_Range=span, **named)

    return route


@pytest.mark.parametrize(
    "route",
    [
        ignores_if_range(OTHER, '"v2"', len(OTHER)),
        ignores_if_range(TWIN, '"v2"', len(TWIN)),
        ignores_if_range(OTHER, None, len(OTHER)),
        ignores_if_range(OTHER, '"v1"', len(OTHER)),
    ],
    ids=[
        "another ETag",
        "another ETag, same length",
        "no ETag, another length",
        "same ETag, another length",
    ],
)
def test_a_206_of_a_changed_file_is_noticed(room: Room, route: Route) -> None:
    room.server.routes["/f"] = route
    room.leave_part(300_000)
    room.get()
    assert room.target.read_bytes() in (OTHER, TWIN)
    assert room.asked() == ["bytes=300000-", None]


def test_a_206_of_a_changed_file_of_equal_length_is_noticed_by_its_sha256(room: Room) -> None:
    new = BODY[:1000] + b"\0" * 1000 + BODY[2000:]
    room.server.routes["/f"] = ignores_if_range(new, '"v1"', len(new))
    room.leave_part(300_000)
    room.get(room.wanted(sha256=hashlib.sha256(new).hexdigest()))
    assert room.target.read_bytes() == new
    assert room.asked() == ["bytes=300000-", None]


def wrong_span(exchange: Exchange) -> None:
    """A server that answers every range with the first bytes."""
    if exchange.seen.headers.get("range"):
        span = f"bytes 0-{len(BODY) - 1}/{len(BODY)}"
        exchange.answer(206, BODY[:-300_000], Content_Range=span, ETag='"v1"')
    else:
        exchange.answer(200, BODY, ETag='"v1"')


def no_span(exchange: Exchange) -> None:
    if exchange.seen.headers.get("range"):
        exchange.answer(206, BODY[300_000:], ETag='"v1"')
    else:
        exchange.answer(200, BODY, ETag='"v1"')


def refuses_ranges(exchange: Exchange) -> None:
    if exchange.seen.headers.get("range"):
        exchange.answer(416, b"")
    else:
        exchange.answer(200, BODY)


@pytest.mark.parametrize("route", [wrong_span, no_span, refuses_ranges])
def test_a_range_that_is_not_served_right_starts_anew(room: Room, route: Route) -> None:
    room.server.routes["/f"] = route
    room.leave_part(300_000)
    room.get()
    assert room.target.read_bytes() == BODY
    assert room.asked() == ["bytes=300000-", None]


def test_a_part_longer_than_the_file_starts_anew(room: Room) -> None:
    room.server.routes["/f"] = ranged(OTHER)
    room.leave_part(650_000, total=None)
    room.get()  # 416, then all of it
    assert room.target.read_bytes() == OTHER


# ---- faults: what the server does the first times -> how many requests until the file is whole


def drop_at(size: int, end: Route = Exchange.break_off) -> Route:
    def route(exchange: Exchange) -> None:
        start = int((exchange.seen.headers.get("range") or "bytes=0-")[6:-1])
        span: dict[str, object] = {"ETag": '"v1"', "Content-Length": len(BODY) - start}
        if start:
            span["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        exchange.head(206 if start else 200, span)
        exchange.send(BODY[start : start + size])
        end(exchange)

    return route


def status(number: int, **headers: object) -> Route:
    return lambda exchange: exchange.answer(number, b"", **headers)


def head_is_forbidden(exchange: Exchange) -> None:
    if exchange.seen.method == "HEAD":
        exchange.answer(403)
    else:
        ranged(BODY)(exchange)


def stall(exchange: Exchange) -> None:
    exchange.pause(20)


def cut_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")


MENDED: dict[str, list[Route]] = {
    "dropped in the middle, three times": [drop_at(200_000)] * 3,
    "dropped before the first byte": [drop_at(0)],
    "closed without an answer": [Exchange.break_off] * 2,
    "headers cut off": [cut_headers],
    "stalls before the headers": [stall],
    "HTTP 500": [status(500)],
    "HTTP 502 and 503": [status(502), status(503)],
    "HTTP 429 with Retry-After": [status(429, Retry_After="0.2")],
    "HTTP 408": [status(408)],
    "HEAD forbidden": [head_is_forbidden],
}


@pytest.mark.parametrize("fault", MENDED)
def test_a_passing_fault_is_mended(room: Room, fault: str) -> None:
    script = [*MENDED[fault]]
    room.server.routes["/f"] = lambda e: (script.pop(0) if script else ranged(BODY))(e)
    assert room.get(room.wanted(sha256=SHA256), idle_s=0.6).sha256 == SHA256
    assert room.files() == DONE
    assert not script
    assert {seen.method for seen in room.server.requests} == {"GET"}


def test_no_byte_is_fetched_twice(room: Room) -> None:
    # an orderly end: a reset may throw away bytes that are still on their way
    script = [drop_at(200_000, lambda exchange: None)] * 3
    room.server.routes["/f"] = lambda e: (script.pop(0) if script else ranged(BODY))(e)
    room.get()
    assert room.asked() == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-"]


def html(exchange: Exchange) -> None:
    exchange.answer(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8")


def too_short(exchange: Exchange) -> None:
    exchange.answer(200, BODY[:1000])


FINAL: dict[str, tuple[Route, type[Exception], int]] = {
    # fault -> (server, error, requests made)
    "a web page instead": (html, errors.WebPage, 1),
    "another length than announced": (too_short, errors.IntegrityError, 1),
    "another content than announced": (ranged(bytes(len(BODY))), errors.IntegrityError, 1),
    "HTTP 401": (status(401), errors.HttpStatusError, 1),
    "HTTP 403": (status(403), errors.HttpStatusError, 1),
    "HTTP 404": (status(404), errors.HttpStatusError, 1),
    "HTTP 500 for good": (status(500), errors.HttpStatusError, 3),
    "HTTP 429 for good": (status(429), errors.HttpStatusError, 3),
    "always closed": (Exchange.break_off, errors.ConnectionFailed, 3),
    "redirect inside": (status(302, Location="https://10.0.0.1/f"), errors.AddressRefused, 1),
    "redirect to http": (status(302, Location="http://example.com/"), errors.AddressRefused, 1),
    "redirect loop": (status(302, Location="/f"), errors.TooManyRedirects, 6),
    "beyond the cap": (ranged(bytes(2_000_000)), errors.TooLarge, 1),
    "206 unasked": (status(206), errors.HttpStatusError, 1),
}


@pytest.mark.parametrize("fault", FINAL)
def test_a_lasting_fault_leaves_no_file(
    room: Room, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    route, expected, requests = FINAL[fault]
    room.server.routes["/f"] = route
    caplog.set_level(logging.DEBUG)
    with pytest.raises(expected) as caught:
        room.get(
            room.wanted(sha256=SHA256, size=None if "cap" in fault else len(BODY)),
            attempts=3,
            max_bytes=1_000_000,
        )
    assert room.files() == []
    assert len(room.server.requests) == requests
    assert "SECRET" not in str(caught.value) + caplog.text


def test_an_endless_body_ends_at_the_cap(room: Room) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.head(200, {})
        while not exchange._closing.is_set():
            exchange.send(bytes(65536))

    room.server.routes["/f"] = endless
    with pytest.raises(errors.TooLarge):
        room.get(max_bytes=1_000_000)
    assert not room.target.exists()


def test_the_cap_holds_for_what_is_announced_and_for_resumed_files(room: Room) -> None:
    with pytest.raises(errors.TooLarge):
        room.get(room.wanted(size=2000), max_bytes=1000)
    assert not room.server.requests
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(300_000)
    with pytest.raises(errors.TooLarge):
        room.get(max_bytes=600_000)
    assert room.files() == []


def test_the_sha256_that_a_server_names_is_checked(room: Room) -> None:
    named = base64.b64encode(hashlib.sha256(OTHER).digest()).decode()
    room.server.routes["/f"] = ranged(BODY, Repr_Digest=f"sha-256=:{named}:")
    with pytest.raises(errors.IntegrityError, match="sha256"):
        room.get()
    named = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    room.server.routes["/f"] = ranged(BODY, Repr_Digest=f"sha-512=:x:, sha-256=:{named}:")
    assert room.get().sha256 == SHA256


def test_a_file_that_the_caller_refuses_goes(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)

    def verify(path: Path) -> None:
        raise LookupError("not a LoRA")

    with pytest.raises(LookupError):
        room.get(room.wanted(verify=verify))
    assert room.files() == []
    assert len(room.server.requests) == 1


def test_a_resumed_file_that_the_caller_refuses_is_fetched_anew_once(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(300_000)
    room.part.write_bytes(bytes(300_000))  # as after a power cut

    def verify(path: Path) -> None:
        if path.read_bytes() != BODY:
            raise LookupError

    room.get(room.wanted(verify=verify))
    assert room.target.read_bytes() == BODY
    assert room.asked() == ["bytes=300000-", None]


def test_another_file_is_not_overwritten(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.get()
    with pytest.raises(errors.Occupied):
        room.get(room.wanted(key="another"))
    assert room.target.read_bytes() == BODY
    room.server.routes["/f"] = ranged(OTHER)
    assert room.get().fetched is False  # the same key: it is here
    room.target.write_bytes(b"cut")  # by somebody else: then it is fetched anew
    assert room.get().fetched is True
    assert room.target.read_bytes() == OTHER
    assert room.files() == DONE


# ---- time, space, others


def drip(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": len(BODY), "ETag": '"v1"'})
    for start in range(0, len(BODY), 1000):
        exchange.send(BODY[start : start + 1000])
        exchange.pause(0.05)


@pytest.mark.parametrize("route", [drip, stall, status(503)], ids=["drip", "stall", "backoff"])
def test_a_stop_is_noticed_and_the_part_stays(room: Room, route: Route) -> None:
    room.server.routes["/f"] = route
    started = time.monotonic()
    pressed = stop_after(0.8)

    def should_stop() -> None:
        if route is not drip or (room.part.exists() and room.part.stat().st_size):
            pressed()

    with pytest.raises(Stop):
        room.get(should_stop=should_stop, backoff_s=30.0)
    assert time.monotonic() - started < 20
    assert not room.target.exists()
    if route is drip:
        kept = room.part.read_bytes()
        assert kept
        assert BODY.startswith(kept)
        room.server.routes["/f"] = ranged(BODY)
        room.get()
        assert room.asked()[-1] == f"bytes={len(kept)}-"
        assert room.target.read_bytes() == BODY


def test_progress_comes_while_a_body_drips(room: Room) -> None:
    room.server.routes["/f"] = drip
    reports: list[int] = []

    def stop_at_the_third() -> None:
        if len(set(reports)) >= 3:
            raise Stop

    with pytest.raises(Stop):
        room.get(should_stop=stop_at_the_third, progress=lambda done, _: reports.append(done))
    assert max(reports) < len(BODY)


def test_retry_after_is_waited_for(room: Room) -> None:
    script = [status(429, Retry_After="0.5")]
    room.server.routes["/f"] = lambda e: (script.pop(0) if script else ranged(BODY))(e)
    started = time.monotonic()
    room.get()
    assert time.monotonic() - started > 0.5


def test_a_full_disk_is_noticed_before(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    with pytest.raises(errors.NotEnoughSpace, match=r"a\.safetensors"):
        room.get(free_space=lambda folder: 64 << 20)
    assert room.files() == []


def test_a_full_disk_is_noticed_during(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.server.routes["/f"] = ranged(BODY)
    monkeypatch.setattr(transfer, "_SYNC_EVERY", 100_000)
    free = [1 << 40, 1 << 40, 1 << 20]
    with pytest.raises(errors.NotEnoughSpace):
        room.get(free_space=lambda folder: free.pop(0))
    assert 0 < room.part.stat().st_size < len(BODY)
    room.get()  # with space again, it goes on
    assert room.asked()[-1] is not None
    assert room.target.read_bytes() == BODY


def test_a_write_that_finds_no_space(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.server.routes["/f"] = ranged(BODY)

    class Full:
        """A file of which the disk takes 150,000 bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            return int(self.file.fileno())

        def write(self, data: bytes) -> int:
            left = 150_000 - self.file.tell()
            if left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.file.write(data[:left]))

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "open", lambda *to, **how: Full(open(*to, **how)), raising=False)
        with pytest.raises(errors.NotEnoughSpace):
            room.get()
    assert room.part.stat().st_size == 150_000
    room.get()
    assert room.target.read_bytes() == BODY
    assert room.asked()[-1] == "bytes=150000-"


def test_two_workers_on_one_target_fetch_once(room: Room) -> None:
    gate = threading.Event()

    def slow(exchange: Exchange) -> None:
        gate.wait(90)
        ranged(BODY)(exchange)

    room.server.routes["/f"] = slow
    results: list[Fetched] = []
    workers = [threading.Thread(target=lambda: results.append(room.get())) for _ in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(0.4)
    assert len(room.server.requests) == 1
    gate.set()
    for worker in workers:
        worker.join()
    assert [result.sha256 for result in results] == [SHA256] * 3
    assert sorted(result.fetched for result in results) == [False, False, True]
    assert len(room.server.requests) == 1


def test_the_wait_for_another_worker_can_be_stopped(room: Room) -> None:
    room.target.parent.mkdir()
    with locked(room.target, lambda: None):
        started = time.monotonic()
        with pytest.raises(Stop):
            room.get(should_stop=stop_after(0.4))
        assert time.monotonic() - started < 20


# ---- a least speed, and a quota


def test_a_download_that_only_drips_is_ended_and_goes_on_later(room: Room) -> None:
    room.server.routes["/f"] = drip  # 20,000 bytes a second
    with pytest.raises(errors.TooSlow) as caught:
        room.get(least_speed=100_000.0, slow_s=0.5)
    said = str(caught.value)
    assert "KiB/s" in said and "goes on where it stopped" in said and "SECRET" not in said
    assert LEAST_SPEED_VARIABLE in said
    assert len(room.server.requests) == 1, "a server that drips is not asked again at once"
    kept = room.part.read_bytes()
    assert kept and BODY.startswith(kept)
    room.server.routes["/f"] = ranged(BODY)
    assert room.get().sha256 == SHA256
    assert room.asked()[-1] == f"bytes={len(kept)}-"


@pytest.mark.parametrize("rate", [1025, 1023])
def test_the_least_speed_of_a_minute(
    room: Room, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    """By a clock that runs by the bytes: 700,001 of them are eleven minutes."""

    def now() -> float:
        return room.part.stat().st_size / rate if room.part.exists() else 0.0

    room.server.routes["/f"] = ranged(BODY)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=now))
    if rate > 1024:
        assert room.get().sha256 == SHA256
        return
    with pytest.raises(errors.TooSlow, match=r"\(1 KiB/s; 1 is the least"):
        room.get()
    assert room.part.exists()
    assert room.get(least_speed=0.0).sha256 == SHA256


def test_a_burst_does_not_pay_for_a_drip_later(room: Room) -> None:
    """Each window counts by itself, and is counted on over all of the body."""

    def burst(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": len(BODY), "ETag": '"v1"'})
        exchange.send(BODY[:600_000])
        for start in range(600_000, 600_040):
            exchange.pause(0.1)
            exchange.send(BODY[start : start + 1])
        exchange.send(BODY[600_040:])

    room.server.routes["/f"] = burst
    with pytest.raises(errors.TooSlow):
        room.get(least_speed=1_000.0, slow_s=1.0)
    assert 600_000 <= room.part.stat().st_size < len(BODY)


def test_what_is_whole_is_never_too_slow(room: Room) -> None:
    def late(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": 2})
        exchange.send(b"a")
        exchange.pause(0.6)
        exchange.send(b"b")

    room.server.routes["/f"] = late
    assert room.get(least_speed=1e9, slow_s=0.5).size == 2


def quota(room: Room, most: int, **changes: Any) -> Fetched:
    home = room.target.parent
    return room.get(room.wanted(home=home, **changes), quota=most)


def test_a_quota_holds_for_all_files_together(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    (folder := room.target.parent / "another").mkdir(parents=True)
    (folder / "b.safetensors").write_bytes(bytes(300_000))
    with pytest.raises(errors.NotEnoughSpace) as caught:
        quota(room, 1_000_000)
    said = str(caught.value)
    assert QUOTA_VARIABLE in said and str(room.target.parent) in said and "Delete" in said
    assert "SECRET" not in said and room.files() == ["another"]
    assert quota(room, 1_010_000).size == len(BODY)
    assert room.get(replace(room.wanted(), target=folder / "c.safetensors")).fetched, "none is set"


def test_a_quota_is_met_before_the_first_byte_where_the_size_is_known(room: Room) -> None:
    with pytest.raises(errors.NotEnoughSpace):
        quota(room, 1000, size=len(BODY))
    assert not room.server.requests


def test_a_quota_ends_a_body_without_a_length(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_SYNC_EVERY", 100_000)

    def endless(exchange: Exchange) -> None:
        exchange.head(200, {})
        while not exchange._closing.is_set():
            exchange.send(bytes(65536))

    room.server.routes["/f"] = endless
    with pytest.raises(errors.NotEnoughSpace):
        quota(room, 2_000_000)
    assert room.part.stat().st_size < 2_000_000 + 100_000 + (256 << 10) * 2


def test_a_part_counts_once(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    room.leave_part(600_000)
    assert quota(room, len(BODY) + 10_000).size == len(BODY)
    assert room.asked() == ["bytes=600000-"]


def test_a_stop_is_seen_while_a_download_drips_at_the_least_speed(room: Room) -> None:
    room.server.routes["/f"] = drip
    with pytest.raises(Stop):
        room.get(should_stop=stop_after(0.6), least_speed=1.0, slow_s=0.2)


@pytest.mark.parametrize(
    ("env", "limits"),
    [
        ({}, Limits()),
        ({LEAST_SPEED_VARIABLE: "", QUOTA_VARIABLE: " "}, Limits()),
        ({LEAST_SPEED_VARIABLE: "0", QUOTA_VARIABLE: "0"}, Limits(least_speed=0.0)),
        ({LEAST_SPEED_VARIABLE: "2.5"}, Limits(least_speed=2560.0)),
        ({QUOTA_VARIABLE: " 20 "}, Limits(quota=20 * 10**9)),
    ],
)
def test_what_the_operator_sets(env: dict[str, str], limits: Limits) -> None:
    assert Limits().told_by(env) == limits


@pytest.mark.parametrize("text", ["fast", "-1", "nan", "inf", "1e999", "10 GB", "1,5", "0x10"])
@pytest.mark.parametrize("name", [LEAST_SPEED_VARIABLE, QUOTA_VARIABLE])
def test_what_is_no_number_is_said_by_its_variable(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits().told_by({name: text})


def test_credentials_reach_only_their_host(room: Room) -> None:
    room.server.routes["/f"] = ranged(BODY)
    token = {room.server.authority: {"Authorization": "Bearer SECRET"}}
    room.get(room.wanted(credentials=token))
    assert room.server.requests[0].headers["authorization"] == "Bearer SECRET"
    for path in room.target.parent.iterdir():
        if path != room.target:
            assert "SECRET" not in path.read_text()

"""SIGKILL at any moment of a download leaves nothing, a part that is resumed, or the whole file."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import Authority, Exchange, Server, ranged

ROOT = Path(__file__).resolve().parents[2]
BODY = random.Random(11).randbytes(3_000_001)
SHA256 = hashlib.sha256(BODY).hexdigest()

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


class Child:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def begin(self, kill_at: int = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kill_at}\n")
        self.process.stdin.flush()

    def ended(self) -> int:
        """The exit status of the download, as waitpid gives it."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def child(tmp_path: Path, authority: Authority, server: Server) -> Iterator[tuple[Child, Path]]:
    pem = tmp_path / "ca.pem"
    pem.write_text(authority.pem)
    target = tmp_path / "loras" / "a.safetensors"
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tests/network/crash_child.py"),
            str(ROOT),
            str(pem),
            server.origin,
            server.origin + "/f",
            str(target),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Child(process), target
    finally:
        process.kill()
        process.communicate()


def check_remains(target: Path) -> int:
    """After a kill: the file is whole or absent, and a part is a true beginning. Its size."""
    if target.exists():
        assert target.read_bytes() == BODY
    part = target.with_name(target.name + ".part")
    kept = part.read_bytes() if part.exists() else b""
    assert BODY.startswith(kept)
    return len(kept)


def check_whole(target: Path) -> None:
    assert hashlib.sha256(target.read_bytes()).hexdigest() == SHA256
    note = json.loads(target.with_name(target.name + ".json").read_text())
    assert (note["sha256"], note["size"]) == (SHA256, len(BODY))
    left = [n for n in os.listdir(target.parent) if not n.endswith((".lock", ".tmp"))]
    assert sorted(left) == [target.name, target.name + ".json"]


def clear(target: Path) -> None:
    for path in target.parent.iterdir():
        path.unlink()


def slowly(exchange: Exchange) -> None:
    """The file in 64 KiB pieces over about half a second."""
    asked = exchange.seen.headers.get("range", "bytes=0-")
    start = int(asked[6:].partition("-")[0])
    size = len(BODY)
    span = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
    head = {"Content-Length": size - start, "ETag": '"v1"', **span}
    exchange.head(206 if start else 200, head)
    for at in range(start, size, 65536):
        exchange.send(BODY[at : at + 65536])
        exchange.pause(0.01)


def test_ten_random_kills_of_one_download(
    tmp_path: Path, authority: Authority, server: Server
) -> None:
    """Killed at ten random points, resumed to the right sha256 each time; no byte is lost."""
    server.routes["/f"] = slowly
    chance = random.Random()
    rows = []
    with child(tmp_path, authority, server) as (download, target):
        for _ in range(10):
            point = chance.randrange(1, len(BODY))
            part = target.with_name(target.name + ".part")
            download.begin()
            # the forked download is the only child of the helper
            victim = wait_for_child(download.process.pid)
            while not (part.exists() and part.stat().st_size >= point) and not target.exists():
                time.sleep(0.001)
            os.kill(victim, signal.SIGKILL)
            status = download.ended()
            kept = check_remains(target)
            server.requests.clear()
            download.begin()
            assert download.ended() == 0
            check_whole(target)
            if status == signal.SIGKILL and kept not in (0, len(BODY)):
                assert [s.headers.get("range") for s in server.requests] == [f"bytes={kept}-"]
            rows.append((point, status, kept))
            clear(target)
    assert sum(status == signal.SIGKILL for _, status, _ in rows) >= 8, rows


def wait_for_child(pid: int) -> int:
    for _ in range(1000):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.002)
    raise AssertionError("no child was forked")


def test_a_kill_before_every_file_operation(
    tmp_path: Path, authority: Authority, server: Server
) -> None:
    """Not a random moment but each one: before every open, rename and removal in the folder."""
    server.routes["/f"] = ranged(BODY)
    with child(tmp_path, authority, server) as (download, target):
        number = 0
        while True:
            number += 1
            download.begin(kill_at=number)
            if download.ended() != signal.SIGKILL:
                break
            check_remains(target)
            download.begin()
            assert download.ended() == 0
            check_whole(target)
            clear(target)
        assert number > 8  # lock, part, note, part, note's scratch, rename, rename, note away


def test_a_kill_while_a_cut_file_is_replaced(
    tmp_path: Path, authority: Authority, server: Server
) -> None:
    """The name holds the old file, nothing, or the new one; and a note never speaks of another."""
    server.routes["/f"] = ranged(BODY)
    old = b"old"
    with child(tmp_path, authority, server) as (download, target):
        note = target.with_name(target.name + ".json")
        number = 0
        while True:
            number += 1
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(old)
            note.write_text(json.dumps({"key": "k", "size": 4, "sha256": "x"}))
            download.begin(kill_at=number)
            if download.ended() != signal.SIGKILL:
                break
            if target.exists():
                content = target.read_bytes()
                assert content in (old, BODY)
                assert (json.loads(note.read_text())["sha256"] == SHA256) == (content == BODY)
            download.begin()
            assert download.ended() == 0
            check_whole(target)
            clear(target)
        assert number > 8


def test_two_processes_on_one_target(tmp_path: Path, authority: Authority, server: Server) -> None:
    server.routes["/f"] = slowly
    with (
        child(tmp_path, authority, server) as (one, target),
        child(tmp_path, authority, server) as (two, _),
    ):
        one.begin()
        two.begin()
        ends = [0, 0]
        waits = [
            threading.Thread(target=lambda n=n, c=c: ends.__setitem__(n, c.ended()))
            for n, c in enumerate((one, two))
        ]
        for wait in waits:
            wait.start()
        for wait in waits:
            wait.join()
        assert ends == [0, 0]
        check_whole(target)
    assert len(server.requests) == 1


def test_the_heir_of_a_killed_process_goes_on(
    tmp_path: Path, authority: Authority, server: Server
) -> None:
    """One waits for the other's lock; the other is killed; the one resumes its part."""
    server.routes["/f"] = slowly
    with (
        child(tmp_path, authority, server) as (one, target),
        child(tmp_path, authority, server) as (two, _),
    ):
        part = target.with_name(target.name + ".part")
        one.begin()
        while not (part.exists() and part.stat().st_size > 500_000):
            time.sleep(0.001)
        two.begin()
        time.sleep(0.05)
        os.kill(wait_for_child(one.process.pid), signal.SIGKILL)
        assert one.ended() == signal.SIGKILL
        assert two.ended() == 0
        check_whole(target)
    assert len(server.requests) == 2
    assert server.requests[1].headers["range"] != "bytes=0-"

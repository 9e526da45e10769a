"""What a fault is, and the answers that several faults share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from standin_server.exchange import Exchange

Act = Callable[[Exchange], None]

HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; the server's hook, and what is expected of a client.

    at: submit, status, result, cancel or media.
    expect: what a careful client makes of it: delivered, refused, unknown, failed, cancelled,
        rejected (a final no to a question), timed_out, media (picture not taken) or stopped.
    times: how often it strikes before all is well; 0 for ever.
    creates: for a submission, whether the job is made before the fault strikes.
    """

    name: str
    at: str
    act: Act
    expect: str
    times: int = 1
    creates: bool = False


def answer(status: int, body: Any, **headers: str) -> Act:
    return lambda x: x.json(status, body, **headers)


def error(status: int, code: int, message: str, **headers: str) -> Act:
    """An error as the API writes it."""
    return answer(status, {"error_code": code, "message": message}, **headers)


def page(status: int, data: bytes = HTML, kind: str = "text/html", **headers: str) -> Act:
    return lambda x: x.bytes(status, data, kind, **headers)


def redirect(status: int, path: str = "/landing") -> Act:
    """A redirect to another origin, which counts what it is sent."""
    return lambda x: x.bytes(status, b"", "text/plain", Location=x.elsewhere + path)


def changed(change: Callable[[dict[str, Any], Exchange], dict[str, Any]]) -> Act:
    """The healthy answer, changed."""
    return lambda x: x.json(x.status, change(dict(x.body), x))


def garbage(x: Exchange) -> None:
    x.raw(b"\x16\x03\x01\x02 this is no HTTP \r\n\r\n")
    x.close()


def huge(x: Exchange) -> None:
    """Eight MiB of valid JSON."""
    x.json(200, {"padding": "x" * (8 * 1024 * 1024)})


def broken_gzip(x: Exchange) -> None:
    x.bytes(200, b"\x1f\x8b\x08\x00broken", "application/json", Content_Encoding="gzip")


def deep(x: Exchange) -> None:
    x.bytes(200, b"[" * 100_000, "application/json")


def cut_answer(x: Exchange) -> None:
    x.cut(json.dumps(x.body).encode())


def cut_chunks(x: Exchange) -> None:
    x.cut_chunked(json.dumps(x.body).encode())


def slow_headers(x: Exchange) -> None:
    """A head that never ends, one byte at a time."""
    x.drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 60)

"""Mutated API answers through the client that reads them: most in memory, some over a real socket.

Each call ends in what it promises, or in a ``RemoteError`` that can be shown: one line of bounded
length, without token or prompt. To the POST that is ``Refused`` or ``OutcomeUnknown``, to a
question ``Transient`` or ``RequestRejected``.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from http.client import HTTPMessage
from random import Random
from typing import Any, NamedTuple

from mutate import ODD, battered, odd, texts, twisted

from flux2_lora_edit.network import errors
from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.network.client import HttpClient
from flux2_lora_edit.network.exchange import Answer, Upload
from flux2_lora_edit.remote.api.answers import Phase, phase_of, queue_position, read_result
from flux2_lora_edit.remote.api.client import ModelApi, is_request_id
from flux2_lora_edit.remote.api.models import read_price
from flux2_lora_edit.remote.errors import (
    OutcomeUnknown,
    Refused,
    RemoteError,
    RequestRejected,
    Transient,
)
from flux2_lora_edit.remote.pictures.media import _why, is_storage

TOKEN, PROMPT, NAME = (
    "tok-5f0c2a9e",
    "a secret garden, oil on canvas",
    "blackforestlabs/flux-2/lora",
)
PICTURE = "https://files.runcomfy.net/a.png?X-Signature=topsecret"
CALLS = ("submit", "status", "result", "cancel", "price")
REAL = 0.002
"""The share of cases that go over a socket."""

GOOD: dict[str, tuple[dict[str, Any], ...]] = {
    "submit": (
        {"request_id": "3f1c", "status_url": "https://x/a", "result_url": "https://x/b"},
        {"request_id": "3f1c", "status": "in_queue", "error_code": 400002},
    ),
    "status": (
        {"request_id": "3f1c", "status": "in_queue", "queue_position": 3},
        {"request_id": "3f1c", "status": "completed", "error": None},
    ),
    "result": (
        {"status": "succeeded", "output": {"image": PICTURE}, "cost": 0.02, "created_at": "now",
         "finished_at": "then"},
        {"status": "succeeded", "output": {"images": [PICTURE, {"url": PICTURE}], "video": "v"}},
        {"status": "failed", "error": {"message": f"at {PICTURE} with {TOKEN}", "code": 500001}},
        {"status": "succeeded", "output": [PICTURE, [PICTURE]], "cost": "0.02"},
    ),
    "cancel": ({"request_id": "3f1c", "status": "in_queue", "outcome": "cancelled"},),
    "price": ({"base_price_usd": 0.02, "price_unit": "image", "input_schema": {"a": [1]}},),
}  # fmt: skip
BAD: tuple[dict[str, Any], ...] = (
    {"error_code": 404001, "message": f"Bearer {TOKEN} is unknown"},
    {"error_code": "400002", "detail": "balance"},
    {"error": {"code": 422001, "message": PROMPT}},
    {"detail": [{"loc": ["body", "loras", 0, "path"], "msg": PROMPT, "input": PROMPT}]},
    {"detail": {"error": {"error_message": "x", "code": "403001"}}},
    {"message": "Unauthorized"},
)
PAGE = b"<!doctype html><html><h1>502 Bad Gateway</h1></html>"
WAITS = ("", "1", "0.5", "-3", "nan", "inf", "9" * 5000, "Wed, 21 Oct 2099 07:28:00 GMT", "soon",
         "Mon, 99 Foo 99999 99:99:99 +9999999", "1_0", "٣", "1e400", " ", "Mon, ", "+", "()",
         "21 Oct 2015 07:28:00 -99999999999999999999")  # fmt: skip
STATUSES = (200, 200, 200, 201, 202, 400, 401, 402, 403, 404, 404, 405, 409, 410, 413, 418, 422,
            429, 500, 502, 503, 301, 307, 204, 100, 599, 999)  # fmt: skip


class Case(NamedTuple):
    """An answer to one call, and the whole of it where it goes over a socket."""

    call: str
    status: int
    body: bytes
    wait: str
    raw: bytes


def case(rng: Random) -> Case:
    """One answer."""
    call = rng.choice(CALLS)
    tree = rng.choice(GOOD[call] if rng.random() < 0.65 else BAD)
    body = texts(tree)
    kind = rng.random()
    if kind < 0.6:
        body = texts(twisted(rng, deepcopy(tree)))
    elif kind < 0.9:
        body = battered(rng, body)
    elif kind < 0.93:
        body = texts(odd(rng))
    elif kind < 0.95:
        body = rng.choice((PAGE, b"", rng.randbytes(60), b"\xef\xbb\xbf" + body))
    status = rng.choice(STATUSES) if rng.random() < 0.6 else 200
    wait = rng.choice(WAITS) if rng.random() < 0.7 else str(rng.choice(ODD))[:99]
    raw = b""
    if rng.random() < REAL:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nRetry-After: 1\r\n\r\n"
        raw = battered(rng, head.encode(), 2) + body[:20_000]
        raw = battered(rng, raw, 2) if rng.random() < 0.5 else raw
    return Case(call, status, body, wait, raw)


class Memory:
    """An HttpClient that gives one answer at once, as if it had come over the network."""

    policy = PUBLIC_ONLY.allowing("http://127.0.0.1:9")
    given: Case

    def within(self, **limits: Any) -> "Memory":
        return self

    @contextmanager
    def stream(self, url: str, upload: Upload | None = None, **more: Any) -> Iterator[Answer]:
        if upload is not None:
            upload.read()
        headers = HTTPMessage()
        headers["Retry-After"] = self.given.wait
        body = self.given.body
        if self.given.status >= 900:
            raise errors.Truncated("cut")
        yield Answer(self.given.status, headers, url, len(body), iter([body]))


class Loopback:
    """A socket that answers whoever asks with the bytes that it is told to."""

    def __init__(self) -> None:
        self.answer = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(self.answer)


class Room(NamedTuple):
    """Both ways to the client."""

    memory: Memory
    loopback: Loopback


@contextmanager
def room() -> Iterator[Room]:
    """Both ways, for a campaign."""
    made = Room(Memory(), Loopback())
    try:
        yield made
    finally:
        made.loopback.listener.close()


class Checked(AssertionError):
    """What must hold of every case, and does not."""


def run(room: Room, given: Case) -> str:
    """One case; how it ended. Raises where it did not end as promised."""
    if given.raw:
        room.loopback.answer = given.raw
        origin = room.loopback.origin
        http = HttpClient(PUBLIC_ONLY.allowing(origin))
        api = ModelApi(http, origin, TOKEN, 2.0, 2.0, 2.0, 5.0)
    else:
        room.memory.given = given
        api = ModelApi(room.memory, "http://127.0.0.1:9", TOKEN)  # type: ignore[arg-type]
    try:
        return ask(api, given)
    except (Refused, OutcomeUnknown) as error:
        check(given.call == "submit", "only a submission is refused or unknown")
        told(error)
        return type(error).__name__
    except (Transient, RequestRejected) as error:
        check(given.call != "submit", "a submission never ends so")
        told(error)
        check(error.retry_after is None or 0 <= error.retry_after <= 60, "a bounded wait")
        return type(error).__name__


def ask(api: ModelApi, given: Case) -> str:
    """The call, and all that is made of what it gives."""
    if given.call == "submit":
        found = api.submit(NAME, {"prompt": PROMPT, "image_urls": [PICTURE]})
        check(is_request_id(found) and found.encode() is not None, "an id that can be asked for")
        return "accepted"
    if given.call == "price":
        shown(read_price(api, NAME).text, 60)
        return "priced"
    if given.call == "cancel":
        phase_of(api.cancel("3f1c"))
        return "asked"
    if given.call == "status":
        body = api.status("3f1c")
        place = queue_position(body)
        check(place is None or 0 <= place < 10**6, "a place in the queue")
        return phase_of(body.get("status")).value
    result = read_result(api.result("3f1c"), TOKEN)
    shown(result.message, 300)
    shown(result.created_at + result.finished_at, 80)
    check(result.cost is None or 0 <= result.cost < 10**6, "a cost")
    check(isinstance(result.phase, Phase) and result.videos >= 0, "a phase")
    for url in result.images[:3]:
        try:
            is_storage(PUBLIC_ONLY.check(url).host, PUBLIC_ONLY)
        except errors.AddressRefused as error:
            shown(_why(error, url), 700)
    return result.phase.value


def told(error: RemoteError) -> None:
    """The error's text and id."""
    shown(str(error), 1_500)
    error.request_id.encode()
    check(len(error.request_id) <= 4096, "a bounded id")


def shown(text: str, most: int) -> None:
    """A text that may stand anywhere."""
    check(len(text) <= most, f"{len(text)} characters: {text[:80]!r}")
    check(text.isprintable(), f"not printable: {text[:300]!r}")
    check(TOKEN not in text, f"the token is in {text[:300]!r}")
    check(PICTURE not in text, f"a signature is in {text[:300]!r}")


def check(holds: bool, what: str) -> None:
    """Raises Checked unless it holds."""
    if not holds:
        raise Checked(what)

"""The five calls: what they send, where, and what they never do."""

import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from remote_support import MODEL, PROMPT, new_token, payload
from requests.adapters import HTTPAdapter
from standin_server import Standin, Timing
from urllib3 import HTTPResponse

from flux2_lora_edit.remote.api.client import ModelApi, is_request_id, new_session
from flux2_lora_edit.remote.api.models import Price, price_of, read_price
from flux2_lora_edit.remote.errors import OutcomeUnknown, Refused, RequestRejected, Transient


@contextmanager
def wire(
    answer: bytes, chunk_pause: float = 0.0, chunk: int = 65536, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list]]:
    """A bare socket that keeps what it is sent; ``chunk_pause`` makes it a slow reader."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    seen: list[bytes] = []

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
        except OSError:
            return
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(chunk)
            head, _, body = data.partition(b"\r\n\r\n")
            lengths = [
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ]
            while lengths and len(body) < lengths[0]:
                time.sleep(chunk_pause)
                body += connection.recv(chunk)
            seen.append(head + b"\r\n\r\n" + body)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}", seen
    finally:
        thread.join(5)
        listener.close()


def reply(body: object) -> bytes:
    data = json.dumps(body).encode()
    head = "HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def test_what_is_on_the_wire(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The token in one header; nothing from netrc, cookies or the proxy variables."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with wire(reply({"request_id": "id-1"})) as (origin, seen):
        api = ModelApi(new_session(), origin, "token-abc")
        assert api.submit("blackforestlabs/flux-2/lora/edit", {"prompt": "ü"}) == "id-1"
        assert len(api.session.cookies) == 0, "a cookie that the server sets is not kept"
        api.close()
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/models/blackforestlabs/flux-2/lora/edit HTTP/1.1"
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert fields["authorization"] == "Bearer token-abc"
    assert fields["content-type"] == "application/json"
    assert fields["content-length"] == str(len(body)) and "transfer-encoding" not in fields
    assert json.loads(body) == {"prompt": "ü"}
    assert seen[0].count(b"token-abc") == 1 and "cookie" not in fields


def test_a_long_upload_over_a_slow_line_is_not_a_timeout() -> None:
    """Each block has the timeout, not the whole upload: seconds of sending under half a second."""
    body = {"prompt": "p", "image_urls": ["data:image/png;base64," + "A" * 12_000_000]}
    with wire(reply({"request_id": "id-1"}), 0.002, 16384) as (origin, seen):
        api = ModelApi(new_session(), origin, "token-abc", connect_s=0.5, read_s=0.5)
        began = time.monotonic()
        assert api.submit(MODEL, body) == "id-1"
        assert time.monotonic() - began > 1.0, "else the line was not slow and nothing was shown"
        api.close()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "nowhere.invalid:80"])
def test_who_cannot_be_reached_has_taken_nothing(host: str) -> None:
    api = ModelApi(new_session(), f"http://{host}", "token-abc", connect_s=1.0)
    with pytest.raises(Refused, match="nothing was submitted and nothing is billed"):
        api.submit(MODEL, {"prompt": "p"})


def test_a_connection_that_breaks_after_the_request_is_unknown() -> None:
    with wire(b"") as (origin, _), pytest.raises(OutcomeUnknown, match="may have been accepted"):
        ModelApi(new_session(), origin, "token-abc").submit(MODEL, {"prompt": "p"})


def test_a_refusal_by_the_schema_names_the_field(standin: Standin) -> None:
    api = ModelApi(new_session(), standin.origin, new_token())
    bad = {**payload(), "num_inference_steps": 3, "loras": [{"path": "a/b", "scale": 9}]}
    with pytest.raises(Refused) as caught:
        api.submit(MODEL, bad)
    text = str(caught.value)
    assert "num_inference_steps: Input should be greater" in text and "loras[0].scale" in text
    assert caught.value.status == 422 and PROMPT not in text
    api.close()


def test_an_invalid_token_is_refused(standin: Standin) -> None:
    with pytest.raises(Refused, match="check the token"):
        ModelApi(new_session(), standin.origin, "invalid-token").submit(MODEL, payload())


def test_the_lifecycle_and_another_account(standin: Standin) -> None:
    token = new_token()
    standin.state.account(token, timing=Timing(30, 30))
    api = ModelApi(new_session(), standin.origin, token)
    request_id = api.submit(MODEL, payload())
    assert api.status(request_id) == {
        "request_id": request_id, "status": "in_queue", "queue_position": 1,
    }  # fmt: skip
    assert api.result(request_id)["status"] == "in_queue"
    stranger = ModelApi(new_session(), standin.origin, new_token())
    for call in (stranger.status, stranger.result, stranger.cancel):
        with pytest.raises(RequestRejected) as caught:
            call(request_id)
        assert caught.value.status == 404
    assert api.cancel(request_id) == "cancelled"
    assert api.cancel(request_id) == "not_cancellable"
    for each in (api, stranger):
        each.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("status_huge", "larger than"),
        ("status_cut", "cut short"),
        ("status_hang", "no answer in time"),
        ("status_garbage", "broke|could not be read"),
        ("status_200_page", "not the API's"),
        ("status_500", "fault of its own"),
        ("status_302_elsewhere", "redirects elsewhere"),
    ],
)
def test_why_a_question_went_unanswered(standin: Standin, fault: str, words: str) -> None:
    token = new_token()
    standin.state.account(token, fault, Timing(30, 30))
    api = ModelApi(new_session(), standin.origin, token, read_s=0.3, total_s=6.0)
    request_id = api.submit(MODEL, payload())
    with pytest.raises(Transient, match=words):
        api.status(request_id)
    api.close()


def test_a_short_answer_is_noticed_whatever_the_library_does() -> None:
    """urllib3 1 hands over what came; a JSON body cut at a lucky place would pass for whole."""

    class Short(HTTPAdapter):
        def send(self, request, **options):
            raw = HTTPResponse(
                io.BytesIO(b'{"request_id": "id-1"}'),
                {"Content-Length": "500"},
                status=200,
                preload_content=False,
                enforce_content_length=False,
            )
            return self.build_response(request, raw)

    api = ModelApi(new_session(), "http://127.0.0.1", "token-abc")
    api.session.mount("http://", Short())
    with pytest.raises(OutcomeUnknown, match="cut short"):
        api.submit(MODEL, {"prompt": "p"})


def test_certificates_are_verified_and_a_companys_own_may_be_trusted() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    with wire(reply({"request_id": "id-1"}), tls=server_side) as (origin, seen):
        with pytest.raises(Refused, match="certificate"):
            ModelApi(new_session(), origin, "token-abc").submit(MODEL, {"prompt": "p"})
        assert seen == [], "nothing was sent before the certificate was known to be bad"
    for name, works in (("localhost", True), ("other.example", False)):
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(server_side)
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        with wire(reply({"request_id": "id-1"}), tls=server_side) as (origin, seen):
            api = ModelApi(new_session(tls=trusted), origin, "token-abc")
            if works:
                assert api.submit(MODEL, {"prompt": "p"}) == "id-1" and len(seen) == 1
            else:
                with pytest.raises(Refused, match="certificate"):
                    api.submit(MODEL, {"prompt": "p"})
                assert seen == []
            api.close()


@pytest.mark.parametrize(
    ("text", "usable"),
    [("a", True), ("3f-9_x.Y:1", True), ("", False), ("../x", False), ("a/b", False),
     ("a?b", False), ("a b", False), ("a..b", False), (None, False), (7, False),
     ("-a", False), ("a" * 129, False),
     ("é", False), ("a\n", False)],
)  # fmt: skip
def test_an_id_never_changes_the_path(text: object, usable: bool) -> None:
    assert is_request_id(text) is usable


def test_the_token_is_in_no_text_form() -> None:
    api = ModelApi(new_session(), "https://example.com", "token-abc")
    assert "token-abc" not in repr(api) + str(api) + repr(vars(api.session))


def test_a_proxy_is_only_the_one_named() -> None:
    session = new_session("http://proxy.example:3128")
    assert session.proxies == {"https": "http://proxy.example:3128"} and not session.trust_env


def test_the_live_price(standin: Standin) -> None:
    api = ModelApi(new_session(), standin.origin, new_token())
    assert read_price(api, MODEL) == Price(0.021, "image")
    assert read_price(api, MODEL).text == "$0.021 per image"
    nowhere = replace(api, origin="http://127.0.0.1:9")
    assert read_price(nowhere, MODEL) is None
    refused = replace(api, token="invalid")
    assert read_price(refused, MODEL) is None, "the API says no: no price, and no error"


@pytest.mark.parametrize(
    ("entry", "text"),
    [({"base_price_usd": 0.04, "price_unit": "per megapixel"}, "$0.04 per megapixel"),
     ({"base_price_usd": "0.5"}, "$0.5"), ({"base_price_usd": 0}, "$0"), ({}, None),
     ({"base_price_usd": -1}, None), ({"base_price_usd": True}, None),
     ({"base_price_usd": float("nan")}, None), ({"base_price_usd": "much"}, None),
     ({"base_price_usd": 1, "price_unit": {"a": "b" * 400}}, None)],
)  # fmt: skip
def test_price_of(entry: dict, text: str | None) -> None:
    price = price_of(entry)
    if "price_unit" in entry and isinstance(entry["price_unit"], dict):
        assert price is not None and len(price.text) < 60
    else:
        assert (price.text if price else None) == text

"""The five calls: what they send, where, and what they never do."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from remote_support import MODEL, PROMPT, api_at, new_token, payload
from standin_server import Standin, Timing

from flux2_lora_edit.network.address import PUBLIC_ONLY, AddressPolicy
from flux2_lora_edit.network.client import HttpClient
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.network.errors import AddressRefused
from flux2_lora_edit.remote.account import open_account
from flux2_lora_edit.remote.api import client
from flux2_lora_edit.remote.api.client import ModelApi, is_request_id
from flux2_lora_edit.remote.api.models import read_price
from flux2_lora_edit.remote.errors import OutcomeUnknown, Refused, RequestRejected, Transient


@contextmanager
def wire(
    answer: bytes,
    chunk_pause: float = 0.0,
    chunk: int = 65536,
    tls: ssl.SSLContext | None = None,
    times: int = 1,
) -> Iterator[tuple[str, list]]:
    """A bare socket that keeps what it is sent; ``chunk_pause`` makes it a slow reader."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    seen: list[bytes] = []

    def serve() -> None:
        for _ in range(times):
            serve_one()

    def serve_one() -> None:
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
    with wire(reply({"request_id": "id-1"}), times=2) as (origin, seen):
        api = api_at(origin, "token-abc")
        assert api.submit("blackforestlabs/flux-2/lora/edit", {"prompt": "ü"}) == "id-1"
        api.status("id-1")
        assert b"cookie" not in seen[1].lower(), "a cookie that the server sets is not kept"
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
    """Each block has the timeout, not the whole upload: three seconds of sending under two."""
    body = {"prompt": "p", "image_urls": ["data:image/png;base64," + "A" * 12_000_000]}
    with wire(reply({"request_id": "id-1"}), 0.004, 16384) as (origin, seen):
        api = api_at(origin, "token-abc", connect_s=2.0, read_s=2.0)
        began = time.monotonic()
        assert api.submit(MODEL, body) == "id-1"
        assert time.monotonic() - began > 2.0, "else the line was not slow and nothing was shown"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9", "https://nowhere.invalid"])
def test_who_cannot_be_reached_has_taken_nothing(origin: str) -> None:
    policy = PUBLIC_ONLY.allowing(origin) if "127" in origin else PUBLIC_ONLY
    api = ModelApi(HttpClient(policy), origin, "token-abc", connect_s=1.0)
    with pytest.raises(Refused, match="nothing was submitted and nothing is billed"):
        api.submit(MODEL, {"prompt": "p"})


def test_a_connection_that_breaks_after_the_request_is_unknown() -> None:
    with wire(b"") as (origin, _), pytest.raises(OutcomeUnknown, match="may have been accepted"):
        api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})


def test_a_refusal_by_the_schema_names_the_field(standin: Standin) -> None:
    api = api_at(standin.origin, new_token())
    bad = {**payload(), "num_inference_steps": 3, "loras": [{"path": "a/b", "scale": 9}]}
    with pytest.raises(Refused) as caught:
        api.submit(MODEL, bad)
    text = str(caught.value)
    assert "num_inference_steps: Input should be greater" in text and "loras[0].scale" in text
    assert caught.value.status == 422 and PROMPT not in text


def test_an_invalid_token_is_refused(standin: Standin) -> None:
    with pytest.raises(Refused, match="check the token"):
        api_at(standin.origin, "invalid-token").submit(MODEL, payload())


def test_the_lifecycle_and_another_account(standin: Standin) -> None:
    token = new_token()
    standin.state.account(token, timing=Timing(30, 30))
    api = api_at(standin.origin, token)
    request_id = api.submit(MODEL, payload())
    assert api.status(request_id) == {
        "request_id": request_id, "status": "in_queue", "queue_position": 1,
    }  # fmt: skip
    assert api.result(request_id)["status"] == "in_queue"
    stranger = api_at(standin.origin, new_token())
    for call in (stranger.status, stranger.result, stranger.cancel):
        with pytest.raises(RequestRejected) as caught:
            call(request_id)
        assert caught.value.status == 404
    assert api.cancel(request_id) == "cancelled"
    assert api.cancel(request_id) == "not_cancellable"


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
    api = api_at(standin.origin, token, read_s=0.3, total_s=6.0)
    request_id = api.submit(MODEL, payload())
    with pytest.raises(Transient, match=words):
        api.status(request_id)


def test_a_short_answer_is_noticed_whatever_the_library_does() -> None:
    """A JSON body cut at a lucky place would pass for whole."""
    short = b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"request_id": "id-1"}'
    with wire(short) as (origin, _), pytest.raises(OutcomeUnknown, match="cut short"):
        api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})


@contextmanager
def proxy_to(origin: str, answer: bytes) -> Iterator[str]:
    """A proxy that answers one CONNECT and leads it to ``origin``, whatever name it asks for."""
    listener = socket.create_server(("127.0.0.1", 0))

    def move(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with listener.accept()[0] as client:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += client.recv(4096)
            client.sendall(answer)
            address = ("127.0.0.1", int(origin.rpartition(":")[2]))
            with socket.create_connection(address) as upstream:
                back = threading.Thread(target=move, args=(upstream, client), daemon=True)
                back.start()
                move(client, upstream)
                back.join(5)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("tunnel", "certified", "error"),
    [
        (b"HTTP/1.1 200 Connected\r\n\r\n", "api.example.com", OutcomeUnknown),
        (b"HTTP/1.1 200 Connected\r\n\r\n", "other.example", Refused),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "api.example.com", Refused),
        (b"", "api.example.com", Refused),
    ],
    ids=["the answer is lost", "no valid certificate", "no tunnel", "no proxy"],
)
def test_what_is_known_behind_a_proxy(
    tunnel: bytes, certified: str, error: type[Exception]
) -> None:
    """Once the body has begun to leave, a lost answer may have been billed, proxy or not."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(certified).configure_cert(server_side)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with wire(b"", tls=server_side) as (origin, seen), proxy_to(origin, tunnel) as proxy:
        http = HttpClient(AddressPolicy(proxy=proxy), transport=Transport(tls=lambda: trusted))
        api = ModelApi(http, "https://api.example.com", "token-abc", connect_s=0.5)
        with pytest.raises(error, match="billed"):
            api.submit(MODEL, {"prompt": "p"})
        if error is Refused:
            assert seen == []
        else:
            assert b'{"prompt": "p"}' in seen[0]
        # Ends the server that still waits for a caller, if one does.
        socket.create_connection(("127.0.0.1", int(origin.rpartition(":")[2]))).close()


def test_an_answer_that_comes_late_is_still_the_submissions_answer() -> None:
    """The bound of a whole answer is counted from the upload's end, beside the wait for it."""
    with wire(reply({"request_id": "id-1"}), 0.01, 16384) as (origin, _):
        api = api_at(origin, "token-abc", total_s=0.3, answer_s=5.0)
        assert api.submit(MODEL, {"prompt": "p", "image_urls": ["A" * 2_000_000]}) == "id-1"


def test_a_refusal_that_comes_before_the_upload_is_over_is_heard() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(
                b'HTTP/1.1 422 No\r\nContent-Length: 22\r\n\r\n{"error_code": 422001}'
            )
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass

    threading.Thread(target=refuse, daemon=True).start()
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Refused) as caught:
        api_at(origin, "token-abc").submit(MODEL, {"image_urls": ["A" * 3_000_000]})
    assert caught.value.status == 422
    listener.close()


def test_certificates_are_verified_and_a_companys_own_may_be_trusted() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    with wire(reply({"request_id": "id-1"}), tls=server_side) as (origin, seen):
        with pytest.raises(Refused, match="certificate"):
            api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
        assert seen == [], "nothing was sent before the certificate was known to be bad"
    for name, works in (("localhost", True), ("other.example", False)):
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(server_side)
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        with wire(reply({"request_id": "id-1"}), tls=server_side) as (origin, seen):
            api = api_at(origin, "token-abc", lambda tls=trusted: tls)
            if works:
                assert api.submit(MODEL, {"prompt": "p"}) == "id-1" and len(seen) == 1
            else:
                with pytest.raises(Refused, match="certificate"):
                    api.submit(MODEL, {"prompt": "p"})
                assert seen == []


@pytest.mark.parametrize(
    "origin", ["https://models.gateway.corp:8443", "https://gateway", "https://10.0.0.5:8443"]
)
def test_the_operators_gateway_is_dialled_wherever_it_lies(tmp_path: Path, origin: str) -> None:
    """A private address or a local name is the operator's word; TLS must still be for it."""
    host = origin.removeprefix("https://").partition(":")[0]
    environ = {"RUNCOMFY_API_BASE": origin, "RUNCOMFY_API_TOKEN": "token-abc", "HOME": "/"}
    account = open_account(tmp_path, environ)
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    for name in (host, "other.example"):
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(server_side)
        with wire(reply({"request_id": "id-1"}), tls=server_side) as (served, seen):
            port = int(served.rpartition(":")[2])
            transport = Transport(
                lambda *host, **kind: [(0, 0, 0, "", ("10.0.0.5", 443))],
                lambda *to, port=port: socket.create_connection(("127.0.0.1", port)),
                lambda: trusted,
            )
            api = replace(account.api, http=replace(account.api.http, transport=transport))
            if name == host:
                assert api.submit(MODEL, {"prompt": "p"}) == "id-1" and len(seen) == 1
                with pytest.raises(Refused, match="public"):  # and no other origin beside it
                    replace(api, origin="https://10.0.0.6").submit(MODEL, {"prompt": "p"})
            else:
                with pytest.raises(Refused, match="certificate"):
                    api.submit(MODEL, {"prompt": "p"})
                assert seen == []
    with pytest.raises(AddressRefused):  # pictures and links stay public
        account.policy.check(f"{origin}/a.png")


@pytest.mark.parametrize(
    ("text", "usable"),
    [("a", True), ("3f-9_x.Y:1", True), ("../x", True), ("a/b?c#d", True), ("a..b", True),
     ("-a", True), ("a" * 4096, True), ("é ü\n", True), ("%2e%2e", True), ("", False), (".", False),
     ("..", False), ("a" * 4097, False), ("\ud800", False), (None, False), (7, False)],
)  # fmt: skip
def test_what_can_be_asked_for(text: object, usable: bool) -> None:
    assert is_request_id(text) is usable


ODD_IDS = (
    17, 0, -3, 10**30, "9" * 5000, "17", "../../v1/models/x", "a/b?c=d#e", "a b", "é\n\t", "%2e%2e",
    "a" * 4096, "<script>", "x\u202ey", "\x00",
)  # fmt: skip


@pytest.mark.parametrize("given", ODD_IDS, ids=lambda given: repr(given)[:20])
def test_an_unusual_id_is_kept_word_for_word_and_never_changes_the_path(given: object) -> None:
    """A number of 5,000 digits, which Python refuses to read, is too long to ask for."""
    literal = given if given == "9" * 5000 else json.dumps(given)
    kept = str(given)
    first = json_reply(f'{{"request_id": {literal}, "status": "in_queue"}}')
    if len(kept) > 4096:
        with wire(first) as (origin, _), pytest.raises(OutcomeUnknown) as caught:
            api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
        assert kept.startswith(caught.value.request_id.strip('"')[:4000])
        assert kept[:200] in str(caught.value) and len(str(caught.value)) < 900
        return
    with wire(first) as (origin, _):
        assert api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"}) == kept
    quoted = "".join(chr(c) if chr(c) in UNRESERVED else f"%{c:02X}" for c in kept.encode())
    for name, verb, tail in (("status", "GET", ""), ("cancel", "POST", ""),
                             ("result", "GET", "?include_cost=true")):  # fmt: skip
        with wire(json_reply('{"status": "in_queue"}')) as (origin, seen):
            getattr(api_at(origin, "token-abc"), name)(kept)
        line = seen[0].partition(b"\r\n")[0].decode()
        assert line == f"{verb} /v1/requests/{quoted}/{name}{tail} HTTP/1.1"


UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def json_reply(text: str, status: int = 200, more: str = "") -> bytes:
    data = text.encode()
    head = f"HTTP/1.1 {status} X\r\nConnection: close\r\n{more}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


@pytest.mark.parametrize(
    ("given", "shown"),
    [('["a", 1]', '["a", 1]'), ('{"id": "a"}', '{"id": "a"}'), ("true", "true"), ("1.5", "1.5"),
     ('".."', '".."'), ('"\\ud800"', '"\\ud800"')],
)  # fmt: skip
def test_an_id_that_cannot_be_asked_for_is_told(given: str, shown: str) -> None:
    body = f'{{"request_id": {given}}}'
    with wire(json_reply(body)) as (origin, _), pytest.raises(OutcomeUnknown) as caught:
        api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
    assert shown in str(caught.value) and "may have been accepted" in str(caught.value)
    assert caught.value.request_id == shown and str(caught.value).isprintable()


def test_the_id_of_an_answer_that_says_neither_yes_nor_no_is_kept() -> None:
    body = '{"request_id": "id-1", "message": "worker lost"}'
    with wire(json_reply(body, 502)) as (origin, _), pytest.raises(OutcomeUnknown) as caught:
        api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
    assert caught.value.request_id == "id-1" and '"id-1"' in str(caught.value)
    assert caught.value.status == 502


DIGITS, DEEP = "9" * 5000, '{"error":' * 900 + '{"message":"x"}' + "}" * 900
MONSTROUS = (
    f'{{"error_code": "{DIGITS}"}}', f'{{"error_code": {DIGITS}}}', f'{{"code": -{DIGITS}}}',
    f'{{"detail": [{{"loc": [{DIGITS}, ["a"]], "msg": {DIGITS}}}]}}', DEEP, DIGITS,
    '{"detail":' * 1500 + "1" + "}" * 1500, "[" * 100_000, '{"a":' + "[" * 900 + "]" * 900 + "}",
    '{"detail": [{"loc": ["a"], "msg": ' + "[" * 900 + "]" * 900 + "}]}", "\x00" * 50, "1e999",
    '{"message": "\\ud800"}', '{"error_code": "²"}', '{"error_code": "٤٠٤٠٠١"}',
    '{"error_code": 1e5}',
)  # fmt: skip


@pytest.mark.parametrize("body", MONSTROUS, ids=lambda body: body[:25])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_answer_that_breaks_its_reader_is_unknown_or_passing(body: str, status: int) -> None:
    """To the POST it may have been paid, and a question is asked again."""
    answer = json_reply(body, status, f"Retry-After: {DIGITS}\r\n")
    with wire(answer) as (origin, _):
        error = Refused if status == 404 else OutcomeUnknown
        with pytest.raises(error):
            api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
    with wire(answer) as (origin, _):
        try:
            api_at(origin, "token-abc").status("id-1")
        except Transient as error:
            assert error.status == status
        else:
            assert status == 200 and body.startswith("{")


@pytest.mark.parametrize(
    "head",
    [f"Content-Length: {DIGITS}", f"Content-Length: -{DIGITS}", f"Retry-After: {DIGITS}",
     f"Retry-After: Mon, {DIGITS} Jan 2026 00:00:00 +{DIGITS}", "Transfer-Encoding: chunked",
     f"Transfer-Encoding: chunked\r\n\r\n{DIGITS}", "Content-Encoding: gzip", f"X: {'a' * 70_000}",
     "\r\n".join(f"X-{n}: 1" for n in range(200))],
    ids=lambda head: head[:30],
)  # fmt: skip
def test_a_head_that_breaks_its_reader_is_unknown_or_passing(head: str) -> None:
    answer = f"HTTP/1.1 500 X\r\nConnection: close\r\n{head}\r\n\r\n{{}}".encode()
    with wire(answer) as (origin, _), pytest.raises(OutcomeUnknown):
        api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
    with wire(answer) as (origin, _), pytest.raises(Transient):
        api_at(origin, "token-abc").status("id-1")


@pytest.mark.parametrize("error", [RecursionError, MemoryError, KeyError, struct.error, ValueError])
def test_whatever_goes_wrong_with_an_answer_the_money_is_thought_of(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def breaks(*given: object) -> None:
        raise error("no")

    for name in ("json_object", "explain"):
        monkeypatch.setattr(client, name, breaks)
        with wire(json_reply('{"x": 1}', 500)) as (origin, _), pytest.raises(OutcomeUnknown):
            api_at(origin, "token-abc").submit(MODEL, {"prompt": "p"})
        with wire(json_reply('{"x": 1}', 500)) as (origin, _), pytest.raises(Transient):
            api_at(origin, "token-abc").status("id-1")
        monkeypatch.undo()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 422])
@pytest.mark.parametrize(
    "body",
    ["<html>404</html>", '{"detail": "Not Found"}', '{"message": "Unauthorized"}', "{}", "[]", "",
     '{"error": {"code": 5, "message": "no route"}}', '{"code": 404}', '{"error_code": 500001}'],
)  # fmt: skip
def test_a_gateways_no_is_no_word_about_the_job(status: int, body: str) -> None:
    with wire(json_reply(body, status)) as (origin, _), pytest.raises(Transient) as caught:
        api_at(origin, "token-abc").status("id-1")
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "code", "means"),
    [(404, 404001, 404), (410, 404001, 404), (400, 400004, 400), (401, 400004, 400),
     (403, 403001, 403), (200, 404001, 404), (404, 400004, 400), (422, 422001, 422)],
)  # fmt: skip
def test_the_apis_own_code_is_final(status: int, code: int, means: int) -> None:
    for body in (f'{{"error_code": {code}}}', f'{{"error": {{"code": "{code}"}}}}'):
        with (
            wire(json_reply(body, status)) as (origin, _),
            pytest.raises(RequestRejected) as caught,
        ):
            api_at(origin, "token-abc").status("id-1")
        assert caught.value.status == means and caught.value.request_id == "id-1"


def test_the_token_is_in_no_text_form() -> None:
    api = ModelApi(HttpClient(), "https://example.com", "token-abc")
    assert "token-abc" not in repr(api) + str(api) + repr(vars(api.http))


def test_a_proxy_is_only_the_one_named() -> None:
    policy = AddressPolicy.from_environment({"HTTPS_PROXY": "http://proxy.example:3128"})
    assert policy.proxy is None


def test_the_live_price(standin: Standin) -> None:
    api = api_at(standin.origin, new_token())
    assert read_price(api, MODEL) == ("$0.021 per image", 0.021)
    nowhere = replace(api, origin="http://127.0.0.1:9")
    assert read_price(nowhere, MODEL) == ("", None)
    refused = replace(api, token="invalid")
    assert read_price(refused, MODEL) == ("", None), "the API says no: no price, and no error"


@pytest.mark.parametrize(
    ("entry", "text"),
    [({"base_price_usd": 0.04, "price_unit": "per megapixel"}, "$0.04 per megapixel"),
     ({"base_price_usd": "0.5"}, "$0.5"), ({"base_price_usd": 0}, "$0"), ({}, ""),
     ({"base_price_usd": -1}, ""), ({"base_price_usd": True}, ""),
     ({"base_price_usd": float("nan")}, ""), ({"base_price_usd": "much"}, ""),
     ({"base_price_usd": 1, "price_unit": {"a": "b" * 400}}, "")],
)  # fmt: skip
def test_the_price_in_words(entry: dict, text: str) -> None:
    price, usd = read_price(SimpleNamespace(price=lambda model_id: entry), MODEL)
    assert (usd is not None) == (text in ("$0.5", "$0")), "per megapixel is no price of a request"
    if "price_unit" in entry and isinstance(entry["price_unit"], dict):
        assert price and len(price) < 60
    else:
        assert price == text

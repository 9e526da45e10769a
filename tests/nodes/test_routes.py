"""The settings page's routes over real sockets: who may ask, and bodies that no page sends."""

import asyncio
import gzip
import json
import logging
import socket
import threading
from types import SimpleNamespace

import pytest
from standin_server import Standin

pytestmark = pytest.mark.usefixtures("comfy_inprocess")
PREFIX = "/flux2-lora-edit"
OWN = {"X-Flux2-Lora-Edit": "1", "Content-Type": "application/json"}
TOKEN = b'{"token": "saved-token-0123456789"}'
WAYS = [
    ("GET", "token"), ("GET", "open-requests"), ("GET", "history"), ("HEAD", "token"),
    ("GET", "prices"), ("GET", "lora-files"), ("GET", "lora-files?model=x.safetensors"),
    ("PUT", "token"), ("DELETE", "token"), ("DELETE", "open-requests"), ("PUT", "open-requests"),
]  # fmt: skip
LOCAL = ("localhost", "LocalHost:8188", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:8188",
         "[::ffff:127.0.0.1]:8188")  # fmt: skip
EVERY = "0.0.0.0"  # noqa: S104 (what a page may also ask for, and what --listen binds)
FOREIGN = (
    "evil.example", "evil.example:8188", "127.0.0.1.evil.example", "localhost.evil.example",
    "localhost@evil.example", "evil-localhost", "192.168.1.5:8188", EVERY, "[::]", "[2001:db8::1]",
    "[::ffff:8.8.8.8]", "[::1", "2130706433", ":8188", "",
)  # fmt: skip


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Serves the routes on a listening socket, in a thread; ends with the test."""
    from aiohttp import web

    from flux2_lora_edit.nodes import host
    from flux2_lora_edit.nodes.routes import lora_files
    from flux2_lora_edit.nodes.routes import runcomfy as runcomfy_routes

    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "YOUR_API_TOKEN", "RUNCOMFY_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for module in (runcomfy_routes, host):
        monkeypatch.setattr(module, "private_folder", lambda: tmp_path / "own")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners = []

    def serve(listening):
        async def start():
            server = SimpleNamespace(routes=web.RouteTableDef())
            runcomfy_routes.register_routes(server)
            lora_files.register_routes(server)
            app = web.Application(client_max_size=100 * 2**20)
            app.add_routes(server.routes)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.SockSite(runner, listening).start()
            runners.append(runner)

        asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        return listening.getsockname()[1]

    yield serve
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


@pytest.fixture
def port(serve):
    return serve(listen("127.0.0.1"))


def listen(address, family=socket.AF_INET):
    listening = socket.socket(family)
    if family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.bind((address, 0))
    listening.listen()
    return listening


def send(where, method, path, host, body=b"", *, half=False, **headers):
    """One request as written; (status, text), status 0 where the server gives no answer."""
    lines = [f"{method} {PREFIX}/{path} HTTP/1.1", "Connection: close"]
    lines += [f"Host: {host}"] if host is not None else []
    headers = {"Content-Length": str(len(body))} | OWN | headers
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    answer = bytearray()
    with socket.create_connection(where, timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        if half:
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            answer += data
    head, _, text = bytes(answer).partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, text.decode()


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_a_loopback_socket_answers_loopback_names_alone(method, path, port, monkeypatch):
    monkeypatch.setenv("RUNCOMFY_API_BASE", "http://127.0.0.1:9")  # nobody: no price
    where, body = ("127.0.0.1", port), TOKEN[:-1] + b', "key": "none", "request_id": "id-1"}'
    for host in LOCAL:
        assert send(where, "PUT", "token", "localhost", TOKEN)[0] == 200
        status, text = send(where, method, path, host, body, Origin=f"http://{host}")
        assert status == 200, (host, text)
    for host in FOREIGN:
        status, text = send(where, method, path, host, body, Origin=f"http://{host}")
        assert status == 403, host
        assert method == "HEAD" or "localhost" in text and "RUNCOMFY_API_TOKEN" in text
    # HTTP/1.1 without a Host at all is no page's either.
    assert send(where, method, path, None, body)[0] in (400, 403)


def test_prices_are_asked_with_a_token_alone(port, monkeypatch):
    where = ("127.0.0.1", port)
    with Standin() as standin:
        monkeypatch.setenv("RUNCOMFY_API_BASE", standin.origin)
        told = json.loads(send(where, "GET", "prices", "localhost")[1])
        assert told == {"set": False, "prices": {}}
        account = standin.state.account(json.loads(TOKEN)["token"])
        assert not account.counts
        assert send(where, "PUT", "token", "localhost", TOKEN)[0] == 200
        told = json.loads(send(where, "GET", "prices", "localhost")[1])
        price = {"text": "$0.021 per image", "usd": 0.021}
        assert told == {"set": True, "prices": {"edit": price, "text to image": price}}
    assert "submit" not in account.counts


def test_nothing_was_changed_or_told_by_a_foreign_name(port):
    where = ("127.0.0.1", port)
    assert send(where, "PUT", "token", "localhost", TOKEN)[0] == 200
    evil = {"host": "evil.example", "Origin": "http://evil.example"}
    assert "6789" not in send(where, "GET", "token", **evil)[1]
    assert send(where, "DELETE", "token", body=b"{}", **evil)[0] == 403
    assert send(where, "PUT", "token", body=TOKEN.replace(b"saved", b"other"), **evil)[0] == 403
    assert json.loads(send(where, "GET", "token", "localhost")[1])["hint"] == "…6789"


def test_other_sites_may_not_read_either(port):
    """Where ComfyUI runs with --enable-cors-header they could."""
    origins = ({"Origin": one} for one in ("https://evil.example", "null", "http://[::1"))
    for headers in (*origins, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        for path in ("token", "open-requests", "history", "prices"):
            assert send(("127.0.0.1", port), "GET", path, "localhost", **headers)[0] == 403


def test_ipv6_and_mapped_addresses_are_loopback_too(serve):
    try:
        port = serve(listen("::", socket.AF_INET6))
    except OSError:
        pytest.skip("this machine has no IPv6")
    for address in ("::1", "127.0.0.1"):  # the latter is ::ffff:127.0.0.1 to the server
        assert send((address, port), "GET", "token", "[::1]:8188")[0] == 200
        assert send((address, port), "GET", "token", "evil.example")[0] == 403


def test_a_server_on_the_network_is_called_by_any_name(serve):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback's")
        address = probe.getsockname()[0]
    port = serve(listen(EVERY))
    for host in ("comfy.example", f"{address}:{port}"):
        assert send((address, port), "GET", "token", host, Origin=f"http://{host}")[0] == 200
    assert send(("127.0.0.1", port), "GET", "token", "comfy.example")[0] == 403


DEEP = b'{"token": ' + b"[" * 8000 + b"]" * 8000 + b"}"
BROKEN = {
    "deep": (DEEP, {}, 400),
    "never closed": (b"[" * 16_000, {}, 400),
    "digits": (b'{"token": ' + b"9" * 16_000 + b"}", {}, 400),
    "a list": (b"[1]", {}, 400),
    "no text": (b'{"token": 7}', {}, 400),
    "half a character": (b'{"token": "\\ud800"}', {}, 400),
    "latin-1": ('{"token": "ä"}'.encode("latin-1"), {}, 400),
    "utf-16": ('{"token": "a"}'.encode("utf-16"), {}, 400),
    "no such charset": (TOKEN, {"Content-Type": "application/json; charset=none"}, 400),
    "a charset that is no text": (TOKEN, {"Content-Type": "application/json; charset=zip"}, 400),
    "too long": (b" " * 20_000 + TOKEN, {}, 413),
    "no length": (b"0\r\n\r\n", {"Content-Length": None, "Transfer-Encoding": "chunked"}, 413),
    "more than it says": (TOKEN, {"Content-Length": "10"}, 400),
    "a bomb": (gzip.compress(b" " * 10 * 2**20), {"Content-Encoding": "gzip"}, 400),
    "no gzip": (TOKEN, {"Content-Encoding": "gzip"}, 400),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(("method", "path"), [("PUT", "token"), ("DELETE", "open-requests")])
def test_a_broken_body_is_refused_in_words(method, path, name, port, caplog):
    where, (body, headers, expected) = ("127.0.0.1", port), BROKEN[name]
    assert send(where, "PUT", "token", "localhost", TOKEN)[0] == 200
    if path == "open-requests":
        body = body.replace(b'"token"', b'"key"')
        if name == "half a character":
            expected = 200  # of a key that no request has
    with caplog.at_level(logging.INFO):
        status, text = send(where, method, path, "localhost", body, **headers)
    assert status == expected, text
    # aiohttp logs what it finds wrong with a request by itself; nothing may come from here.
    assert "Traceback" not in text and "routes" not in caplog.text
    assert json.loads(send(where, "GET", "token", "localhost")[1])["hint"] == "…6789"


def test_less_than_it_says_and_gone(port, caplog):
    with caplog.at_level(logging.INFO):
        send(("127.0.0.1", port), "PUT", "token", "localhost", TOKEN, half=True,
             **{"Content-Length": "100"})  # fmt: skip
        assert send(("127.0.0.1", port), "GET", "token", "localhost")[0] == 200
    assert "routes" not in caplog.text


def test_the_history_names_requests_and_their_sum(port, tmp_path, monkeypatch):
    from flux2_lora_edit.nodes.routes import runcomfy as runcomfy_routes
    from flux2_lora_edit.remote.account import SESSION, open_account

    where = ("127.0.0.1", port)
    nothing = {"requests": [], "sum_usd": 0}
    assert json.loads(send(where, "GET", "history", "localhost")[1]) == nothing, "no token, no list"
    send(where, "PUT", "token", "localhost", TOKEN)
    journal = open_account(tmp_path / "own", {"HOME": str(tmp_path)}).journal
    body = {"prompt": "a garden", "seed": 3, "image_size": "square"}
    for number, state in enumerate(("delivered", "failed", "unknown")):
        entry = journal.claim("blackforestlabs/flux-2/lora", body | {"seed": number}, 0.02)[0]
        SESSION.prompts[entry.key] = f"a garden, {number}"
        usd = {"failed": None}.get(state, 0.02)
        request_id = "" if state == "unknown" else f"id-{number}"
        journal.mark(entry, state, request_id=request_id, usd=usd)
    shown = json.loads(send(where, "GET", "history", "localhost")[1])
    assert shown["sum_usd"] == 0.02
    assert [row["cost_usd"] for row in shown["requests"]] == [None, None, 0.02]
    first = shown["requests"][-1]
    assert first["request_id"] == "id-0" and first["state"] == "delivered"
    assert first["what"] == "text to image · square · seed 0"
    assert first["prompt"] == "a garden, 0" and first["started"] > 1e9
    assert json.loads(send(where, "GET", "token", "localhost")[1])["shared"] is False
    opened = json.loads(send(where, "GET", "open-requests", "localhost")[1])["open_requests"]
    assert [row["prompt"] for row in opened] == ["a garden, 2"]
    # Where several people use one server, none reads what the others asked for.
    monkeypatch.setattr(runcomfy_routes.args, "multi_user", True)
    shown = json.loads(send(where, "GET", "history", "localhost")[1])
    assert [row["prompt"] for row in shown["requests"]] == [""] * 3
    assert json.loads(send(where, "GET", "token", "localhost")[1])["shared"] is True


def test_an_id_is_written_beside_a_request_whose_answer_was_lost(port, tmp_path):
    from flux2_lora_edit.remote.account import open_account

    where = ("127.0.0.1", port)
    send(where, "PUT", "token", "localhost", TOKEN)
    journal = open_account(tmp_path / "own", {"HOME": str(tmp_path)}).journal
    bodies = [{"prompt": "a garden", "seed": seed} for seed in (1, 2)]
    lost, known = (journal.claim("model", body, None)[0] for body in bodies)
    journal.mark(lost, "unknown")
    journal.mark(known, "left", request_id="id-2")

    def named(key, request_id):
        body = json.dumps({"key": key, "request_id": request_id}).encode()
        return send(where, "PUT", "open-requests", "localhost", body)

    for odd in ("", " ", "..", "a b", "x" * 5000, "\ud800", None, 7):
        assert named(lost.key, odd)[0] == 400
    assert named("none", "id-1")[0] == 200
    for key in (lost.key, known.key):
        assert named(key, " id-1 ")[0] == 200
    told = {entry.key: (entry.state, entry.request_id) for entry in journal.open_requests()}
    assert told == {lost.key: ("unknown", "id-1"), known.key: ("left", "id-2")}
    assert named(lost.key, "id-9")[0] == 200
    assert journal.claim("model", bodies[0], None)[0].request_id == "id-1", "once known, it stays"

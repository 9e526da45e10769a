"""HTTP through real sockets: a loopback HTTPS server that misbehaves in many ways."""

import base64
import gzip
import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import Authority, Exchange, Route, Server, Stop, serving, stop_after, until

from flux2_lora_edit.network import errors
from flux2_lora_edit.network.address import PUBLIC_ONLY, AddressPolicy
from flux2_lora_edit.network.client import (
    Credentials,
    HttpClient,
    Limits,
)
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.network.exchange import Answer, Upload

MIB = 1 << 20
# What ends by itself ends later: in 30 seconds by the defaults, in 90 where a test makes it hang.
AT_ONCE = 20.0


def client_of(
    max_bytes: int,
    policy: AddressPolicy = PUBLIC_ONLY,
    transport: Transport | None = None,
    should_stop: Callable[[], None] = lambda: None,
    allowed_hosts: Callable[[str], bool] | None = None,
    **limits: float,
) -> HttpClient:
    """A client that asks once."""
    return HttpClient(
        policy,
        Limits(max_bytes, attempts=1, **limits),
        should_stop,
        transport or Transport(),
        allowed_hosts,
    )


def open_stream(url: str, **given: Any) -> AbstractContextManager[Answer]:
    return client_of(**given).stream(url)


def fetch_bytes(url: str, credentials: Credentials | None = None, **given: Any) -> bytes:
    return client_of(**given).get_bytes(url, credentials)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def network_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "flux2-lora-edit network"]


def settle() -> None:
    """Waits for the threads of abandoned streams."""
    until(lambda: not network_threads())


def test_a_body_arrives_whole(server: Server, policy: AddressPolicy, transport: Transport) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB: more than one chunk
    server.routes["/a"] = lambda e: e.answer(200, body, X_Extra="yes")
    with open_stream(
        server.origin + "/a?x=1", max_bytes=4 * MIB, policy=policy, transport=transport
    ) as stream:
        assert (stream.status, stream.length) == (200, len(body))
        assert stream.headers["x-extra"] == "yes"
        assert stream.url == server.origin + "/a?x=1"
        pieces = list(stream.pieces)
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 256 << 10
    (seen,) = server.requests
    assert seen.method == "GET"
    assert seen.query == "x=1"
    assert seen.headers["host"] == server.authority
    assert seen.headers["accept-encoding"] == "identity"
    assert "python" not in seen.headers["user-agent"].lower()
    settle()


def test_chunked_and_unframed_bodies(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    def chunked(exchange: Exchange) -> None:
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        exchange.send(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")

    def unframed(exchange: Exchange) -> None:
        exchange.head(200, {})
        exchange.send(b"abcdefg")

    server.routes |= {"/chunked": chunked, "/unframed": unframed}
    for path in ("/chunked", "/unframed"):
        got = fetch_bytes(server.origin + path, max_bytes=7, policy=policy, transport=transport)
        assert got == b"abcdefg"


def redirect(to: str, status: int = 302) -> Route:
    return lambda exchange: exchange.answer(status, b"", Location=to)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(
    server: Server, policy: AddressPolicy, transport: Transport, status: int
) -> None:
    server.routes |= {
        "/a": redirect("b?q=1", status),
        "/b": redirect(f"//{server.authority}/c"),
        "/c": lambda e: e.answer(200, b"there"),
    }
    url = server.origin + "/a"
    assert fetch_bytes(url, max_bytes=9, policy=policy, transport=transport) == b"there"
    assert [seen.path for seen in server.requests] == ["/a", "/b", "/c"]


REFUSED_TARGETS = {
    "a private address": "https://10.0.0.1/x",
    "the metadata service": "https://169.254.169.254/latest",
    "an inside name": "https://nas.local/x",
    "plain http": "http://example.com/x",
    "a file": "file:///etc/passwd",
    "another loopback port": "https://127.0.0.1:1/x",
    "a login in the link": "https://user:secret@example.com/x",
}


@pytest.mark.parametrize("to", REFUSED_TARGETS.values(), ids=REFUSED_TARGETS.keys())
def test_redirects_to_the_inside_are_refused(
    server: Server, policy: AddressPolicy, transport: Transport, to: str
) -> None:
    server.routes["/a"] = redirect(to)
    with pytest.raises(errors.AddressRefused) as caught:
        fetch_bytes(server.origin + "/a", max_bytes=9, policy=policy, transport=transport)
    assert "secret" not in str(caught.value)
    assert server.connections == 1


def test_redirects_have_an_end(server: Server, policy: AddressPolicy, transport: Transport) -> None:
    server.routes["/loop"] = redirect("/loop")
    with pytest.raises(errors.TooManyRedirects):
        fetch_bytes(server.origin + "/loop", max_bytes=9, policy=policy, transport=transport)
    assert len(server.requests) == 6


def bomb() -> bytes:
    """32 MiB of zeros in 32 KiB."""
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(32)) + packer.flush()


def raw(data: bytes) -> Route:
    return lambda exchange: exchange.send(data)


def endless(exchange: Exchange) -> None:
    exchange.head(200, {})
    while not exchange._closing.is_set():
        exchange.send(bytes(65536))


def endless_tail(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Encoding": "gzip"})
    exchange.send(gzip.compress(b"done"))
    while not exchange._closing.is_set():
        exchange.send(bytes(65536))


def endless_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    while not exchange._closing.is_set():
        exchange.send(b"X-More: " + b"a" * 1000 + b"\r\n")


def reset_in_body(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": 100})
    exchange.send(b"half")
    exchange.pause(0.1)
    exchange.break_off()


OK = b"HTTP/1.1 200 OK\r\n"
# fault -> (what the server does, what the caller gets)
BROKEN_OFF = (errors.Truncated, errors.ConnectionFailed)  # which one is the TLS library's choice
FAULTS: dict[str, tuple[Route, type[errors.NetworkError] | tuple[type, ...]]] = {
    "dropped in the middle": (raw(OK + b"Content-Length: 100\r\n\r\nhalf"), errors.Truncated),
    "reset in the middle": (reset_in_body, BROKEN_OFF),
    "closed before the answer": (raw(b""), errors.ConnectionFailed),
    "reset before the answer": (Exchange.break_off, errors.ConnectionFailed),
    "headers cut off": (raw(OK + b"Content-Len"), errors.Truncated),
    "status line cut off": (raw(b"HTTP/1.1 2"), errors.NetworkError),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), errors.BadResponse),
    "endless headers": (endless_headers, errors.BadResponse),
    "length not a number": (raw(OK + b"Content-Length: 4x\r\n\r\nhalf"), errors.BadResponse),
    "length negative": (raw(OK + b"Content-Length: -4\r\n\r\nhalf"), errors.BadResponse),
    "length beyond the cap": (raw(OK + b"Content-Length: 1000001\r\n\r\n"), errors.TooLarge),
    "endless body": (endless, errors.TooLarge),
    "chunks cut off": (
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
        errors.ConnectionFailed,
    ),
    "chunk length nonsense": (
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab"),
        errors.NetworkError,
    ),
    "gzip bomb": (lambda e: e.answer(200, bomb(), Content_Encoding="gzip"), errors.TooLarge),
    "gzip with an endless tail": (endless_tail, errors.TooLarge),
    "gzip damaged": (lambda e: e.answer(200, b"junk", Content_Encoding="gzip"), errors.BadResponse),
    "gzip cut off": (
        lambda e: e.answer(200, gzip.compress(bytes(5000))[:-9], Content_Encoding="gzip"),
        errors.Truncated,
    ),
    "an unknown encoding": (
        lambda e: e.answer(200, b"x", Content_Encoding="br"),
        errors.BadResponse,
    ),
    "redirect to nowhere": (lambda e: e.answer(302), errors.BadResponse),
    "HTTP 401": (lambda e: e.answer(401), errors.HttpStatusError),
    "HTTP 404": (lambda e: e.answer(404), errors.HttpStatusError),
    "HTTP 206 nobody asked for": (lambda e: e.answer(206, b"x"), errors.HttpStatusError),
    "HTTP 500": (lambda e: e.answer(500), errors.HttpStatusError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(server: Server, policy: AddressPolicy, transport: Transport, fault: str) -> None:
    route, expected = FAULTS[fault]
    server.routes["/a"] = route
    with within(8), pytest.raises(expected) as caught:
        fetch_bytes(
            server.origin + "/a?signature=SECRET",
            max_bytes=1_000_000,
            policy=policy,
            transport=transport,
        )
    assert "SECRET" not in str(caught.value)
    assert len(server.requests) == 1  # this room never repeats a request by itself
    settle()


def test_what_came_before_a_break_is_handed_over(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = reset_in_body
    got = b""
    with (
        pytest.raises(errors.NetworkError),
        open_stream(
            server.origin + "/a", max_bytes=100, policy=policy, transport=transport
        ) as stream,
    ):
        for piece in stream.pieces:
            got += piece
    assert got == b"half"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_though_not_asked_for(
    server: Server, policy: AddressPolicy, transport: Transport, encoding: str
) -> None:
    body = bytes(3 * MIB)
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    server.routes["/a"] = lambda e: e.answer(200, packed, Content_Encoding=encoding)
    url = server.origin + "/a"
    assert fetch_bytes(url, max_bytes=len(body), policy=policy, transport=transport) == body


def test_a_429_says_when_to_come_back(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = lambda e: e.answer(429, b"", Retry_After="7")
    with pytest.raises(errors.HttpStatusError) as caught:
        fetch_bytes(server.origin + "/a", max_bytes=9, policy=policy, transport=transport)
    assert caught.value.retry_after == 7
    assert caught.value.retryable


# ---- time


def silent(exchange: Exchange) -> None:
    exchange.pause(90)


def stalls_in_headers(exchange: Exchange) -> None:
    exchange.send(OK + b"X-")
    exchange.pause(90)


def stalls_in_body(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": 100})
    exchange.send(b"half")
    exchange.pause(90)


def drips(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": 1000})
    while not exchange._closing.is_set():
        exchange.send(b"x")
        exchange.pause(0.05)


def drips_headers(exchange: Exchange) -> None:
    exchange.send(OK + b"X-Slow: ")
    while not exchange._closing.is_set():
        exchange.send(b"x")
        exchange.pause(0.05)


STALLS: dict[str, Route] = {
    "before the headers": silent,
    "in the headers": stalls_in_headers,
    "dripping headers": drips_headers,
    "in the body": stalls_in_body,
    "dripping body": drips,
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_stop_is_noticed_wherever_the_server_stalls(
    server: Server, policy: AddressPolicy, transport: Transport, stall: str
) -> None:
    server.routes["/a"] = STALLS[stall]
    with within(AT_ONCE), pytest.raises(Stop):
        fetch_bytes(
            server.origin + "/a",
            max_bytes=1000,
            policy=policy,
            transport=transport,
            should_stop=stop_after(0.4),
        )
    settle()


@pytest.mark.parametrize("stall", ["before the headers", "in the headers", "in the body"])
def test_silence_has_an_end(
    server: Server, policy: AddressPolicy, transport: Transport, stall: str
) -> None:
    server.routes["/a"] = STALLS[stall]
    with within(AT_ONCE), pytest.raises(errors.Stalled):
        fetch_bytes(
            server.origin + "/a",
            max_bytes=1000,
            policy=policy,
            transport=transport,
            idle_s=0.5,
        )
    settle()


def test_dripping_headers_have_an_end(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    """Each byte resets the socket's own timeout; the stream's patience does not."""
    server.routes["/a"] = drips_headers
    with within(AT_ONCE), pytest.raises(errors.Stalled):
        fetch_bytes(
            server.origin + "/a",
            max_bytes=1000,
            policy=policy,
            transport=transport,
            connect_s=0.5,
            idle_s=0.5,
        )
    settle()


def test_a_deadline_ends_a_dripping_body(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = drips
    with within(AT_ONCE), pytest.raises(errors.DeadlineExceeded):
        fetch_bytes(
            server.origin + "/a",
            max_bytes=1000,
            policy=policy,
            transport=transport,
            total_s=0.7,
        )
    settle()


def test_dripped_bytes_are_seen_as_they_come(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = drips
    with open_stream(
        server.origin + "/a", max_bytes=1000, policy=policy, transport=transport
    ) as stream:
        pieces = stream.pieces
        with within(AT_ONCE):
            assert [next(pieces)[:1] for _ in range(3)] == [b"x"] * 3


@pytest.mark.parametrize("blocked", ["look-up", "connect", "tls"])
def test_a_stop_is_noticed_before_there_is_a_connection(authority: Authority, blocked: str) -> None:
    gone = threading.Event()

    def resolve(host: str, port: int, **kind: Any) -> list[Any]:
        if blocked == "look-up":
            gone.wait(90)
        return found("8.8.8.8")

    listener = socket.create_server(("127.0.0.1", 0))  # accepts, never says a word

    def dial(address: tuple[str, int], timeout: float) -> socket.socket:
        if blocked == "connect":
            gone.wait(90)
            raise TimeoutError
        return socket.create_connection(listener.getsockname(), timeout)

    with within(AT_ONCE), pytest.raises(Stop):
        fetch_bytes(
            "https://example.com/",
            max_bytes=9,
            transport=Transport(resolve, dial, authority.tls),
            should_stop=stop_after(0.4),
        )
    gone.set()
    settle()
    listener.close()


def test_a_name_that_is_never_found_has_an_end() -> None:
    gone = threading.Event()

    def resolve(host: str, port: int, **kind: Any) -> list[Any]:
        gone.wait(90)
        return []

    with within(AT_ONCE), pytest.raises(errors.Stalled):
        fetch_bytes(
            "https://example.com/",
            max_bytes=9,
            transport=Transport(resolve),
            connect_s=0.3,
            idle_s=0.3,
        )
    gone.set()


def test_an_abandoned_stream_leaves_nothing_behind(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = endless
    with open_stream(
        server.origin + "/a", max_bytes=1 << 40, policy=policy, transport=transport
    ) as stream:
        next(stream.pieces)
    settle()


# ---- to whom we speak


def found(*addresses: str) -> list[Any]:
    """What ``socket.getaddrinfo`` would give."""
    return [(0, 0, 0, "", (address, 443)) for address in addresses]


def known(*addresses: str) -> Callable[..., list[Any]]:
    return lambda host, port, **kind: found(*addresses)


def dial_to(server: Server, dialled: list[tuple[str, int]]) -> Callable[..., socket.socket]:
    """Notes the address and connects to the loopback server in its place."""

    def dial(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address)
        return socket.create_connection(("127.0.0.1", server.port), timeout)

    return dial


def test_the_checked_address_is_the_one_connected_to(authority: Authority) -> None:
    """A resolver that answers with a public address first and a private one after (rebinding)."""
    answers = [["8.8.8.8"], ["10.0.0.1"], ["10.0.0.1"]]
    asked: list[str] = []
    dialled: list[tuple[str, int]] = []

    def resolve(host: str, port: int, **kind: Any) -> list[Any]:
        asked.append(host)
        return found(*answers[len(asked) - 1])

    with serving(authority, "rebind.example.com") as server:
        server.routes["/a"] = lambda e: e.answer(200, b"fine")
        transport = Transport(resolve, dial_to(server, dialled), authority.tls)
        url = "https://rebind.example.com/a"
        assert fetch_bytes(url, max_bytes=9, transport=transport) == b"fine"
        assert asked == ["rebind.example.com"]
        assert dialled == [("8.8.8.8", 443)]
        assert server.requests[0].headers["host"] == "rebind.example.com"
        # the next request looks up again, is told a private address, and connects to nothing
        with pytest.raises(errors.AddressRefused):
            fetch_bytes(url, max_bytes=9, transport=transport)
        assert len(dialled) == 1


def test_every_hop_is_resolved_and_checked(authority: Authority) -> None:
    dialled: list[tuple[str, int]] = []
    known = {"good.example.com": ["8.8.8.8"], "evil.example.com": ["8.8.4.4", "192.168.0.1"]}
    with serving(authority, "good.example.com") as server:
        server.routes["/a"] = redirect("https://evil.example.com/a")
        transport = Transport(
            lambda host, port, **kind: found(*known[host]), dial_to(server, dialled), authority.tls
        )
        with pytest.raises(errors.AddressRefused):
            fetch_bytes("https://good.example.com/a", max_bytes=9, transport=transport)
    assert dialled == [("8.8.8.8", 443)]


def test_a_dead_address_is_followed_by_the_next(authority: Authority) -> None:
    dialled: list[tuple[str, int]] = []
    with serving(authority, "two.example.com") as server:
        server.routes["/a"] = lambda e: e.answer(200, b"fine")
        connect = dial_to(server, dialled)

        def dial(address: tuple[str, int], timeout: float) -> socket.socket:
            if address[0] == "2606:4700::1":
                raise OSError("no route")
            return connect(address, timeout)

        transport = Transport(known("2606:4700::1", "1.1.1.1"), dial, authority.tls)
        fetch_bytes("https://two.example.com/a", max_bytes=9, transport=transport)
    assert dialled == [("1.1.1.1", 443)]


def test_the_certificate_must_be_for_the_name(authority: Authority) -> None:
    with serving(authority, "other.example.com") as server:
        transport = Transport(known("8.8.8.8"), dial_to(server, []), authority.tls)
        with pytest.raises(errors.TlsFailed, match="example.com"):
            fetch_bytes("https://example.com/a", max_bytes=9, transport=transport)
    assert not server.requests


def test_an_unknown_authority_is_not_trusted(server: Server, policy: AddressPolicy) -> None:
    with pytest.raises(errors.TlsFailed):
        fetch_bytes(server.origin + "/a", max_bytes=9, policy=policy)
    assert not server.requests


def test_loopback_is_closed_by_default(server: Server, transport: Transport) -> None:
    for url in (server.origin + "/a", f"https://localhost:{server.port}/a"):
        with pytest.raises(errors.AddressRefused):
            fetch_bytes(url, max_bytes=9, transport=transport)
    assert server.connections == 0


def test_refused_and_unknown_hosts(server: Server, transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        origin = f"https://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(errors.ConnectionFailed):
        fetch_bytes(origin, max_bytes=9, policy=PUBLIC_ONLY.allowing(origin), transport=transport)

    def nobody(host: str, port: int, **kind: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(errors.ConnectionFailed, match="cannot be found"):
        fetch_bytes("https://example.com/", max_bytes=9, transport=Transport(nobody))


def test_allowed_hosts_hold_on_every_hop(
    server: Server, policy: AddressPolicy, transport: Transport, authority: Authority
) -> None:
    with serving(authority) as other:
        server.routes["/a"] = redirect(f"https://localhost:{other.port}/a")
        with pytest.raises(errors.AddressRefused, match="localhost is not a host"):
            fetch_bytes(
                server.origin + "/a",
                max_bytes=9,
                policy=policy.allowing(f"https://localhost:{other.port}"),
                transport=transport,
                allowed_hosts=lambda host: host == "127.0.0.1",
            )
        assert other.connections == 0


# ---- credentials

TOKEN = {"Authorization": "Bearer SECRET"}


def test_credentials_go_to_their_host_and_not_over_a_redirect(
    server: Server, policy: AddressPolicy, transport: Transport, authority: Authority
) -> None:
    with serving(authority) as cdn:
        server.routes |= {
            "/a": redirect("/b"),
            "/b": redirect(cdn.origin + "/c"),
            "/d": lambda e: e.answer(200, b"fine"),
        }
        cdn.routes["/c"] = redirect(server.origin + "/d")
        fetch_bytes(
            server.origin + "/a",
            max_bytes=9,
            policy=policy.allowing(cdn.origin),
            transport=transport,
            credentials={server.authority: TOKEN},
        )
        sent = [(s.path, s.headers.get("authorization")) for s in server.requests + cdn.requests]
        # not even on the way back: that hop was the other host's idea
        assert sent == [
            ("/a", "Bearer SECRET"),
            ("/b", "Bearer SECRET"),
            ("/d", None),
            ("/c", None),
        ]


def test_credentials_of_another_host_are_not_sent(
    server: Server, policy: AddressPolicy, transport: Transport
) -> None:
    server.routes["/a"] = lambda e: e.answer(200, b"fine")
    for host in ("127.0.0.1", "localhost", "example.com", f"127.0.0.1:{server.port + 1}"):
        fetch_bytes(
            server.origin + "/a",
            max_bytes=9,
            policy=policy,
            transport=transport,
            credentials={host: TOKEN},
        )
    assert len(server.requests) == 4
    assert not any("authorization" in seen.headers for seen in server.requests)


def test_a_netrc_and_proxy_variables_change_nothing(
    server: Server,
    policy: AddressPolicy,
    transport: Transport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password SECRET\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    server.routes["/a"] = lambda e: e.answer(200, b"fine")
    fetch_bytes(server.origin + "/a", max_bytes=9, policy=policy, transport=transport)
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("name", ["Authorization", "cookie", "HOST", "Accept-Encoding"])
def test_headers_are_no_way_round_the_rules(name: str) -> None:
    stream = HttpClient().stream("https://example.com/", headers={name: "x"})
    with pytest.raises(ValueError, match="not the caller's"), stream:
        pass


# ---- an operator's proxy


def tunnel_to(server: Server, seen: list[bytes], answer: bytes) -> socket.socket:
    """A proxy that leads every CONNECT to ``server``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += client.recv(4096)
        seen.append(asked)
        client.sendall(answer)
        upstream = socket.create_connection(("127.0.0.1", server.port))

        def move(source: socket.socket, sink: socket.socket) -> None:
            try:
                while piece := source.recv(65536):
                    sink.sendall(piece)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        threading.Thread(target=move, args=(client, upstream), daemon=True).start()
        move(upstream, client)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_named_proxy_is_used_and_tls_still_holds(authority: Authority) -> None:
    with serving(authority, "example.com") as server:
        server.routes["/a"] = lambda e: e.answer(200, b"fine")
        seen: list[bytes] = []
        proxy = tunnel_to(server, seen, b"HTTP/1.1 200 Connection established\r\n\r\n")
        policy = AddressPolicy(proxy=f"http://me:pass%21@127.0.0.1:{proxy.getsockname()[1]}")
        transport = Transport(tls=authority.tls)
        url = "https://example.com/a"
        assert fetch_bytes(url, max_bytes=9, policy=policy, transport=transport) == b"fine"
        assert seen[0].startswith(b"CONNECT example.com:443 HTTP/1.")  # urllib3 picks the digit
        assert b"Proxy-Authorization: Basic bWU6cGFzcyE=\r\n" in seen[0]
        assert "proxy-authorization" not in server.requests[0].headers
        for inside in ("https://10.0.0.1/", "https://nas.local/", "http://example.com/"):
            with pytest.raises(errors.AddressRefused):
                fetch_bytes(inside, max_bytes=9, policy=policy, transport=transport)


def test_a_proxy_that_refuses(authority: Authority, server: Server) -> None:
    proxy = tunnel_to(server, [], b"HTTP/1.1 403 Forbidden\r\n\r\n")
    policy = AddressPolicy(proxy=f"http://127.0.0.1:{proxy.getsockname()[1]}")
    with pytest.raises(errors.ConnectionFailed, match="proxy refuses"):
        fetch_bytes("https://example.com/", max_bytes=9, policy=policy)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required (me:hunter2)\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 me:hunter2\r\n\r\n",
        b"me:hunter2\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_no_error_of_a_proxy_shows_its_password(
    server: Server, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = tunnel_to(server, [], answer)
    policy = AddressPolicy(proxy=f"http://me:hunter2@127.0.0.1:{proxy.getsockname()[1]}")
    with pytest.raises((errors.ConnectionFailed, errors.BadResponse)) as caught:
        fetch_bytes("https://example.com/", max_bytes=9, policy=policy)
    assert "hunter2" not in f"{caught.value}{caught.value!r}{policy!r}{caplog.text}"
    login = base64.b64encode(b"me:hunter2").decode()
    assert login not in f"{caught.value}{caplog.text}"


# ---- what is repeated, and what never is


def test_a_small_fetch_waits_as_long_as_the_server_asks(server: Server, client: HttpClient) -> None:
    script: list[Route] = [
        lambda e: e.answer(503, b"", Retry_After="0.5"),
        lambda e: e.answer(200, b"fine"),
    ]
    server.routes["/a"] = lambda exchange: script.pop(0)(exchange)
    started = time.monotonic()
    patient = client.within(attempts=2, backoff_s=0.01)
    assert patient.get_bytes(server.origin + "/a") == b"fine"
    assert time.monotonic() - started > 0.5


def test_a_stop_ends_the_wait_between_two_tries(server: Server, client: HttpClient) -> None:
    server.routes["/a"] = lambda e: e.answer(429, b"", Retry_After="30")
    stopped = replace(client.within(attempts=2), should_stop=stop_after(0.4))
    with within(AT_ONCE), pytest.raises(Stop):
        stopped.get_bytes(server.origin + "/a")


@pytest.mark.parametrize(
    "route", [Exchange.break_off, raw(b""), lambda e: e.answer(503)], ids=["reset", "closed", "503"]
)
def test_a_post_is_sent_once(server: Server, client: HttpClient, route: Route) -> None:
    def taken(exchange: Exchange) -> None:
        assert exchange.seen.headers["content-length"] == "4"
        route(exchange)

    server.routes["/a"] = taken
    upload = Upload(b"paid")
    stream = client.within(attempts=5).stream(server.origin + "/a", upload=upload)
    try:
        with stream as answer:
            assert answer.status == 503
    except errors.NetworkError:
        pass
    assert [seen.method for seen in server.requests] == ["POST"]
    assert server.connections == 1
    assert upload.read_at is not None
    settle()


def test_a_redirect_is_an_answer_where_none_is_followed(server: Server, client: HttpClient) -> None:
    server.routes["/a"] = redirect("/b", 307)
    url = server.origin + "/a"
    for stream in (client.within(redirects=0).stream(url), client.stream(url, upload=Upload(b"x"))):
        with stream as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/b")
    assert [seen.path for seen in server.requests] == ["/a", "/a"]


def test_nothing_of_an_upload_is_read_where_nobody_answers(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        origin = f"https://127.0.0.1:{unused.getsockname()[1]}"
    upload = Upload(b"paid")
    alone = replace(client, policy=PUBLIC_ONLY.allowing(origin))
    with pytest.raises(errors.ConnectionFailed), alone.stream(origin, upload=upload):
        pass
    assert upload.read_at is None


@pytest.mark.parametrize(
    "declared", [{}, {"Content-Length": 600 * MIB}], ids=["endless", "600 MiB"]
)
def test_a_redirects_body_is_not_read(
    server: Server, client: HttpClient, declared: dict[str, object]
) -> None:
    sent: list[int] = []

    def talkative(exchange: Exchange) -> None:
        exchange.head(302, {"Location": "/b", **declared})
        while len(sent) < 600 * 16 and not exchange._closing.is_set():
            exchange.send(bytes(65536))
            sent.append(65536)

    server.routes |= {"/a": talkative, "/b": lambda e: e.answer(200, b"there")}
    with within(60.0):
        assert client.within(max_bytes=9).get_bytes(server.origin + "/a") == b"there"
    assert sum(sent) < 32 * MIB, "more than the buffers of two sockets has left the server"
    settle()


def test_no_link_is_logged_with_its_query(
    server: Server, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.routes["/a"] = redirect("/b?signature=SECRET")
    server.routes["/b"] = lambda e: e.answer(404)
    with pytest.raises(errors.HttpStatusError):
        client.get_bytes(server.origin + "/a?signature=SECRET")
    assert "SECRET" not in caplog.text

"""A loopback HTTP(S) server whose answers are written byte by byte, for tests of faults."""

import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import trustme


class Seen(NamedTuple):
    """One request as it arrived. ``headers`` has lower-case names."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class Exchange:
    """One request and the socket to answer on."""

    def __init__(self, sock: socket.socket, seen: Seen, closing: threading.Event) -> None:
        self.sock = sock
        self.seen = seen
        self._closing = closing

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, status: int, headers: Mapping[str, object]) -> None:
        lines = [f"HTTP/1.1 {status} Told"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def answer(self, status: int = 200, body: bytes = b"", **headers: object) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.head(status, {"Content-Length": len(body), **named})
        if self.seen.method != "HEAD":
            self.send(body)

    def pause(self, seconds: float) -> None:
        """Waits, but not for a server that is being closed."""
        self._closing.wait(seconds)

    def break_off(self) -> None:
        """A reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket.close(self.sock)


Route = Callable[[Exchange], None]


class Server:
    """``routes`` maps a path to what answers it; ``requests`` collects all that was asked."""

    def __init__(self, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[Seen] = []
        self.connections = 0
        self.closing = threading.Event()
        self._context = context
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._handle(self.request)

        class Threads(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that leaves in the middle is what these tests are about

        self._server = Threads((host, 0), Handler)
        self.port: int = self._server.server_address[1]
        self.scheme = "http" if context is None else "https"
        self.origin = f"{self.scheme}://{host}:{self.port}"
        self.authority = f"{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, sock: socket.socket) -> None:
        self.connections += 1
        if self._context is not None:
            try:
                sock = self._context.wrap_socket(sock, server_side=True)
            except OSError:
                return
        head = b""
        while b"\r\n\r\n" not in head:
            piece = sock.recv(4096)
            if not piece:
                return
            head += piece
        first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        seen = Seen(method, path, query, headers)
        self.requests.append(seen)
        exchange = Exchange(sock, seen, self.closing)
        route = self.routes.get(path) or self.routes.get("*")
        try:
            if route is None:
                exchange.answer(404, b"nothing here")
            else:
                route(exchange)
        finally:
            if isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0:
                try:
                    sock.settimeout(0.2)
                    sock.unwrap()
                except (OSError, ValueError):
                    pass
            sock.close()


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._client = ssl.create_default_context(cadata=self.pem)

    @property
    def pem(self) -> str:
        return self._ca.cert_pem.bytes().decode()

    def tls(self) -> ssl.SSLContext:
        """A client that trusts this authority and no other."""
        return self._client

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context


@contextmanager
def serving(authority: Authority | None, *names: str) -> Iterator[Server]:
    """A running server: https with a certificate for ``names``, or http without an authority."""
    server = Server(None if authority is None else authority.context(*names))
    try:
        yield server
    finally:
        server.close()


def ranged(body: bytes, etag: str = '"v1"', **headers: object) -> Route:
    """A route that serves ``body`` as a well-behaved file server does, with Range and If-Range."""

    def route(exchange: Exchange) -> None:
        asked = exchange.seen.headers.get("range")
        condition = exchange.seen.headers.get("if-range")
        if asked and condition in (None, etag):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                exchange.answer(416, b"", Content_Range=f"bytes */{len(body)}", ETag=etag)
                return
            part = body[start:]
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            exchange.answer(206, part, Content_Range=span, ETag=etag, **headers)
            return
        exchange.answer(200, body, ETag=etag, Accept_Ranges="bytes", **headers)

    return route


def until(reached: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a state instead of guessing when it comes; an AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not reached within {seconds:g} s"
        time.sleep(0.01)


class Stop(BaseException):
    """What a host's interrupt looks like: not an Exception since ComfyUI 0.20."""


def stop_after(seconds: float) -> Callable[[], None]:
    """A ``should_stop`` that raises :class:`Stop` once ``seconds`` have passed."""
    started = time.monotonic()

    def should_stop() -> None:
        if time.monotonic() - started >= seconds:
            raise Stop

    return should_stop

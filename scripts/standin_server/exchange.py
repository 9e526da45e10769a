"""One HTTP exchange and the ways in which it can go wrong."""

import json
import select
import socket
import struct
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from .state import Account, Job


class Exchange:
    """What a fault may do with a request: answer it, answer it badly, or not at all.

    ``body`` is the answer that a healthy server would give, ``elsewhere`` the address of another
    origin that counts what it is sent.
    """

    def __init__(
        self,
        handler: BaseHTTPRequestHandler,
        account: Account,
        job: Job | None,
        status: int,
        body: Any,
        elsewhere: str,
        stopping: Callable[[], bool],
    ) -> None:
        self.handler, self.account, self.job = handler, account, job
        self.status, self.body, self.elsewhere = status, body, elsewhere
        self._stopping = stopping
        self.job_payload: Any = None

    @property
    def origin(self) -> str:
        host, port = self.handler.server.server_address[:2]
        return f"http://{host}:{port}"

    def json(self, status: int, body: Any, **headers: str) -> None:
        self.bytes(status, json.dumps(body).encode(), "application/json", **headers)

    def bytes(self, status: int, data: bytes, kind: str, **headers: str) -> None:
        self.raw(self.head(status, kind, len(data), **headers) + data)

    def head(self, status: int, kind: str, length: int | None, **headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status} Stand-in", f"Content-Type: {kind}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def raw(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def close(self) -> None:
        """End the connection politely, whatever was said so far."""
        self.handler.close_connection = True

    def cut(self, data: bytes, kind: str = "application/json") -> None:
        """Promise all of ``data``, send two thirds of it and close."""
        self.raw(self.head(200, kind, len(data)) + data[: len(data) * 2 // 3])
        self.close()

    def cut_chunked(self, data: bytes, kind: str = "application/json") -> None:
        half = data[: len(data) // 2]
        head = self.head(200, kind, None, Transfer_Encoding="chunked")
        self.raw(head + f"{len(half):x}\r\n".encode() + half + b"\r\n")
        self.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.handler.connection.close()
        self.close()

    def hang(self, seconds: float = 30.0) -> None:
        """Say nothing until the client leaves."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopping() and not self._left():
            continue
        self.close()

    def drip(self, data: bytes, pause: float = 0.05, seconds: float = 30.0) -> None:
        """One byte at a time."""
        end = time.monotonic() + seconds
        for index in range(len(data)):
            if time.monotonic() > end or self._stopping():
                break
            self.raw(data[index : index + 1])
            time.sleep(pause)
        self.close()

    def _left(self) -> bool:
        """Whether the client closed its side; waits a moment for it."""
        connection = self.handler.connection
        readable, _, _ = select.select([connection], [], [], 0.05)
        try:
            return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


class Fault(Protocol):
    """What a library of faults gives the server: when it strikes, and what it does.

    at: submit, status, result, cancel or media. times: how often it strikes, 0 for ever.
    creates: for a submission, whether the job is made before the fault strikes.
    """

    @property
    def at(self) -> str: ...
    @property
    def times(self) -> int: ...
    @property
    def creates(self) -> bool: ...
    @property
    def act(self) -> Callable[[Exchange], None]: ...

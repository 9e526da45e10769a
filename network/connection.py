"""One HTTP connection to the very address that was checked.

Built on the standard library's http.client rather than on a session of requests: that one has no
netrc, no proxy variables, no cookies, no redirects and no transparent decompression to switch off,
its ``connect`` is the documented place to supply a socket, and its ``read1`` hands bytes over as
they arrive.
"""

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import certifi

from .address import AddressPolicy, Target
from .errors import BadResponse, ConnectionFailed, NetworkError, Stalled, TlsFailed

_MAX_ADDRESSES = 4
_MAX_PROXY_ANSWER = 16 << 10


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of ``host`` in the system's order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial_address(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to the literal ``address``; names are never looked up here."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def trusted_authorities() -> ssl.SSLContext:
    """A TLS client that trusts certifi's list and the system's, where a company's own may lie."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


@dataclass(frozen=True)
class Transport:
    """How names become addresses, addresses sockets, and sockets secure: tests bring their own."""

    resolve: Callable[[str, int], list[str]] = resolve_host
    dial: Callable[[str, int, float], socket.socket] = dial_address
    tls: Callable[[], ssl.SSLContext] = trusted_authorities


SYSTEM = Transport()


class Connection:
    """A request on its own socket, which another thread may end with :meth:`abort`.

    ``tls`` is None for plain http, which only a policy's loopback origin may have.
    """

    def __init__(
        self,
        target: Target,
        policy: AddressPolicy,
        transport: Transport,
        tls: ssl.SSLContext | None,
        *,
        connect_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._target = target
        self._policy = policy
        self._transport = transport
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._guard = threading.Lock()
        self._aborted = False
        self._socket: socket.socket | None = None
        self._http: _Http | None = None
        self._response: http.client.HTTPResponse | None = None

    def get(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Connects, sends a GET and returns the answer with its body unread.

        Raises a :class:`NetworkError`; the reading that follows raises those of ``translated``.
        """
        target = self._target
        sock = self._open()
        self._http = _Http(target.host, target.port, sock)
        try:
            sock.settimeout(self._idle_timeout)
            self._http.putrequest(
                "GET", target.request_path, skip_host=True, skip_accept_encoding=True
            )
            self._http.putheader("Host", target.authority)
            for name, value in headers.items():
                self._http.putheader(name, value)
            self._http.endheaders()
            self._response = self._http.getresponse()
            return self._response
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise translated(error, target.host) from error

    def abort(self) -> None:
        """Wakes a thread that is blocked on the socket. It may be called from any thread."""
        with self._guard:
            self._aborted = True
            if self._socket is not None:
                try:
                    # Only shut down: closing would free the descriptor under the other thread.
                    # And past SSLSocket.shutdown, which would turn later reads into plain ones.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        """Frees the socket; only for the thread that reads."""
        with self._guard:
            if self._response is not None:
                self._response.close()
            if self._http is not None:
                self._http.close()
            if self._socket is not None:
                self._socket.close()

    def _open(self) -> socket.socket:
        target = self._target
        try:
            if self._policy.proxy is not None and not target.local:
                sock = self._through_proxy(self._policy.proxy)
            else:
                sock = self._direct()
            if self._tls is None:
                return sock
            wrapped = self._tls.wrap_socket(
                sock, server_hostname=target.host, do_handshake_on_connect=False
            )
            self._own(wrapped)
            wrapped.do_handshake()
            return wrapped
        except (OSError, ValueError) as error:
            raise translated(error, target.host) from error

    def _direct(self) -> socket.socket:
        target = self._target
        try:
            addresses = self._transport.resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise ConnectionFailed(f"{target.host} cannot be found; are you online?") from error
        if not addresses:
            raise ConnectionFailed(f"{target.host} has no address.")
        self._policy.check_addresses(target, addresses)
        return self._dial(addresses[:_MAX_ADDRESSES], target.port)

    def _dial(self, addresses: list[str], port: int) -> socket.socket:
        failure: OSError = OSError("stopped")
        for address in addresses:
            if self._aborted:
                break
            try:
                return self._own(self._transport.dial(address, port, self._connect_timeout))
            except OSError as error:
                failure = error
        raise failure

    def _through_proxy(self, proxy: str) -> socket.socket:
        """A tunnel to the target. The proxy's own address is the operator's word: unchecked."""
        parts = urlsplit(proxy)
        port = parts.port or 0
        addresses = self._transport.resolve(parts.hostname or "", port)
        sock = self._dial(addresses[:_MAX_ADDRESSES], port)
        host = f"[{self._target.host}]" if ":" in self._target.host else self._target.host
        lines = [
            f"CONNECT {host}:{self._target.port} HTTP/1.1",
            f"Host: {host}:{self._target.port}",
        ]
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines.append("Proxy-Authorization: Basic " + base64.b64encode(login.encode()).decode())
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        # Byte by byte: what follows the blank line belongs to TLS.
        while not answer.endswith(b"\r\n\r\n"):
            byte = sock.recv(1)
            answer += byte
            if not byte or len(answer) > _MAX_PROXY_ANSWER:
                raise ConnectionFailed("The proxy broke off before it answered.")
        status = answer.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise ConnectionFailed(f"The proxy refuses to connect to {self._target.host}.")
        return sock

    def _own(self, sock: socket.socket) -> socket.socket:
        with self._guard:
            self._socket = sock
            if self._aborted:
                sock.close()
                raise OSError("stopped")
        return sock


class _Http(http.client.HTTPConnection):
    """http.client on a socket that is already there."""

    def __init__(self, host: str, port: int, sock: socket.socket) -> None:
        super().__init__(host, port)
        self.sock = sock

    def connect(self) -> None:
        raise ConnectionFailed("The connection was lost.")  # never a second, unchecked one


def translated(error: Exception, host: str) -> NetworkError:
    """What http.client, ssl and sockets raise, as this room's errors."""
    if isinstance(error, NetworkError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed(
            f"The certificate of {host} is not valid for it ({error.verify_message}). "
            "A company network that inspects TLS must have its authority in the system's store."
        )
    if isinstance(error, TimeoutError):
        return Stalled(f"{host} does not answer.")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConnectionFailed(f"{host} broke the connection off.")
    if isinstance(error, ssl.SSLError):
        return TlsFailed(f"No secure connection to {host} ({error.reason or 'TLS error'}).")
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return ConnectionFailed(f"{host} broke the connection off.")
    if isinstance(error, http.client.HTTPException | ValueError):
        return BadResponse(f"{host} gave an answer that is not HTTP ({type(error).__name__}).")
    if isinstance(error, ConnectionError):
        return ConnectionFailed(f"{host} refused or broke off the connection.")
    return ConnectionFailed(f"{host} cannot be reached ({error.__class__.__name__}).")

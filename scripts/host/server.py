"""A ComfyUI server as a child process that cannot outlive us, with its log in a file."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

# PyTorch's attention is about twice as fast as the host's default on a CPU.
CPU = ("--cpu", "--use-pytorch-cross-attention")
# Nobody's browser opens, and no server waits for another one's database.
QUIET = ("--disable-auto-launch", "--database-url", "sqlite:///:memory:")
ARGUMENTS = (*CPU, *QUIET, "--preview-method", "latent2rgb")
# torch's waiting threads spin otherwise: five times slower when the cores have other work too.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
START_TIMEOUT = 180.0
TAIL_LINES = 40


class ServerError(RuntimeError):
    """The server did not start, or died; the message carries the end of its log."""


class Server:
    """A running ComfyUI. Use it as a context manager, or call ``stop``."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, base: Path, log: Path):
        self.process, self.port, self.base, self.log_path = process, port, base, log
        self.url = f"http://127.0.0.1:{port}"
        atexit.register(self.stop)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> Path:
        """Where ``SaveImage`` writes, unless an ``--output-directory`` argument says otherwise."""
        return self.base / "output"

    def log(self, since: int = 0) -> str:
        """The log from byte ``since`` on; take ``log_size()`` before the action of interest."""
        with self.log_path.open("rb") as file:
            file.seek(since)
            return file.read().decode("utf-8", "replace")

    def log_size(self) -> int:
        return self.log_path.stat().st_size

    def stop(self) -> None:
        """End the server and everything it started."""
        atexit.unregister(self.stop)
        if self.process.poll() is None:
            _signal_group(self.process, signal.SIGTERM)
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                _signal_group(self.process, getattr(signal, "SIGKILL", signal.SIGTERM))
                self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def start(
    comfyui: Path,
    base: Path,
    *,
    python: str = sys.executable,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    defaults: Sequence[str] = ARGUMENTS,
    timeout: float = START_TIMEOUT,
    log: Path | None = None,
) -> Server:
    """Start the ComfyUI in folder ``comfyui`` on base directory ``base`` and wait until it answers.

    log: its file, ``server.log`` of the base directory by default.

    Raises ServerError with the log's tail when it exits or stays silent for ``timeout`` seconds.
    """
    port = free_port()
    command = [python, "-u", str(Path(__file__).with_name("guarded_main.py")), "main.py", *defaults]
    command += ["--port", str(port), "--base-directory", str(base), *arguments]
    base.mkdir(parents=True, exist_ok=True)
    log = log or base / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=comfyui,
            env={**ENVIRONMENT, **os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, base, log)
    try:
        _wait(server, timeout)
    except BaseException:
        server.stop()
        raise
    return server


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Server, timeout: float) -> None:
    # A proxy from the environment must not come between us and the loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            code = server.process.returncode
            raise ServerError(
                f"ComfyUI stopped with status {code} while starting.\n{_tail(server)}"
            )
        try:
            with opener.open(f"{server.url}/object_info/SaveImage", timeout=10) as reply:
                reply.read()
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s.\n{_tail(server)}")


def _tail(server: Server) -> str:
    lines = server.log().splitlines()[-TAIL_LINES:]
    return "\n".join([f"The end of its log, {server.log_path}:", *lines])


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except ProcessLookupError:
        return

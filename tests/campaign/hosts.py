"""Real ComfyUI servers that share one user directory, started by a fork and ended by SIGKILL."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import requests

from host import models
from host.client import Client, Prompt
from host.events import Result
from host.server import ARGUMENTS, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PREFIX = "/flux2-lora-edit"
# One thread each, so that none runs before the fork; the pictures are small.
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
START_S = 120.0


def make_base(folder: Path) -> Path:
    """A base directory with this pack and the probes in it."""
    base = folder / "base"
    for name in ("custom_nodes", "input", "models/loras"):
        (base / name).mkdir(parents=True)
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    models.link_nodes(HERE / "custom_nodes" / "campaign_probe", base)
    return base


class Zygote:
    """The process that hosts are forked from, with a base directory in ``folder``.

    They end with it.
    """

    def __init__(self, comfyui: Path, folder: Path) -> None:
        base = make_base(folder)
        command = [sys.executable, str(HERE / "zygote.py"), str(comfyui), str(base), *ARGUMENTS]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **ALONE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._answer() != "ready":
            raise RuntimeError((base / "zygote.log").read_text(errors="replace")[-3000:])

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def fork(
        self, arguments: Mapping[str, object], environment: Mapping[str, str], log: Path
    ) -> int:
        """The process id of a new ComfyUI."""
        assert self.process.stdin is not None
        order = {"arguments": arguments, "environment": environment, "log": str(log)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Host:
    """One ComfyUI of the campaign: a place (its folders) in which one process after the other runs.

    The user directory is shared by all places; outputs and temporary files are each place's own.
    """

    def __init__(
        self, zygote: Zygote, folder: Path, environment: Mapping[str, str], name: str
    ) -> None:
        self.zygote, self.environment, self.name = zygote, environment, name
        self.output = folder / f"output-{name}"
        self.temp = folder / f"temp-{name}" / "temp"  # the host's own last part
        self.log = folder / f"host-{name}.log"
        self.arguments = {
            "user_directory": str(folder / "user"),
            "output_directory": str(self.output),
            "temp_directory": str(self.temp.parent),
        }
        for place in (self.output, folder / "user"):
            place.mkdir(exist_ok=True)
        self.pid, self.url, self.starts = 0, "", 0
        self._client: Client | None = None

    def fork(self) -> None:
        """Begin to start; ``ready`` waits for it."""
        port = free_port()
        self.url, self.starts = f"http://127.0.0.1:{port}", self.starts + 1
        self.pid = self.zygote.fork({"port": port, **self.arguments}, self.environment, self.log)

    def ready(self) -> "Host":
        """Wait until it answers, starting it first if it is dead."""
        if not self.alive:
            self.fork()
        if self._client is not None:
            return self
        end = time.monotonic() + START_S
        with requests.Session() as http:
            http.trust_env = False
            while time.monotonic() < end and self.alive:
                with suppress(requests.RequestException):
                    if http.get(f"{self.url}/object_info/Flux2EditRunComfy", timeout=20).json():
                        self._client = Client(self.url)
                        return self
                time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"host {self.name} did not start.\n{tail}")

    @property
    def client(self) -> Client:
        assert self._client is not None, "ready() comes first"
        return self._client

    @property
    def alive(self) -> bool:
        if not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, now."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """After ``kill``: wait until it is gone, and forget its page."""
        while self.alive:
            time.sleep(0.005)
        self.pid = 0
        client, self._client = self._client, None
        if client is not None:
            client._unfinished.clear()
            with suppress(Exception):
                client.close()

    # What a user does.

    def press(self, prompt: Prompt, seconds: float = 60.0) -> Result:
        """Queue a graph and wait for its end. Raises OSError when the host dies."""
        return self.client.run(prompt, seconds)

    def open_requests(self) -> list[dict]:
        """What the settings page lists."""
        return list(self.client.get(f"{PREFIX}/open-requests")["open_requests"])

    def dismiss(self, key: str) -> None:
        """Take one of them off the list."""
        headers = {"X-Flux2-Lora-Edit": "1"}
        reply = self.client.http.delete(
            f"{self.url}{PREFIX}/open-requests", json={"key": key}, headers=headers, timeout=30
        )
        reply.raise_for_status()

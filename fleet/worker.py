"""A ComfyUI as an actor: started with it, kept warm for all of its rows, gone with it."""

import copy
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
import requests

from host import server as comfyui
from host.client import Client, PromptRefused
from host.events import Result

from . import ledger as book

MOST_STARTS = 5
"""Servers in a row that do not come up; then something is wrong with this machine."""
MOST_LETTERS = 2000
KEPT_LOG = 8000
MOST_PICTURES = 64
TEMP = "temp"
"""The folder that ComfyUI makes in the one of --temp-directory, and empties as it starts."""
SCRATCH = "flux2-fleet-"
GONE = (ConnectionError, requests.RequestException)


class Setup(NamedTuple):
    """What all servers of a run have in common.

    ``comfyui`` and ``python``: paths that every machine of the cluster has. ``base``: ComfyUI's
    base directory, with the models. ``arguments``: further ones of ComfyUI. ``timeout``: seconds
    that one row may take. ``environment``: variables of the servers.
    """

    session: str
    comfyui: str
    python: str
    base: str
    arguments: tuple[str, ...]
    defaults: tuple[str, ...]
    environment: dict[str, str]
    graph: dict[str, Any]
    timeout: float


class Died(RuntimeError):
    """The server went away in the middle of a row."""


class Unmade(RuntimeError):
    """The row has no picture; the text says why."""


class Worker:
    """Ray Data's callable: a batch of rows in, their ids out. All else goes to the ledger."""

    def __init__(self, setup: Setup, ledger: Any) -> None:
        self._setup, self._ledger = setup, ledger
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.name = f"{socket.gethostname()}{f'/gpu{gpu}' if gpu else ''}/{os.getpid()}"
        sweep(setup.session)
        # Named by the process, so that the next one here knows whose it was.
        self._scratch = Path(tempfile.gettempdir()) / f"{SCRATCH}{setup.session}-{os.getpid()}"
        self._server: comfyui.Server | None = None
        self._client: Client | None = None
        self._pictures: dict[str, str] = {}
        self._brought_so_far = 0
        self._stored: Any = None
        # Not a method: a thread that held this object would keep it from its end.
        threading.Thread(target=_beat, args=(ledger, self.name), daemon=True).start()

    def __del__(self) -> None:
        """The pool is done with it: Ray Data says so before it ends the process."""
        if self._server:
            self._server.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """See each row of ``batch["job"]`` (JSON) to its end. Raises what hinders all rows."""
        jobs = [json.loads(text) for text in batch["job"]]
        left = set(self._ask("take", [job["id"] for job in jobs]))
        for job in jobs:
            if job["id"] in left and not self._finish(job):
                break
        self._settle()
        return {"row": [job["id"] for job in jobs]}

    def _finish(self, job: dict[str, Any]) -> bool:
        """Run one row until it has an end; False when no more are to be begun."""
        while True:
            # Before the row is begun: a server that does not start is not the row's fault.
            client = self._ready()
            answer = self._ask("begin", job["id"])
            if answer != book.GO:
                return bool(answer == book.ENDED)
            try:
                self._run(client, job)
                return True
            except Died:
                self._bury()

    def _run(self, client: Client, job: dict[str, Any]) -> None:
        """One attempt. Raises Died, and what keeps the ledger from its work."""
        try:
            result = client.run(self._graph(job), self._setup.timeout)
            if result.status == "success":
                suffixes, pictures = self._collect(result)
                seconds = _seconds(client, result)
            else:
                return self._fail(job, _told(result))
        except PromptRefused as refusal:
            return self._fail(job, f"ComfyUI refused the graph: {refusal}")
        except TimeoutError:
            self._bury()
            return self._fail(
                job, f"It did not end within {self._setup.timeout:.0f} s (--timeout)."
            )
        except GONE as problem:
            raise Died from problem
        except ray.exceptions.RayError as problem:
            if not isinstance(problem, OSError):
                raise
            return self._fail(job, str(getattr(problem, "cause", problem)))
        except Unmade as problem:
            return self._fail(job, str(problem))
        except Exception as problem:  # a custom node may answer anything
            return self._fail(job, f"{type(problem).__name__}: {problem}")
        self._settle()
        end = self._ledger.end.remote
        self._stored = end(self.name, job["id"], suffixes, pictures, job["seed"], seconds)

    def _fail(self, job: dict[str, Any], error: str) -> None:
        self._settle()
        self._ask("fail", job["id"], error[:MOST_LETTERS], job["seed"])

    def _collect(self, result: Result) -> tuple[list[str], list[bytes]]:
        """What the row's nodes have saved: suffixes and bytes, taken out of the output folder."""
        suffixes, pictures = [], []
        for image in result.images():
            path = self._scratch / "output" / image["subfolder"] / image["filename"]
            pictures.append(path.read_bytes())
            suffixes.append(path.suffix)
            path.unlink()
        if not pictures:
            raise Unmade("ComfyUI ran the graph and saved no picture.")
        return suffixes, pictures

    def _graph(self, job: dict[str, Any]) -> dict[str, Any]:
        graph = copy.deepcopy(self._setup.graph)
        for node in graph.values():
            # Else ComfyUI would know the picture of an equal row already, and not save it again.
            if isinstance(node["inputs"].get("filename_prefix"), str):
                node["inputs"]["filename_prefix"] = job["id"]
        for node, name, value in job["inputs"]:
            graph[node]["inputs"][name] = value
        for node, name, path in job["pictures"]:
            graph[node]["inputs"][name] = self._brought(path)
        return graph

    def _brought(self, path: str) -> str:
        """The server's own name for a picture of the driver's, which is brought once for many rows.

        Into its temp folder: nobody's input folder fills up. The newest few are kept.
        """
        name = self._pictures.pop(path, "")
        if not name:
            self._brought_so_far += 1
            name = f"fleet/{self._brought_so_far}/{Path(path).name}"
            place = self._scratch / TEMP / name
            content = self._ask("picture", path)
            place.parent.mkdir(parents=True)
            place.write_bytes(content)
        self._pictures[path] = name
        if len(self._pictures) > MOST_PICTURES:
            oldest = self._pictures.pop(next(iter(self._pictures)))
            shutil.rmtree((self._scratch / TEMP / oldest).parent)
        return f"{name} [temp]"

    def _settle(self) -> None:
        """Wait until what was made last is on the driver's disk."""
        stored, self._stored = self._stored, None
        if stored is not None:
            try:
                ray.get(stored)
            except OSError as error:  # every row would fare so
                raise RuntimeError(f"The pictures cannot be written: {error}") from None

    def _ask(self, question: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._ledger, question).remote(self.name, *arguments))

    def _ready(self) -> Client:
        """The client of a server that runs, which is started if need be. Raises ServerError."""
        if self._server and self._server.process.poll() is not None:
            self._bury()
        for attempt in range(1, MOST_STARTS + 1):
            if self._client:
                return self._client
            try:
                self._server = self._start()
                self._client = Client(self._server.url)
            except (comfyui.ServerError, TimeoutError):
                self._bury()
                if attempt == MOST_STARTS:
                    raise
        raise AssertionError

    def _start(self) -> comfyui.Server:
        setup = self._setup
        # What was in its folders, the server before it was to deliver.
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._pictures = {}
        folders = ["--output-directory", str(self._scratch / "output")]
        folders += ["--temp-directory", str(self._scratch)]
        return comfyui.start(
            Path(setup.comfyui),
            Path(setup.base),
            python=setup.python,
            arguments=[*folders, *setup.arguments],
            defaults=setup.defaults,
            environment=setup.environment,
            log=self._scratch / "server.log",
        )

    def _bury(self) -> None:
        """Take leave of a server, whose last words are kept beside the journal."""
        client, server = self._client, self._server
        self._client = self._server = None
        if client:
            with suppress(Exception):
                client.close()
        if server:
            server.stop()
            with suppress(OSError):
                self._ask("keep_log", server.log()[-KEPT_LOG:])


def _beat(ledger: Any, name: str) -> None:
    while True:
        with suppress(Exception):
            ray.get(ledger.beat.remote(name))
        time.sleep(book.BEAT_S)


def _told(result: Result) -> str:
    """Why a run did not succeed, in one line and then the rest."""
    if result.error is None:
        return "It was stopped from outside."
    failure = result.error
    return f"{failure.node_type} (node {failure.node_id}): {failure.message}"


def _seconds(client: Client, result: Result) -> float | None:
    """The server's own time for the prompt, of its history."""
    messages = client.get(f"/history/{result.prompt_id}")[result.prompt_id]["status"]["messages"]
    moments = {name: data.get("timestamp") for name, data in messages}
    began, ended = moments.get("execution_start"), moments.get("execution_success")
    return None if began is None or ended is None else round((ended - began) / 1000, 3)


def sweep(session: str) -> None:
    """Remove the folders of this run's processes that were killed on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}{session}-*"):
        try:
            os.kill(int(folder.name.rpartition("-")[2]), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:  # it lives, and is somebody else's
            continue

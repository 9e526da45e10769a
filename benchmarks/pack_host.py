"""A real ComfyUI with this pack and another one in it, as the cases of ``packs.py`` drive it."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench import ROOT
from safetensors.torch import load_file
from torch import Tensor

from host import models
from host import server as servers
from host.client import Client, PromptRefused
from host.events import Result
from host.graph import Graph, Output, Ref

OURS = "flux2-lora-edit"
NOWHERE = "http://127.0.0.1:9"
# A pack that wants to install or to fetch something gets an error at once, and nothing else.
OFFLINE = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1,localhost"} | {
    name: NOWHERE for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
}
HOMES = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
         "XDG_DATA_HOME")  # fmt: skip

Build = Callable[[Graph], Ref | Output | None]
"""Adds nodes to a graph; returns the latent to compare, or None where there is none."""


class Pack(NamedTuple):
    """A folder with a pack's files: ``owner/name`` and the commit that they are of."""

    name: str
    commit: str
    folder: Path

    @property
    def repository(self) -> str:
        return self.name.rpartition("/")[2]


class Run(NamedTuple):
    """A run that came to its end: the latent, and what our nodes had to say of it."""

    latent: Tensor | None
    words: str


class Stopped(Exception):
    """A run that did not: the class of the node that stopped it, and every word on the page."""

    def __init__(self, node: str, error: str, words: str) -> None:
        super().__init__(f"{node}: {error}")
        self.node, self.error, self.words = node, error, words


class Host:
    """A running server and one page on it. Use it as a context manager."""

    def __init__(self, start: Callable[[Path], servers.Server], base: Path) -> None:
        self.base, self._start = base, start
        self.server = start(base)
        self.client = Client(self.server.url)
        self._runs: dict[str, Run] = {}
        self._number = 0

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.stop()

    def reopen(self, base: Path) -> None:
        """Stop, and start again on ``base``: the same folder, by this name or another."""
        self.__exit__()
        self.server = self._start(base)
        self.client = Client(self.server.url)

    @property
    def models(self) -> Path:
        return self.base / "models"

    def not_imported(self, repository: str) -> str:
        """Why the host could not import a pack; "" where it could."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.server.log())
        place = rf"\S*custom_nodes[/\\]{re.escape(repository)}"
        if not re.search(rf"IMPORT FAILED\): {place}\s*$", plain, re.MULTILINE):
            return ""
        why = re.search(rf"Cannot import {place} module for custom nodes: (.*)", plain)
        # Where a file lies on this machine says nothing.
        reason = re.sub(r"\s*\(\S*[/\\]\S*\)", "", why[1]).strip() if why else ""
        return f"cannot be imported: {reason}".removesuffix(": ")

    def forget(self) -> None:
        """Empty the caches, the results kept here too: what was patched in place is gone."""
        self.client.forget()
        self._runs.clear()

    def run(self, build: Build, timeout: float = 400.0) -> Run:
        """The graph of ``build``, run anew. Raises Stopped."""
        graph = Graph()
        latent = build(graph)
        prefix = f"packs{self._number}"
        self._number += 1
        if latent is not None:
            graph.add("SaveLatent", samples=latent, filename_prefix=prefix)
        reports = [
            graph.add("PreviewAny", source=Ref(node).out(2))
            for node, made in list(graph.prompt.items())
            if made["class_type"] == "Flux2EditApplyLoraStack"
        ]
        try:
            result = self.client.run(graph.prompt, timeout)
        except PromptRefused as error:
            raise _refused(graph, error) from None
        if result.error:
            failure = result.error
            raise Stopped(failure.node_type, failure.message, spoken(graph, result, reports))
        result.check()
        words = spoken(graph, result, reports)
        if latent is None:
            return Run(None, words)
        (saved,) = self.server.output.glob(f"{prefix}_*.latent")
        return Run(load_file(saved)["latent_tensor"], words)

    def once(self, build: Build) -> Tensor:
        """The latent of a graph that gives the same one every time."""
        graph = Graph()
        build(graph)
        key = json.dumps(graph.prompt)
        if key not in self._runs:
            self._runs[key] = self.run(build)
        latent = self._runs[key].latent
        assert latent is not None
        return latent


def started(
    comfyui: Path, base: Path, packs: Iterable[Pack], packages: Path | None, tiny: Iterable[Path]
) -> Host:
    """A server on a new base directory: this pack, copies of ``packs``, tiny models.

    ``packages`` is a folder with what the packs import. Raises ServerError.
    """
    models.make_base(base, tiny)
    models.link_nodes(ROOT, base, OURS)
    for pack in packs:
        # A copy: some write into their own folder.
        shutil.copytree(pack.folder, base / "custom_nodes" / pack.repository)
    # Some keep what they know of a machine's models in the user's folders, from run to run.
    environment = OFFLINE | {name: str(base / "home") for name in HOMES}
    if packages:
        environment["PYTHONPATH"] = str(packages)

    def start(base: Path) -> servers.Server:
        return servers.start(comfyui, base, environment=environment, timeout=400.0)

    return Host(start, base)


def spoken(graph: Graph, result: Result, reports: Iterable[Ref]) -> str:
    """The warnings of our Apply nodes, and the words on the faces of our LoRA Stacks."""
    said = []
    for report in reports:
        with suppress(KeyError, IndexError, TypeError, ValueError):
            told: dict[str, Any] = json.loads(result.outputs[report]["text"][0])
            said += [str(warning) for warning in told["warnings"]]
    for node, text in result.texts:
        if graph.prompt.get(node, {}).get("class_type") == "Flux2EditLoraStack":
            said.append(text)
    return " ".join(dict.fromkeys(" ".join(said).splitlines()))


def _refused(graph: Graph, error: PromptRefused) -> Stopped:
    node = next(iter(error.node_errors), "")
    kind = graph.prompt.get(node, {}).get("class_type", "the host")
    words = error.details() or [str(error.error.get("message", error))]
    return Stopped(kind, words[0].removeprefix("Custom validation failed for node: "), "")

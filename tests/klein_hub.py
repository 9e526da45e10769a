"""A loopback hub with small files under the names of ``--real``, and the rest of its world."""

import dataclasses
import hashlib
from collections import namedtuple
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopback import Authority, serving
from loopback_hub import Hub

from flux2_lora_edit.lora_loader.sources import Access
from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.network.client import HttpClient, Limits
from flux2_lora_edit.network.connection import Transport
from host.demo import offer, real
from host.demo.machine import Device
from host.demo.offer import HubFile
from host.demo.stage import Scene

CPU = Device("cpu", "the CPU (2 threads; no CUDA or MPS found)", 32 * 10**9)
Disk = namedtuple("Disk", "free")


def never(question: str) -> str:
    raise AssertionError("asked")


class World:
    """A hub with ``files`` on it, and ``lay_out`` with everything else in place of the world."""

    def __init__(self, place: Path, authority: Authority, hub: Hub, files: list[HubFile]) -> None:
        self.root, self.base = place / "real", place / "base"
        self.authority, self.hub, self.files = authority, hub, files
        limits = Limits(backoff_s=0.01, attempts=2)
        self.access = Access(
            env={"HF_ENDPOINT": hub.endpoint},
            policy=PUBLIC_ONLY.allowing(hub.server.origin, hub.cdn.origin),
            client=HttpClient(transport=Transport(tls=authority.tls), limits=limits),
            login=lambda: None,
        )

    def lay_out(self, yes: bool = True, **changes: Any) -> Scene:
        """``real.lay_out`` in this world, but for ``changes``; asking is an error."""
        given = {
            "files": self.files,
            "access": self.access,
            "disk_usage": lambda folder: Disk(10**12),
            "look": lambda: CPU,
            "ask_person": never,
        }
        self.base.mkdir(exist_ok=True)
        return real.lay_out(self.base, self.root, yes, **{**given, **changes})

    def bytes_sent(self) -> list[str]:
        """The paths that the storage behind the hub was asked for."""
        return [seen.path for seen in self.hub.cdn.requests]


@contextmanager
def klein_hub(place: Path, authority: Authority, contents: Mapping[str, bytes]) -> Iterator[World]:
    """``contents`` by the real files' names, on a hub; folders of the world are in ``place``."""
    with serving(authority) as server, serving(authority) as cdn:
        hub = Hub(server, cdn)
        repos: dict[str, dict[str, bytes]] = {}
        for file in offer.KLEIN_4B:
            repos.setdefault(file.repo, {})[file.path] = contents[file.name]
        commits = {name: hub.add(name, files).branches["main"] for name, files in repos.items()}
        files = [
            dataclasses.replace(
                file,
                revision=commits[file.repo],
                size=len(contents[file.name]),
                sha256=hashlib.sha256(contents[file.name]).hexdigest(),
            )
            for file in offer.KLEIN_4B
        ]
        yield World(place, authority, hub, files)

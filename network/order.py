"""What to fetch, on which terms, and what came of it: the values of a download."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .address import PUBLIC_ONLY, AddressPolicy
from .connection import SYSTEM, Transport
from .public_http import never_stop

DEFAULT_CAP = 5 << 30


def no_progress(done: int, total: int | None) -> None:
    """The ``progress`` of a caller that does not care."""


def free_space(folder: Path) -> int:
    """Free bytes on the disk of ``folder``."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Wanted:
    """One file to have.

    url: where from. target: the finished file; its folder is made. key: names the content's
        origin (repository, revision and file, or the link): a part and a finished file are only
        used again for the same key. It is stored, so it must hold no secret.
    size, sha256: where known beforehand, else None. sha256 in lower-case hex.
    origin: what the note beside the file shall say of it; no secrets.
    verify: looks at the complete file before it gets its name; raises to refuse it.
    again: fetch even if the file is here. replace: take the place of another file that is there.
    """

    url: str
    target: Path
    key: str
    size: int | None = None
    sha256: str | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    verify: Callable[[Path], object] | None = None
    again: bool = False
    replace: bool = True


@dataclass(frozen=True)
class Downloaded:
    """A complete file. ``fetched``: False when it was already here."""

    path: Path
    size: int
    sha256: str
    fetched: bool


@dataclass(frozen=True)
class Terms:
    """How to fetch, whatever the file: see :func:`network.public_http.open_stream`.

    attempts: tries without real progress before giving up; backoff: seconds before the second.
    """

    policy: AddressPolicy = PUBLIC_ONLY
    credentials: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    max_bytes: int = DEFAULT_CAP
    connect_timeout: float = 10.0
    idle_timeout: float = 30.0
    attempts: int = 5
    backoff: float = 1.0
    progress: Callable[[int, int | None], None] = no_progress
    should_stop: Callable[[], None] = never_stop
    transport: Transport = SYSTEM
    free_space: Callable[[Path], int] = free_space

"""Small JSON notes beside a file, written so that a crash leaves the old one or the new one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_BYTES = 64 << 10


def record_of(path: Path) -> Path:
    """Where the note of the finished file ``path`` lies: ``<file>.json``."""
    return path.with_name(path.name + ".json")


def read_record(path: Path) -> dict[str, Any] | None:
    """The object in the JSON file ``path``; None where there is none or it is not ours."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(_MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_record(path: Path, value: Mapping[str, object]) -> None:
    """Replaces ``path`` by ``value`` as JSON, durably. Raises OSError."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces ``path`` by a small ``content``, durably. Raises OSError."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(scratch, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def sync_folder(folder: Path) -> None:
    """Makes renames in ``folder`` durable, where the system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot; the rename itself has happened
    finally:
        os.close(descriptor)

"""Small files that only their owner may read: the token, the salt, the journal."""

import contextlib
import os
import tempfile
from pathlib import Path

OWNER_FILE = 0o600
OWNER_FOLDER = 0o700


def private_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter (on Windows the user profile's own rights)."""
    folder.mkdir(parents=True, exist_ok=True, mode=OWNER_FOLDER)
    if os.name == "posix":
        folder.chmod(OWNER_FOLDER)
    return folder


def read_private(path: Path, limit: int) -> str | None:
    """The file's text, None where there is none; more than ``limit`` bytes is a ValueError."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    if len(data) > limit:
        raise ValueError(f"{path.name} is larger than {limit} bytes")
    return data.decode("utf-8", "replace")


def write_private(path: Path, text: str, replace: bool = True) -> None:
    """Write a file whole or not at all, readable by its owner from its first byte on.

    With ``replace`` false an existing file stays as it is.
    """
    private_folder(path.parent)
    # mkstemp makes the file 0600; a chmod afterwards would leave a moment in between.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(name, path)
        else:
            _link_new(name, path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _link_new(name: str, path: Path) -> None:
    """Give a finished file its name unless that name is taken."""
    try:
        os.link(name, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(name, path)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed file's name durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

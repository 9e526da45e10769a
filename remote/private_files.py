"""Small files that only their owner may read: the token, the salt, the journal."""

import os
from pathlib import Path

from ..network.files import write_atomically

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
    write_atomically(
        private_folder(path.parent) / path.name, text.encode(), private=True, replace=replace
    )

"""Small files that only their owner may read: the token, the salt, the journal."""

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(
    path: Path, data: bytes, *, private: bool = False, replace: bool = True
) -> None:
    """Write a file whole or not at all, durable when this returns.

    ``private``: only its owner may read it, from its first byte on. With ``replace`` false an
    existing file stays as it is.
    """
    # mkstemp makes the file 0600; a chmod afterwards would leave a moment in between.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(name, path)
        else:
            try:
                os.link(name, path)
            except FileExistsError:
                return
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.replace(name, path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed file's name durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The cache outside the checkout: where it is, one writer at a time, room on the disk."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .steps import SetupError, say

APP = "flux2-lora-edit"


def cache_root() -> Path:
    """The folder in FLUX2_LORA_EDIT_CACHE, or flux2-lora-edit in XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("FLUX2_LORA_EDIT_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache").resolve() / APP


@contextmanager
def exclusive(name: str, root: Path) -> Iterator[None]:
    """Hold the lock ``name``; a second run waits here. A killed holder's lock frees itself."""
    path = root / f"{name}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise SetupError(
            f"The cache folder cannot be written ({error.strerror}). Set FLUX2_LORA_EDIT_CACHE to "
            f"a folder of yours.\n{root}"
        ) from error
    with file:
        if not _lock(file.fileno(), wait=False):
            say(f"Another run is setting this up; waiting for it ({path.name})")
            _lock(file.fileno(), wait=True)
        yield


def require_space(root: Path, gigabytes: float, purpose: str) -> None:
    """Raise SetupError unless the disk of ``root`` has that much room."""
    free = shutil.disk_usage(root).free / 1e9
    if free < gigabytes:
        raise SetupError(
            f"{purpose} needs about {gigabytes:.0f} GB of disk, and {free:.1f} GB are free. "
            "Make room, or set FLUX2_LORA_EDIT_CACHE to a folder on another disk.\n"
            f"{root}"
        )


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # LK_LOCK gives up after ten tries
                if not wait:
                    return False

else:
    import fcntl

    def _lock(handle: int, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            return False

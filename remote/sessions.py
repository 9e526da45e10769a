"""Which ComfyUI processes live: each holds a lock that the system frees however it ends."""

import logging
import re
import secrets
import time
from functools import partial
from pathlib import Path

import filelock

from .journal import OWNER_FILE, private_folder

logger = logging.getLogger(__name__)

_lock = partial(filelock.FileLock, timeout=0, mode=OWNER_FILE, thread_local=False)
_NAME = re.compile(r"[0-9a-f]{16}")


class Session:
    """This process, by a random ``name``, among those that share a journal's folder.

    ``spent``: US dollars of what it submitted and has fetched. ``prompts``: the beginnings of its
    requests' prompts by their entries' keys, for as long as it lives; no file holds them.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.spent = 0.0
        self.prompts: dict[str, str] = {}
        self._locks: dict[Path, filelock.BaseFileLock] = {}  # held as long as the process lives

    def hold(self, folder: Path) -> None:
        """Let others see that this process lives, from now until it ends. Raises OSError."""
        if folder in self._locks:
            return
        private_folder(folder)
        # Not side by side: a lock that is just being made could be taken for a dead one's.
        with filelock.FileLock(folder / "guard", timeout=10, mode=OWNER_FILE):
            if folder not in self._locks:
                for file in folder.glob("*.lock"):
                    lives(folder, file.stem)  # takes away what dead ones left
                lock = _lock(folder / f"{self.name}.lock")
                lock.acquire()
                self._locks[folder] = lock


def lives(folder: Path, name: str) -> bool:
    """Whether a process runs that holds this name in the folder; a dead one's lock is removed."""
    path = folder / f"{name}.lock"
    if not _NAME.fullmatch(name) or not path.exists():
        return False
    for _ in range(3):  # another process may be looking at this moment, which takes the lock too
        try:
            with _lock(path):
                path.unlink(missing_ok=True)
            return False
        except filelock.Timeout:
            time.sleep(0.005)
        except OSError as error:  # on Windows a file in use stays; it is free all the same
            logger.debug("RunComfy: %s of a process that ended", type(error).__name__)
            return False
    return True

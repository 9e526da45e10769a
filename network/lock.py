"""One worker per file, across threads and processes, with a wait that can be stopped."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_PAUSE = 0.1  # seconds between two tries
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def locked(target: Path, should_stop: Callable[[], None]) -> Iterator[None]:
    """Holds ``.<target>.lock``; the system frees it when a process dies.

    On a file system without locks the work goes on without one: a soft lock would outlive a
    killed process and block the file for good.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    held = False
    try:
        while not held:
            should_stop()
            try:
                lock.acquire(timeout=0)
                held = True
            except Timeout:
                time.sleep(_PAUSE)
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                logger.warning("The folder of %s knows no file locks.", target.name)
                break
        yield
    finally:
        if held:
            lock.release()

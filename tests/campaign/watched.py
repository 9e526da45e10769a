"""The stand-in that knows where each host is, and can end one right there.

``hook`` is called at every point, in the thread that serves it, before it goes on. Its points, in
the order of a healthy prompt: submit (the body has arrived, no job yet), created (a job, no answer
yet), answered, status, result, media (asked for), half (half of it sent); and those of the probe
inside the host: preview, previewed, hold, saving, saved, ending, ended.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from standin_faults import Standin
from standin_server.exchange import Exchange
from standin_server.state import Account, Job

POINTS = (
    "submit", "created", "answered", "status", "result", "media", "half", "preview", "previewed",
    "hold", "saving", "saved", "ending", "ended",
)  # fmt: skip
REFUSED = "REFUSE"
"""A prompt that begins so is refused by the API."""


class Dropped(Exception):
    """Raised by a hook at ``submit``: the request never gets to where jobs are made."""


class _Halved(Exchange):
    """A picture in two halves."""

    half: Callable[[], None]

    def bytes(self, status: int, data: bytes, kind: str, **headers: str) -> None:
        if status != 200:
            return super().bytes(status, data, kind, **headers)
        whole = self.head(status, kind, len(data), **headers) + data
        middle = len(whole) - len(data) // 2
        self.raw(whole[:middle])
        self.half()
        self.raw(whole[middle:])


class Watched(Standin):
    """See above. ``busy`` counts the requests that are being served."""

    def __init__(self, **options: Any) -> None:
        self.hook: Callable[[str], None] = lambda point: None
        self.busy = 0
        self._count = threading.Lock()
        super().__init__(**options)

    def handle(self, handler: Any, data: bytes | None) -> None:
        with self._count:
            self.busy += 1
        try:
            if handler.path.startswith("/probe/"):
                self.hook(handler.path.removeprefix("/probe/"))
                return self._plain(handler, 200, {})
            super().handle(handler, data)
        except Dropped:
            handler.close_connection = True
        except OSError:
            handler.close_connection = True  # who asked is dead
        finally:
            with self._count:
                self.busy -= 1

    def quiet(self, seconds: float = 5.0) -> None:
        """Wait until what was on the wire has been served."""
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            time.sleep(0.005)

    def _submit(self, handler: Any, account: Account, model: str, data: bytes) -> None:
        self.hook("submit")
        if f'"prompt": "{REFUSED}'.encode() in data.replace(b'":"', b'": "'):
            body = {"error_code": 422001, "detail": [{"loc": ["body"], "msg": "refused"}]}
            return self._plain(handler, 422, body)
        with suppress(OSError):
            super()._submit(handler, account, model, data)
        self.hook("answered")

    def _exchange(
        self, handler: Any, account: Account, job: Job | None, status: int, body: Any
    ) -> Exchange:
        if job is not None and handler.path.startswith("/v1/models/"):
            self.hook("created")
        elif job is not None and handler.path.startswith("/v1/requests/"):
            what = handler.path.partition("?")[0].rpartition("/")[2]
            if what in POINTS:
                self.hook(what)
        elif job is not None:
            self.hook("media")
            stopping = self._stopping.is_set
            halved = _Halved(handler, account, job, status, body, self.elsewhere, stopping)
            halved.half = lambda: self.hook("half")
            return halved
        return super()._exchange(handler, account, job, status, body)

"""The one call that costs money: its intent written first, sent once, its answer never lost."""

import asyncio
import logging
import threading
from typing import Any

from . import journal as record
from .client import MAY_HAVE_RUN
from .desk import Desk
from .errors import OutcomeUnknown, Refused, RemoteError, Stopped
from .journal import Entry
from .leaving import Left, cancel, leave
from .payload import may_take_addresses_only
from .states import Phase
from .worker import Interrupted, finish, start

logger = logging.getLogger(__name__)


async def submit(desk: Desk, model_id: str, payload: dict[str, Any]) -> Entry:
    """Submit one paid job; gives its journal entry with the request id.

    Raises Refused, OutcomeUnknown, JournalError or Stopped. The thread that sends also writes the
    journal, so an answer is recorded even when nobody waits for it any more; a job that is
    accepted after Stop is cancelled there, once.
    """
    if desk.interrupted():
        raise Stopped("Stopped before anything was submitted.")
    stopped, given_up = threading.Event(), threading.Event()
    written: list[Entry] = []

    def send() -> Entry | Left:
        entry = desk.journal.intend(model_id, payload)
        written.append(entry)
        if stopped.is_set():
            return Left(desk.mark(entry, "dismissed"), "unsent")
        try:
            request_id = desk.api.submit(model_id, payload)
        except Refused as error:
            desk.mark(entry, "refused")
            if error.status not in (400, 422):
                raise
            raise Refused(f"{error}{may_take_addresses_only(payload)}", error.status) from None
        except BaseException:
            desk.mark(entry, record.UNKNOWN)
            raise
        late = given_up.is_set()
        entry = desk.mark(entry, record.LEFT if late else record.ACCEPTED, request_id)
        logger.info("RunComfy: submitted %s as %s", model_id, request_id)
        return cancel(desk, entry) if stopped.is_set() else entry

    sending = start(send)
    try:
        sent = await finish(sending, desk.interrupted, min(desk.pace.submit_s, desk.left_s))
    except Interrupted:
        stopped.set()
        raise Stopped(await _fate(desk, sending)) from None
    except asyncio.CancelledError:
        stopped.set()
        logger.info("RunComfy: %s", await _fate(desk, sending))
        raise
    except asyncio.TimeoutError:
        given_up.set()
        if written:
            await desk.settle(lambda: desk.mark(written[0], record.UNKNOWN))
        raise OutcomeUnknown(
            f"The submission got no answer in time. {MAY_HAVE_RUN} If the answer still comes, its "
            "id stands among the open requests."
        ) from None
    if isinstance(sent, Left):
        raise Stopped(sent.told, sent.entry.request_id)
    return sent


async def _fate(desk: Desk, sending: asyncio.Future[Entry | Left]) -> str:
    """What became of a submission that Stop met on its way; waits a bounded moment for it."""
    done, _ = await asyncio.wait({sending}, timeout=desk.pace.settle_s)
    if not done:
        return (
            "Stopped while the job was being sent; its answer is still awaited in the background. "
            "If it is accepted it is cancelled there, and until then it stands among the open "
            "requests."
        )
    try:
        sent = sending.result()
    except RemoteError as error:
        return f"Stopped. {error}"
    # Accepted in the moment before the thread could see Stop: the cancel is ours to send.
    left = sent if isinstance(sent, Left) else await leave(desk, sent, Phase.QUEUED)
    return left.told

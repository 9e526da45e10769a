"""A result's pictures, fetched from RunComfy's storage and nowhere else.

https on port 443 from runcomfy.net, runcomfy.com or below, every redirect held to the same rule,
the resolved address public, never with the token. A stand-in's own loopback origin is allowed
besides when the API itself is there.
"""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from ..network.address import AddressPolicy
from ..network.client import HttpClient, Limits
from ..network.errors import (
    AddressRefused,
    BadResponse,
    DeadlineExceeded,
    HttpStatusError,
    NetworkError,
    TooLarge,
)
from . import journal as record
from .credentials import ApiOrigin
from .decode import MAX_BYTES, Picture, UnreadablePicture, decode
from .desk import Desk
from .errors import MediaError, Stopped, clean
from .journal import Entry
from .states import Result
from .worker import Interrupted, finish, pause, start

logger = logging.getLogger(__name__)

HOSTS = ("runcomfy.net", "runcomfy.com")
_STORAGE_TRIES = 4
_DECODE_TRIES = 3


def storage_policy(origin: ApiOrigin, policy: AddressPolicy) -> AddressPolicy:
    """``policy``, with a stand-in's loopback origin allowed when that is where the API is."""
    if not origin.loopback:
        return policy
    return policy.allowing(origin.url)


def is_storage(host: str, policy: AddressPolicy) -> bool:
    """Whether pictures may come from a host (its port and addresses are the policy's to check)."""
    name = host.lower().rstrip(".")
    if any(name == own or name.endswith("." + own) for own in HOSTS):
        return True
    return any(urlsplit(origin).hostname == name for origin in policy.loopback_origins)


async def fetch_pictures(
    desk: Desk, entry: Entry, result: Result, policy: AddressPolicy, max_bytes: int = MAX_BYTES
) -> list[Picture]:
    """All pictures of a result, in order.

    Raises MediaError or Stopped; the entry then stays open, to be resumed for nothing.
    """
    end = desk.clock() + max(desk.left_s, desk.pace.download_s)
    try:
        return [await _fetch(desk, entry, url, policy, max_bytes, end) for url in result.images]
    except Interrupted:
        await desk.settle(lambda: desk.mark(entry, record.LEFT))
        raise Stopped(
            "Stopped while downloading. The picture is made and billed: put this id into "
            f"resume_request_id to fetch it without paying again.\n{entry.request_id}",
            entry.request_id,
        ) from None
    except asyncio.CancelledError:
        await desk.settle(lambda: desk.mark(entry, record.LEFT))
        raise
    except MediaError:
        await desk.settle(lambda: desk.mark(entry, record.LEFT))
        raise


async def _fetch(
    desk: Desk, entry: Entry, url: str, policy: AddressPolicy, max_bytes: int, end: float
) -> Picture:
    failures = refusals = damaged = 0
    reason = "no whole answer"
    while True:
        left = end - desk.clock()
        if left <= 0:
            raise _refused(entry, f"it could not be downloaded in time ({reason})")
        asked_wait = 0.0
        try:
            # The worker sees Stop itself too, so an abandoned download closes its socket.
            work = _download(desk, url, policy, max_bytes, left)
            return await finish(start(work), desk.interrupted, left)
        except UnreadablePicture as error:
            damaged, reason = damaged + 1, str(error)
            if error.whole or damaged >= _DECODE_TRIES:
                raise _refused(entry, reason) from None
        except HttpStatusError as error:
            # A signed address may be known a moment later than the result that names it.
            refusals += not error.retryable
            asked_wait = error.retry_after or 0.0
            reason = f"the storage answers HTTP {error.status}"
            if refusals >= _STORAGE_TRIES:
                raise _refused(entry, f"{reason}; results expire") from None
        except BadResponse:
            damaged, reason = damaged + 1, "the storage's answer makes no sense"
            if damaged >= _DECODE_TRIES:
                raise _refused(entry, reason) from None
        except (DeadlineExceeded, asyncio.TimeoutError):
            continue
        except NetworkError as error:
            reason = _why(error, url)
            if not error.retryable:
                raise _refused(entry, reason) from None
        failures += 1
        wait = max(desk.pace.before_retry(failures), min(asked_wait, 60.0))
        await pause(
            min(wait * desk.spread(0.85, 1.15), max(end - desk.clock(), 0.0)),
            desk.interrupted,
            desk.sleep,
            desk.clock,
        )


def _download(
    desk: Desk, url: str, policy: AddressPolicy, max_bytes: int, deadline: float
) -> Callable[[], Picture]:
    def should_stop() -> None:
        if desk.interrupted():
            raise Interrupted

    def work() -> Picture:
        idle_s = desk.pace.idle_s
        limits = Limits(max_bytes, idle_s, idle_s, deadline, redirects=3, attempts=1)
        client = HttpClient(
            policy, limits, should_stop, allowed_hosts=lambda host: is_storage(host, policy)
        )
        return decode(client.get_bytes(url))

    return work


def _why(error: NetworkError, url: str) -> str:
    if isinstance(error, AddressRefused):
        # The message names host and path, never the query that may be a signature; an address of
        # another kind (data:) may hold anything, so nothing of it is shown.
        known = url.lower().startswith(("https://", "http://"))
        detail = f" ({clean(error).rstrip('.')})" if known else ""
        return f"its address is not RunComfy's storage{detail}"
    if isinstance(error, TooLarge):
        return "it is larger than this node takes"
    return f"it cannot be fetched ({type(error).__name__})"


def _refused(entry: Entry, reason: str) -> MediaError:
    return MediaError(
        f"The job succeeded, but its picture was not taken: {reason}. The job is billed and its "
        "result stays at RunComfy: open it there, or put this id into resume_request_id to try "
        f"again without paying.\n{entry.request_id}",
        entry.request_id,
    )

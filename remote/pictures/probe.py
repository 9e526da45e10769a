"""The image probe: a web picture's size, from its first bytes; a help, never a condition."""

import logging
from collections.abc import Callable

from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ..errors import RemoteError
from .headers import size_of

logger = logging.getLogger(__name__)

HEAD_BYTES = 512 * 1024
WHOLE_BYTES = 50 * 1024 * 1024  # RunComfy recommends at most 50 MB a picture
SECONDS = 5.0
_FIRST_LOOK = 64  # bytes; then at four times as many, up to HEAD_BYTES
_GROWTH = 4


def picture_size(
    url: str, policy: AddressPolicy, should_stop: Callable[[], None]
) -> tuple[int, int] | None:
    """(width, height) in pixels of a PNG, JPEG or WebP, None where it cannot be told.

    Blocking, at most ``SECONDS``; raises what ``should_stop`` raises.
    """
    head, wanted = bytearray(), _FIRST_LOOK
    client = HttpClient(policy, Limits(WHOLE_BYTES, SECONDS, SECONDS, SECONDS), should_stop)
    try:
        with client.stream(url) as answer:
            for piece in answer.pieces if answer.status == 200 else ():
                head += piece[: HEAD_BYTES - len(head)]
                if len(head) >= wanted:
                    if found := size_of(bytes(head)):
                        return found
                    wanted = min(_GROWTH * len(head), HEAD_BYTES)
                if len(head) >= HEAD_BYTES:
                    return None
        return size_of(bytes(head))
    except RemoteError:  # Stop
        raise
    except Exception as error:  # a help: whatever goes wrong with it must not end a run
        logger.debug("RunComfy: no size of a reference on the web (%s)", type(error).__name__)
    return None

"""The image probe: a web picture's size, from its first bytes; a help, never a condition.

No decoder runs on a stranger's file for it. Sources: PNG (W3C), JPEG (ITU T.81), WebP (RFC 9649).
"""

import logging
import struct
from collections.abc import Callable

from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ..errors import RemoteError
from .media import JPEG, PNG, segments

logger = logging.getLogger(__name__)

HEAD_BYTES = 512 * 1024
WHOLE_BYTES = 50 * 1024 * 1024  # RunComfy recommends at most 50 MB a picture
SECONDS = 5.0
_FIRST_LOOK = 64  # bytes; then at four times as many, up to HEAD_BYTES
_GROWTH = 4
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that hold a JPEG's size


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


def size_of(head: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels by a PNG's, JPEG's or WebP's first bytes; None where they do not
    say it, or not yet."""
    width = height = 0
    if head.startswith(PNG):
        width, height = struct.unpack(">II", head[16:24].ljust(8, b"\0"))
    elif head.startswith(JPEG):
        frames = (start for marker, start, _ in segments(head) if marker in _FRAMES)
        frame = head[next(frames, len(head)) :][5:9]
        height, width = struct.unpack(">HH", frame) if len(frame) == 4 else (0, 0)
    elif head[8:12] == b"WEBP" and len(head) >= 30:
        kind, bits = head[12:16], int.from_bytes(head[21:25], "little")
        if kind == b"VP8X":
            width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == b"VP8L":
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = (n & 0x3FFF for n in struct.unpack("<HH", head[26:30]))
    return (width, height) if width and height else None

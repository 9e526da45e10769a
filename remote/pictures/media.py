"""A result's pictures, fetched from RunComfy's storage and nowhere else, and decoded.

https on port 443 from runcomfy.net, runcomfy.com or below, every redirect held to the same rule,
the resolved address public, never with the token. A stand-in's own loopback origin is allowed
besides when the API itself is there. Nothing is decoded before the header has been read and found
within the caps; the format is told by the bytes, never by a name or a declared type.

Pillow reads every EXIF tag to find one, and a JPEG's tags to open it: a tag of the wrong type, or
60,000 that share one long value, would lose a readable picture, or the machine. So the orientation
alone is read here, and a decoder is handed the pixels without tags.
Sources: PNG (W3C), JPEG (ITU T.81), TIFF 6.0, EXIF 2.32.
"""

import asyncio
import io
import logging
import re
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...network import errors
from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ..api.answers import clean
from ..context import JobContext, finish, start

logger = logging.getLogger(__name__)

HOSTS = ("runcomfy.net", "runcomfy.com")
MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
MAX_PICTURES = 16
"""The models give one picture of up to 4 MP; the caps, of a picture and of a whole result, leave
room for an upscaler behind them, not for a bomb."""

_STORAGE_TRIES = 4
_DECODE_TRIES = 3
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_BEGINS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF.{4}WEBP", re.DOTALL)

PNG, JPEG, SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", 0xDA
ALONE = frozenset({0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
"""JPEG's markers without a length, and those that Pillow takes for such."""
_NO_PIXELS = ALONE | set(range(0xE1, 0xF0)) - {0xEE}  # which says how CMYK is meant
_ORIENTATION = 0x0112
_KINDS = {3: "H", 4: "L"}  # how TIFF numbers the types that an orientation may have


class Picture(NamedTuple):
    """``rgb``: float32 [height, width, 3] in 0..1. ``mask``: float32 [height, width], 1 where the
    picture is transparent (ComfyUI's sense), None where it has no alpha."""

    rgb: np.ndarray
    mask: np.ndarray | None


class UnreadablePicture(Exception):
    """The bytes are no picture that is taken; ``whole`` is false if they may only be cut.

    ``gone``: the storage has it no more, or shows it no more.
    """

    def __init__(self, message: str, whole: bool = True, gone: bool = False) -> None:
        super().__init__(message)
        self.whole, self.gone = whole, gone


class TooLargePicture(UnreadablePicture):
    """The picture has more pixels than are taken."""


def is_storage(host: str, policy: AddressPolicy) -> bool:
    """Whether pictures may come from a host (its port and addresses are the policy's to check)."""
    name = host.lower().rstrip(".")
    named = {urlsplit(origin).hostname for origin in policy.origins}
    return name in named or any(name == own or name.endswith("." + own) for own in HOSTS)


async def fetch_pictures(
    context: JobContext, urls: Sequence[str], end: float, max_bytes: int = MAX_BYTES
) -> tuple[list[Picture], str, list[UnreadablePicture]]:
    """A result's pictures in order, what of them was left out for good or an empty text, and why
    others were not taken, which another time may be.

    The caps hold for all together; what was taken is paid, so it is delivered. Raises like
    ``fetch_picture`` when there is none.
    """
    found: list[Picture] = []
    refused: list[UnreadablePicture] = []
    left = MAX_PIXELS
    for url in urls[:MAX_PICTURES]:
        try:
            picture = await fetch_picture(context, url, end, max_bytes, left)
        except UnreadablePicture as error:
            refused.append(error)
            continue
        found.append(picture)
        left -= picture.rgb.shape[0] * picture.rgb.shape[1]
    if refused and not found:  # gone is only what is gone altogether
        raise next((error for error in refused if not error.gone), refused[0])
    lost = [error for error in refused if not isinstance(error, TooLargePicture)]
    many = len(urls) - len(found) - len(lost)
    if not many:
        return found, "", lost
    return found, (
        f"{many} of {len(urls)} pictures of one result were left out: "
        f"{MAX_PICTURES} pictures and {MAX_PIXELS / 1e6:g} MP together are the most that this node "
        "takes. Open the result on RunComfy to see them all."
    ), lost  # fmt: skip


async def fetch_picture(
    context: JobContext,
    url: str,
    end: float,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """One picture, asked for until ``end`` on the monotonic clock.

    Raises UnreadablePicture with the reason, or Interrupted.
    """
    failures = refusals = damaged = 0
    reason = "no whole answer"
    while (left := end - time.monotonic()) > 0:
        asked = None
        try:
            # The thread sees Stop itself too, so an abandoned download closes its socket.
            work = partial(_download, context, url, left, max_bytes, max_pixels)
            return await finish(start(work), context.interrupted, left)
        except UnreadablePicture as error:
            damaged, reason = damaged + 1, str(error)
            if error.whole or damaged >= _DECODE_TRIES:
                raise
        except errors.HttpStatusError as error:
            # A signed address may be known a moment later than the result that names it.
            refusals += not error.retryable
            asked = error.retry_after
            reason = f"the storage answers HTTP {error.status}"
            if refusals >= _STORAGE_TRIES:
                raise UnreadablePicture(f"{reason}; results expire", gone=True) from None
        except (errors.DeadlineExceeded, asyncio.TimeoutError):
            continue
        except errors.NetworkError as error:
            reason = _why(error, url)
            if not error.retryable:
                raise UnreadablePicture(reason) from None
        failures += 1
        await context.pause(context.pace.before_retry(failures, asked), end)
    raise UnreadablePicture(f"it could not be downloaded in time ({reason})")


def _download(
    context: JobContext, url: str, deadline: float, max_bytes: int, max_pixels: int
) -> Picture:
    policy, idle_s = context.policy, context.pace.idle_s
    limits = Limits(max_bytes, idle_s, idle_s, deadline, redirects=3, attempts=1)
    client = HttpClient(
        policy, limits, context.should_stop, allowed_hosts=lambda host: is_storage(host, policy)
    )
    try:
        return decode(client.get_bytes(url), max_pixels)
    except errors.BadResponse:
        raise UnreadablePicture("the storage's answer makes no sense", whole=False) from None


def _why(error: errors.NetworkError, url: str) -> str:
    if isinstance(error, errors.AddressRefused):
        # The message names host and path, never the query that may be a signature; an address of
        # another kind (data:) may hold anything, so nothing of it is shown.
        known = url.lower().startswith(("https://", "http://"))
        detail = f" ({clean(error).rstrip('.')})" if known else ""
        return f"its address is not RunComfy's storage{detail}"
    if isinstance(error, errors.TooLarge):
        return "it is larger than this node takes"
    return f"it cannot be fetched ({type(error).__name__})"


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """The first frame of a PNG, JPEG or WebP, upright (EXIF), in its full range.

    Whatever else its tags say loses no picture. Raises UnreadablePicture, and nothing else.
    """
    if not data:
        raise UnreadablePicture("the file is empty", whole=False)
    if not _BEGINS.match(data):
        raise UnreadablePicture("the file is neither PNG, JPEG nor WebP")
    try:
        data, exif = without_tags(data)
        with warnings.catch_warnings():
            # Pillow warns of what the cap below decides; its own error level stays in force.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                width, height = image.size
                if width < 1 or height < 1 or width * height > max_pixels:
                    raise TooLargePicture(
                        f"the picture is {width} x {height}; {max_pixels / 1e6:g} MP is the most"
                    )
                image.load()
                exif = exif or image.info.get("exif")
                turn = _TURNS.get(orientation(exif)) if isinstance(exif, bytes) and exif else None
                return _to_arrays(image if turn is None else image.transpose(turn))
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError:
        raise TooLargePicture("the picture claims an absurd size") from None
    except UnidentifiedImageError:
        raise UnreadablePicture("the file only begins like a picture") from None
    except MemoryError:
        raise UnreadablePicture("the picture does not fit into this machine's memory") from None
    except Exception as error:  # what a decoder raises for damaged data has no end of kinds
        logger.debug("RunComfy: a picture could not be decoded (%s)", type(error).__name__)
        raise UnreadablePicture("the picture is damaged or cut short", whole=False) from None


def without_tags(data: bytes) -> tuple[bytes, bytes]:
    """A PNG or JPEG without all that does not make its pixels, and its EXIF block or nothing.

    What is damaged, and any other file, stays as it is: the decoder has the last word.
    """
    exif, kept, end = b"", [], 0
    if data.startswith(PNG):
        kept, end = [PNG], len(PNG)
        while end + 12 <= len(data):
            length, kind = struct.unpack(">I4s", data[end : end + 8])
            start, last = end, end + 12 + length
            if last > len(data):
                break
            end = last
            if kind == b"eXIf":
                exif = exif or data[start + 8 : end - 4]
            elif not kind[0] & 0x20 or kind == b"tRNS":  # a critical one begins with a capital
                kept.append(data[start:end])
    elif data.startswith(JPEG):
        kept, end = [data[:2]], 2
        for marker, start, end in segments(data):
            body = data[start:end]
            if marker == 0xE1 and body[4:10] == b"Exif\0\0":
                exif = exif or body[4:]
            elif marker not in _NO_PIXELS:
                kept.append(body)
    return b"".join([*kept, data[end:]]), exif


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of a JPEG's whole segments before its first scan.

    A segment is its marker, two bytes of length and its body. What stands between two is stepped
    over as Pillow does: nothing may be a segment for it and none for us.
    """
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker in (0x00, 0xFF):
            at += 1
            continue
        length = 0 if marker in ALONE else max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        end = at + 2 + length
        if marker == SCAN or end > len(data):
            return
        yield marker, at, end
        at = end


def orientation(exif: bytes) -> int:
    """The orientation of an EXIF block (1 to 8); 1, upright, where it does not say a sound one."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4], "")
    if not order or len(tiff) < 10:
        return 1
    (first,) = struct.unpack(f"{order}L", tiff[4:8])
    (count,) = struct.unpack(f"{order}H", tiff[first : first + 2].ljust(2, b"\0"))
    for at in range(first + 2, min(first + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, number = struct.unpack(f"{order}HHL", tiff[at : at + 8])
        if tag == _ORIENTATION:
            if kind not in _KINDS or number != 1:
                return 1
            (found,) = struct.unpack_from(f"{order}{_KINDS[kind]}", tiff, at + 8)
            return int(found) if 1 <= found <= 8 else 1
    return 1


def _to_arrays(image: Image.Image) -> Picture:
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):  # 16 bit
        grey = np.asarray(image).astype(np.float32) / 65535.0
        return Picture(np.repeat(grey.clip(0.0, 1.0)[..., None], 3, axis=2), None)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32) / 255.0
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return Picture(rgb, None if alpha is None else 1.0 - alpha)

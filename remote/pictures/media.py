"""A result's pictures, fetched from RunComfy's storage and nowhere else, and decoded.

https on port 443 from runcomfy.net, runcomfy.com or below, every redirect held to the same rule,
the resolved address public, never with the token. A stand-in's own loopback origin is allowed
besides when the API itself is there. Nothing is decoded before the header has been read and found
within the caps; the format is told by the bytes, never by a name or a declared type.
"""

import asyncio
import io
import re
import time
import warnings
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...network import errors
from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ..api.answers import clean
from ..context import JobContext, finish, start

HOSTS = ("runcomfy.net", "runcomfy.com")
MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
"""The models give up to 4 MP; the caps leave room for an upscaler behind them, not for a bomb."""

_STORAGE_TRIES = 4
_DECODE_TRIES = 3
_BEGINS = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF.{4}WEBP", re.DOTALL)


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


def is_storage(host: str, policy: AddressPolicy) -> bool:
    """Whether pictures may come from a host (its port and addresses are the policy's to check)."""
    name = host.lower().rstrip(".")
    named = {urlsplit(origin).hostname for origin in policy.origins}
    return name in named or any(name == own or name.endswith("." + own) for own in HOSTS)


async def fetch_picture(
    context: JobContext, url: str, end: float, max_bytes: int = MAX_BYTES
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
            work = partial(_download, context, url, left, max_bytes)
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


def _download(context: JobContext, url: str, deadline: float, max_bytes: int) -> Picture:
    policy, idle_s = context.policy, context.pace.idle_s
    limits = Limits(max_bytes, idle_s, idle_s, deadline, redirects=3, attempts=1)
    client = HttpClient(
        policy, limits, context.should_stop, allowed_hosts=lambda host: is_storage(host, policy)
    )
    try:
        return decode(client.get_bytes(url))
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

    Raises UnreadablePicture.
    """
    if not data:
        raise UnreadablePicture("the file is empty", whole=False)
    if not _BEGINS.match(data):
        raise UnreadablePicture("the file is neither PNG, JPEG nor WebP")
    try:
        with warnings.catch_warnings():
            # Pillow warns of what the cap below decides; its own error level stays in force.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                width, height = image.size
                if width < 1 or height < 1 or width * height > max_pixels:
                    raise UnreadablePicture(
                        f"the picture is {width} x {height}; {max_pixels / 1e6:g} MP is the most"
                    )
                image.load()
                return _to_arrays(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise UnreadablePicture("the picture claims an absurd size") from None
    except UnidentifiedImageError:
        raise UnreadablePicture("the file only begins like a picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError):
        # What Pillow raises for damaged data, format by format.
        raise UnreadablePicture("the picture is damaged or cut short", whole=False) from None


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

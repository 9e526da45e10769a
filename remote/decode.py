"""A downloaded picture as float32 RGB in 0..1 and, where it has transparency, a mask.

Nothing is decoded before the header has been read and found within the caps. The format is told by
the bytes, never by a name or a declared type.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
"""The models give up to 4 MP; the caps leave room for an upscaler behind them, not for a bomb."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_SIXTEEN_BIT = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})


class Picture(NamedTuple):
    """``rgb``: float32 [height, width, 3] in 0..1. ``mask``: float32 [height, width], 1 where the
    picture is transparent (ComfyUI's sense), None where it has no alpha."""

    rgb: np.ndarray
    mask: np.ndarray | None


class UnreadablePicture(Exception):
    """The bytes are no picture that is taken; ``whole`` is false if they may only be cut."""

    def __init__(self, message: str, whole: bool = True) -> None:
        super().__init__(message)
        self.whole = whole


def sniff(data: bytes) -> str:
    """``PNG``, ``JPEG`` or ``WEBP`` by the first bytes, else an empty text."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return ""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """The first frame of a PNG, JPEG or WebP, upright (EXIF), in its full range.

    Raises UnreadablePicture.
    """
    if not data:
        raise UnreadablePicture("the file is empty", whole=False)
    if not sniff(data):
        raise UnreadablePicture("the file is neither PNG, JPEG nor WebP")
    try:
        with warnings.catch_warnings():
            # Pillow warns of what the cap below decides; its own error level stays in force.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width < 1 or height < 1 or width * height > max_pixels:
                    raise UnreadablePicture(
                        f"the picture is {width} x {height}; {max_pixels / 1e6:g} MP is the most"
                    )
                image.load()
                return _to_arrays(ImageOps.exif_transpose(image))
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError:
        raise UnreadablePicture("the picture claims an absurd size") from None
    except UnidentifiedImageError:
        raise UnreadablePicture("the file only begins like a picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError):
        # What Pillow raises for damaged data, format by format.
        raise UnreadablePicture("the picture is damaged or cut short", whole=False) from None


def _to_arrays(image: Image.Image) -> Picture:
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.float32) / 65535.0
        return Picture(np.repeat(grey.clip(0.0, 1.0)[..., None], 3, axis=2), None)
    if image.mode == "I;16" or image.mode == "F":
        raise UnreadablePicture("the picture's pixels are of an unknown kind")
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32) / 255.0
    rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return Picture(rgb, None if alpha is None else 1.0 - alpha)

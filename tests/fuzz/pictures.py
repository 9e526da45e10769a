"""Mutated pictures through the decoder and the probe: small ones in every format and mode.

Each ends as a picture (float32 in 0..1, of a bounded size) or in an ``UnreadablePicture``.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

import numpy as np
from mutate import battered
from PIL import Image

from flux2_lora_edit.remote.pictures.media import (
    MAX_PIXELS,
    UnreadablePicture,
    decode,
    orientation,
    without_tags,
)
from flux2_lora_edit.remote.pictures.probe import size_of

SMALL = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n"


def _saved(mode: str, kind: str, **options: Any) -> bytes:
    noise = np.random.default_rng(7).integers(0, 255, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    if options.pop("frames", 0):
        options |= {
            "save_all": True,
            "append_images": [image.transpose(Image.Transpose.ROTATE_180)],
        }
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def _deep(colour: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel."""
    line = b"\0" + b"".join(struct.pack(">H", x * 5000) * channels for x in range(13))
    head = struct.pack(">LLBBBBB", 13, 9, 16, colour, 0, 0, 0)
    data = zlib.compress(line * 9)
    return PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _tags(*entries: tuple[int, int, int, bytes]) -> bytes:
    rows = b"".join(struct.pack("<HHL", *e[:3]) + e[3].ljust(4, b"\0") for e in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + b"\0" * 12


TAGS = b"Exif\0\0" + _tags(
    (0x0112, 3, 1, b"\6"), (0x011A, 5, 1, b"\x20"), (0x8769, 4, 1, b"\x08"), (0x010E, 2, 4, b"abc")
)
SEEDS = (
    *(_saved(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    _saved("P", "PNG", transparency=0), _saved("RGB", "PNG", exif=TAGS), _deep(0, 1), _deep(2, 3),
    _deep(6, 4), _saved("RGB", "PNG", frames=1), _saved("RGBA", "PNG", frames=1),
    *(_saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")), _saved("RGB", "JPEG", exif=TAGS),
    _saved("RGB", "JPEG", progressive=True, exif=TAGS), _saved("L", "JPEG", icc_profile=b"x" * 60),
    _saved("RGB", "WEBP"), _saved("RGBA", "WEBP", lossless=True), _saved("RGB", "WEBP", exif=TAGS),
    _saved("RGBA", "WEBP", frames=1), _saved("RGB", "WEBP", lossless=True, exif=TAGS),
)  # fmt: skip


class Case(NamedTuple):
    """A file and how many pixels of it are taken."""

    data: bytes
    max_pixels: int


def case(rng: Random) -> Case:
    """One file."""
    data = rng.choice(SEEDS)
    kind = rng.random()
    if data.startswith(PNG) and kind < 0.6:
        data = _png(rng, data)
    elif kind < 0.15:
        data = rng.choice(SEEDS)[: rng.randrange(60)] + data
    else:
        data = battered(rng, data, 4)
    return Case(data, MAX_PIXELS if rng.random() < 0.002 else SMALL)


def _png(rng: Random, data: bytes) -> bytes:
    """A PNG whose checksums are right, whatever its chunks hold."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">L", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(chunks))
        name, body = chunks[place]
        change = rng.random()
        if change < 0.6:
            chunks[place] = (name, battered(rng, body, 3))
        elif change < 0.7:
            chunks.insert(place, rng.choice(chunks))
        elif change < 0.8 and len(chunks) > 1:
            del chunks[place]
        else:
            kinds = (b"eXIf", b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"acTL", b"fcTL", b"fdAT",
                     b"PLTE", b"gAMA", b"pHYs", b"IDAT", b"IEND", b"abcd", b"ABCD")  # fmt: skip
            fill = rng.choice((b"", TAGS[6:], rng.randbytes(30), zlib.compress(bytes(50_000))))
            chunks.insert(place, (rng.choice(kinds), fill))
    return PNG + b"".join(_chunk(name, body) for name, body in chunks)


class Checked(AssertionError):
    """What must hold of every case, and does not."""


@contextmanager
def room() -> Iterator[Mock]:
    """What would read all of a picture's tags; nothing may."""
    with patch.object(Image.Image, "getexif", side_effect=KeyError) as reads_tags:
        yield reads_tags


def run(room: Mock, given: Case) -> str:
    """One case; how it ended. Raises where it did not end as promised."""
    data, max_pixels = given
    for cut in (len(data), len(data) // 2):
        size = size_of(data[:cut])
        if size is not None and not all(0 < side < 2**32 for side in size):
            raise Checked(f"a size of {size}")
    bare, exif = without_tags(data)
    if len(bare) > len(data) or not 1 <= orientation(exif) <= 8:
        raise Checked("tags")
    try:
        rgb, mask = decode(data, max_pixels)
        if room.called:
            room.reset_mock()
            raise Checked("all tags are read")
    except UnreadablePicture as error:
        if not str(error).isprintable() or len(str(error)) > 200:
            raise Checked(repr(str(error))) from None
        return "whole" if error.whole else "damaged"
    if rgb.dtype != np.float32 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise Checked(f"{rgb.dtype} {rgb.shape}")
    if not 0 < rgb.shape[0] * rgb.shape[1] <= max_pixels:
        raise Checked(f"{rgb.shape} of {max_pixels} pixels")
    if not (rgb.min() >= 0 and rgb.max() <= 1):
        raise Checked(f"{rgb.min()} to {rgb.max()}")
    if mask is not None and (mask.shape != rgb.shape[:2] or mask.min() < 0 or mask.max() > 1):
        raise Checked(f"a mask of {mask.shape}")
    return "picture"

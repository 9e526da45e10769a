"""Small real pictures drawn from a request: PNG by the standard library, the others by Pillow."""

import hashlib
import io
import struct
import zlib


def colours(seed: int, prompt: str) -> tuple[bytes, bytes]:
    """Two RGB colours that the seed and the prompt decide."""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
    return digest[:3], digest[3:6]


def rows(width: int, height: int, seed: int, prompt: str) -> list[bytes]:
    """RGB rows of a vertical gradient between the two colours."""
    first, last = colours(seed, prompt)
    steps = max(height - 1, 1)
    pixels = (
        bytes((a * (steps - y) + b * y) // steps for a, b in zip(first, last, strict=True))
        for y in range(height)
    )
    return [pixel * width for pixel in pixels]


def chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(width: int, height: int, lines: list[bytes], depth: int = 8, colour_type: int = 2) -> bytes:
    """A PNG of raw rows; ``colour_type`` 0 grey, 2 RGB, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + line for line in lines), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def draw(width: int, height: int, seed: int, prompt: str, kind: str = "png") -> bytes:
    """The picture of a request, as ``png``, ``jpeg`` or ``webp``."""
    data = png(width, height, rows(width, height, seed, prompt))
    if kind == "png":
        return data
    from PIL import Image  # only for the two formats that the standard library cannot write

    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {"quality": 95}
    Image.open(io.BytesIO(data)).save(buffer, kind.upper(), **options)
    return buffer.getvalue()

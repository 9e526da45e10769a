"""Readable pictures whose tags are not: every one is delivered, upright where that can be told."""

import io
import random
import struct
import zlib
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flux2_lora_edit.remote.pictures.media import (
    UnreadablePicture,
    decode,
    orientation,
    without_tags,
)
from flux2_lora_edit.remote.pictures.probe import size_of

# Four quarters of different colours, so that each of the eight ways up is another picture.
SIDE = np.zeros((32, 48, 3), np.uint8)
SIDE[:16, :24], SIDE[:16, 24:], SIDE[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
IMAGE = Image.fromarray(SIDE)
TURNED = {
    1: SIDE, 2: SIDE[:, ::-1], 3: SIDE[::-1, ::-1], 4: SIDE[::-1], 5: SIDE.swapaxes(0, 1),
    6: SIDE[::-1].swapaxes(0, 1), 7: SIDE[::-1, ::-1].swapaxes(0, 1),
    8: SIDE[:, ::-1].swapaxes(0, 1),
}  # fmt: skip


def ifd(*entries: tuple[int, int, int, bytes], order: str = "<", more: bytes = b"") -> bytes:
    """A TIFF header and one directory: (tag, kind, count, four bytes of value)."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}L", 8)
    rows = b"".join(struct.pack(f"{order}HHL", *e[:3]) + e[3].ljust(4, b"\0") for e in entries)
    return start + struct.pack(f"{order}H", len(entries)) + rows + b"\0" * 4 + more


def turn(value: int, order: str = "<") -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack(f"{order}H", value)


BEHIND = struct.pack("<L", 38)  # where ``more`` lies behind two entries
ODD = {
    "a rational over zero": ifd(turn(6), (0x011A, 5, 1, BEHIND), more=struct.pack("<LL", 72, 0)),
    "text for a resolution": ifd((0x011A, 2, 4, b"abc"), turn(6)),
    "text for a unit": ifd(turn(6), (0x0128, 2, 4, b"two")),
    "a resolution of no kind": ifd((0x011A, 5, 0, b""), turn(6)),
    "an unknown kind": ifd(turn(6), (0x9000, 99, 1, b"\1")),
    "a huge count": ifd(turn(6), (0x010E, 2, 0xFFFFFFFF, BEHIND)),
    "a huge offset": ifd(turn(6), (0x010E, 2, 99, b"\xff\xff\xff\xff")),
    "a directory inside itself": ifd(turn(6), (0x8769, 4, 1, struct.pack("<L", 8))),
    "a directory of text": ifd(turn(6), (0x8769, 2, 4, b"abc")),
    "GPS that is a number": ifd(turn(6), (0x8825, 3, 1, b"\7")),
    "a maker's note without one": ifd(turn(6), (0x927C, 7, 4000, BEHIND)),
    "signed rationals": ifd(turn(6), (0x9204, 10, 1, BEHIND), more=struct.pack("<ll", -1, 0)),
    "a double": ifd(turn(6), (0x9000, 12, 1, BEHIND), more=b"\xff" * 8),
    "an empty name": ifd(turn(6), (0x0131, 2, 0, b"")),
    "text that is no text": ifd(turn(6), (0x0131, 2, 4, b"\xff\xfe\xff\xff")),
    "bytes for text": ifd(turn(6), (0x0131, 1, 4, b"\xff\xfe\xff\xff")),
    "many offsets": ifd(turn(6), (0x0111, 4, 2, b"\0\0\0\0")),
    "one tag twice": ifd(turn(6), turn(6)),
    "big-endian": ifd(turn(6, ">"), order=">"),
    "as a long": ifd((0x0112, 4, 1, struct.pack("<L", 6))),
    "cut behind it": ifd(turn(6), (0x9000, 3, 1, b"\1"))[:30],
}
NONE = {
    "nothing": b"",
    "no header": b"hello, this is no TIFF",
    "a header alone": b"II*\0\x08\0\0\0",
    "a directory beyond the end": b"MM\0*\xff\xff\xff\xff\0\0\0\0",
    "65535 entries that are not there": b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 40,
    "orientation as text": ifd((0x0112, 2, 2, b"6\0")),
    "orientation as a rational over zero": ifd((0x0112, 5, 1, struct.pack("<L", 30))),
    "two orientations": ifd((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
    "no orientation at all": ifd((0x0112, 3, 0, b"\6")),
    "orientation 0": ifd(turn(0)),
    "orientation 9": ifd(turn(9)),
    "orientation 65535": ifd(turn(65535)),
    "as a float": ifd((0x0112, 11, 1, struct.pack("<f", 6.0))),
    "BigTIFF": b"II+\0\x08\0\0\0" + b"\0" * 20,
}


def saved(kind: str, exif: bytes, **options: object) -> bytes:
    """The picture with this block, put there by hand: no library checks it."""
    buffer = io.BytesIO()
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
    IMAGE.save(buffer, kind, **lossless.get(kind, {}), **options)
    data = buffer.getvalue()
    if kind == "JPEG":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if kind == "PNG":
        return data[:33] + chunk(b"eXIf", exif) + data[33:]
    # WebP: the extended form says that there is EXIF, and which size the picture has.
    size = (47).to_bytes(3, "little") + (31).to_bytes(3, "little")
    chunks = riff(b"VP8X", b"\x08\0\0\0" + size) + data[12:] + riff(b"EXIF", exif)
    return b"RIFF" + struct.pack("<L", len(chunks) + 4) + b"WEBP" + chunks


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<L", len(body)) + body + b"\0" * (len(body) % 2)


def is_up(data: bytes, way: int) -> bool:
    found, wanted = decode(data).rgb, TURNED[way].astype(np.float32) / 255
    # JPEG blurs the edges; the middle of each quarter tells.
    close = np.abs(found[8::16, 8::16] - wanted[8::16, 8::16]) if found.shape == wanted.shape else 1
    return bool(np.max(close) < 0.1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("way", TURNED)
def test_every_way_up(kind: str, way: int) -> None:
    assert is_up(saved(kind, ifd(turn(way))), way)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ODD)
def test_odd_tags_lose_neither_the_picture_nor_which_way_up_it_is(kind: str, name: str) -> None:
    assert is_up(saved(kind, ODD[name]), 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", NONE)
def test_an_orientation_that_makes_no_sense_is_none(kind: str, name: str) -> None:
    assert is_up(saved(kind, NONE[name]), 1)


def test_tags_that_share_one_long_value_are_not_read() -> None:
    """60,000 tags of 400 KB each would be 24 GB in memory; here no tag but one is looked at."""
    rows = [(0x4000 + n, 7, 400_000, struct.pack("<L", 8)) for n in range(40_000)]
    block = ifd(turn(6), *rows)
    assert orientation(block) == 6
    with patch("PIL.Image.Image.getexif", side_effect=AssertionError("all tags are read")):
        for kind in ("PNG", "WEBP", "JPEG"):
            assert is_up(saved(kind, block[:60_000] if kind == "JPEG" else block), 6)


@pytest.mark.parametrize(
    "junk",
    [b"\0\0", b"abc", b"\xff", b"\xff\0", b"\xff\xf0", b"\xff\xc8", b"\xff\xfe\0\0", b"\xff\xd0ab",
     b"\xff\xfe\0\1", b"\xff\xe8\0\2", b"a\xff\xff\xff"],
)  # fmt: skip
def test_no_junk_between_segments_hides_the_tags_from_us_alone(junk: bytes) -> None:
    """Pillow steps over it, and would read them."""
    data = saved("JPEG", ODD["text for a resolution"])
    with patch("PIL.Image.Image.getexif", side_effect=AssertionError("all tags are read")):
        assert is_up(data[:2] + b"\xff\xfe\0\3a" + junk + data[2:], 6)


def test_other_tags_and_texts_are_not_looked_at() -> None:
    """Pillow refuses a PNG for a long text, a wrong profile or frames that do not add up."""
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="six">\x00\xff')
    assert is_up(saved("PNG", ifd(turn(3)), pnginfo=text), 3)
    data = saved("PNG", ifd(turn(3)))
    for kind, body in ((b"iCCP", b"no profile"), (b"acTL", b"\0"), (b"fcTL", b"\0" * 26),
                       (b"cHRM", b"1"), (b"pHYs", b""), (b"gAMA", b""), (b"sRGB", b""),
                       (b"tIME", b"now"), (b"zTXt", b"a\0\1"), (b"iTXt", b"\0\0\0")):  # fmt: skip
        assert is_up(data[:33] + chunk(kind, body) + data[33:], 3), kind
    jpeg = saved("JPEG", ifd(turn(3)))
    for marker, body in ((0xE2, b"MPF\0II*\0\xff\xff\xff\xff"), (0xED, b"Photoshop 3.0\x008BIM"),
                         (0xE2, b"ICC_PROFILE\0\xff\xff"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
                         (0xE1, b"Exif\0\0"), (0xFE, b"\xff" * 9), (0xE8, b"SPIFF\0")):  # fmt: skip
        block = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
        assert is_up(jpeg[:2] + jpeg[2:4] + jpeg[4:] if not body else _behind(jpeg, block), 3), body


def _behind(jpeg: bytes, block: bytes) -> bytes:
    """A segment behind the EXIF that is there."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:end] + block + jpeg[end:]


@pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, struct.error, TypeError, KeyError, AttributeError,
              ZeroDivisionError, AssertionError, RuntimeError, NotImplementedError],
)  # fmt: skip
def test_whatever_a_decoder_raises_is_an_unreadable_picture(error: type[Exception]) -> None:
    for where in ("PIL.Image.open", "PIL.PngImagePlugin.PngImageFile.load"):
        with patch(where, side_effect=error("no")), pytest.raises(UnreadablePicture):
            decode(saved("PNG", b""))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_random_tags_lose_no_picture(kind: str) -> None:
    rng = random.Random(5)
    for _ in range(150):
        block = bytearray(
            ifd(turn(6), (0x8769, 4, 1, struct.pack("<L", 8)), (0x011A, 5, 1, b"\x1e"))
        )
        for _ in range(rng.randint(1, 8)):
            block[rng.randrange(len(block))] = rng.randrange(256)
        assert decode(saved(kind, bytes(block))).rgb.size == SIDE.size


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}),
     ("WEBP", {"lossless": True}), ("WEBP", {"icc_profile": b"x" * 300}),
     ("JPEG", {"exif": b"x" * 60_000})],
)  # fmt: skip
def test_the_size_by_the_first_bytes(kind: str, options: dict) -> None:
    for size in ((1, 1), (16, 9), (47, 333), (1000, 2)):
        buffer = io.BytesIO()
        Image.new("RGB", size, (9, 9, 9)).save(buffer, kind, **options)
        data = buffer.getvalue()
        assert size_of(data) == size
        assert all(size_of(data[:cut]) in (None, size) for cut in range(0, len(data), 7))


def test_only_tags_are_taken_out() -> None:
    for kind in ("PNG", "JPEG"):
        data = saved(kind, ODD["a huge count"])
        bare, exif = without_tags(data)
        assert exif.removeprefix(b"Exif\0\0") == ODD["a huge count"] and len(bare) < len(data)
        with Image.open(io.BytesIO(bare)) as image, Image.open(io.BytesIO(data)) as whole:
            assert np.array_equal(np.asarray(image), np.asarray(whole))
        for cut in range(0, len(data), 5):
            bare, _ = without_tags(data[:cut])
            assert len(bare) <= cut
    webp = saved("WEBP", b"abc")
    assert without_tags(webp) == (webp, b"")

"""What is read of a foreign picture before a decoder sees it: its size, which way up, its tags.

Pillow reads every EXIF tag to find one, and a JPEG's tags to open it: a tag of the wrong type, or
60,000 that share one long value, would lose a readable picture, or the machine. So the orientation
alone is read here, and a decoder is handed the pixels without tags.
Sources: PNG (W3C), JPEG (ITU T.81), WebP (RFC 9649), TIFF 6.0, EXIF 2.32.
"""

import struct
from collections.abc import Iterator

PNG, JPEG, WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"WEBP"

_ORIENTATION = 0x0112
_KINDS = {3: "H", 4: "L"}  # how TIFF numbers the types that an orientation may have
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that hold a JPEG's size
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length
_SCAN = 0xDA


def size_of(head: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels by a PNG's, JPEG's or WebP's first bytes; None where they do not
    say it, or not yet."""
    width = height = 0
    if head.startswith(PNG) and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
    elif head.startswith(JPEG):
        for marker, start, _ in segments(head):
            if marker in _FRAMES and len(head) >= start + 9:
                height, width = struct.unpack(">HH", head[start + 5 : start + 9])
                break
    elif head[8:12] == WEBP and len(head) >= 30:
        kind, bits = head[12:16], int.from_bytes(head[21:25], "little")
        if kind == b"VP8X":
            width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == b"VP8L":
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = (n & 0x3FFF for n in struct.unpack("<HH", head[26:30]))
    return (width, height) if width and height else None


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
            elif marker not in range(0xE1, 0xF0) or marker == 0xEE:  # which says how CMYK is meant
                kept.append(body)
    return b"".join([*kept, data[end:]]), exif


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of a JPEG's whole segments before its first scan, while they make sense.

    A segment is its marker, two bytes of length and its body.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SCAN:
            return
        if marker == 0xFF:  # any number of these may stand before a marker
            at += 1
            continue
        length = 0 if marker in _ALONE else int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if end > len(data) or (length < 2 and marker not in _ALONE):
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

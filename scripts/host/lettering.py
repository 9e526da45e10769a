"""Text on a picture, in any script that a font of this machine has: cut, wrapped, drawn.

Pillow's own font has the plain Latin letters and no more. A text that needs others is written in
the first installed font that has them all, or in pieces; what no font has is a box.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# What Linux, macOS and Windows bring; Pillow looks for them where each system keeps its fonts.
INSTALLED = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "malgun.ttf"),
    *("wqy-zenhei.ttc", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf"),
    *("NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "segoeui.ttf"),
)
DOTS = "..."
LEADING = 1.3
"""From one line to the next, in sizes of the letters."""


def plain(text: str) -> str:
    """``text`` as one line: every run of blanks one blank, what is not printable left out."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(letter for letter in composed if letter.isprintable())


def length(text: str, size: int) -> float:
    """How wide ``text`` is in letters of ``size`` pixels."""
    return sum(font.getlength(piece) for font, piece in _pieces(text, size))


def cut(text: str, width: float, size: int) -> str:
    """``text`` where it fits into ``width`` pixels, else its beginning and three dots."""
    shown = plain(text[: _most(width, size)])
    if len(text) <= _most(width, size) and length(shown, size) <= width:
        return shown
    return shown[: _fitting(shown, width - length(DOTS, size), size)].rstrip() + DOTS


def wrap(text: str, width: float, size: int, lines: int) -> list[str]:
    """``text`` in at most ``lines`` lines of ``width`` pixels, broken at blanks where there are
    any; the last is cut."""
    rest, found = plain(text[: _most(width, size) * lines]), []
    while len(found) < lines - 1 and length(rest, size) > width:
        end = max(1, _fitting(rest, width, size))
        blank = rest.rfind(" ", 0, end + 1)
        end = blank if blank > 0 else end
        found.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*found, cut(rest, width, size)]


def write(
    pen: ImageDraw.ImageDraw, left: float, top: float, text: str, size: int, ink: str
) -> None:
    """One line of ``text``, whatever its width; all its fonts stand on one baseline."""
    ascent = _font("", size).getmetrics()[0] if _outlined(size) else 0
    for font, piece in _pieces(text, size):
        pen.text((left, top + ascent), piece, fill=ink, font=font, anchor="ls" if ascent else None)
        left += font.getlength(piece)


def _most(width: float, size: int) -> int:
    """More letters than ``width`` can hold: a prompt may be a book."""
    return max(16, round(8 * width / size))


def _fitting(text: str, width: float, size: int) -> int:
    """How many letters from the start of ``text`` fit into ``width``."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if length(text[:middle], size) <= width else (low, middle - 1)
    return low


def _pieces(text: str, size: int) -> Iterator[tuple[Font, str]]:
    if not _outlined(size):  # a Pillow without FreeType: one bitmap font, and Latin-1
        yield _font("", size), text.encode("latin-1", "replace").decode("latin-1")
        return
    letters = frozenset(text) - {" "}
    whole = next((name for name in _names() if all(_has(name, one) for one in letters)), None)
    if whole is not None:
        yield _font(whole, size), text
        return
    of_letter = {one: next((n for n in _names() if _has(n, one)), _names()[-1]) for one in letters}
    last = _names()[0]
    chosen = [last := of_letter.get(one, last) for one in text]  # a blank goes with its left
    for name, pairs in groupby(zip(chosen, text, strict=True), key=lambda pair: pair[0]):
        yield _font(name, size), "".join(letter for _, letter in pairs)


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """Pillow's own font, as "", and those of ``INSTALLED`` that are."""
    found = [""]
    for name in INSTALLED:
        try:
            ImageFont.truetype(name, 16)
        except (OSError, ValueError):
            continue
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _outlined(size: int) -> bool:
    return isinstance(_font("", size), ImageFont.FreeTypeFont)


@lru_cache(maxsize=65536)
def _has(name: str, letter: str) -> bool:
    """Whether the font draws ``letter`` other than the box for a letter that it lacks."""
    return letter.isascii() or _drawn(name, letter) != _drawn(name, "\uffff")


def _drawn(name: str, letter: str) -> tuple[tuple[int, int], bytes]:
    font = _font(name, 16)
    mask: Image.core.ImagingCore = font.getmask(letter)
    return mask.size, bytes(mask)

"""File names that are safe on every system, made from names that others chose."""

import hashlib
import re
import unicodedata
from urllib.parse import unquote

EXTENSION = ".safetensors"

_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_EXTENDED = re.compile(r"(?i)filename\*\s*=\s*utf-8''([^;\s]+)")
_PLAIN = re.compile(r'(?i)filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))')
_LONGEST = 120


def safe_name(text: str) -> str:
    """The last part of ``text`` as one path component: no separators, no leading or ending dots,
    nothing reserved on Windows. It may be empty.
    """
    name = unicodedata.normalize("NFC", text.replace("\\", "/").rpartition("/")[2])
    name = "".join(c if c.isalnum() or c in "._-+=@, ()" else "_" for c in name)
    stem, dot, extension = name.rpartition(".")
    if dot and len(extension) < 20:
        name = stem[: _LONGEST - len(extension) - 1] + dot + extension
    name = name[:_LONGEST].strip(". ")
    return "_" + name if _RESERVED.fullmatch(name) else name


def safe_lora_name(text: str) -> str | None:
    """``safe_name`` where it ends in .safetensors and has something before that; else None."""
    name = safe_name(text)
    return name if name.lower().endswith(EXTENSION) and len(name) > len(EXTENSION) else None


def name_of_link(path: str) -> str | None:
    """The LoRA's name in the path of an address, percent signs decoded; None where it has none."""
    return safe_lora_name(unquote(path))


def name_of_header(disposition: str | None) -> str | None:
    """The LoRA's name in a Content-Disposition header (RFC 6266); None where it has none."""
    text = disposition or ""
    if match := _EXTENDED.search(text):
        return safe_lora_name(unquote(match[1]))
    if match := _PLAIN.search(text):
        return safe_lora_name(match[1] or match[2] or "")
    return None


def digest(text: str) -> str:
    """sha256 of ``text`` in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

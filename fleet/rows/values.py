"""What an input takes, by the server's schema, and what a table's cell becomes there."""

import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .names import PICTURES, named

KINDS = ("INT", "FLOAT", "BOOLEAN", "STRING")
COMBO, DYNAMIC, PICTURE, SOCKET = "COMBO", "COMFY_DYNAMICCOMBO_V3", "PICTURE", "SOCKET"
TRUTH = {"true": True, "yes": True, "on": True, "1": True,
         "false": False, "no": False, "off": False, "0": False}  # fmt: skip

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_FILE = re.compile(r".*\.[A-Za-z0-9]{1,12}", re.DOTALL)
_EXACT = 2**53
"""Beyond it a float is no certain integer."""
_DIGITS = 30


class Spec(NamedTuple):
    """What an input takes. ``kind``: one of KINDS, COMBO, DYNAMIC, PICTURE, or SOCKET for what is
    linked only. ``options``: how a table may write each -> the option; None: not known here, so
    that any text passes."""

    kind: str
    options: Mapping[str, Any] | None = None
    low: float | None = None
    high: float | None = None


class Input(NamedTuple):
    """An input of a node class. ``when``: (dynamic combo, option) pairs, all of which must be
    chosen for the input to exist. ``default``: None where the schema names none."""

    name: str
    spec: Spec
    required: bool
    when: tuple[tuple[str, str], ...]
    default: Any = None


class Unfit(NamedTuple):
    """Why a value cannot be set. ``kind`` groups rows ("is no whole number"), ``remedy`` says the
    way out for this value; a function where that takes a search."""

    kind: str
    remedy: str | Callable[[], str]


class Picture(NamedTuple):
    """A picture on this machine: its absolute path, its size in bytes, its time in ns."""

    path: str
    size: int
    modified: int


class Several(NamedTuple):
    """The options that a pattern matches."""

    options: tuple[Any, ...]


def inputs_of(class_info: Mapping[str, Any]) -> list[Input]:
    """All inputs of a class of ``/object_info``, those under dynamic combos too."""
    return list(_inputs(class_info.get("input") or {}, "", ()))


def spec_of(raw: Any) -> Spec:
    """An input's schema as ``/object_info`` gives it: ``["INT", {"min": 0}]``, ``[["a", "b"]]``."""
    kind, *rest = raw if isinstance(raw, (list, tuple)) and raw else [raw]
    settings = rest[0] if rest and isinstance(rest[0], Mapping) else {}
    if isinstance(kind, (list, tuple)):
        return _choice_of(kind, settings)
    if kind == COMBO:
        return _choice_of(settings.get("options"), settings)
    if kind == DYNAMIC:
        return Spec(DYNAMIC, _by_text([one["key"] for one in settings.get("options", ())]))
    # "FLOAT,INT" takes either.
    named_kinds = str(kind).split(",")
    for known in ("STRING", "FLOAT", "INT", "BOOLEAN"):
        if known in named_kinds:
            limits = (settings.get(name) for name in ("min", "max"))
            return Spec(known, None, *(one if isinstance(one, (int, float)) else None
                                       for one in limits))  # fmt: skip
    return Spec(SOCKET)


def _choice_of(options: Any, settings: Mapping[str, Any]) -> Spec:
    # What a server looks up elsewhere, or lists in another folder than the uploads'.
    if "remote" in settings or not isinstance(options, (list, tuple)):
        return Spec(COMBO)
    uploaded = settings.get("image_upload") and not settings.get("image_folder")
    return Spec(PICTURE if uploaded else COMBO, _by_text(options))


def spec_like(value: Any) -> Spec:
    """The spec of an input that no schema knows, by the value that the graph has for it."""
    kinds = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
    return Spec(kinds.get(type(value), SOCKET))


def convert(spec: Spec, value: Any, folder: Path) -> Any:
    """What is set for ``value``: a number, bool or str, a Picture, Several, or Unfit.

    Picture paths are relative to ``folder``.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return Unfit("is text with half a character", "Save the table as UTF-8.")
    elif not isinstance(value, (bool, int, float)):
        return Unfit("is no text, number, true or false", "One row sets one value.")
    elif isinstance(value, float) and not math.isfinite(value):
        return Unfit("is no finite number", "Leave it out, or give a number.")
    return _CONVERTERS[spec.kind](spec, value, folder)


def _inputs(sections: Mapping[str, Any], prefix: str, when: tuple[tuple[str, str], ...]
            ) -> Iterator[Input]:  # fmt: skip
    for section in ("required", "optional"):
        for name, raw in (sections.get(section) or {}).items():
            spec = spec_of(raw)
            settings = raw[1] if isinstance(raw, (list, tuple)) and len(raw) > 1 else {}
            settings = settings if isinstance(settings, Mapping) else {}
            yield Input(prefix + name, spec, section == "required", when, settings.get("default"))
            if spec.kind == DYNAMIC:
                for option in settings.get("options", ()):
                    deeper = (*when, (prefix + name, option["key"]))
                    yield from _inputs(option.get("inputs") or {}, f"{prefix}{name}.", deeper)


def _whole(spec: Spec, value: Any, _: Path) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if not _WHOLE.fullmatch(text):
            return Unfit("is no whole number", f"It takes {_range(spec)}.")
        digits = text.partition(".")[0]
        # Of more digits than any input takes Python makes no number.
        found = int(digits) if len(digits) < _DIGITS else 10**_DIGITS
        return _within(spec, -found if digits[0] == "-" and found > 0 else found)
    if isinstance(value, bool) or value != int(value):
        return Unfit("is no whole number", f"It takes {_range(spec)}.")
    if isinstance(value, float) and abs(value) >= _EXACT:
        return Unfit("is a rounded number", "Write large numbers as integers or as text.")
    return _within(spec, int(value))


def _decimal(spec: Spec, value: Any, _: Path) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            dotted = text.replace(",", ".", 1)
            right = f"Write {dotted}." if _NUMBER.fullmatch(dotted) else f"It takes {_range(spec)}."
            return Unfit("is no number", right)
        value = text
    elif isinstance(value, bool):
        return Unfit("is no number", f"It takes {_range(spec)}.")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        return Unfit("is no finite number", f"It takes {_range(spec)}.")
    return _within(spec, found)


def _truth(spec: Spec, value: Any, _: Path) -> Any:
    text = str(int(value)) if isinstance(value, (int, float)) and value in (0, 1) else value
    found = TRUTH.get(text.strip().lower()) if isinstance(text, str) else None
    return Unfit("is neither true nor false", "Write true or false.") if found is None else found


def _string(spec: Spec, value: Any, _: Path) -> Any:
    return as_text(value)


def _option(spec: Spec, value: Any, _: Path) -> Any:
    text = as_text(value)
    if spec.options is None:
        return text
    found = _find_option(spec.options, text)
    if found is not None:
        return found
    if spec.kind == COMBO and ("*" in text or "?" in text):
        return _matching(spec.options, text)
    return Unfit("is none of its options", partial(_options_in_words, spec.options, text))


def _picture(spec: Spec, value: Any, folder: Path) -> Any:
    text = as_text(value)
    listed = _find_option(spec.options or {}, text)
    path = os.path.abspath(os.path.join(folder, text))
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        if listed is not None:
            return listed
        if found is not None:
            return Unfit("is a folder or no plain file", "Name a picture.")
        return Unfit("is a picture that is not there", f"No such file: {path}")
    if os.path.splitext(path)[1].lower() not in PICTURES:
        return Unfit("is no picture", f"It takes {' '.join(PICTURES)}.")
    return Picture(path, found.st_size, found.st_mtime_ns)


def _no_value(spec: Spec, value: Any, _: Path) -> Any:
    return Unfit("cannot be set: the input takes a link", "Set an input of the node that feeds it.")


_CONVERTERS = {
    "INT": _whole, "FLOAT": _decimal, "BOOLEAN": _truth, "STRING": _string,
    COMBO: _option, DYNAMIC: _option, PICTURE: _picture, SOCKET: _no_value,
}  # fmt: skip


def _within(spec: Spec, value: float) -> Any:
    if spec.low is not None and value < spec.low:
        return Unfit(f"is below {spec.low:,}", f"It takes {_range(spec)}.")
    if spec.high is not None and value > spec.high:
        return Unfit(f"is above {spec.high:,}", f"It takes {_range(spec)}.")
    return value


def _range(spec: Spec) -> str:
    kind = "whole numbers" if spec.kind == "INT" else "numbers"
    low, high = (f"{limit:,}" if limit is not None else "" for limit in (spec.low, spec.high))
    if low and high:
        return f"{kind} from {low} to {high}"
    return f"{kind} from {low} up" if low else f"{kind} up to {high}" if high else kind


def as_text(value: Any) -> str:
    """As a table would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value}"


def _by_text(options: Sequence[Any]) -> dict[str, Any]:
    """Each option by its text, and by that with the other system's slash where no other has it."""
    found: dict[str, Any] = {}
    for option in options:
        found.setdefault(as_text(option), option)
    for text, option in list(found.items()):
        found.setdefault(text.replace("\\", "/"), option)
    return found


def _find_option(options: Mapping[str, Any], text: str) -> Any:
    if text in options:
        return options[text]
    return options.get(text.strip().replace("\\", "/"))


def _matching(options: Mapping[str, Any], pattern: str) -> Several | Unfit:
    """Where files match, files alone: the others are names of methods, or ask for a choice."""
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    wanted = re.compile("".join(parts), re.DOTALL)
    matches = [option for text, option in options.items() if wanted.fullmatch(text)]
    files = [option for option in matches if _FILE.fullmatch(as_text(option))]
    if not matches:
        remedy = partial(_options_in_words, options, pattern)
        return Unfit("matches none of its options", remedy)
    return Several(tuple(dict.fromkeys(files or matches)))


def _options_in_words(options: Mapping[str, Any], text: str) -> str:
    texts = list(dict.fromkeys(map(as_text, options.values())))
    if not texts:
        return "The server has none to choose from: put the file into its folder."
    near = get_close_matches(text, texts, 3, 0.5)
    if near:
        return f"Near it: {named([repr(one) for one in near])}."
    return f"It takes {named([repr(one) for one in texts], 6)}."

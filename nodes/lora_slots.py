"""The slots of the LoRA Stack node: their inputs, their checks, and the entries they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..lora_loader.sources import (
    EXTENSION,
    InstalledSource,
    Source,
    SourceError,
    parse_hub,
    parse_url,
    resolve_installed,
)
from ..lora_loader.stack import MAX_LORAS, LoraEntry

NONE, INSTALLED, HUB, URL = KINDS = ("none", "installed", "hugging face", "url")
SLOTS = tuple(f"lora_{number}" for number in range(1, MAX_LORAS + 1))
MAX_SCALE = 4.0

Slot = Mapping[str, Any]
LoraStackType = io.Custom("LORA_STACK")


def slot_input(name: str) -> io.DynamicCombo.Input:
    """A slot: its kind, and the inputs of that kind."""
    where = {
        INSTALLED: io.Combo.Input(
            "file",
            options=installed_names(),
            tooltip="A .safetensors file of ComfyUI's loras folders. Type to search.",
        ),
        HUB: io.String.Input(
            "repo",
            default="",
            placeholder="owner/repo",
            tooltip=(
                "owner/repo, owner/repo:file.safetensors, owner/repo@revision:file.safetensors, or "
                "the address of a file on huggingface.co. Private repos use HF_TOKEN."
            ),
        ),
        URL: io.String.Input(
            "url",
            default="",
            placeholder="https://",
            tooltip="An https link to a .safetensors file. Never put a token into it.",
        ),
    }
    options = [io.DynamicCombo.Option(NONE, [])]
    options += [io.DynamicCombo.Option(kind, [where[kind], *_common()]) for kind in KINDS[1:]]
    return io.DynamicCombo.Input(
        name,
        options=options,
        tooltip=f"Where LoRA {name[-1]} comes from; none leaves the slot empty.",
    )


def _common() -> list[io.Input]:
    return [
        io.Float.Input(
            "scale",
            default=1.0,
            min=0.0,
            max=MAX_SCALE,
            step=0.05,
            tooltip="Strength of the LoRA: 1 as trained, 0 as if it were not there.",
        ),
        io.Boolean.Input(
            "enabled",
            default=True,
            tooltip="Off: the LoRA is neither read nor fetched, and the slot keeps its settings.",
        ),
    ]


def installed_names() -> list[str]:
    """The .safetensors files of the loras folders; the host scans them anew where they changed."""
    names = folder_paths.get_filename_list("loras")
    return [name for name in names if name.lower().endswith(EXTENSION)]


def installed_path(name: str) -> Path:
    """The file of an installed LoRA; raises SourceError where there is none."""
    found = resolve_installed(name, installed_names())
    path = folder_paths.get_full_path("loras", found)
    if path is None:
        raise SourceError(f"'{name}' was in the loras folders and is gone. Press R to refresh.")
    return Path(path)


def check_slot(name: str, slot: Slot) -> None:
    """Refuse a slot that cannot work, at queue time; linked values come later and are left out.

    Raises SourceError that names the slot.
    """
    kind = slot.get(name)
    if kind not in KINDS:
        # The host leaves a slot of a kind that it does not know out of the inputs altogether.
        raise SourceError(
            f"{label(name)} is missing or of an unknown kind: set {name} to {', '.join(KINDS)}."
        )
    if kind == NONE or slot.get("enabled") is False or slot.get("scale") == 0:
        return
    if slot.get("scale") is not None:
        _check_scale(name, slot["scale"])
    if slot.get(_FIELDS[kind]) is not None:
        source = slot_source(name, slot)
        if isinstance(source, InstalledSource):
            _named(name, installed_path, source.name)


def entry_of(name: str, slot: Slot) -> LoraEntry | None:
    """The entry a slot makes; None where it is empty, disabled or at scale 0."""
    if slot.get(name) not in KINDS:
        check_slot(name, slot)
    scale = slot.get("scale", 1.0)
    if slot.get(name) == NONE or not slot.get("enabled", True) or scale == 0:
        return None
    _check_scale(name, scale)
    source = slot_source(name, slot)
    return LoraEntry(source.describe(), scale, scale, source, label(name))


_FIELDS = {INSTALLED: "file", HUB: "repo", URL: "url"}


def slot_source(name: str, slot: Slot) -> Source:
    """Where a slot's LoRA comes from, with an installed one under the host's own name for it."""
    kind = slot[name]
    value = slot.get(_FIELDS[kind])
    if kind == HUB:
        return _named(name, parse_hub, value)
    if kind == URL:
        return _named(name, parse_url, value)
    return InstalledSource(_named(name, resolve_installed, value, installed_names()))


def _named(name: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except SourceError as error:
        raise SourceError(f"{label(name)}: {error}") from None


def _check_scale(name: str, scale: float) -> None:
    if not (math.isfinite(scale) and 0 <= scale <= MAX_SCALE):
        raise SourceError(f"{label(name)}: scale is {scale:g}; it takes 0 to {MAX_SCALE:g}.")


def label(name: str) -> str:
    """A slot's name for messages: "LoRA slot 2"."""
    return f"LoRA slot {name[-1]}"


def fingerprint(slot: Slot, name: str) -> tuple[str, int, int]:
    """An installed file's name, size and time: a changed file is applied anew. Never raises."""
    if slot.get(name) != INSTALLED or not slot.get("enabled", True) or slot.get("scale") == 0:
        return ("", 0, 0)
    try:
        path = installed_path(slot.get("file") or "")
        stat = path.stat()
    except (SourceError, OSError):
        return (str(slot.get("file")), 0, 0)
    return (path.name, stat.st_size, stat.st_mtime_ns)

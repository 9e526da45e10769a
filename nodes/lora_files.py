"""A stack's entries -> files on this disk, and the node that fetches them for any pack's loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
from comfy import model_management
from comfy_api.latest import io

from ..lora_loader.sources import InstalledSource, SourceError, fetch, find_fetched
from ..lora_loader.stack import LoraEntry, as_entries, combine
from ..network.errors import NetworkError
from .category import CATEGORY
from .lora_slots import LoraStackType, installed_path
from .notice import SAID_AGAIN, show_text


def loras_roots() -> list[Path]:
    """The host's loras folders, in its own order."""
    return [Path(root) for root in folder_paths.get_folder_paths("loras")]


def locate_local(entry: LoraEntry) -> Path:
    """An entry's file where it is on this disk already; no request. Raises SourceError."""
    source = entry.source
    try:
        if isinstance(source, InstalledSource):
            return installed_path(source.name)
        found = find_fetched(source, loras_roots())
    except SourceError as error:
        raise SourceError(f"{entry.slot}: {error}") from None
    if found is None:
        raise SourceError(
            f"{entry.slot} is not on this disk yet: Download LoRAs or Apply FLUX.2 LoRA Stack "
            f"fetches it.\n{source.describe()}"
        )
    return found.path


def locator(show: Callable[[str], None]) -> Callable[[LoraEntry], Path]:
    """Finds an entry's file, fetching it where it has to; ``show`` takes a line while it does."""

    def locate(entry: LoraEntry) -> Path:
        if isinstance(entry.source, InstalledSource):
            return locate_local(entry)
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int | None) -> None:
            of = f" of {total / 1e6:.0f}" if total else ""
            show(f"{entry.slot}: {done / 1e6:.0f}{of} MB\n{entry.source.describe()}")
            if total:
                bar.update_absolute(done, total)

        try:
            return fetch(
                entry.source,
                loras_roots(),
                progress=progress,
                should_stop=model_management.throw_exception_if_processing_interrupted,
            ).path
        except NetworkError as error:
            raise SourceError(f"{entry.slot}: {error}") from error

    return locate


def installed_name(path: Path, roots: Sequence[Path]) -> str:
    """The name under which the host's loras folders list ``path``."""
    for root in roots:
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    raise SourceError(f"The file is in none of the loras folders.\n{path.name}")


class Flux2EditDownloadLoras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditDownloadLoras",
            display_name="Download LoRAs",
            category=CATEGORY,
            description=(
                "Puts every LoRA of a stack on disk under the loras folder, so that any pack's "
                "loader can use it. A file that is there is not fetched again."
            ),
            search_aliases=[
                "download lora", "hugging face", "civitai", "lora from url", "fetch lora",
                "lora downloader", "lora stack",
            ],
            inputs=[
                LoraStackType.Input(
                    "lora_stack",
                    tooltip="From FLUX.2 LoRA Stack; installed files pass through as they are.",
                )
            ],
            outputs=[
                LoraStackType.Output(
                    "lora_stack",
                    display_name="lora_stack",
                    tooltip="The same LoRAs under their names in the loras folders.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Nothing but the stack decides; a file that is on disk is never asked about again."""
        return os.fspath(loras_roots()[0]) if loras_roots() else ""

    @classmethod
    def execute(cls, lora_stack: object) -> io.NodeOutput:
        def show(text: str) -> None:
            show_text(text, cls.hidden.unique_id)

        locate, roots = locator(show), loras_roots()
        entries = combine(None, as_entries(lora_stack))
        files = [(entry, locate(entry)) for entry in entries]
        names = [installed_name(path, roots) for _, path in files]
        # The source stays: a fetched LoRA can still go to RunComfy by its address.
        fetched = [
            LoraEntry(name, entry.strength_model, entry.strength_clip, entry.source, entry.slot)
            for (entry, _), name in zip(files, names, strict=True)
        ]
        lines = [
            f"{name}, {path.stat().st_size / 1e6:.1f} MB"
            for (_, path), name in zip(files, names, strict=True)
        ]
        text = "\n".join(lines) or "the stack is empty"
        show(text)
        return io.NodeOutput(fetched, ui={"text": (text,)})

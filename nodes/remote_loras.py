"""LORA_STACK -> the LoRAs of a hosted request: where RunComfy's machines can fetch them."""

from __future__ import annotations

from urllib.parse import quote

from ..lora_loader.sources import (
    HubSource,
    Source,
    SourceError,
    UrlSource,
    origin_of,
    parse_hub,
)
from ..lora_loader.stack import as_entries
from ..remote.errors import InvalidInput
from ..remote.plan import RemoteLora
from .lora_stack import installed_path


def remote_loras(stack: object) -> list[RemoteLora]:
    """The enabled LoRAs of any pack's stack as the API takes them.

    Raises InvalidInput naming the slot of a file that lies on this machine alone: nothing is ever
    uploaded.
    """
    return [
        RemoteLora(_address(entry.source, entry.slot), entry.strength_model, entry.slot)
        for entry in as_entries(stack)
        if entry.strength_model != 0
    ]


def _address(source: Source, slot: str) -> str:
    if isinstance(source, UrlSource):
        return source.url
    if isinstance(source, HubSource):
        return hub_address(source, slot)
    known = _origin(source.name)
    if known is None:
        raise InvalidInput(
            f"{slot} is a file on this machine, which RunComfy cannot read, and nothing is ever "
            "uploaded. Use the kind 'hugging face' or 'url' for it, or sample on your own GPU.\n"
            f"{source.name}",
        )
    return _address(known, slot)


def hub_address(source: HubSource, slot: str) -> str:
    """``owner/repo``, or the address of the very file where one is named."""
    if source.file is None:
        if source.revision is None:
            return source.repo
        raise InvalidInput(
            f"{slot} names a revision but no file, which RunComfy has no way to say. Write "
            f"{source.repo}@{source.revision}:file.safetensors.",
        )
    revision = quote(source.revision or "main", safe="")
    return f"https://huggingface.co/{source.repo}/resolve/{revision}/{quote(source.file)}"


def _origin(name: str) -> Source | None:
    """Where an installed file was fetched from, by the note beside it; None if unknown."""
    try:
        source = origin_of(installed_path(name))
        # The note is a file like any other: what it names is checked as if it had been typed.
        return parse_hub(source.describe()) if isinstance(source, HubSource) else source
    except SourceError:
        return None

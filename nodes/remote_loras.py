"""LORA_STACK -> the LoRAs of a hosted request: where RunComfy's machines can fetch them."""

from contextlib import suppress

from ..lora_loader.sources import InstalledSource, Source, SourceError, UrlSource, origin_of
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
    """``owner/repo``, or the address of the very file where one is named."""
    known = None if isinstance(source, InstalledSource) else source
    if isinstance(source, InstalledSource):
        with suppress(SourceError):
            known = origin_of(installed_path(source.name))
    if known is None:
        raise InvalidInput(
            f"{slot} is a file on this machine, which RunComfy cannot read, and nothing is ever "
            "uploaded. Use the kind 'hugging face' or 'url' for it, or sample on your own GPU.\n"
            f"{source.describe()}",
        )
    if isinstance(known, UrlSource):
        return known.url
    if known.file is not None:
        return known.address()
    if known.revision is None:
        return known.repo
    raise InvalidInput(
        f"{slot} names a revision but no file, which RunComfy has no way to say. Write "
        f"{known.repo}@{known.revision}:file.safetensors.",
    )

"""LORA_STACK -> the LoRAs of a hosted request: where RunComfy's machines can fetch them."""

from collections.abc import Callable
from contextlib import suppress

from ..lora_loader.sources import (
    Access,
    InstalledSource,
    Site,
    Source,
    SourceError,
    origin_of,
    site_for_others,
)
from ..lora_loader.sources.elsewhere import looked_at, named, within
from ..lora_loader.stack import as_entries
from ..network.errors import NetworkError
from ..remote.errors import InvalidInput
from ..remote.plan import RemoteLora
from .lora_stack import installed_path

SECONDS = 10.0
"""For all that is asked about all LoRAs of a run."""


def remote_loras(
    stack: object,
    *,
    access: Access | None = None,
    should_stop: Callable[[], None] = lambda: None,
) -> list[RemoteLora]:
    """The enabled LoRAs of any pack's stack as the API takes them.

    A page is sent as its file's address, a link with a secret not at all, and each address is asked
    for once, without a token. For a worker thread. access: the way out, by default the real one.
    should_stop: raises to stop.

    Raises InvalidInput naming the slot of what RunComfy surely cannot fetch: a file that lies on
    this machine alone (nothing is ever uploaded), a private repository, a login, a web page.
    """
    access, look = access or Access(), within(should_stop, SECONDS)
    entries = [entry for entry in as_entries(stack) if entry.strength_model != 0]
    known: list[tuple[Site, str]] = []
    loras = []
    # All addresses first: a LoRA without one ends the run, one that was not looked at does not.
    for entry in entries:
        try:
            site = site_for_others(_source(entry.source, entry.slot), look, access)
            known.append((site, named(site, access.env)))
        except NetworkError as error:
            raise InvalidInput(f"{entry.slot}: {error}") from error
    for entry, (site, address) in zip(entries, known, strict=True):
        try:
            notice = looked_at(site, address)
        except NetworkError as error:
            raise InvalidInput(f"{entry.slot}: {error}") from error
        said = f"{entry.slot}: {notice}." if notice else ""
        loras.append(RemoteLora(address, entry.strength_model, entry.slot, said))
    return loras


def _source(source: Source, slot: str) -> Source:
    """``source``, or where the installed file that it names was fetched from."""
    if not isinstance(source, InstalledSource):
        return source
    with suppress(SourceError):
        if (known := origin_of(installed_path(source.name))) is not None:
            return known
    raise InvalidInput(
        f"{slot} is a file on this machine, which RunComfy cannot read, and nothing is ever "
        "uploaded. Use the kind 'hugging face' or 'url' for it, or sample on your own GPU.\n"
        f"{source.describe()}",
    )

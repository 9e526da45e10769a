"""LORA_STACK -> the LoRAs of a hosted request: where RunComfy's machines can fetch them.

And what else they would be told to fetch, the pictures on the web, held to the same rule.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from ..lora_loader.sources import (
    Access,
    FetchError,
    InstalledSource,
    Site,
    Source,
    SourceError,
    origin_of,
    site_for_others,
)
from ..lora_loader.sources.elsewhere import looked_at, named, refuse_secret, within
from ..lora_loader.stack import LoraEntry, as_entries
from ..network.errors import NetworkError
from ..remote.errors import InvalidInput
from ..remote.plan import RemoteLora, image_addresses
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
            site = site_for_others(_source(entry), look, access)
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


def check_image_urls(text: str, env: Mapping[str, str]) -> None:
    """Raise InvalidInput for an address of a picture that carries a secret, as for a LoRA's."""
    for number, address in enumerate(image_addresses(text), start=1):
        try:
            refuse_secret(address, env)
        except FetchError as error:
            raise InvalidInput(
                f"image_urls, address {number}: {error} Or load the picture with Load Image and "
                "connect it to image_1, which sends the picture and no link."
            ) from None


def _source(entry: LoraEntry) -> Source:
    """Its source, or where the installed file that it names was fetched from."""
    if entry.modifiers:
        what = ", ".join(one.describe() for one in entry.modifiers)
        raise InvalidInput(
            f"{entry.slot} has more than a scale ({what}), and RunComfy takes a scale alone. Take "
            "FLUX.2 LoRA Schedule and FLUX.2 LoRA Region out of its stack, or sample on your own "
            "GPU."
        )
    source = entry.source
    if not isinstance(source, InstalledSource):
        return source
    with suppress(SourceError):
        if (known := origin_of(installed_path(source.name))) is not None:
            return known
    raise InvalidInput(
        f"{entry.slot} is a file on this machine, which RunComfy cannot read, and nothing is ever "
        "uploaded (a path on theirs is not sent either). Use the kind 'hugging face' or 'url' for "
        "it, or sample on your own GPU.\n"
        f"{source.describe()}",
    )

"""Getting a LoRA: an installed name, a hub repository, Civitai or a link -> a verified file.

What the user wrote is a :class:`Source`. An installed one is a name of the host's own list
(:func:`resolve_installed`); the others have a :class:`Site`, which says what file is meant and what
refusals mean. The file comes into the :class:`Library` once, and is found there from then on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from ...network.address import AddressPolicy
from ...network.download import Wanted, download
from ...network.errors import NetworkError, Occupied
from ...network.files import write_atomically
from ..reading.file import LoraFileError, read_header
from ..reading.scaling import CONFIG_NAME
from .civitai import ORIGINS, Civitai
from .hub import ENDPOINT_VARIABLE, Hub
from .installed import resolve_installed
from .library import Fetched, Library, add_asks, origin_of
from .link import PlainLink
from .site import Access, FetchError, RemoteFile, Site
from .source import (
    EXTENSION,
    HUB_HOSTS,
    HubSource,
    InstalledSource,
    Source,
    SourceError,
    UrlSource,
    parse_hub,
    parse_url,
)

__all__ = [
    "EXTENSION", "SITES", "Access", "FetchError", "Fetched", "HubSource", "InstalledSource",
    "Library", "Site", "Source", "SourceError", "UrlSource", "fetch", "find_fetched", "origin_of",
    "parse_hub", "parse_url", "resolve_installed",
]  # fmt: skip

logger = logging.getLogger(__name__)

SITES: Mapping[str, Callable[[UrlSource, Access], Site | None]] = {
    **dict.fromkeys(HUB_HOSTS, Hub.behind),
    **dict.fromkeys(ORIGINS, Civitai.behind),
}
"""The hosts whose links are more than plain ones. A new site is one module and one entry here."""

_MAX_CONFIG = 1 << 20
_PLACES = 3  # tries to find a free name


def fetch(
    source: Source,
    roots: Sequence[Path],
    *,
    progress: Callable[[int, int | None], None],
    should_stop: Callable[[], None],
    access: Access | None = None,
) -> Fetched:
    """The file that ``source`` (of the hub or a link) means, under the first writable root.

    A file that is here is used without a request, pinned to a revision or not.

    roots: the host's loras folders. progress: bytes done and in all, while bytes come.
    should_stop: raises to stop, at least every 0.1 s. access: the way out, by default the real one.

    Raises FetchError and NetworkError (both say what to do), and what ``should_stop`` raises.
    """
    access = _until(should_stop, access or Access())
    site, library = _site_of(source, access), Library(roots)
    here = library.find(site)
    if here is not None:
        return here
    got = _obtain(site, site.resolve(), library, progress)
    if got.fetched:
        logger.info(
            "Fetched %s (%.1f MB); all fetched LoRAs take %.1f GB.",
            source.describe(),
            got.size / 1e6,
            library.taken() / 1e9,
        )
    return got


def find_fetched(
    source: Source, roots: Sequence[Path], *, access: Access | None = None
) -> Fetched | None:
    """The file that ``source`` means if it is here already; makes no request."""
    return Library(roots).find(_site_of(source, access or Access()))


def _until(should_stop: Callable[[], None], access: Access) -> Access:
    try:
        policy = access.policy or AddressPolicy.from_environment(access.env)
    except ValueError as error:
        raise FetchError(f"The environment is set up wrongly: {error}.") from None
    return replace(access, client=replace(access.client, policy=policy, should_stop=should_stop))


def _site_of(source: Source, access: Access) -> Site:
    if isinstance(source, HubSource):
        return Hub.of(source, access)
    if not isinstance(source, UrlSource):
        raise FetchError(f"An installed file is not fetched.\n{source.describe()}")
    host = urlsplit(source.url).netloc.lower()
    mirror = urlsplit(access.env.get(ENDPOINT_VARIABLE) or "").netloc.lower()
    behind = Hub.behind if host == mirror else SITES.get(host.removesuffix(":443"))
    site = behind(source, access) if behind is not None else None
    return site or PlainLink.of(source, access)


def _obtain(
    site: Site, file: RemoteFile, library: Library, progress: Callable[[int, int | None], None]
) -> Fetched:
    """``file`` on this disk, in a free place."""
    for _ in range(_PLACES):
        target = library.place(site.folder, file)
        wanted = Wanted(
            url=file.url,
            target=target,
            key=file.key,
            size=file.size,
            sha256=file.sha256,
            origin={
                **file.note,
                "asks": sorted({*file.asks}),
                "revision": file.revision,
                "trigger_words": file.trigger_words,
            },
            verify=_verify,
            credentials=file.credentials,
        )
        try:
            if file.config_url is not None:
                # Before the file: alpha may stand only there.
                config = site.access.get_bytes(file.config_url, _MAX_CONFIG, file.credentials)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target.with_name(CONFIG_NAME), config)
            got = download(wanted, site.access.client, progress)
        except Occupied:
            continue
        except NetworkError as error:
            raise site.explain(error, file.credentials) from error
        except OSError as error:
            raise FetchError(
                f"The file cannot be written ({error.strerror or error}).\n{target}"
            ) from error
        if not got.fetched:
            add_asks(target, file.asks, file.revision)
        return Fetched(target, got.size, got.sha256, file.revision, got.fetched)
    raise FetchError(f"No free name for the file in {target.parent}.")


def _verify(path: Path) -> None:
    try:
        read_header(path)
    except LoraFileError as error:
        raise FetchError(f"What arrived is not a usable LoRA. {error}") from error

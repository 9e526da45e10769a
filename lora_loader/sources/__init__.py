"""Getting a LoRA: an installed name, a hub repository, Civitai or a link -> a verified file.

What the user wrote is a :class:`Source`. An installed one is a name of the host's own list
(:func:`resolve_installed`); the others have a :class:`Site`, which says what file is meant and what
refusals mean. The file comes into the :class:`Library` once, and is found there from then on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...network.address import AddressPolicy
from ...network.download import download
from ...network.errors import NetworkError, Occupied
from ...network.files import Fetched, write_atomically
from ..reading.file import LoraFileError, read_header
from ..reading.scaling import CONFIG_NAME
from .civitai import ORIGINS, Civitai
from .elsewhere import TOKENS
from .hub import ENDPOINT_VARIABLE, Hub
from .library import Library, add_asks, origin_of
from .link import PlainLink
from .site import Access, FetchError, Site
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
    resolve_installed,
)

__all__ = [
    "EXTENSION", "SITES", "Access", "FetchError", "Fetched", "HubSource", "InstalledSource",
    "Site", "Source", "SourceError", "UrlSource", "fetch", "find_fetched", "origin_of", "parse_hub",
    "parse_url", "resolve_installed", "site_for_others",
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
    site, library = _site_of(source, _opened(access or Access(), should_stop)), Library(roots)
    got = library.find(site) or _obtain(site, library, progress)
    if got.fetched:
        logger.info("Fetched %s (%.1f MB).", source.describe(), got.size / 1e6)
    return got


def find_fetched(
    source: Source, roots: Sequence[Path], *, access: Access | None = None
) -> Fetched | None:
    """The file that ``source`` means if it is here already; makes no request."""
    return Library(roots).find(_site_of(source, access or Access()))


def site_for_others(
    source: Source, should_stop: Callable[[], None], access: Access | None = None
) -> Site:
    """Whom somebody without any of your tokens asks for ``source``; his patience is short.

    should_stop: raises to stop. access: the way out, by default the real one; its tokens stay here.

    Raises FetchError.
    """
    access = access or Access()
    env = {name: value for name, value in access.env.items() if name not in TOKENS}
    way = _opened(replace(access, env=env, login=lambda: None), should_stop)
    return _site_of(source, replace(way, client=way.client.within(connect_s=3.0, idle_s=5.0)))


def _opened(access: Access, should_stop: Callable[[], None]) -> Access:
    """``access`` with what the operator set for its way out."""
    try:
        policy = access.policy or AddressPolicy.from_environment(access.env)
        limits = access.client.limits.told_by(access.env)
    except ValueError as error:
        raise FetchError(f"The environment is set up wrongly: {error}.") from None
    client = replace(access.client, policy=policy, limits=limits, should_stop=should_stop)
    return replace(access, client=client)


def _site_of(source: Source, access: Access) -> Site:
    try:
        mirror = urlsplit(access.env.get(ENDPOINT_VARIABLE) or "").netloc.lower()
    except ValueError:  # whose text would show all of it
        raise FetchError(f"{ENDPOINT_VARIABLE} must be an origin: https://host.") from None
    if isinstance(source, HubSource):
        return Hub.of(source, access)
    if not isinstance(source, UrlSource):
        raise FetchError(f"An installed file is not fetched.\n{source.describe()}")
    host = urlsplit(source.url).netloc.lower()
    behind = Hub.behind if host == mirror else SITES.get(host.removesuffix(":443"))
    site = behind(source, access) if behind is not None else None
    return site or PlainLink.of(source, access)


def _obtain(site: Site, library: Library, progress: Callable[[int, int | None], None]) -> Fetched:
    """The file of ``site`` on this disk, in a free place."""
    wanted, config_url = site.resolve()
    origin: dict[str, Any] = {"revision": None, "trigger_words": [], **wanted.origin}
    home = library.home()
    for _ in range(_PLACES):
        target = library.place(home / site.folder, wanted)
        here = replace(wanted, target=target, origin=origin, verify=read_header, home=home)
        try:
            if config_url is not None:
                # Before the file: alpha may stand only there.
                config = site.access.get_bytes(config_url, _MAX_CONFIG, wanted.credentials)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target.with_name(CONFIG_NAME), config)
            got = download(here, site.access.client, progress)
        except Occupied:
            continue
        except NetworkError as error:
            raise site.explain(error, wanted.credentials) from error
        except LoraFileError as error:
            raise FetchError(f"What arrived is not a usable LoRA. {error}") from error
        except OSError as error:
            raise FetchError(
                f"The file cannot be written ({error.strerror or error}).\n{target}"
            ) from error
        if not got.fetched:
            add_asks(target, origin)
        return replace(got, revision=origin["revision"])
    raise FetchError(f"No free name for the file in {target.parent}.")

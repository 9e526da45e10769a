"""A LoRA's source -> a verified file under the loras folders, fetched only when it is not there."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ...network.connection import Transport
from ...network.download import Wanted, download
from ...network.errors import NetworkError, Occupied
from ...network.files import Downloaded, write_atomically
from ..reading.header import LoraFileError, read_header
from ..reading.scaling import CONFIG_NAME
from . import civitai, hub, link
from .access import DEFAULT_ENDPOINT, Access, FetchError, stored_login
from .library import FOLDER, Fetched, Shelf, add_asks
from .offer import Offer
from .source import HubSource, Source, UrlSource

logger = logging.getLogger(__name__)

_MAX_CONFIG = 1 << 20
_PLACES = 3  # tries to find a free name


def fetch(
    source: Source,
    roots: Sequence[Path],
    *,
    progress: Callable[[int, int | None], None],
    should_stop: Callable[[], None],
    policy: AddressPolicy | None = None,
    env: Mapping[str, str] = os.environ,
    endpoint: str | None = None,
    max_bytes: int = Limits.max_bytes,
    transport: Transport | None = None,
    login: Callable[[], str | None] = stored_login,
    civitai_origins: Mapping[str, str] = civitai.ORIGINS,
    idle_timeout: float = 30.0,
    backoff: float = 1.0,
) -> Fetched:
    """The file that ``source`` (of the hub or a link) means, under the first writable root.

    A file that is here is used without a request, pinned to a revision or not.

    roots: the host's loras folders. progress: bytes done and in all, while bytes come.
    should_stop: raises to stop, at least every 0.1 s. policy: by default https to public
    addresses, with the proxy that ``env`` may name. env: tokens and HF_HUB_OFFLINE come from it;
    login: the hub's token where it names none. endpoint: the hub, else HF_ENDPOINT or
    huggingface.co. civitai_origins, transport, idle_timeout, backoff: for tests.

    Raises FetchError and NetworkError (both say what to do), and what ``should_stop`` raises.
    """
    try:
        policy = AddressPolicy.from_environment(env) if policy is None else policy
    except ValueError as error:
        raise FetchError(f"The environment is set up wrongly: {error}.") from None
    limits = Limits(max_bytes, idle_s=idle_timeout, backoff_s=backoff)
    client = HttpClient(policy, limits, should_stop, transport or Transport())
    named = (endpoint or env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    access = Access(client, env, named, login)
    shelf = Shelf(roots)
    question = _question(source, named, civitai_origins)
    here = _find(question, shelf)
    if here is not None:
        return here
    if isinstance(question, HubSource) and access.offline:
        raise FetchError(
            "HF_HUB_OFFLINE is set and this LoRA is not on disk. Unset it, or put the file into "
            f"{FOLDER}/{hub.folder_of(question)} in a loras folder.\n{source.describe()}"
        )
    offer = _resolve(question, access)
    got = _obtain(offer, shelf, access, progress)
    add_asks(got.path, offer.asks, offer.revision)
    if got.fetched:
        logger.info(
            "Fetched %s (%.1f MB); all fetched LoRAs take %.1f GB.",
            source.describe(),
            got.size / 1e6,
            shelf.taken() / 1e9,
        )
    return Fetched(got.path, got.size, got.sha256, offer.revision, got.fetched)


def find_fetched(
    source: Source, roots: Sequence[Path], *, env: Mapping[str, str] = os.environ
) -> Fetched | None:
    """The file that ``source`` means if it is here already; makes no request."""
    endpoint = (env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    return _find(_question(source, endpoint, civitai.ORIGINS), Shelf(roots))


_Question = HubSource | civitai.CivitaiLink | UrlSource


def _question(source: Source, endpoint: str, origins: Mapping[str, str]) -> _Question:
    """Whom to ask: links to the hub and to Civitai have their own ways."""
    if isinstance(source, HubSource):
        return source
    if isinstance(source, UrlSource):
        hub_source = link.as_hub(source, endpoint)
        return hub_source or civitai.parse_link(source.url, origins) or source
    raise FetchError(f"An installed file is not fetched.\n{source.describe()}")


def _find(question: _Question, shelf: Shelf) -> Fetched | None:
    if isinstance(question, civitai.CivitaiLink):
        return shelf.find(question.folder, question.ask)
    if isinstance(question, UrlSource):
        return shelf.find(link.folder_of(question), link.ask_of(question))
    folder = hub.folder_of(question)
    here = shelf.find(folder, hub.ask_of(question))
    if here is None and question.revision is None:
        return shelf.lone_file(folder, question.file)
    return here


def _resolve(question: _Question, access: Access) -> Offer:
    if isinstance(question, civitai.CivitaiLink):
        return civitai.resolve(question, access)
    if isinstance(question, UrlSource):
        return link.resolve(question, access)
    return hub.resolve(question, access)


def _obtain(
    offer: Offer, shelf: Shelf, access: Access, progress: Callable[[int, int | None], None]
) -> Downloaded:
    """The offered file on disk, in a free place."""
    for _ in range(_PLACES):
        target = shelf.place(offer)
        wanted = Wanted(
            url=offer.url,
            target=target,
            key=offer.key,
            size=offer.size,
            sha256=offer.sha256,
            origin={
                **offer.source,
                "asks": offer.asks,
                "revision": offer.revision,
                "trigger_words": offer.trigger_words,
            },
            verify=_look,
            credentials=offer.credentials,
        )
        try:
            _fetch_config(offer, target, access)
            return download(wanted, access.client, progress)
        except Occupied:
            continue
        except NetworkError as error:
            raise offer.refused(error) from error
        except OSError as error:
            raise FetchError(
                f"The file cannot be written ({error.strerror or error}).\n{target}"
            ) from error
    raise FetchError(f"No free name for the file in {target.parent}.")


def _fetch_config(offer: Offer, target: Path, access: Access) -> None:
    """The file's adapter_config.json beside it, and before it: alpha may stand only there."""
    if offer.config_url is None:
        return
    body = access.get_bytes(offer.config_url, _MAX_CONFIG, offer.credentials)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target.with_name(CONFIG_NAME), body)


def _look(path: Path) -> None:
    try:
        read_header(path)
    except LoraFileError as error:
        raise FetchError(f"What arrived is not a usable LoRA. {error}") from error

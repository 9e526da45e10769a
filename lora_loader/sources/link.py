"""A plain https link to a file: its name, and the hub's own links told apart."""

from urllib.parse import urlsplit

from ...network.errors import HttpStatusError, NetworkError
from .access import Access, FetchError
from .file_names import EXTENSION, digest, name_of_header, name_of_link, safe_name
from .offer import Offer
from .source import HUB_HOSTS, HubSource, SourceError, UrlSource, parse_hub

_PEEK = 5 << 30  # the body is not read; only its declared length is held against this


def as_hub(source: UrlSource, endpoint: str) -> HubSource | None:
    """The hub's file behind a link to the hub (or its mirror); None for other links.

    Spaces, data sets and other pages of the hub are other links.
    """
    parts = urlsplit(source.url)
    if parts.netloc.lower() == urlsplit(endpoint).netloc.lower():
        parts = parts._replace(scheme="https", netloc="huggingface.co")
    if parts.netloc.lower() not in HUB_HOSTS:
        return None
    try:
        return parse_hub(parts.geturl())
    except SourceError:
        return None


def folder_of(source: UrlSource) -> str:
    """The folder of the link's host."""
    return safe_name((urlsplit(source.url).hostname or "").replace(":", "_"))


def ask_of(source: UrlSource) -> str:
    """The question that the link asks. Only its hash: the query may be a signature."""
    return f"url:{digest(source.url)}"


def resolve(source: UrlSource, access: Access) -> Offer:
    """The file behind the link; one request where only the server knows its name."""
    parts = urlsplit(source.url)
    name = name_of_link(parts.path)
    if name is None:
        name = _name_from_server(source, access) or f"lora-{digest(source.url)[:12]}{EXTENSION}"
    return Offer(
        folder=folder_of(source),
        parts=(name,),
        url=source.url,
        key=ask_of(source),
        asks=(ask_of(source),),
        # A query may be a signature: then what is left is a name for people, not an address.
        source={"shown" if parts.query else "url": source.describe()},
        refused=lambda error: _refused(error, source),
    )


def _name_from_server(source: UrlSource, access: Access) -> str | None:
    """The name in Content-Disposition. A GET that ends after its headers: HEAD is often refused."""
    with access.client.within(max_bytes=_PEEK).stream(source.url) as answer:
        if answer.status != 200:
            raise _refused(answer.status_error(), source)
        return name_of_header(answer.headers.get("Content-Disposition"))


def _refused(error: NetworkError, source: UrlSource) -> NetworkError:
    if isinstance(error, HttpStatusError) and error.status in (401, 403):
        return FetchError(
            f"{urlsplit(source.url).hostname} asks for a login, or the link has expired. Download "
            f"the file in a browser and put it into a loras folder.\n{source.describe()}"
        )
    return error

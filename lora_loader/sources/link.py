"""A plain https link to a file, whose name stands in its path or is known to the server alone."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...network.download import Wanted
from ...network.errors import HttpStatusError, NetworkError
from .library import safe_lora_name, safe_name
from .site import Access, Credentials, FetchError, Site
from .source import EXTENSION, UrlSource

_EXTENDED = re.compile(r"(?i)filename\*\s*=\s*utf-8''([^;\s]+)")
_PLAIN = re.compile(r'(?i)filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))')


@dataclass(frozen=True)
class PlainLink(Site):
    """A file at an https address; its folder is named after the host."""

    source: UrlSource

    @classmethod
    def of(cls, source: UrlSource, access: Access) -> "PlainLink":
        """Any link. ``ask`` holds its hash alone: the query may be a signature."""
        folder = safe_name(urlsplit(source.url).hostname or "")
        digest = hashlib.sha256(source.url.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(access, folder, f"url:{digest}", None, source)

    def resolve(self) -> tuple[Wanted, None]:
        """The file behind the link; one request where only the server knows its name."""
        source, parts = self.source, urlsplit(self.source.url)
        name = safe_lora_name(unquote(parts.path)) or self._name_from_server()
        target = Path(name or f"lora-{self.ask[4:16]}{EXTENSION}")
        # A query may be a signature: then what is left is a name for people, not an address.
        shown = {"shown" if parts.query else "url": source.describe()}
        return Wanted(source.url, target, self.ask, origin={"asks": [self.ask], **shown}), None

    def address(self) -> str:
        """The link itself."""
        return self.source.url

    def explain(self, error: NetworkError, credentials: Credentials) -> NetworkError:
        """A refusal as the login that it asks for; any other error as it is."""
        if not isinstance(error, HttpStatusError) or error.status not in (401, 403):
            return error
        return FetchError(
            f"{urlsplit(self.source.url).hostname} asks for a login, or the link has expired. "
            "Download the file in a browser and put it into a loras folder.\n"
            f"{self.source.describe()}"
        )

    def _name_from_server(self) -> str | None:
        """The name in Content-Disposition. A GET that ends after its headers: HEAD is refused."""
        with self.access.client.stream(self.source.url) as answer:
            if answer.status != 200:
                raise self.explain(answer.status_error(), {})
            return name_of_header(answer.headers.get("Content-Disposition"))


def name_of_header(disposition: str | None) -> str | None:
    """The LoRA's name in a Content-Disposition header (RFC 6266); None where it has none."""
    text = disposition or ""
    if match := _EXTENDED.search(text):
        return safe_lora_name(unquote(match[1]))
    if match := _PLAIN.search(text):
        return safe_lora_name(match[1] or match[2] or "")
    return None

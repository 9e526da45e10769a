"""The shape of a site that LoRAs are fetched from, and the way out that all sites share."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...network.address import AddressPolicy
from ...network.client import Credentials, HttpClient
from ...network.download import Wanted
from ...network.errors import NetworkError, WebPage

_MAX_JSON = 16 << 20
_ATTEMPTS = 3
SHA256 = "[0-9A-Fa-f]{64}"


class FetchError(NetworkError):
    """A LoRA that cannot be fetched; says why and what to do."""


def _stored_login() -> str | None:
    """The token of ``hf auth login``, as huggingface_hub finds it."""
    from huggingface_hub import get_token

    return get_token()


@dataclass(frozen=True)
class Access:
    """The way out: the HTTP client, and what the operator set. Tests put their own world here.

    env: tokens, HF_HUB_OFFLINE, HF_ENDPOINT and the proxy. policy: by default https to public
    addresses, with that proxy. login: the hub's token where ``env`` names none. civitai_origins:
    as ``civitai.ORIGINS``.
    """

    env: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)  # holds tokens
    policy: AddressPolicy | None = None
    client: HttpClient = field(default_factory=HttpClient)
    login: Callable[[], str | None] = _stored_login
    civitai_origins: Mapping[str, str] | None = None

    def get_bytes(self, url: str, max_bytes: int, credentials: Credentials) -> bytes:
        """The body of ``url``; passing faults are tried again. Raises NetworkError."""
        client = self.client.within(max_bytes=max_bytes, attempts=_ATTEMPTS)
        return client.get_bytes(url, credentials)

    def get_object(self, url: str, credentials: Credentials) -> dict[str, Any]:
        """The JSON object at ``url``; empty where it is another value. Raises NetworkError."""
        body = self.get_bytes(url, _MAX_JSON, credentials)
        try:
            value = json.loads(body.decode("utf-8"))
            return value if isinstance(value, dict) else {}
        except (ValueError, RecursionError):
            raise FetchError(
                f"{urlsplit(url).hostname} gave an answer that cannot be read. Try again later."
            ) from None


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list; none where ``value`` is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def matching(value: object, form: str = ".*") -> str | None:
    """``value`` where it is text of the ``form``, a regular expression; else None."""
    return value if isinstance(value, str) and re.fullmatch(form, value) else None


def bearer(url: str, token: str | None) -> Credentials:
    """``token`` for the very host of ``url`` (an https address) and no other; empty without one.

    Line ends that files and shells leave are taken off. What can be no token (it would break the
    header) counts as none, so that it is asked for anew.
    """
    token = "".join((token or "").split())
    if not token or not token.isascii() or not token.isprintable():
        return {}
    return {urlsplit(url).netloc: {"Authorization": f"Bearer {token}"}}


@dataclass(frozen=True)
class Site(ABC):
    """Whom to ask for one LoRA, and what to ask: the one shape of hub, Civitai and plain link.

    folder: where its files lie under ``flux2-lora-edit``, a safe name. ask: the question, as the
    notes of the files that answer it hold it; nothing secret. by_hand: which files of the folder
    (a glob) answer it too when somebody put them there, one alone and without a note.
    """

    access: Access
    folder: str
    ask: str
    by_hand: str | None

    @abstractmethod
    def resolve(self) -> tuple[Wanted, str | None]:
        """The file that is meant, by few requests, and the address of its own adapter_config.json.

        Its target is a path of safe names in ``folder``. Its origin holds the ``asks`` that it
        answers, and what names it elsewhere (repo, revision and file; or url). Raises NetworkError.
        """

    @abstractmethod
    def explain(self, error: NetworkError, credentials: Credentials) -> NetworkError:
        """``error`` of a request with ``credentials`` as this site means it."""

    @abstractmethod
    def address(self) -> str:
        """What the file is called elsewhere, where nobody has your tokens: the address of the file.

        The same for the same words, so that a request that was paid is known again; hence asked
        for only where the words do not say it. Raises NetworkError.
        """

    def look(self, address: str) -> bool:
        """Whether ``address`` is gated; a GET that ends after its headers. Raises NetworkError.

        The status of a refusal is raised as it is: what it means is up to who asks.
        """
        with self.access.client.stream(address) as answer:
            if answer.status != 200:
                raise answer.status_error()
            if (answer.headers.get("Content-Type") or "").lower().startswith("text/html"):
                raise WebPage("The link leads to a web page, not to a file.", address)
        return False

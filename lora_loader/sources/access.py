"""What a fetch needs from its surroundings: the network's terms and the operator's environment."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...network.client import HttpClient
from ...network.errors import NetworkError

_TRUE = ("1", "ON", "YES", "TRUE")
_MAX_JSON = 16 << 20
_ATTEMPTS = 3
DEFAULT_ENDPOINT = "https://huggingface.co"

Credentials = Mapping[str, Mapping[str, str]]


class FetchError(NetworkError):
    """A LoRA that cannot be fetched; says why and what to do."""


def stored_login() -> str | None:
    """The token of ``hf auth login``, as huggingface_hub finds it."""
    from huggingface_hub import get_token

    return get_token()


@dataclass(frozen=True)
class Access:
    """The client of all requests, and the environment that tokens and switches come from.

    login: the hub's token where the environment names none.
    """

    client: HttpClient
    env: Mapping[str, str] = field(repr=False)  # it holds tokens
    endpoint: str = DEFAULT_ENDPOINT
    login: Callable[[], str | None] = stored_login

    @property
    def offline(self) -> bool:
        value = self.env.get("HF_HUB_OFFLINE") or self.env.get("TRANSFORMERS_OFFLINE") or ""
        return value.upper() in _TRUE

    @property
    def hub_token(self) -> str | None:
        if self.env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
            return None
        named = self.env.get("HF_TOKEN") or self.env.get("HUGGING_FACE_HUB_TOKEN")
        return _clean(named or self.login())

    @property
    def civitai_token(self) -> str | None:
        return _clean(self.env.get("CIVITAI_API_TOKEN") or self.env.get("CIVITAI_TOKEN"))

    def get_bytes(self, url: str, max_bytes: int, credentials: Credentials) -> bytes:
        """The body of ``url``; passing faults are tried again. Raises NetworkError."""
        small = self.client.within(max_bytes=max_bytes, attempts=_ATTEMPTS)
        return small.get_bytes(url, credentials)

    def get_json(self, url: str, credentials: Credentials) -> Any:
        """The JSON at ``url``. Raises NetworkError."""
        body = self.get_bytes(url, _MAX_JSON, credentials)
        try:
            return json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            host = urlsplit(url).hostname
            raise FetchError(
                f"{host} gave an answer that cannot be read. Try again later."
            ) from None


def bearer(url: str, token: str | None) -> dict[str, dict[str, str]]:
    """``token`` for the very host of ``url`` (an https address) and no other."""
    return {} if token is None else {urlsplit(url).netloc: {"Authorization": f"Bearer {token}"}}


def _clean(token: str | None) -> str | None:
    """``token`` without the line ends that files and shells leave; None where nothing is left.

    What can be no token (it would break the header) is None too, so that it is asked for anew.
    """
    token = "".join((token or "").split())
    return token if token and token.isascii() and token.isprintable() else None

"""What a fetch needs from its surroundings: the network's terms and the operator's environment."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...network.errors import NetworkError
from ...network.order import Terms
from ...network.public_http import fetch_bytes

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
    """The terms of all requests, and the environment that tokens and switches come from.

    login: the hub's token where the environment names none.
    """

    terms: Terms
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
        terms = self.terms
        attempt = 1
        while True:
            try:
                return fetch_bytes(
                    url,
                    max_bytes=max_bytes,
                    policy=terms.policy,
                    credentials=credentials,
                    connect_timeout=terms.connect_timeout,
                    idle_timeout=terms.idle_timeout,
                    should_stop=terms.should_stop,
                    transport=terms.transport,
                )
            except NetworkError as error:
                if not error.retryable or attempt == _ATTEMPTS:
                    raise
            self._pause(terms.backoff * 2 ** (attempt - 1))
            attempt += 1

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

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.terms.should_stop()
            time.sleep(min(left, 0.1))


def bearer(url: str, token: str | None) -> dict[str, dict[str, str]]:
    """``token`` for the very host of ``url`` (an https address) and no other."""
    return {} if token is None else {urlsplit(url).netloc: {"Authorization": f"Bearer {token}"}}


def _clean(token: str | None) -> str | None:
    """``token`` without the line ends that files and shells leave; None where nothing is left.

    What can be no token (it would break the header) is None too, so that it is asked for anew.
    """
    token = "".join((token or "").split())
    return token if token and token.isascii() and token.isprintable() else None

"""What a server offers for a source: one file, and all that is known of it before it comes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...network.errors import NetworkError
from .access import Credentials


def unchanged(error: NetworkError) -> NetworkError:
    """The ``refused`` of a server whose errors need no further words."""
    return error


@dataclass(frozen=True)
class Offer:
    """One file to fetch.

    folder, parts: where it goes under ``flux2-lora-edit``, safe names all. key: names its content
    as well as it is known. asks: the questions it answers. source: fields of the note beside it
    (repo, revision, file; or url); nothing secret. config_url: its own adapter_config.json.
    refused: turns an error of the download into the server's meaning.
    """

    folder: str
    parts: tuple[str, ...]
    url: str = field(repr=False)  # a plain link's may be signed
    key: str
    asks: tuple[str, ...]
    source: Mapping[str, object]
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None
    trigger_words: tuple[str, ...] = ()
    credentials: Credentials = field(default_factory=dict, repr=False)
    config_url: str | None = None
    refused: Callable[[NetworkError], NetworkError] = unchanged

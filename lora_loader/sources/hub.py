"""Hugging Face: which file a repository means, at which commit, and what its refusals mean.

huggingface_hub gives the token of its login. Its HTTP client is not used: it cannot be stopped in
the middle, takes any redirect, and differs from version to version (requests, then httpx), while
the two requests that are needed go through ``network``.
"""

import glob
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ...network.download import Wanted
from ...network.errors import HttpStatusError, NetworkError
from ..reading.scaling import CONFIG_NAME, PEFT_NAME
from .library import FOLDER, safe_name
from .site import SHA256, Access, Credentials, FetchError, Site, bearer, matching, objects
from .source import EXTENSION, HUB, HubSource, SourceError, UrlSource, parse_hub

logger = logging.getLogger(__name__)

ENDPOINT_VARIABLE = "HF_ENDPOINT"
"""Names the origin of a mirror that takes the hub's place."""
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105
CANONICAL = "pytorch_lora_weights.safetensors"
"""The name that diffusers gives to a LoRA."""

_TRUE = ("1", "ON", "YES", "TRUE")
_GIT = "[0-9a-f]{40}"
_TEXT = r"[^\ud800-\udfff]+"  # JSON can hold half of a character, which no address can
_LISTED = 12


@dataclass(frozen=True)
class Hub(Site):
    """A file of a Hugging Face repository; its folder is ``<owner>--<repo>``."""

    source: HubSource

    @classmethod
    def behind(cls, link: UrlSource, access: Access) -> "Hub | None":
        """The file behind a link to the hub or its mirror.

        None for spaces, data sets and the other pages, which are plain links.
        """
        at_hub = urlsplit(link.url)._replace(netloc="huggingface.co")
        try:
            return cls.of(parse_hub(at_hub.geturl()), access)
        except SourceError:
            return None

    @classmethod
    def of(cls, source: HubSource, access: Access) -> "Hub":
        """``source`` as the hub is asked for it."""
        folder = "--".join(safe_name(part) for part in source.repo.split("/"))
        by_hand = glob.escape(source.file) if source.file else f"*{EXTENSION}"
        return cls(access, folder, _ask(source), None if source.revision else by_hand, source)

    @property
    def endpoint(self) -> str:
        """The origin of the hub, or of its mirror."""
        return (self.access.env.get(ENDPOINT_VARIABLE) or HUB).rstrip("/")

    @property
    def offline(self) -> bool:
        """Whether the operator wants the hub not to be asked."""
        env = self.access.env
        return (env.get("HF_HUB_OFFLINE") or env.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE

    def resolve(self) -> tuple[Wanted, str | None]:
        """The file that is meant, at the commit that the repository is at, by one request."""
        source = self.source
        if self.offline:
            raise FetchError(
                "HF_HUB_OFFLINE is set and this LoRA is not on disk. Unset it, or put the file "
                f"into {FOLDER}/{self.folder} in a loras folder.\n{source.describe()}"
            )
        answer, credentials = self._listing(self._login())
        commit = matching(answer.get("sha"), _GIT)
        if commit is None:
            raise FetchError(f"The hub does not say which commit {source.repo} is at. Try later.")
        files = _files(answer)
        file = _choose(list(files), source)
        sha256, size, blob = _content(files[file])
        config = _config_of(file, list(files))
        found = HubSource(source.repo, commit, file)
        asks = {self.ask, _ask(replace(source, file=file)), _ask(found)}
        wanted = Wanted(
            url=found.address(self.endpoint),
            target=Path(*(safe_name(part) or "_" for part in file.split("/"))),
            key=f"hub {source.repo} {file} {sha256 or blob or commit}",
            size=size,
            sha256=sha256,
            origin={**asdict(found), "asks": sorted(asks)},
            credentials=credentials,
        )
        return wanted, config and replace(found, file=config).address(self.endpoint)

    def address(self) -> str:
        """At the hub itself, for nobody else may know the mirror; ``owner/repo`` names no file.

        At the revision that is written, not the commit: that would be another address tomorrow.
        """
        source = self.source
        if source.revision is None and source.file is None:
            return source.repo
        if source.file is None:
            try:
                source = replace(source, file=str(self.resolve()[0].origin["file"]))
            except NetworkError as error:
                raise FetchError(
                    "It names a revision but no file, and which one it is could not be found out. "
                    f"Write {source.describe()}:file.safetensors.\n{error}"
                ) from error
        return source.address()

    def look(self, address: str) -> bool:
        """Whether the repository is gated, and that it has the file; nothing where offline."""
        if self.offline:
            return False
        try:
            if address.startswith(HUB):
                return super().look(self.endpoint + address.removeprefix(HUB))
            answer = self.access.get_object(self._question, {})
            _choose(list(_files(answer)), self.source)
            return bool(answer.get("gated"))
        except HttpStatusError as error:
            if self.endpoint == HUB or error.error_code == "GatedRepo":
                raise
            raise NetworkError(f"The mirror says HTTP {error.status}") from error

    def explain(self, error: NetworkError, credentials: Credentials) -> NetworkError:
        """The hub's refusal in words; what is none stays as it is.

        Empty ``credentials`` although there is a token: the hub has refused the token. A missing
        and a private repository look alike: 401 without a token, 404 with one.
        """
        if not isinstance(error, HttpStatusError):
            return error
        source, code = self.source, error.error_code
        page = f"{self.endpoint}/{source.repo}"
        if not error.url.startswith(f"{self.endpoint}/"):  # the storage, which knows no accounts
            said = f"The hub's storage does not give the file. {error}"
        elif code == "GatedRepo" or error.status in (401, 403):
            said = self._no_access(code == "GatedRepo", credentials, page)
        elif code == "RevisionNotFound":
            said = f"The repository has no branch, tag or commit '{source.revision}'. "
            said += f"See {page}/branches for those it has."
        elif code == "EntryNotFound":
            said = f"The repository has no such file. See {page}/tree/main."
        elif error.status == 404:
            said = f"There is no Hugging Face repository '{source.repo}'. Check the spelling."
            said += "" if credentials else " If it is private, set HF_TOKEN."
        else:
            said = f"Hugging Face: {error}"
        return FetchError(f"{said}\n{source.describe()}")

    def _no_access(self, gated: bool, credentials: Credentials, page: str) -> str:
        """A gated repository asks for a login (401), and then for its licence (403)."""
        if not credentials and self._login():
            return (
                "Hugging Face does not accept your token (expired, revoked or mistyped), and the "
                f"repository cannot be read without one. Make a new one at {TOKEN_PAGE} and set "
                "it as HF_TOKEN, or run 'hf auth login'; then restart ComfyUI."
            )
        if not credentials:
            missing = "There is no such repository, or it is private."
            if gated:
                missing = "The repository is gated: it wants a login and its licence accepted."
            return (
                f"{missing} Log in at {page}, accept what it asks for, make a token at "
                f"{TOKEN_PAGE} and set it as HF_TOKEN (or run 'hf auth login'); then restart "
                "ComfyUI."
            )
        if gated:
            return (
                "Your Hugging Face account has not been given access to this repository. Visit "
                f"{page}, accept its licence, wait if its authors approve by hand, and run again."
            )
        return (
            "Your Hugging Face token may not read this repository. Give it read access to gated "
            f"and private repositories at {TOKEN_PAGE}."
        )

    def _listing(self, credentials: Credentials) -> tuple[dict[str, Any], Credentials]:
        """The repository's files as the hub lists them, and the credentials it takes.

        A stale token makes the hub answer 401 even for public repositories (ComfyUI #7517): it is
        asked again without one.
        """
        try:
            return self.access.get_object(self._question, credentials), credentials
        except HttpStatusError as error:
            if not credentials or error.status != 401:
                raise self.explain(error, credentials) from error
        listing = self._listing({})
        repo = self.source.repo
        logger.warning("Hugging Face refused the token; %s is read without it.", repo)
        return listing

    @property
    def _question(self) -> str:
        revision = self.source.revision
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        return f"{self.endpoint}/api/models/{self.source.repo}{at}?blobs=true"

    def _login(self) -> Credentials:
        """The operator's token, by the rules of huggingface_hub."""
        env = self.access.env
        if env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
            return {}
        named, other = map(env.get, TOKEN_VARIABLES)
        return bearer(self.endpoint, named or other or self.access.login())


def _ask(source: HubSource) -> str:
    return f"hub:{source.repo}@{source.revision or 'main'}:{source.file or ''}"


def _files(listing: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of the hub's listing by their path."""
    return {
        name: entry
        for entry in objects(listing.get("siblings"))
        if (name := matching(entry.get("rfilename"), _TEXT))
    }


def _choose(files: Sequence[str], source: HubSource) -> str:
    """The file that ``source`` names, else the one LoRA of the repository, or diffusers' name."""
    loras = sorted(file for file in files if file.lower().endswith(EXTENSION))
    more = [f"... and {len(loras) - _LISTED} more"] if len(loras) > _LISTED else []
    listed = "\n".join([name[:120] for name in loras[:_LISTED]] + more)
    if source.file is not None:
        if source.file in files:
            return source.file
        has = f"It holds:\n{listed}" if loras else f"It holds no {EXTENSION} file."
        raise FetchError(f"{source.repo} has no file '{source.file}' at this revision. {has}")
    if len(loras) == 1:
        return loras[0]
    if CANONICAL in loras:
        return CANONICAL
    if not loras:
        raise FetchError(
            f"The repository holds no {EXTENSION} file; other formats are not read.\n"
            f"{source.describe()}"
        )
    raise FetchError(
        f"The repository holds {len(loras)} {EXTENSION} files. Write which one, as in "
        f"{source.describe()}:{loras[0]}\n{listed}"
    )


def _content(entry: dict[str, Any]) -> tuple[str | None, int | None, str | None]:
    """sha256, size and git id that the hub's listing gives for a file."""
    lfs = entry.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    size, blob = lfs.get("size", entry.get("size")), matching(entry.get("blobId"), _GIT)
    return (
        matching(lfs.get("sha256") or lfs.get("oid"), SHA256),
        size if isinstance(size, int) and size >= 0 else None,
        blob and f"git {blob}",
    )


def _config_of(file: str, files: Sequence[str]) -> str | None:
    """The adapter_config.json that surely belongs to ``file``: PEFT's own pair, or no doubt."""
    folder, slash, name = file.rpartition("/")
    config = f"{folder}{slash}{CONFIG_NAME}"
    beside = [other for other in files if other.rpartition("/")[0] == folder]
    loras = [other for other in beside if other.lower().endswith(EXTENSION)]
    own = name == PEFT_NAME or loras == [file]
    return config if own and config in beside else None

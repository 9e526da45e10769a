"""Hugging Face: which file a repository means, at which commit, and what its refusals mean.

huggingface_hub gives the token, the endpoint's ways and the address of a file. Its HTTP client is
not used: it cannot be stopped in the middle, takes any redirect, and differs from version to
version (requests, then httpx), while the two requests that are needed go through ``network``.
"""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from ...network.errors import HttpStatusError, NetworkError
from .access import Access, Credentials, FetchError, bearer
from .file_names import safe_name
from .hub_files import choose, config_of, content, no_such_file, siblings
from .offer import Offer
from .source import HubSource

logger = logging.getLogger(__name__)

TOKEN_PAGE = "https://huggingface.co/settings/tokens"  # noqa: S105
_COMMIT = re.compile(r"[0-9a-f]{40}")

_T = TypeVar("_T")


def folder_of(source: HubSource) -> str:
    """The repository's folder: ``<owner>--<repo>``."""
    return "--".join(safe_name(part) for part in source.repo.split("/"))


def ask_of(source: HubSource) -> str:
    """The question that ``source`` asks, for the notes of files that answer it."""
    return f"hub:{source.repo}@{source.revision or 'main'}:{source.file or ''}"


def resolve(source: HubSource, access: Access) -> Offer:
    """The file that ``source`` means, by one request. Raises FetchError and NetworkError."""
    url = f"{access.endpoint}/api/models/{source.repo}"
    if source.revision:
        url += f"/revision/{quote(source.revision, safe='')}"
    url += "?blobs=true"
    answer, credentials, token = _with_token(
        url, lambda given: access.get_json(url, given), source, access
    )
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise FetchError(f"The hub does not say which commit {source.repo} is at. Try later.")
    files = siblings(answer)
    file = source.file or choose(list(files), source)
    if file not in files:
        raise FetchError(no_such_file(file, list(files), source))
    sha256, size, blob = content(files[file])
    config = config_of(file, list(files))
    return Offer(
        folder=folder_of(source),
        parts=tuple(safe_name(part) or "_" for part in file.split("/")),
        url=_file_url(source.repo, file, commit, access),
        key=f"hub {source.repo} {file} {sha256 or blob or commit}",
        asks=(
            ask_of(source),
            ask_of(HubSource(source.repo, source.revision, file)),
            ask_of(HubSource(source.repo, commit, file)),
        ),
        source={"repo": source.repo, "revision": commit, "file": file},
        revision=commit,
        size=size,
        sha256=sha256,
        credentials=credentials,
        config_url=None if config is None else _file_url(source.repo, config, commit, access),
        refused=partial(_refused, source=source, token=token, endpoint=access.endpoint),
    )


def _refused(error: NetworkError, source: HubSource, token: str, endpoint: str) -> NetworkError:
    return explain(error, source, token, endpoint) if isinstance(error, HttpStatusError) else error


def explain(error: HttpStatusError, source: HubSource, token: str, endpoint: str) -> FetchError:
    """The hub's refusal in words. ``token``: "none", "sent" or "refused" (a stale one).

    The hub's codes: 401 GatedRepo asks for a login, 403 GatedRepo for the licence; a missing and a
    private repository look alike (401 without a token, 404 with one).
    """
    page = f"{endpoint}/{source.repo}"
    where = f"\n{source.describe()}"
    if not error.url.startswith(f"{endpoint}/"):  # the storage, which knows no accounts
        return FetchError(f"The hub's storage does not give the file. {error}{where}")
    if token == "refused" and error.status in (401, 403):  # noqa: S105
        return FetchError(
            "Hugging Face does not accept your token (expired, revoked or mistyped), and the "
            f"repository cannot be read without one. Make a new one at {TOKEN_PAGE} and set it as "
            f"HF_TOKEN, or run 'hf auth login'; then restart ComfyUI.{where}"
        )
    if error.error_code == "GatedRepo" or error.status in (401, 403):
        if token == "none":  # noqa: S105
            missing = (
                "The repository is gated: it wants a login and its licence accepted."
                if error.error_code == "GatedRepo"
                else "There is no such repository, or it is private."
            )
            return FetchError(
                f"{missing} Log in at {page}, accept what it asks for, make a token at "
                f"{TOKEN_PAGE} and set it as HF_TOKEN (or run 'hf auth login'); then restart "
                f"ComfyUI.{where}"
            )
        if error.error_code == "GatedRepo":
            return FetchError(
                "Your Hugging Face account has not been given access to this repository. Visit "
                f"{page}, accept its licence, wait if its authors approve by hand, and run "
                f"again.{where}"
            )
        return FetchError(
            "Your Hugging Face token may not read this repository. Give it read access to gated "
            f"and private repositories at {TOKEN_PAGE}.{where}"
        )
    if error.error_code == "RevisionNotFound":
        return FetchError(
            f"The repository has no branch, tag or commit '{source.revision}'. See "
            f"{page}/branches for those it has.{where}"
        )
    if error.error_code == "EntryNotFound":
        return FetchError(f"The repository has no such file. See {page}/tree/main.{where}")
    if error.status == 404:
        private = "" if token == "sent" else " If it is private, set HF_TOKEN."  # noqa: S105
        return FetchError(
            f"There is no Hugging Face repository '{source.repo}'. Check the spelling.{private}"
            f"{where}"
        )
    return FetchError(f"Hugging Face: {error}{where}")


def _with_token(
    url: str,
    call: Callable[[Credentials], _T],
    source: HubSource,
    access: Access,
) -> tuple[_T, Credentials, str]:
    """``call`` with the token; where the hub refuses the token, without one.

    A stale token makes the hub answer 401 even for public repositories (ComfyUI #7517).
    """
    token = access.hub_token
    state, given = "none" if token is None else "sent", bearer(url, token)
    try:
        return call(given), given, state
    except HttpStatusError as error:
        if token is None or error.status != 401:
            raise explain(error, source, state, access.endpoint) from error
    try:
        answer = call({})
    except HttpStatusError as error:
        raise explain(error, source, "refused", access.endpoint) from error
    logger.warning("Hugging Face refused the token; %s is read without it.", source.repo)
    return answer, {}, "refused"


def _file_url(repo: str, file: str, commit: str, access: Access) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, file, revision=commit, endpoint=access.endpoint)

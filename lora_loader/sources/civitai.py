"""Civitai: links to models and versions, and the file behind them.

developer.civitai.com: GET /api/v1/models/{id} and /api/v1/model-versions/{id} name the files with
their sha256; /api/download/models/{version}?fileId={id} redirects to the storage. civitai.com and
civitai.red show different models under one account, so a link stays on its own host;
civitai.green was an alias of civitai.com.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...network.errors import HttpStatusError, NetworkError, WebPage
from .access import Access, Credentials, FetchError, bearer
from .file_names import EXTENSION, safe_lora_name, safe_name
from .offer import Offer

# A link's host -> where it is asked for.
ORIGINS: Mapping[str, str] = {
    "civitai.com": "https://civitai.com",
    "www.civitai.com": "https://civitai.com",
    "civitai.green": "https://civitai.com",
    "civitai.red": "https://civitai.red",
    "www.civitai.red": "https://civitai.red",
}
_MODEL = re.compile(r"/models/([0-9]{1,18})(?:/[^/]*)?/?")
_VERSION = re.compile(
    r"(?:/api/download/models|/model-versions|/api/v1/model-versions)/([0-9]{1,18})/?"
)
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_MAX_WORDS = 50


@dataclass(frozen=True)
class CivitaiLink:
    """What a link names: a version, or the newest version of a model; and perhaps one file."""

    origin: str  # https://civitai.com
    model: str | None
    version: str | None
    file: str | None

    @property
    def folder(self) -> str:
        return safe_name(urlsplit(self.origin).hostname or "")

    @property
    def ask(self) -> str:
        what = f"version/{self.version}" if self.version else f"model/{self.model}"
        file = f"/file/{self.file}" if self.file else ""
        return f"civitai:{urlsplit(self.origin).netloc}/{what}{file}"


def parse_link(url: str, origins: Mapping[str, str] = ORIGINS) -> CivitaiLink | None:
    """``url`` as a Civitai link; None where it is none. ``origins`` as ORIGINS."""
    parts = urlsplit(url)
    origin = origins.get(parts.netloc.lower().removesuffix(":443"))
    if origin is None:
        return None
    query = parse_qs(parts.query)
    file = _number(query.get("fileId"))
    if match := _VERSION.fullmatch(parts.path):
        return CivitaiLink(origin, None, match[1], file)
    if match := _MODEL.fullmatch(parts.path):
        return CivitaiLink(origin, match[1], _number(query.get("modelVersionId")), file)
    return None


def resolve(link: CivitaiLink, access: Access) -> Offer:
    """The file that ``link`` means. Raises FetchError and NetworkError."""
    credentials = bearer(link.origin, access.civitai_token)
    refused = partial(_refused, link=link, access=access)
    try:
        version = link.version or _newest(link, access, credentials)
        answer = access.get_json(f"{link.origin}/api/v1/model-versions/{version}", credentials)
    except NetworkError as error:
        raise refused(error) from error
    entries = answer.get("files") if isinstance(answer, dict) else None
    entry = _choose(
        [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else [], link
    )
    file = str(entry["id"])
    name = safe_lora_name(str(entry.get("name"))) or f"civitai-{version}-{file}{EXTENSION}"
    hashes = entry.get("hashes")
    sha256 = hashes.get("SHA256") if isinstance(hashes, dict) else None
    sha256 = sha256.lower() if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
    words = answer.get("trainedWords")
    url = f"{link.origin}/api/download/models/{version}?fileId={file}"
    return Offer(
        folder=link.folder,
        parts=(name,),
        url=url,
        key=f"civitai {link.folder} {version} {file} {sha256}",
        asks=(link.ask, replace(link, version=version, file=file).ask),
        source={"url": url},
        sha256=sha256,
        trigger_words=tuple(
            word[:500]
            for word in (words if isinstance(words, list) else [])[:_MAX_WORDS]
            if isinstance(word, str)
        ),
        credentials=credentials,
        refused=refused,
    )


def _refused(error: NetworkError, link: CivitaiLink, access: Access) -> NetworkError:
    """Civitai's refusal in words."""
    page = f"model-versions/{link.version}" if link.version else f"models/{link.model}"
    where = f"\n{link.origin}/{page}"
    # Without a login, a download may lead to the login page instead of a status.
    wants_login = isinstance(error, WebPage)
    if isinstance(error, HttpStatusError):
        wants_login = error.status in (401, 403)
        if error.status == 404:
            return FetchError(
                "Civitai has no such model or version; it may have been removed, or be shown only "
                f"on the sister site (civitai.com, civitai.red).{where}"
            )
    if not wants_login:
        return error
    if access.civitai_token is None:
        return FetchError(
            "Civitai asks for a login. Make an API key in your Civitai account settings, set it as "
            f"CIVITAI_API_TOKEN in the environment, and restart ComfyUI.{where}"
        )
    return FetchError(
        "Civitai refuses your API key (CIVITAI_API_TOKEN): it is wrong, or this model is in early "
        f"access or withdrawn. Open its page while logged in to see which.{where}"
    )


def _newest(link: CivitaiLink, access: Access, credentials: Credentials) -> str:
    answer = access.get_json(f"{link.origin}/api/v1/models/{link.model}", credentials)
    versions = answer.get("modelVersions") if isinstance(answer, dict) else None
    first = versions[0] if isinstance(versions, list) and versions else None
    if not isinstance(first, dict) or not _is_id(first.get("id")):
        raise FetchError(
            f"The Civitai model has no version to download.\n{link.origin}/models/{link.model}"
        )
    return str(first["id"])


def _choose(entries: list[dict[str, Any]], link: CivitaiLink) -> dict[str, Any]:
    """The file that the link names, else the version's primary or only .safetensors file."""
    usable = [
        entry
        for entry in entries
        if _is_id(entry.get("id")) and str(entry.get("name")).lower().endswith(EXTENSION)
    ]
    if link.file is not None:
        named = [e for e in usable if str(e["id"]) == link.file]
        if named:
            return named[0]
    else:
        models = [e for e in usable if e.get("type") == "Model"] or usable
        primary = [e for e in models if e.get("primary") is True]
        if primary or len(models) == 1:
            return (primary or models)[0]
    if not usable:
        raise FetchError(
            f"This Civitai version has no {EXTENSION} file; other formats are not read.\n"
            f"{link.origin}"
        )
    listed = "\n".join(f"fileId={e['id']}: {str(e['name'])[:100]}" for e in usable[:12])
    raise FetchError(
        "This Civitai version has several files. Add the one you want to the link as ?fileId=, "
        f"from:\n{listed}"
    )


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**18


def _number(values: list[str] | None) -> str | None:
    return values[0] if values and re.fullmatch(r"[0-9]{1,18}", values[0]) else None

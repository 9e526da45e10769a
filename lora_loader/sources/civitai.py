"""Civitai: links to models and versions, and the file behind them.

developer.civitai.com: GET /api/v1/models/{id} and /api/v1/model-versions/{id} name the files with
their sha256; /api/download/models/{version}?fileId={id} redirects to the storage. civitai.com and
civitai.red show different models under one account, so a link stays on its own host;
civitai.green was an alias of civitai.com.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...network.download import Wanted
from ...network.errors import HttpStatusError, NetworkError, WebPage
from .library import safe_lora_name, safe_name
from .site import SHA256, Access, Credentials, FetchError, Site, bearer, matching, objects
from .source import EXTENSION, UrlSource

# A link's host -> where it is asked for.
ORIGINS: Mapping[str, str] = {
    "civitai.com": "https://civitai.com",
    "www.civitai.com": "https://civitai.com",
    "civitai.green": "https://civitai.com",
    "civitai.red": "https://civitai.red",
    "www.civitai.red": "https://civitai.red",
}
TOKEN_VARIABLES = ("CIVITAI_API_TOKEN", "CIVITAI_TOKEN")
_PAGE = re.compile(
    r"/models/(?P<model>[0-9]{1,18})(?:/[^/]*)?/?"
    r"|/(?:api/download/models|model-versions|api/v1/model-versions)/(?P<version>[0-9]{1,18})/?"
)
_ID = "[0-9]{1,18}"
_MAX_WORDS = 50


@dataclass(frozen=True)
class Civitai(Site):
    """A version, or the newest version of a model; and perhaps one file of it."""

    origin: str  # https://civitai.com
    model: str | None
    version: str | None
    file: str | None

    @classmethod
    def behind(cls, link: UrlSource, access: Access) -> "Civitai | None":
        """The file behind a link to a model or a version; None for Civitai's other pages."""
        parts = urlsplit(link.url)
        host = parts.netloc.lower().removesuffix(":443")
        origin = (access.civitai_origins or ORIGINS).get(host)
        page = _PAGE.fullmatch(parts.path)
        if origin is None or page is None:
            return None
        asked = parse_qs(parts.query)
        named, file = (matching(asked.get(k, [""])[0], _ID) for k in ("modelVersionId", "fileId"))
        model, version = page["model"], page["version"] or named
        folder = safe_name(urlsplit(origin).hostname or "")
        ask = _ask(origin, model, version, file)
        return cls(access, folder, ask, None, origin, model, version, file)

    def resolve(self) -> tuple[Wanted, None]:
        """The file that the link means, by one request, or two for a model's newest version."""
        token, other = map(self.access.env.get, TOKEN_VARIABLES)
        credentials = bearer(self.origin, token or other)
        try:
            version = self.version or self._newest(credentials)
            url = f"{self.origin}/api/v1/model-versions/{version}"
            answer = self.access.get_object(url, credentials)
        except NetworkError as error:
            raise self.explain(error, credentials) from error
        entry = self._choose(answer)
        file = str(entry["id"])
        name = safe_lora_name(str(entry.get("name"))) or f"civitai-{version}-{file}{EXTENSION}"
        hashes, words = entry.get("hashes"), answer.get("trainedWords")
        sha256 = matching(hashes.get("SHA256"), SHA256) if isinstance(hashes, dict) else None
        sha256 = sha256 and sha256.lower()
        words = words[:_MAX_WORDS] if isinstance(words, list) else []
        url = self._download(version, file)
        origin = {
            "asks": sorted({self.ask, _ask(self.origin, self.model, version, file)}),
            "trigger_words": [word[:500] for word in words if isinstance(word, str)],
            "url": url,
        }
        key = f"civitai {self.folder} {version} {file} {sha256}"
        wanted = Wanted(url, Path(name), key, None, sha256, origin, credentials=credentials)
        return wanted, None

    def address(self) -> str:
        """The download of the file; a model's or a version's page is asked which one that is."""
        if self.version and self.file:
            return self._download(self.version, self.file)
        return self.resolve()[0].url

    def _download(self, version: str, file: str) -> str:
        return f"{self.origin}/api/download/models/{version}?fileId={file}"

    def explain(self, error: NetworkError, credentials: Credentials) -> NetworkError:
        """Civitai's refusal in words; what is none stays as it is."""
        page = f"model-versions/{self.version}" if self.version else f"models/{self.model}"
        where = f"\n{self.origin}/{page}"
        status = error.status if isinstance(error, HttpStatusError) else None
        if status == 404:
            return FetchError(
                "Civitai has no such model or version; it may have been removed, or be shown only "
                f"on the sister site (civitai.com, civitai.red).{where}"
            )
        # Without a login, a download may lead to the login page instead of a status.
        if status not in (401, 403) and not isinstance(error, WebPage):
            return error
        if not credentials:
            return FetchError(
                "Civitai asks for a login. Make an API key in your Civitai account settings, set "
                f"it as CIVITAI_API_TOKEN in the environment, and restart ComfyUI.{where}"
            )
        return FetchError(
            "Civitai refuses your API key (CIVITAI_API_TOKEN): it is wrong, or this model is in "
            f"early access or withdrawn. Open its page while logged in to see which.{where}"
        )

    def _newest(self, credentials: Credentials) -> str:
        answer = self.access.get_object(f"{self.origin}/api/v1/models/{self.model}", credentials)
        versions = objects(answer.get("modelVersions"))
        if not versions or not _is_id(versions[0].get("id")):
            raise FetchError(
                f"The Civitai model has no version to download.\n{self.origin}/models/{self.model}"
            )
        return str(versions[0]["id"])

    def _choose(self, version: Mapping[str, Any]) -> dict[str, Any]:
        """The file that the link names, else the version's primary or only .safetensors file."""
        usable = {
            str(entry["id"]): entry
            for entry in objects(version.get("files"))
            if _is_id(entry.get("id")) and str(entry.get("name")).lower().endswith(EXTENSION)
        }
        if self.file is not None:
            best = [usable[self.file]] if self.file in usable else []
        else:
            every = list(usable.values())
            models = [entry for entry in every if entry.get("type") == "Model"] or every
            best = [entry for entry in models if entry.get("primary") is True][:1] or models
        if len(best) == 1:
            return best[0]
        if not usable:
            raise FetchError(
                f"This Civitai version has no {EXTENSION} file; other formats are not read.\n"
                f"{self.origin}"
            )
        names = [f"fileId={file}: {str(entry['name'])[:100]}" for file, entry in usable.items()]
        raise FetchError(
            "This Civitai version has several files. Add the one you want to the link as ?fileId=, "
            "from:\n" + "\n".join(names[:12])
        )


def _ask(origin: str, model: str | None, version: str | None, file: str | None) -> str:
    what = f"version/{version}" if version else f"model/{model}"
    return f"civitai:{urlsplit(origin).netloc}/{what}" + (f"/file/{file}" if file else "")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**18

"""Where a LoRA comes from, as a value: "installed name | owner/repo[@revision][:file] | https URL".

Nothing here reads a file or opens a connection; links on the disk are looked through. Installed
names travel between machines in workflows: with the other slash, from another folder, in another
case, without the extension. What they must never do is to leave the loras folders.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit

EXTENSION = ".safetensors"
HUB = "https://huggingface.co"
HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
MAX_TEXT = 2048
NEAR_NAMES = 5
_OTHER_FORMATS = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".gguf", ".zip"})
_DRIVE = re.compile(r"^[A-Za-z]:")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REPO = re.compile(rf"(?!.*\.\.){_NAME}/{_NAME}")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.?", re.IGNORECASE)
_HUB_FORMS = "owner/repo, owner/repo:file.safetensors or owner/repo@revision:file.safetensors"


class SourceError(ValueError):
    """A LoRA's name, repo or URL that cannot be used; says what is wrong and the way out."""


@dataclass(frozen=True)
class InstalledSource:
    """A file in ComfyUI's ``loras`` folders, by its name relative to them."""

    name: str

    def describe(self) -> str:
        """The name itself."""
        return self.name


@dataclass(frozen=True)
class HubSource:
    """A file in a Hugging Face repository.

    ``revision`` is a branch, tag or commit (None: the repository's default); ``file`` is a path
    inside the repository with forward slashes (None: the one LoRA file that it holds).
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    def describe(self) -> str:
        """As the user may write it: ``owner/repo@revision:file``."""
        revision = f"@{self.revision}" if self.revision else ""
        file = f":{self.file}" if self.file else ""
        return f"{self.repo}{revision}{file}"

    def address(self, origin: str = HUB) -> str:
        """The address of ``file``, which must be named, at the hub or a mirror of it."""
        revision = quote(self.revision or "main", safe="")
        return f"{origin}/{self.repo}/resolve/{revision}/{quote(self.file or '')}"


@dataclass(frozen=True)
class UrlSource:
    """An https address."""

    url: str

    def describe(self) -> str:
        """The address without its query, which may hold a signature."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


Source: TypeAlias = InstalledSource | HubSource | UrlSource
Roots: TypeAlias = Sequence[str | os.PathLike[str]]


def parse_hub(text: str) -> HubSource:
    """A repository, with an optional revision and file, or a hub blob/resolve URL.

    Raises SourceError for anything else.
    """
    text = _plain(text, "Hugging Face repo", spaces=True)
    host, _, rest = text.partition("/")
    if host.lower() in HUB_HOSTS and rest and "://" not in text:
        text = f"https://{text}"
    if "://" in text:
        repo, revision, file = _parts_of_url(text)
        return _hub_source(repo, revision, file, repo)
    location, colon, file = text.partition(":")
    repo, at, revision = location.partition("@")
    if (colon and not file) or (at and not revision):
        raise SourceError(f"'{text}' ends in nothing after its '@' or ':'. Write {_HUB_FORMS}.")
    return _hub_source(repo, revision, file, text)


def _parts_of_url(text: str) -> tuple[str, str, str]:
    """Repository, revision and file that a hub URL names; the last two may be empty."""
    url = _split(text, "Hugging Face repo")
    if (url.hostname or "").lower() not in HUB_HOSTS:
        raise SourceError(
            f"'{url.hostname}' is not Hugging Face. Choose the kind 'url' for other sites, or "
            f"write {_HUB_FORMS}."
        )
    parts = [unquote(part) for part in url.path.split("/") if part]
    if parts[:1] in (["datasets"], ["spaces"]):
        raise SourceError(f"The address is one of the hub's {parts[0]}; a model repo is needed.")
    if len(parts) < 2:
        raise SourceError(f"The Hugging Face address names no repo. Write {_HUB_FORMS}.")
    repo, page, rest = "/".join(parts[:2]), parts[2:3], parts[3:]
    _hub_source(repo, "", "", repo)  # a name that is none is said first
    if not page or (page == ["tree"] and len(rest) == 1):
        return repo, "".join(rest), ""
    if page[0] in ("blob", "resolve", "raw") and len(rest) >= 2:
        # A pull request's revision (refs/pr/3) is the one form with slashes of its own.
        cut = 3 if rest[0] == "refs" and len(rest) > 3 else 1
        return repo, "/".join(rest[:cut]), "/".join(rest[cut:])
    raise SourceError(
        "The Hugging Face address must be a repo's page or a file's page (.../blob/main/"
        f"file.safetensors). Or write {_HUB_FORMS}."
    )


def _hub_source(repo: str, revision: str, file: str, text: str) -> HubSource:
    if not _REPO.fullmatch(repo):
        raise SourceError(f"'{text}' names no Hugging Face repo. Write {_HUB_FORMS}.")
    if revision and not _REVISION.fullmatch(revision):
        raise SourceError(f"'{revision}' is not a branch, tag or commit of a repo.")
    if not file:
        return HubSource(repo, revision or None)
    if {*file.split("/")} & {"", ".", ".."} or not file.isprintable() or {*file} & {*":\\"}:
        raise SourceError(f"'{file}' is not a path inside a repo.")
    if not file.lower().endswith(EXTENSION):
        raise SourceError(
            f"'{file}' is not a .safetensors file. Other formats can carry code and are never read."
        )
    return HubSource(repo, revision or None, file)


def parse_url(text: str) -> UrlSource:
    """An https address that may be fetched; raises SourceError for anything else.

    Whether its host is a public one is decided where the connection is made.
    """
    url = _split(_plain(text, "URL"), "URL")
    host = url.hostname or ""
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        raise SourceError(f"The URL's host name '{host}' has characters that no host name has.")
    if len(url.path) < 2 and not url.query:
        raise SourceError(f"The URL names the site {host} but no file on it.")
    return UrlSource(url._replace(fragment="").geturl())


def _plain(text: object, what: str, spaces: bool = False) -> str:
    if not isinstance(text, str) or not text.strip():
        raise SourceError(f"The {what} is empty.")
    text = text.strip()
    if len(text) > MAX_TEXT:
        raise SourceError(f"The {what} is {len(text)} characters long; {MAX_TEXT} is the most.")
    if not text.isprintable() or "\\" in text or (" " in text and not spaces):
        raise SourceError(
            f"The {what} holds a space, a backslash or an unprintable character. Copy it again; "
            "a space in a file name is written %20 in an address."
        )
    return text


def _split(text: str, what: str) -> SplitResult:
    try:
        url = urlsplit(text)
        port_is_odd = url.port not in (None, 443) and not 0 < (url.port or 0) < 65536
    except ValueError:
        raise SourceError(f"The {what} cannot be read as an address. Copy it again.") from None
    if url.scheme.lower() != "https":
        raise SourceError(
            f"The {what} must start with https:// (it starts with "
            f"'{url.scheme or text[:8]}'). Other ways of transport are not used."
        )
    if "@" in url.netloc:
        raise SourceError(
            f"The {what} carries a user name or password. Remove the part before '@'; tokens "
            "belong in the environment (HF_TOKEN, CIVITAI_API_TOKEN)."
        )
    if not url.hostname or port_is_odd:
        raise SourceError(f"The {what} has no usable host. Copy it again.")
    return url


def resolve_installed(
    name: str,
    available: Iterable[str],
    roots: Callable[[], Roots] = tuple,
) -> str:
    """The entry of ``available`` that ``name`` means: by path with either slash, then by file name,
    each in another case too where only one entry differs in it.

    roots: the host's loras folders, for an absolute path into them, whatever links it goes through.

    Raises SourceError for a path outside the folders, another file type, a miss (with near names)
    and an ambiguous file name (with the candidates).
    """
    listed = [entry for entry in available if entry.lower().endswith(EXTENSION)]
    by_path = {entry.replace("\\", "/"): entry for entry in listed}
    wanted = _checked(name, by_path, roots)
    if wanted in by_path:
        return by_path[wanted]
    base, folded = wanted.rsplit("/", 1)[-1], wanted.casefold()
    same_base = [path for path in by_path if path.rsplit("/", 1)[-1] == base]
    same = [path for path in by_path if path.casefold() == folded]
    end = f"/{base.casefold()}"
    like_base = [path for path in by_path if f"/{path.casefold()}".endswith(end)]
    for found in (same_base, same, like_base):
        if len(found) == 1:
            return by_path[found[0]]
    if same_base:
        raise SourceError(
            f"'{name}' is in several loras folders: {', '.join(sorted(same_base))}. Choose one "
            "with its folder."
        )
    raise SourceError(_miss(name, wanted, sorted(by_path), sorted(same or like_base)))


def _checked(name: str, listed: Iterable[str], roots: Callable[[], Roots]) -> str:
    """``name`` relative to the loras folders, and with its extension. Raises SourceError."""
    if not isinstance(name, str) or not name.strip():
        raise SourceError("No LoRA file is chosen. Choose one, or set the slot to none.")
    path = name.strip().replace("\\", "/")
    last = path.rsplit("/", 1)[-1]
    extension = last[last.rfind(".") :].lower() if "." in last else ""
    whole = path + ("" if extension == EXTENSION else EXTENSION)
    inside: str | None = whole
    if ".." in path.split("/") or "\0" in path:
        inside = None
    elif path.startswith("/") or _DRIVE.match(path):
        inside = _inside(whole, listed, roots())
    if inside is None:
        raise SourceError(
            f"'{name[:200]}' is a path outside ComfyUI's loras folders. Put the file into one of "
            "them and choose it by its name there."
        )
    if extension in _OTHER_FORMATS:
        raise SourceError(
            f"'{name[:200]}' is a {extension} file. Only .safetensors is read: the other formats "
            "can carry code."
        )
    return "/".join(part for part in inside.split("/") if part not in ("", "."))


def _inside(path: str, listed: Iterable[str], roots: Roots) -> str | None:
    """The name in the loras folders of an absolute ``path``; None where it leads into none of them.

    Case does not count, for a disk may know none: only names of the host's list come of it.
    """
    drives = {os.path.splitdrive(root)[0].casefold() for root in roots}
    here = [_parts(path)]
    # On another drive it is not looked at: on Windows that may log in to a stranger's server.
    if os.path.isabs(path) and os.path.splitdrive(path)[0].casefold() in drives:
        with suppress(ValueError):  # half a character, which no disk can name
            here.append(_parts(os.path.realpath(path)))
    for number, root in enumerate(roots):
        for one, base in product(here, (_parts(root), _parts(os.path.realpath(root)))):
            if _folded(one[: len(base)]) == _folded(base):
                name = "/".join(one[len(base) :])
                files = [os.path.join(folder, name) for folder in roots[: number + 1]]
                known = {os.path.realpath(file) for file in files if os.path.exists(file)}
                if len(known) > 1 and os.path.exists(files[-1]):
                    raise SourceError(
                        f"'{path[:200]}': an earlier loras folder has another file of that name, "
                        "which hides it. Rename one of them."
                    )
                return name
    # A link inside a folder leads there.
    base_name = _folded(here[0][-1:])
    for entry, root in product(listed, roots):
        if _folded(_parts(entry)[-1:]) == base_name:
            if _folded(_parts(os.path.realpath(os.path.join(root, entry)))) in map(_folded, here):
                return entry
    return None


def _parts(path: str | os.PathLike[str]) -> list[str]:
    return os.fspath(path).replace("\\", "/").rstrip("/").split("/")


def _folded(parts: Sequence[str]) -> list[str]:
    return [part.casefold() for part in parts]


def _miss(name: str, wanted: str, paths: Sequence[str], near: Sequence[str] = ()) -> str:
    if not paths:
        return f"There is no LoRA '{name}': the loras folders hold no .safetensors file."
    # Without the extension, which would make every name near to every other.
    known: dict[str, str] = {}
    for path in paths:
        whole = path.lower().removesuffix(EXTENSION)
        known.setdefault(whole, path)
        known.setdefault(whole.rsplit("/", 1)[-1], path)
    asked = wanted.lower().removesuffix(EXTENSION)
    close: list[str] = []
    for text in (asked, asked.rsplit("/", 1)[-1]):
        close += difflib.get_close_matches(text, known, n=NEAR_NAMES, cutoff=0.6)
    near = near or list(dict.fromkeys(known[key] for key in close))[:NEAR_NAMES]
    if near:
        return f"There is no LoRA '{name}' in the loras folders. Near names: {', '.join(near)}."
    return (
        f"There is no LoRA '{name}' in the loras folders, and no name near it. Put the file there "
        "and press R to refresh the list."
    )

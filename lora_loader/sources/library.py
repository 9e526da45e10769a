"""Where fetched LoRAs lie: ``flux2-lora-edit/<owner>--<repo>/`` and ``flux2-lora-edit/<host>/``.

Beside each file lies ``<file>.json``. Its ``asks`` are the questions that this file answers
("hub:owner/repo@main:ink.safetensors"), so that a file that is here is found without a request.
Nothing is ever deleted here, and no complete file is replaced.
"""

import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...network.download import Wanted
from ...network.files import Fetched, read_record, record_of, write_record
from .site import SHA256, FetchError, Site, matching
from .source import EXTENSION, HubSource, SourceError, UrlSource, parse_hub, parse_url

FOLDER = "flux2-lora-edit"

_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_LONGEST = 120  # characters
_LONGEST_BYTES = 199  # file systems take 255, of which up to 33 are put round a name for a while


@dataclass(frozen=True)
class Library:
    """The loras folders of the host, the first writable of which takes new files."""

    roots: Sequence[Path]

    def find(self, site: Site) -> Fetched | None:
        """The file that answers the question at ``site``: by its note, else put there by hand."""
        for root in self.roots:
            base = root / FOLDER
            for folder in (base / site.folder, *sorted(base.glob(f"{site.folder}@*"))):
                for path, note in _notes_in(folder):
                    size = note.get("size")
                    if site.ask in _asks(note) and path.is_file() and path.stat().st_size == size:
                        sha256 = matching(note.get("sha256"), SHA256)
                        return Fetched(path, size, sha256, matching(note.get("revision")))
        if site.by_hand is None:
            return None
        for root in self.roots:
            found: list[Path] = []
            with suppress(OSError):  # a name that is too long for this disk
                found = sorted((root / FOLDER / site.folder).glob(site.by_hand))
            if len(found) == 1 and found[0].is_file() and not record_of(found[0]).exists():
                return Fetched(found[0], found[0].stat().st_size, None)
        return None

    def place(self, folder: Path, wanted: Wanted) -> Path:
        """Where ``wanted`` goes: its plain place in ``folder``, unless something else is there.

        Another revision of a repository gets a folder of its own, ``<owner>--<repo>@<commit>``,
        because adapter_config.json lies beside its file.
        """
        revision = wanted.origin.get("revision")
        if isinstance(revision, str):
            if {note.get("revision") for _, note in _notes_in(folder)} - {revision}:
                folder = folder.with_name(f"{folder.name}@{safe_name(revision[:12])}")
        target = folder / wanted.target
        note = read_record(record_of(target)) or {}
        if target.exists() and note.get("key") != wanted.key:
            digest = hashlib.sha256(wanted.key.encode("utf-8", "surrogatepass")).hexdigest()
            target = target.with_name(f"{target.stem}-{digest[:8]}{target.suffix}")
        return target

    def home(self) -> Path:
        """Where new files go: ``flux2-lora-edit`` of the first root that can be written to."""
        for root in self.roots:
            base = root / FOLDER
            try:
                base.mkdir(parents=True, exist_ok=True)
                # Asking the system is no proof (network drives, Windows): writing is.
                with tempfile.TemporaryFile(dir=base):
                    return base
            except OSError:
                continue
        folders = "\n".join(str(root) for root in self.roots) or "(none is configured)"
        raise FetchError(
            f"No loras folder can be written to. Make one of them writable, or add one in "
            f"extra_model_paths.yaml.\n{folders}"
        )


def origin_of(path: Path) -> HubSource | UrlSource | None:
    """Where a fetched file came from, for who must name it elsewhere; None where unknown.

    A link whose query was left out of the note, because it may be a signature, is unknown.
    """
    note = read_record(record_of(path)) or {}
    repo, revision, file = (matching(note.get(key)) for key in ("repo", "revision", "file"))
    try:
        # The note is a file like any other: what it names is checked as if it had been typed.
        if repo and file:
            return parse_hub(HubSource(repo, revision, file).describe())
        return parse_url(note["url"])
    except (KeyError, SourceError):
        return None


def add_asks(path: Path, origin: Mapping[str, object]) -> None:
    """Notes beside ``path`` that it answers the questions of ``origin`` too."""
    note = read_record(record_of(path))
    if note is None:
        return
    asks = sorted({*_asks(note), *_asks(origin)})
    known = {**note, "asks": asks, "revision": origin["revision"]}
    if known != note:
        write_record(record_of(path), known)


def _notes_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The fetched files of ``folder``, each with what its note says."""
    for path in sorted(folder.rglob(f"*{EXTENSION}.json")):
        if (note := read_record(path)) is not None:
            yield path.with_name(path.name.removesuffix(".json")), note


def _asks(note: Mapping[str, object]) -> list[str]:
    asks = note.get("asks")
    return [ask for ask in asks if isinstance(ask, str)] if isinstance(asks, list) else []


def safe_name(text: str) -> str:
    """The last part of ``text`` as one path component, safe on every system; it may be empty.

    No separators, no leading or ending dots, nothing reserved on Windows, at most 121 characters
    and 200 bytes. An extension is kept.
    """
    name = unicodedata.normalize("NFC", text.replace("\\", "/").rpartition("/")[2])
    name = "".join(c if c.isalnum() or c in "._-+=@, ()" else "_" for c in name)
    stem, dot, extension = name.rpartition(".")
    ending = dot + extension if dot and len(extension) < 20 else ""
    stem = name.removesuffix(ending)[: _LONGEST - len(ending)]
    whole = stem.encode()[: _LONGEST_BYTES - len(ending.encode())]  # perhaps with half a character
    name = (whole.decode(errors="ignore") + ending).strip(". ")
    return "_" + name if _RESERVED.fullmatch(name) else name


def safe_lora_name(text: str) -> str | None:
    """``safe_name`` where it ends in .safetensors and has something before that; else None."""
    name = safe_name(text)
    return name if name.lower().endswith(EXTENSION) and len(name) > len(EXTENSION) else None

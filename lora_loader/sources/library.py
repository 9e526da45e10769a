"""Where fetched LoRAs lie: ``flux2-lora-edit/<owner>--<repo>/`` and ``flux2-lora-edit/<host>/``.

Beside each file lies ``<file>.json``. Its ``asks`` are the questions that this file answers
("hub:owner/repo@main:ink.safetensors"), so that a file that is here is found without a request.
Nothing is ever deleted here; a file is replaced only when the user asks for a newer one.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...network.files import read_record, record_of, write_record
from .access import FetchError
from .file_names import EXTENSION, digest, safe_name
from .offer import Offer
from .source import HubSource, Source, SourceError, parse_url

FOLDER = "flux2-lora-edit"


@dataclass(frozen=True)
class Fetched:
    """A LoRA file on disk. ``sha256`` and ``revision`` (the hub's commit) where they are known.

    ``fetched``: False when it was here already, and then nothing was requested for it.
    """

    path: Path
    size: int
    sha256: str | None
    revision: str | None
    fetched: bool = False


@dataclass(frozen=True)
class Shelf:
    """The loras folders of the host, the first writable of which takes new files."""

    roots: Sequence[Path]

    def find(self, folder: str, ask: str) -> Fetched | None:
        """The file under ``folder`` (or one of its ``@`` neighbours) that answers ``ask``."""
        for path, record in self._records(folder):
            if ask not in _asks(record):
                continue
            size, sha256, revision = (record.get(k) for k in ("size", "sha256", "revision"))
            if path.is_file() and path.stat().st_size == size:
                return Fetched(path, size, _text(sha256), _text(revision))
        return None

    def place(self, offer: Offer) -> Path:
        """Where the offered file goes: its plain place, unless something else is there.

        Another revision of a repository gets a folder of its own, ``<owner>--<repo>@<commit>``,
        because adapter_config.json lies beside its file.
        """
        base = self._writable()
        folder = base / offer.folder
        if offer.revision is not None:
            there = {record.get("revision") for _, record in _records_in(folder)}
            if there - {offer.revision}:
                folder = base / f"{offer.folder}@{safe_name(offer.revision[:12])}"
        target = folder.joinpath(*offer.parts)
        if target.exists():
            record = read_record(record_of(target))
            if record is None or record.get("key") != offer.key:
                target = target.with_name(f"{target.stem}-{digest(offer.key)[:8]}{target.suffix}")
        return target

    def lone_file(self, folder: str, name: str | None) -> Fetched | None:
        """A file that somebody put in its place by hand: without a note, and unmistakable."""
        for root in self.roots:
            base = root / FOLDER / folder
            found = [base / name] if name else sorted(base.glob("*" + EXTENSION))
            if len(found) == 1 and found[0].is_file() and not record_of(found[0]).exists():
                return Fetched(found[0], found[0].stat().st_size, None, None)
        return None

    def taken(self) -> int:
        """Bytes of all files that were fetched."""
        total = 0
        for root in self.roots:
            for path in (root / FOLDER).rglob("*"):
                if path.suffix in (EXTENSION, ".part") and path.is_file():
                    total += path.stat().st_size
        return total

    def _writable(self) -> Path:
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

    def _records(self, folder: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        for root in self.roots:
            base = root / FOLDER
            yield from _records_in(base / folder)
            try:
                names = sorted(os.listdir(base))
            except OSError:
                continue
            for name in names:
                if name.startswith(folder + "@"):
                    yield from _records_in(base / name)


def origin_of(path: Path) -> Source | None:
    """Where a fetched file came from, for who must name it elsewhere; None where unknown.

    A link whose query was left out of the note, because it may be a signature, is unknown.
    """
    record = read_record(record_of(path)) or {}
    repo, revision, file, url = (_text(record.get(k)) for k in ("repo", "revision", "file", "url"))
    if repo and file:
        return HubSource(repo, revision, file)
    try:
        return parse_url(url) if url else None
    except SourceError:
        return None


def add_asks(path: Path, asks: Sequence[str], revision: str | None) -> None:
    """Notes that the file answers these questions too."""
    record = read_record(record_of(path))
    if record is None:
        return
    asks = sorted({*_asks(record), *asks})
    if asks != record.get("asks") or revision != record.get("revision"):
        write_record(record_of(path), {**record, "asks": asks, "revision": revision})


def _records_in(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for note in sorted(folder.rglob(f"*{EXTENSION}.json")):
        record = read_record(note)
        if record is not None:
            yield note.with_name(note.name.removesuffix(".json")), record


def _asks(record: dict[str, Any]) -> list[str]:
    asks = record.get("asks")
    return [ask for ask in asks if isinstance(ask, str)] if isinstance(asks, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

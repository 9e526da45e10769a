"""The installed files as a list: what each is, whether it fits a model, kept for the next time.

Thousands of headers take seconds to read and are read once: what they say is kept in memory and in
one file on the disk, by each file's path, size and time. A kept file that is damaged is as none.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ..network.files import write_atomically
from .reading.info import words_beside
from .reading.listing import UNKNOWN, UNREADABLE, HeaderReader, Listed, ModelFile, read_model
from .reading.training import Training, wrong_base

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what is kept and of the rules that it was made by: raise it when either changes."""
MOST_KEPT, MAX_KEPT_BYTES = 20_000, 32 * 2**20
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")


class InstalledFile(NamedTuple):
    """A file in one of the folders, by its name there. ``changed`` is its size and its time, and
    those of the words beside it, 0 and -1 where there are none; ``picture``: there is one too."""

    name: str
    folder: int
    path: Path
    changed: tuple[int, ...]
    picture: bool


class Row(NamedTuple):
    """A line of the list. ``fits`` is None where the model or the file's base is not known."""

    file: InstalledFile
    base: str
    fits: bool | None
    rank: int | None
    trigger_words: tuple[str, ...]


def installed_files(names: Iterable[str], folders: Sequence[Path]) -> list[InstalledFile]:
    """The files of these names relative to the ``folders``, each in the first that has it; a folder
    is read once, and of its files only what stands in the folder."""
    wanted = list(dict.fromkeys(names))
    found: dict[str, InstalledFile] = {}
    for number, root in enumerate(folders):
        within: dict[str, list[str]] = {}
        for name in wanted:
            if name not in found:
                within.setdefault(os.path.dirname(name), []).append(name)
        for folder, here in within.items():
            beside: dict[str, os.DirEntry[str]] = {}
            with suppress(OSError, ValueError), os.scandir(root / folder) as entries:
                beside = {entry.name: entry for entry in entries}
            for name in here:
                if (file := _installed(name, number, root, beside)) is not None:
                    found[name] = file
    return [found[name] for name in wanted if name in found]


def _installed(
    name: str, number: int, root: Path, beside: Mapping[str, os.DirEntry[str]]
) -> InstalledFile | None:
    """None where the folder has no such file."""
    own = os.path.basename(name)
    stem = own.rpartition(".")[0]
    changed: list[int] = []
    for part in (own, f"{stem}.txt", f"{own}.json"):
        known = 0, -1
        with suppress(OSError):
            entry = beside.get(part)
            # A file: to open a pipe waits for whoever writes into it.
            if entry is not None and entry.is_file():
                known = entry.stat().st_size, entry.stat().st_mtime_ns
        changed += known
    if changed[1] < 0:
        return None
    pictures = (f"{stem}{mark}{end}" for mark in ("", ".preview") for end in PICTURES)
    picture = any(one in beside for one in pictures)
    return InstalledFile(name, number, root / name, tuple(changed), picture)


class Catalogue:
    """What is known of the installed files. One thread at a time reads; the others wait for it.

    ``kept`` names the file on the disk, when it is first needed.
    """

    def __init__(self, kept: Callable[[], Path]) -> None:
        self._kept, self._loaded, self._lock = kept, False, Lock()
        self._listed: dict[str, tuple[tuple[int, ...], Listed]] = {}
        self._verdicts: dict[str, bool] = {}
        self._models: dict[tuple[str, int, int], ModelFile | None] = {}
        self._reader = HeaderReader()

    def rows(self, files: Sequence[InstalledFile], model: ModelFile | None) -> list[Row]:
        """The list: the files that fit the model first, then other FLUX.2 ones, then the rest, each
        by name. A file that cannot be read says so and costs the others nothing."""
        with self._lock:
            if not self._loaded:
                self._loaded = True
                self._load()
            before = len(self._listed), len(self._verdicts)
            rows, new = [], False
            for file in files:
                changed, listed = self._listed.get(str(file.path), ((), None))
                if listed is None or changed != file.changed:
                    listed, new = self._read(file), True
                    self._listed[str(file.path)] = file.changed, listed
                fits = None if model is None else self._fits(file, listed, model)
                rows.append(Row(file, listed.base, fits, listed.rank, listed.trigger_words))
            if new or before != (len(self._listed), len(self._verdicts)):
                self._save(files)
        return sorted(rows, key=_place)

    def model(self, path: Path | None) -> ModelFile | None:
        """The model of a file, read once; None where there is none or it is no FLUX.2."""
        try:
            stat = None if path is None else path.stat()
        except OSError:
            stat = None
        if path is None or stat is None:
            return None
        key = str(path), stat.st_size, stat.st_mtime_ns
        with self._lock:
            if key not in self._models:
                if len(self._models) > 16:
                    self._models.clear()
                self._models[key] = read_model(path)
            return self._models[key]

    def _read(self, file: InstalledFile) -> Listed:
        something = file.changed[2] or file.changed[4]
        return self._reader.read(file.path, *(words_beside(file.path) if something else ()))

    def _fits(self, file: InstalledFile, listed: Listed, model: ModelFile) -> bool | None:
        if listed.training is None or not listed.digest:
            return False if listed.base == UNREADABLE else None
        key = f"{listed.digest}:{model.digest}"
        fits = wrong_base(listed.training, model.model) is None
        if fits and key not in self._verdicts:  # which of files that are alike but for their words
            self._verdicts[key] = self._reader.fits(file.path, listed, model)
        fits = fits and self._verdicts[key]
        return None if listed.base == UNKNOWN and not fits else fits

    def _load(self) -> None:
        """What an earlier process has kept; nothing where it is damaged or another version's."""
        try:
            path = self._kept()
            if path.stat().st_size > MAX_KEPT_BYTES:
                return
            table = json.loads(path.read_bytes())
            if table["version"] != VERSION:
                return
            listed = {name: _unpacked(row) for name, row in table["files"].items()}
            verdicts = {str(key): bool(fits) for key, fits in table["fits"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        self._listed, self._verdicts = listed, verdicts

    def _save(self, files: Sequence[InstalledFile]) -> None:
        """Write down what is known, of these files alone where it would be too much."""
        if len(self._listed) > MOST_KEPT:
            names = [str(file.path) for file in files][:MOST_KEPT]
            self._listed = {name: self._listed[name] for name in names}
        if len(self._verdicts) > MOST_KEPT:
            self._verdicts = {}
        rows = {name: (changed, _packed(one)) for name, (changed, one) in self._listed.items()}
        table = {"version": VERSION, "files": rows, "fits": self._verdicts}
        try:
            path = self._kept()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(table).encode(), private=True)
        except (OSError, ValueError) as error:
            logger.info("the list of LoRAs is not kept (%s)", type(error).__name__)


def _place(row: Row) -> tuple[int, str]:
    if row.fits:
        rank = 0
    elif row.fits is None:
        rank = 1 if row.base.startswith("FLUX.2") else 2
    else:
        rank = 3 if row.base.startswith("FLUX.2") else 4
    return rank, row.file.name.casefold()


def _packed(listed: Listed) -> tuple[Any, ...]:
    return (*listed[:-1], listed.training and astuple(listed.training))


def _unpacked(row: Any) -> tuple[tuple[int, ...], Listed]:
    """A file's entry, as it is kept. Raises TypeError or ValueError."""
    changed, (base, rank, words, digest, training) = row
    told = None if training is None else Training(*training)
    values = [base, rank, digest, *words, *(training or ())]
    texts = base, digest, *words, *((told.sign, told.trainer) if told else ())
    counts = *changed, *((told.double_blocks, told.single_blocks) if told else ())
    if not all(isinstance(value, str | int | None) for value in values):
        raise TypeError
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all(isinstance(count, int) for count in counts):
        raise TypeError
    return tuple(changed), Listed(base, rank, tuple(words), digest, told)

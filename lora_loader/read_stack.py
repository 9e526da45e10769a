"""A stack of LoRAs against a model: each located, read and checked. ``patch`` applies it."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter
from pathlib import Path
from threading import Lock

from ..flux2.variants import Flux2Model, identify
from .fuse import StackedLora
from .modifiers.blocks import Blocks
from .modifiers.text import ModifierError
from .reading.file import LoraFile, LoraFileError, read_header
from .reading.fit import ReadLora, read_lora
from .reading.layout import Layout
from .reading.report import LoraReport
from .reading.scaling import settings_beside
from .stack import LoraEntry

Locate = Callable[[LoraEntry], Path]


UNMODIFIED = (
    "also trains the text encoder: that part has its whole scale, as steps, pictures, regions and "
    "blocks are the model's alone"
)


class LoraStackError(ValueError):
    """A LoRA of the stack that must not be applied; names slot, file, cause and way out."""


class LoraFiles:
    """The files last used, at most ``most`` of them and ``most_bytes`` together.

    Moving a slider applies the same files again. A file is known by its path, size and modification
    time: a changed file is read anew.
    """

    def __init__(self, most: int = 6, most_bytes: int = 2 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._files: OrderedDict[tuple[str, int, int], LoraFile] = OrderedDict()
        self._lock = Lock()

    def open(self, path: Path) -> LoraFile:
        """The file at ``path`` with its header checked; raises LoraFileError."""
        try:
            stat = path.stat()
        except OSError as error:
            raise LoraFileError(f"The file cannot be read: {error.strerror}.") from None
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        with self._lock:
            file = self._files.pop(key, None)
            if file is None:
                for stale in [other for other in self._files if other[0] == key[0]]:
                    del self._files[stale]
                file = LoraFile(read_header(path), key)
            self._files[key] = file
            return file

    def trim(self) -> None:
        """Let go of the files used longest ago until the rest fits."""
        with self._lock:
            while self._files and (
                len(self._files) > self.most
                or sum(t.nbytes for file in self._files.values() for t in file.tensors.values())
                > self.most_bytes
            ):
                self._files.popitem(last=False)


@dataclass(frozen=True)
class TextEncoderLora:
    """The keys of a file that train a text encoder, to be read for the host's own loader."""

    name: str
    scale: float
    file: LoraFile
    keys: tuple[str, ...]


@dataclass(frozen=True)
class ReadStack:
    """What to do to the model's weights, and what to say about it."""

    loras: tuple[StackedLora, ...]
    model: Flux2Model
    reports: tuple[LoraReport, ...]
    warnings: tuple[str, ...]
    text_encoder_loras: tuple[TextEncoderLora, ...] = ()


def read_stack(
    entries: Sequence[LoraEntry], shapes: Mapping[str, tuple[int, ...]], *,
    locate: Locate, files: LoraFiles, on_mismatch: str = "error", model_file: str = "",
    before_each: Callable[[], None] = lambda: None,
) -> ReadStack:  # fmt: skip
    """Read and check every LoRA of a stack against the model's weight ``shapes``.

    ``locate`` finds (or fetches) an entry's file; ``before_each`` may stop the work by raising;
    ``model_file`` is the name of the model's file where it is known.
    Raises NotFlux2Error, LoraStackError, and what ``locate`` raises.
    """
    model = identify(shapes)
    layout = Layout(dict(shapes))
    every: list[tuple[StackedLora, LoraReport]] = []
    encoder_loras = []
    warnings: list[str] = []
    for entry, path in _same_file_once(entries, locate, before_each, warnings):
        before_each()
        try:
            config, ignored = settings_beside(path)
            file = files.open(path)
            # What the file's last use made, where only its scale has changed since.
            for_what = (entry.name, entry.slot, entry.source, layout.shapes, config, model_file)
            if file.made is None or file.made[0] != for_what:
                file.made = for_what, read_lora(entry, file, layout, model, config, model_file)
            read: ReadLora = file.made[1]
        except LoraFileError as error:
            raise LoraStackError(f"{entry.slot}: {error}\n{entry.source.describe()}") from None
        scale, clip_scale = entry.strength_model, entry.strength_clip if read.text_keys else None
        if read.refusal and scale != 0 and on_mismatch != "warn":
            raise LoraStackError(f"{entry.slot} {read.refusal}\n{entry.source.describe()}")
        if scale != 0:
            warnings += [*([f"{entry.name}: {ignored}"] if ignored else []), *read.warnings]
        elif not read.text_keys:
            warnings.append(f"{entry.name} is at strength 0 for the model, and has no other part")
        lora = StackedLora((*file.identity, repr(config)), scale, read.steps, entry.name)
        made = lora, replace(read.report, scale=scale, clip_scale=clip_scale)
        every.append(_modified(*made, entry, model, warnings) if entry.modifiers else made)
        if clip_scale is not None:
            encoder_loras.append(TextEncoderLora(entry.name, clip_scale, file, read.text_keys))
    files.trim()
    loras, reports = tuple(map(itemgetter(0), every)), tuple(map(itemgetter(1), every))
    return ReadStack(loras, model, reports, tuple(warnings), tuple(encoder_loras))


def _modified(
    lora: StackedLora, report: LoraReport, entry: LoraEntry, model: Flux2Model, warnings: list[str]
) -> tuple[StackedLora, LoraReport]:
    """The LoRA with its blocks' multipliers in its steps and the other modifiers beside them; and
    the report that says so.

    Raises LoraStackError naming the slot.
    """
    try:
        blocks = [one.fitted(model) for one in entry.modifiers if isinstance(one, Blocks)]
    except ModifierError as error:
        raise LoraStackError(f"{entry.slot}: {error}\n{entry.source.describe()}") from None
    weighed = [(key, step, prod(one.of(key) for one in blocks)) for key, step in lora.steps]
    steps = ((key, replace(step, scale=step.scale * by)) for key, step, by in weighed if by)
    if report.clip_scale:
        warnings.append(f"{entry.name} {UNMODIFIED}")
    others = tuple(one for one in entry.modifiers if not isinstance(one, Blocks))
    modified = replace(
        lora, identity=(lora.identity, *blocks), steps=tuple(steps), modifiers=others
    )
    return modified, replace(report, modifiers=tuple(one.describe() for one in entry.modifiers))


def _same_file_once(
    entries: Sequence[LoraEntry],
    locate: Locate,
    before_each: Callable[[], None],
    warnings: list[str],
) -> list[tuple[LoraEntry, Path]]:
    """The entries with their files; one file in two slots is one entry with the scales' sum."""
    found: dict[Hashable, tuple[LoraEntry, Path]] = {}
    for entry in entries:
        if not any(entry[1:]):
            continue
        before_each()
        path = Path(locate(entry))
        # Whatever links its names go through; one here and another there are two.
        file = os.path.realpath(path), entry.modifiers
        earlier, path = found.get(file, (None, path))
        if earlier is not None:
            warnings.append(f"{entry.name} is in the stack twice; its scales are added")
            total = earlier.strength_model + entry.strength_model
            clip = earlier.strength_clip + entry.strength_clip
            entry = earlier.with_(strength_model=total, strength_clip=clip)
        found[file] = entry, path
    return [(entry, path) for entry, path in found.values() if any(entry[1:])]

"""A stack of LoRAs -> a plan for the model: locate, read, check, fuse. ``patch`` applies it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..flux2.variants import Flux2Model, identify
from .fuse import StackedLora, Step, fuse
from .reading.files import LoraFile, LoraFiles
from .reading.header import LoraFileError
from .reading.layout import Layout
from .reading.prepare import Prepared, prepare
from .reading.report import LoraReport, shortlist
from .reading.scaling import CONFIG_NAME, PEFT_NAME, PeftSettings, config_settings
from .stack import LoraEntry

logger = logging.getLogger(__name__)

Locate = Callable[[LoraEntry], Path]

MAX_CONFIG_BYTES = 2**20


class LoraStackError(ValueError):
    """A LoRA of the stack that must not be applied; names slot, file, cause and way out."""


@dataclass(frozen=True)
class TextPart:
    """The keys of a file that train a text encoder, for the host's own loader."""

    name: str
    scale: float
    file: LoraFile
    keys: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        self.file.read(list(self.keys))
        return {key: self.file.tensor(key) for key in self.keys}


@dataclass(frozen=True)
class StackPlan:
    """What to do to the model's weights, and what to say about it."""

    parts: tuple[StackedLora, ...]
    model: Flux2Model
    loras: tuple[LoraReport, ...]
    warnings: tuple[str, ...]
    text_parts: tuple[TextPart, ...] = ()

    @cached_property
    def plan(self) -> Mapping[str, tuple[Step, ...]]:
        """All of the stack that each weight takes, in one."""
        return fuse(self.parts)


def plan_stack(
    entries: Sequence[LoraEntry],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    locate: Locate,
    files: LoraFiles,
    on_mismatch: str = "error",
    model_file: str = "",
    before_each: Callable[[], None] = lambda: None,
) -> StackPlan:
    """Read and check every LoRA of a stack against the model's weight ``shapes``.

    ``locate`` finds (or fetches) an entry's file; ``before_each`` may stop the work by raising;
    ``model_file`` is the name of the model's file where it is known.
    Raises NotFlux2Error, LoraStackError, and what ``locate`` raises.
    """
    model = identify(shapes)
    layout = Layout(shapes)
    parts = []
    reports: list[LoraReport] = []
    warnings: list[str] = []
    text_parts = []
    for entry, path in _same_file_once(entries, locate, before_each, warnings):
        before_each()
        try:
            config, ignored = _sibling_settings(path)
            file = files.open(path)
            prepared = _prepared(entry, file, layout, model, config, model_file)
        except LoraFileError as error:
            raise LoraStackError(f"{entry.slot}: {error}\n{entry.source.describe()}") from None
        if ignored:
            warnings.append(f"{entry.name}: {ignored}")
        if prepared.refusal and on_mismatch != "warn":
            raise LoraStackError(f"{entry.slot} {prepared.refusal}\n{entry.source.describe()}")
        warnings += _warnings(entry, prepared)
        identity = (*file.identity, repr(config))
        parts.append(StackedLora(identity, entry.strength_model, prepared.steps))
        reports.append(prepared.report)
        if prepared.text_keys:
            text_parts.append(TextPart(entry.name, entry.strength_clip, file, prepared.text_keys))
    files.trim()
    return StackPlan(tuple(parts), model, tuple(reports), tuple(warnings), tuple(text_parts))


def _prepared(
    entry: LoraEntry,
    file: LoraFile,
    layout: Layout,
    model: Flux2Model,
    config: PeftSettings | None,
    model_file: str,
) -> Prepared:
    """As ``prepare``; what the file's last use made, where only its scale has changed since."""
    for_what = (entry.name, entry.slot, entry.source, layout.shapes, config, model_file)
    if file.made is None or file.made[0] != for_what:
        file.made = for_what, prepare(entry, file, layout, model, config, model_file)
    made: Prepared = file.made[1]
    return replace(made, report=replace(made.report, scale=entry.strength_model))


def _same_file_once(
    entries: Sequence[LoraEntry],
    locate: Locate,
    before_each: Callable[[], None],
    warnings: list[str],
) -> list[tuple[LoraEntry, Path]]:
    """The entries with their files; one file in two slots is one entry with the scales' sum."""
    found: dict[Path, LoraEntry] = {}
    for entry in entries:
        if entry.strength_model == 0:
            continue
        before_each()
        path = Path(locate(entry))
        earlier = found.get(path)
        if earlier is None:
            found[path] = entry
            continue
        warnings.append(f"{entry.name} is in the stack twice; its scales are added")
        total = earlier.strength_model + entry.strength_model
        clip = earlier.strength_clip + entry.strength_clip
        found[path] = LoraEntry(earlier.name, total, clip, earlier.source, earlier.slot)
    return [(entry, path) for path, entry in found.items() if entry.strength_model != 0]


def _sibling_settings(path: Path) -> tuple[PeftSettings | None, str]:
    """PEFT's settings beside the file, where they are surely its own; and what was ignored."""
    config = path.with_name(CONFIG_NAME)
    try:
        if config.stat().st_size > MAX_CONFIG_BYTES:
            return None, ""
        settings = config_settings(config.read_text(encoding="utf-8", errors="replace"))
        neighbours = [p for p in path.parent.glob("*.safetensors") if p != path]
    except OSError:
        return None, ""
    if settings is None or (neighbours and path.name != PEFT_NAME):
        several = (
            f"the {CONFIG_NAME} beside it is not used, because other LoRAs lie there too. If it "
            f"belongs to this one, give both a folder of their own"
        )
        return None, several if settings is not None else ""
    return settings, ""


def _warnings(entry: LoraEntry, prepared: Prepared) -> list[str]:
    report = prepared.report
    sentences = (prepared.refusal, prepared.caution)
    warnings = [f"{entry.name} {sentence}" for sentence in sentences if sentence]
    for what, names in (
        ("not in this model", report.unmatched),
        ("not applied", report.unsupported),
    ):
        if names:
            warnings.append(f"{entry.name}: {len(names)} modules {what}: {shortlist(names)}")
    return warnings

"""FLUX.2 LoRA Stack: three slots, their checks, and the entries they make.

An installed name is resolved against the loras folders three times in a run, each for its own
question: before queueing (does it name a file? refuse it while nothing has run), for the cache
(did the file change?), and in ``execute`` (the host's own name for it, which any pack can load).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..lora_loader import sources, stack
from ..lora_loader.sources import EXTENSION, InstalledSource, Source, SourceError
from ..lora_loader.stack import MAX_SCALE, LoraEntry, combine
from ..network.errors import NetworkError
from . import host
from .host import LoraStackType, io

NONE, INSTALLED, HUB, URL = KINDS = ("none", "installed", "hugging face", "url")
CHOOSE = "choose a LoRA"
"""What a new slot says for a file: the first of the alphabet would be anybody's guess."""
_FIELDS = {INSTALLED: "file", HUB: "repo", URL: "url"}
SLOTS = {f"lora_{number}": slot for number, slot in stack.SLOTS.items()}
"""The slots' inputs, and what messages call them."""

LORA_STACK, DOWNLOAD = LoraStackType.io_type, "Flux2EditDownloadLoras"
# Who takes an entry by its source, and not by its name on this disk.
BY_SOURCE = (
    "Flux2EditApplyLoraStack", "Flux2EditRunComfy", "Flux2EditLoraStack", DOWNLOAD,
    "Flux2EditLoraSchedule", "Flux2EditLoraRegion",
)  # fmt: skip

Slot = Mapping[str, Any]


def slot_input(name: str) -> io.DynamicCombo.Input:
    """A slot: its kind, and the inputs of that kind."""
    where = {
        INSTALLED: io.Combo.Input(
            "file", options=[CHOOSE, *installed_names()],
            tooltip="A .safetensors file of ComfyUI's loras folders. Type to search.",
        ),
        HUB: io.String.Input(
            "repo", placeholder="owner/repo",
            tooltip=(
                "owner/repo, owner/repo:file.safetensors, owner/repo@revision:file.safetensors, or "
                "the address of a file on huggingface.co. Private repos use HF_TOKEN."
            ),
        ),
        URL: io.String.Input(
            "url", placeholder="https://",
            tooltip="An https link to a .safetensors file. Never put a token into it.",
        ),
    }  # fmt: skip
    common = [  # may be left out of a headless prompt, as the slot itself
        io.Float.Input(
            "scale", default=1.0, min=-MAX_SCALE, max=MAX_SCALE, step=0.05, optional=True,
            tooltip=(
                "Strength of the LoRA: 1 as trained, 0 as if it were not there, below 0 the other "
                "way round (sliders)."
            ),
        ),
        io.Boolean.Input(
            "enabled", default=True, optional=True,
            tooltip="Off: the LoRA is neither read nor fetched, and the slot keeps its settings.",
        ),
    ]  # fmt: skip
    return io.DynamicCombo.Input(
        name,
        options=[
            io.DynamicCombo.Option(NONE, []),
            *(io.DynamicCombo.Option(kind, [field, *common]) for kind, field in where.items()),
        ],
        optional=True,
        tooltip=f"Where LoRA {name[-1]} comes from; none leaves the slot empty.",
    )


def installed_names() -> list[str]:
    """The .safetensors files of the loras folders, by the host's names."""
    names = host.folder_paths.get_filename_list("loras")
    return [name for name in names if name.lower().endswith(EXTENSION)]


def installed_path(name: str) -> Path:
    """The file of an installed LoRA; a name that the host lists is not resolved again.

    Raises SourceError where there is none.
    """
    names = installed_names()
    known = name in names
    listed = name if known else sources.resolve_installed(name, names, host.loras_folders)
    path = host.folder_paths.get_full_path("loras", listed)
    if path is None:
        raise SourceError(f"'{name}' was in the loras folders and is gone. Press R to refresh.")
    return Path(path)


def _read(inputs: Mapping[str, Any], name: str) -> tuple[str, Slot]:
    """A slot's kind, none too where it is disabled, at scale 0 or left out, and what is known of
    it. Raises SourceError.

    The host gives None for values over links before anything has run, and for those left out.
    """
    left_out = not any(key.startswith(name) for key in inputs)
    given = {name: NONE} if left_out else inputs.get(name)
    # What is no dictionary is of a kind that the host does not know.
    slot = given if isinstance(given, Mapping) else {}
    slot = {key: value for key, value in slot.items() if value is not None}
    kind, scale = slot.get(name), slot.get("scale", 1.0)
    if kind not in KINDS:
        raise SourceError(
            f"{SLOTS[name]} is missing or of an unknown kind: set {name} to {', '.join(KINDS)}."
        )
    if kind == NONE or not slot.get("enabled", True) or scale == 0:
        return NONE, slot
    if not abs(scale) <= MAX_SCALE:  # nor NaN
        limits = f"{-MAX_SCALE:g} to {MAX_SCALE:g}"
        raise SourceError(f"{SLOTS[name]}: scale is {scale:g}; it takes {limits}.")
    return kind, slot


def _source(name: str, kind: str, value: Any) -> Source:
    """Where a slot's LoRA comes from, with an installed one under the host's own name for it."""
    try:
        if kind == HUB:
            return sources.parse_hub(value)
        if kind == URL:
            return sources.parse_url(value)
        chosen = "" if value == CHOOSE else value
        found = sources.resolve_installed(chosen, installed_names(), host.loras_folders)
        installed_path(found)  # it is there, and not only listed
        return InstalledSource(found)
    except SourceError as error:
        raise SourceError(f"{SLOTS[name]}: {error}") from None


def on_disk(source: Source) -> Path | None:
    """The file of a repo or a link where it is here already; no request. Never raises."""
    with suppress(NetworkError, OSError):
        found = sources.find_fetched(source, host.loras_folders())
        return None if found is None else found.path
    return None


def installed_name(path: Path) -> str | None:
    """The name in the loras folders by which any pack loads the file; None outside of them."""
    folder = next((one for one in host.loras_folders() if path.is_relative_to(one)), None)
    return None if folder is None else str(path.relative_to(folder))


def fingerprint(
    inputs: Mapping[str, Any], name: str, by_name: Callable[[], bool]
) -> tuple[str, int, int]:
    """The name, size and time of a slot's file: a changed file is applied anew. Never raises.

    That of a repo or a link counts where somebody takes it ``by_name``: it may have come meanwhile.
    """
    try:
        kind, slot = _read(inputs, name)
        path: Path | None = None
        if kind == INSTALLED:
            path = installed_path(slot.get("file", ""))
        elif kind != NONE and by_name():
            path = on_disk(_source(name, kind, slot.get(_FIELDS[kind])))
        if path is None:
            return ("", 0, 0)
        stat = path.stat()
    except (SourceError, OSError, TypeError):
        return ("", 0, 0)
    return (path.name, stat.st_size, stat.st_mtime_ns)


def advice(away: Sequence[str], takers: Iterable[host.Taker]) -> str:
    """What to do where other packs' loaders take LoRAs that are not on this disk; or ""."""
    others = [
        taker.title
        for taker in takers
        if not taker.class_type.startswith("Flux2Edit")
        # Who gives nothing, or words alone, only looks; who gives a stack is no loader.
        and not taker.hands_on(LORA_STACK)
        and not {*taker.gives} <= {"STRING", "INT", "FLOAT", "BOOLEAN"}
    ]
    if not others:
        return ""
    return (
        f"Put Download LoRAs between: {', '.join(others)} loads only what is on this disk. Not "
        f"there yet: {', '.join(away)}."
    )


class Flux2EditLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditLoraStack",
            accept_all_inputs=True,  # else a slot of an unknown kind is as one that was left out
            display_name="FLUX.2 LoRA Stack",
            description=(
                "Up to three LoRAs: installed files, Hugging Face repos or links, each with a "
                "scale. Chain stacks, or feed one from another stacker."
            ),
            search_aliases=[
                "lora", "power lora", "lora stack", "lora stacker", "lora loader", "multi lora",
                "rgthree", "hugging face", "huggingface", "civitai", "url",
            ],
            inputs=[
                *(slot_input(name) for name in SLOTS),
                LoraStackType.Input(
                    "lora_stack", optional=True,
                    tooltip="LoRAs of another stack; they come first. Three in all.",
                ),
            ],
            outputs=[
                LoraStackType.Output(
                    display_name="lora_stack",
                    tooltip="(name, strength_model, strength_clip) for each enabled LoRA.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, **inputs: Any) -> bool:
        # A returned message would be shown once for every one of the node's inputs; an exception
        # is shown once.
        for name in SLOTS:
            kind, slot = _read(inputs, name)
            if kind != NONE and _FIELDS[kind] in slot:
                _source(name, kind, slot[_FIELDS[kind]])
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> list[tuple[str, int, int]]:
        # For those who take the source, a file that Apply has fetched meanwhile is no change: to
        # run them again would cost time, and on RunComfy money.
        def by_name() -> bool:
            takers = host.takers(LORA_STACK, [DOWNLOAD])
            return takers is None or any(one.class_type not in BY_SOURCE for one in takers)

        return [fingerprint(inputs, name, by_name) for name in SLOTS]

    @classmethod
    def execute(cls, lora_stack: object = None, **slots: Any) -> io.NodeOutput:
        entries, away = [], []
        for name in SLOTS:
            kind, slot = _read(slots, name)
            if kind != NONE:
                source, scale = _source(name, kind, slot.get(_FIELDS[kind])), slot.get("scale", 1.0)
                path = None if kind == INSTALLED else on_disk(source)
                known = None if path is None else installed_name(path)
                if kind != INSTALLED and known is None:
                    away.append(f"{SLOTS[name]} ({source.describe()})")
                label = known or source.describe()
                entries.append(LoraEntry(label, scale, scale, source, SLOTS[name]))
        shown = None
        if away and (text := advice(away, host.takers(LORA_STACK, [DOWNLOAD]) or ())):
            shown = host.show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(combine(lora_stack, entries), ui=shown)

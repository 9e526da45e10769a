"""Apply LoRA Stack and LoRA Info: shells round ``lora_loader``."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..lora_loader import patch
from ..lora_loader.read_stack import LoraFiles, read_stack
from ..lora_loader.reading.info import describe_stack
from ..lora_loader.reading.report import Report
from ..lora_loader.sources import InstalledSource, SourceError, fetch
from ..lora_loader.stack import LoraEntry, as_entries, combine
from ..network.errors import NetworkError
from . import host
from .host import LoraStackType, io
from .lora_stack import installed_path, on_disk

logger = logging.getLogger(__name__)

# The files last applied, so that a moved slider reads nothing again. It holds files by path, size
# and time, knows nothing of a run or a model, and bounds itself (see LoraFiles).
_FILES = LoraFiles()
# Likewise the side paths last built, and which settings each model had: both bounded, the models
# held weakly.
_SIDE_PATHS = patch.SidePathCache()
_HISTORY = patch.History()

UNUSED = (
    "the LoRAs beside the weights were not used: the model was loaded, and none of its parts ran. "
    "For a node that reads or copies the weights by itself, set mode to merge."
)


def locate(node_id: str | None, entry: LoraEntry) -> Path:
    """An entry's file, fetched where it has to be; the node shows how far it is.

    Raises SourceError, and the host's interrupt.
    """
    source = entry.source

    def progress(done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.0f}" if total else ""
        megabytes = f"{entry.slot}: {done / 1e6:.0f}{of} MB"
        host.show_text(f"{megabytes}\n{source.describe()}", node_id)
        if total:
            bar.update_absolute(done, total)

    try:
        if isinstance(source, InstalledSource):
            return installed_path(source.name)
        bar, stop = host.ProgressBar(1), host.throw_exception_if_processing_interrupted
        return fetch(source, host.loras_folders(), progress=progress, should_stop=stop).path
    except (SourceError, NetworkError) as error:
        raise SourceError(f"{entry.slot}: {error}") from error


def locate_local(entry: LoraEntry) -> Path:
    """An entry's file where it is on this disk already; no request. Raises SourceError."""
    if isinstance(entry.source, InstalledSource):
        return locate(None, entry)
    found = on_disk(entry.source)
    if found is None:
        raise SourceError(
            f"{entry.slot} is not on this disk yet: Download LoRAs or Apply FLUX.2 LoRA Stack "
            f"fetches it.\n{entry.source.describe()}"
        )
    return found


def warn_if_unused(
    node_id: str | None, words: Sequence[str], unused: Callable[[bool], bool]
) -> None:
    """Once the running prompt has ended: on the node, behind its ``words``, that nothing ran what
    is beside the weights. ``unused`` knows, given whether the prompt succeeded."""

    def ended(well: bool) -> None:
        if unused(well):
            logger.warning("Apply FLUX.2 LoRA Stack (node %s): %s", node_id, UNUSED)
            host.show_text("\n".join([*words, f"Warning: {UNUSED}"]), node_id)

    host.when_ended(ended)


class Flux2EditApplyLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditApplyLoraStack",
            display_name="Apply FLUX.2 LoRA Stack",
            description=(
                "Applies a LoRA stack exactly as each trainer meant it, or says why not before "
                "anything is sampled."
            ),
            search_aliases=[
                "lora", "load lora", "lora loader", "apply lora", "lora stack", "power lora",
                "rgthree",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.2 dev, klein 9B or klein 4B."),
                LoraStackType.Input(
                    "lora_stack", optional=True,
                    tooltip="From FLUX.2 LoRA Stack or another pack's stacker.",
                ),
                io.Clip.Input(
                    "clip", optional=True,
                    tooltip=(
                        "The text encoder, for LoRAs that train it too; it passes through "
                        "otherwise. No FLUX.2 trainer is known to."
                    ),
                ),
                io.Combo.Input(
                    "mode", options=list(patch.MODES), default="auto", advanced=True,
                    tooltip=(
                        "auto chooses and says why. merge adds the LoRAs to the weights; side path "
                        "computes them beside the weights, for quantised or offloaded models and "
                        "moving sliders."
                    ),
                ),
                io.Combo.Input(
                    "on_mismatch", options=["error", "warn"], default="error", advanced=True,
                    tooltip=(
                        "error stops when a LoRA does not fit the model; warn applies what fits "
                        "and says what did not."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRAs."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder."),
                io.String.Output(
                    display_name="report", tooltip="What became of each LoRA, as JSON."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, mode: object = "auto", **_: object) -> str:
        # A node that takes the weights may join the graph when this one has run already.
        return "" if mode == patch.MERGE else host.weights_taken_by()

    @classmethod
    def execute(
        cls, model: io.Model.Type, lora_stack: object = None,
        clip: Any = None, mode: str = "auto", on_mismatch: str = "error",
    ) -> io.NodeOutput:  # fmt: skip
        if on_mismatch not in ("error", "warn"):
            raise ValueError(f"on_mismatch is '{on_mismatch}'; choose error or warn.")
        stack = read_stack(
            combine(lora_stack, []),
            patch.weight_shapes(model),
            locate=partial(locate, cls.hidden.unique_id),
            files=_FILES,
            on_mismatch=on_mismatch,
            model_file=patch.model_file(model),
            before_each=host.throw_exception_if_processing_interrupted,
        )
        taken_by, node_id = host.weights_taken_by(), cls.hidden.unique_id
        words: list[str] = []
        applied = patch.apply_stack(
            model, stack.loras, mode, side_paths=_SIDE_PATHS, history=_HISTORY, node=node_id,
            weights_taken_by=taken_by, watch=partial(warn_if_unused, node_id, words),
        )  # fmt: skip
        warnings = stack.warnings
        if taken_by and applied.taken == patch.SIDE_PATH:
            advice = "has no part of what is beside them: set mode to merge or auto"
            warnings += (f"{taken_by} takes the weights alone and {advice}",)
        for lora in stack.text_encoder_loras:
            if lora.scale != 0 and clip is None:
                advice = "connect clip to apply that part"
                warnings += (f"{lora.name} also trains the text encoder: {advice}",)
            elif lora.scale != 0:
                tensors = lora.file.read(lora.keys)
                clip = host.sd.load_lora_for_models(None, clip, tensors, 0, lora.scale)[1]
        report = Report(stack.model, mode, applied.taken, applied.reason, stack.reports, warnings)
        words.append(report.to_text())
        logger.info("%s", words[0])
        shown = host.show_text(words[0], node_id)
        return io.NodeOutput(applied.model, clip, report.to_json(), ui=shown)


class Flux2EditLoraInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditLoraInfo",
            display_name="FLUX.2 LoRA Info",
            description=(
                "What the files of a LoRA stack say of themselves: base model, rank, trainer, "
                "licence and trigger words. No network."
            ),
            search_aliases=["lora", "lora metadata", "trigger words", "lora info", "lora stack"],
            is_output_node=True,
            inputs=[
                LoraStackType.Input(
                    "lora_stack", optional=True,
                    tooltip="From FLUX.2 LoRA Stack or another pack's stacker.",
                )
            ],
            outputs=[
                io.String.Output(display_name="info", tooltip="A few lines for each LoRA."),
                io.String.Output(
                    display_name="trigger_words",
                    tooltip="The words the LoRAs were trained with, for the prompt.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, lora_stack: object = None) -> io.NodeOutput:
        info, trigger_words = describe_stack(as_entries(lora_stack), locate_local)
        shown = host.show_text(info, cls.hidden.unique_id)
        return io.NodeOutput(info, trigger_words, ui=shown)

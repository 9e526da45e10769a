"""LoRA Stack, Apply LoRA Stack and LoRA Info: shells round ``lora_loader``."""

from __future__ import annotations

import logging
from typing import Any

import comfy.sd
from comfy import model_management
from comfy_api.latest import io, ui

from ..lora_loader.history import History
from ..lora_loader.patch import MODES, SideStacks, apply_parts, model_file, weight_shapes
from ..lora_loader.read_stack import ReadStack, read_stack
from ..lora_loader.reading.files import LoraFiles
from ..lora_loader.reading.info import describe_stack
from ..lora_loader.reading.report import Report
from ..lora_loader.stack import as_entries, combine
from .category import CATEGORY
from .lora_files import locate_local, locator
from .lora_slots import SLOTS, LoraStackType, check_slot, entry_of, fingerprint, slot_input
from .notice import SAID_AGAIN, show_text

logger = logging.getLogger(__name__)

# The files last applied, so that a moved slider reads nothing again. It holds files by path, size
# and time, knows nothing of a run or a model, and bounds itself (see LoraFiles).
_FILES = LoraFiles()
# Likewise the side paths last built, and which settings each model had: both bounded, the models
# held weakly.
_STACKS = SideStacks()
_HISTORY = History()


class Flux2EditLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditLoraStack",
            display_name="FLUX.2 LoRA Stack",
            category=CATEGORY,
            description=(
                "Up to three LoRAs: installed files, Hugging Face repos or links, each with a "
                "scale. Chain stacks, or feed one from another stacker."
            ),
            search_aliases=[
                "lora",
                "power lora",
                "lora stack",
                "lora stacker",
                "lora loader",
                "multi lora",
                "rgthree",
            ],
            inputs=[
                *(slot_input(name) for name in SLOTS),
                LoraStackType.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="LoRAs of another stack; they come first. Three in all.",
                ),
            ],
            outputs=[
                LoraStackType.Output(
                    display_name="lora_stack",
                    tooltip="(name, strength_model, strength_clip) for each enabled LoRA.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, **inputs: Any) -> bool:
        # A returned message would be shown once for every one of the node's inputs; an exception
        # is shown once.
        for name in SLOTS:
            check_slot(name, inputs.get(name) or {})
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> list[tuple[str, int, int]]:
        return [fingerprint(inputs.get(name) or {}, name) for name in SLOTS]

    @classmethod
    def execute(cls, lora_stack: object = None, **slots: Any) -> io.NodeOutput:
        entries = [entry_of(name, slots.get(name) or {name: "none"}) for name in SLOTS]
        return io.NodeOutput(combine(lora_stack, [entry for entry in entries if entry]))


class Flux2EditApplyLoraStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditApplyLoraStack",
            display_name="Apply FLUX.2 LoRA Stack",
            category=CATEGORY,
            description=(
                "Applies a LoRA stack exactly as each trainer meant it, or says why not before "
                "anything is sampled."
            ),
            search_aliases=[
                "lora",
                "load lora",
                "lora loader",
                "apply lora",
                "lora stack",
                "power lora",
                "rgthree",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.2 dev, klein 9B or klein 4B."),
                LoraStackType.Input(
                    "lora_stack", tooltip="From FLUX.2 LoRA Stack or another pack's stacker."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The text encoder, for LoRAs that train it too; it passes through "
                        "otherwise. No FLUX.2 trainer is known to."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    advanced=True,
                    tooltip=(
                        "auto chooses and says why. merge adds the LoRAs to the weights; side path "
                        "computes them beside the weights, for quantised or offloaded models and "
                        "moving sliders."
                    ),
                ),
                io.Combo.Input(
                    "on_mismatch",
                    options=["error", "warn"],
                    default="error",
                    advanced=True,
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
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        lora_stack: object,
        clip: Any = None,
        mode: str = "auto",
        on_mismatch: str = "error",
    ) -> io.NodeOutput:
        if on_mismatch not in ("error", "warn"):
            raise ValueError(f"on_mismatch is '{on_mismatch}'; choose error or warn.")
        entries = as_entries(lora_stack)
        combine(None, entries)
        stack = read_stack(
            entries,
            weight_shapes(model),
            locate=locator(lambda text: show_text(text, cls.hidden.unique_id)),
            files=_FILES,
            on_mismatch=on_mismatch,
            model_file=model_file(model),
            before_each=model_management.throw_exception_if_processing_interrupted,
        )
        applied = apply_parts(model, stack.loras, mode, stacks=_STACKS, history=_HISTORY)
        clip, warnings = _apply_to_clip(clip, stack)
        report = Report(
            stack.model,
            mode,
            applied.taken,
            applied.reason,
            stack.reports,
            stack.warnings + warnings,
        )
        text = report.to_text()
        logger.info("%s", text)
        if cls.hidden.unique_id is not None:
            show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(applied.model, clip, report.to_json(), ui=ui.PreviewText(text))


def _apply_to_clip(clip: Any, stack: ReadStack) -> tuple[Any, tuple[str, ...]]:
    """The text encoder with the text-encoder parts of the stack, by the host's own loader."""
    warnings = []
    for lora in stack.text_encoder_loras:
        if lora.scale == 0:
            continue
        if clip is None:
            warnings.append(
                f"{lora.name} also trains the text encoder: connect clip to apply that part"
            )
            continue
        clip = comfy.sd.load_lora_for_models(None, clip, lora.tensors(), 0, lora.scale)[1]
    return clip, tuple(warnings)


class Flux2EditLoraInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditLoraInfo",
            display_name="FLUX.2 LoRA Info",
            category=CATEGORY,
            description=(
                "What the files of a LoRA stack say of themselves: base model, rank, trainer, "
                "licence and trigger words. No network."
            ),
            search_aliases=["lora", "lora metadata", "trigger words", "lora info", "lora stack"],
            inputs=[
                LoraStackType.Input(
                    "lora_stack", tooltip="From FLUX.2 LoRA Stack or another pack's stacker."
                )
            ],
            outputs=[
                io.String.Output(display_name="info", tooltip="A few lines for each LoRA."),
                io.String.Output(
                    display_name="trigger_words",
                    tooltip="The words the LoRAs were trained with, for the prompt.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )

    @classmethod
    def execute(cls, lora_stack: object) -> io.NodeOutput:
        info, trigger_words = describe_stack(as_entries(lora_stack), locate_local)
        if cls.hidden.unique_id is not None:
            show_text(info, cls.hidden.unique_id)
        return io.NodeOutput(info, trigger_words, ui=ui.PreviewText(info))

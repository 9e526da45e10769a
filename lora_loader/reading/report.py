"""What became of each LoRA, for people and for programs; and why one should not be used.

The JSON's keys are permanent.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ...flux2.variants import Flux2Model
from ..adapters.lora import Lora
from .training import Training

SCHEMA = 1
SHOWN = 5


@dataclass(frozen=True)
class LoraReport:
    """What became of one LoRA; names of modules are the file's own.

    ``clip_scale`` is the scale of its text encoder's part, None where it has none. ``modifiers``:
    what multiplies its scale by step, picture, token or block.
    """

    slot: str
    name: str
    source: str
    trained_for: str
    trainer: str
    naming: tuple[str, ...]
    kinds: dict[str, int]
    ranks: tuple[int, ...]
    scale: float
    file_scales: tuple[float, ...]
    matched: int
    total: int
    unmatched: tuple[str, ...]
    misshapen: tuple[str, ...]
    unpaired: tuple[str, ...]
    not_finite: tuple[str, ...]
    unsupported: tuple[str, ...]
    notes: tuple[str, ...]
    order_matters: bool
    clip_scale: float | None = None
    modifiers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The whole stack's: the model it went onto, each LoRA, the mode taken and why, warnings."""

    model: Flux2Model | None
    mode: str
    mode_taken: str
    mode_reason: str
    loras: tuple[LoraReport, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For programs: the table whose keys are permanent."""
        model = self.model
        names = ("name", "width", "double_blocks", "single_blocks", "guidance")
        table = {
            "schema": SCHEMA,
            "model": model and {name: getattr(model, name) for name in names},
            "mode": {"asked": self.mode, "taken": self.mode_taken, "reason": self.mode_reason},
            "loras": [vars(lora) for lora in self.loras],
            "warnings": self.warnings,
        }
        return json.dumps(table, indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """For the node, a line each: the LoRAs, the warnings, the mode.

        "ink.safetensors: matched 88/88, rank 16, ai-toolkit, FLUX.2 klein 9B, scale 1"
        """
        if not self.loras:
            return "No LoRAs: the model passes through unchanged."
        lines = []
        for lora in self.loras:
            rank = "-".join(str(rank) for rank in lora.ranks[:1] + lora.ranks[1:][-1:])
            facts = [
                f"matched {lora.matched}/{lora.total}",
                f"rank {rank}" if rank else "",
                *(kind for kind in lora.kinds if kind != Lora.name),
                lora.trainer,
                lora.trained_for,
                f"scale {lora.scale:g}",
                f"text encoder {lora.clip_scale:g}" if lora.clip_scale is not None else "",
                *lora.modifiers,
            ]
            lines.append(f"{lora.name}: {', '.join(fact for fact in facts if fact)}")
        lines += [f"Warning: {warning}" for warning in self.warnings]
        if self.mode_taken:
            lines.append(f"{self.mode_taken}: {self.mode_reason}")
        return "\n".join(lines)


def shortlist(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(name[:120] for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def refusal(
    report: LoraReport, weights: int, text_encoder: Sequence[str], training: Training,
    model: Flux2Model,
) -> str:  # fmt: skip
    """Why a file for this model still should not be used; the sentence goes after its name.

    ``weights`` is how many of its keys are the model's own, ``text_encoder`` its modules of one.
    """
    found = report.total - len(report.unmatched)
    if weights and weights >= found:
        return (
            f"is a whole model ({weights} of its weights are the model's own), not a "
            "LoRA. Load it with Load Diffusion Model instead."
        )
    if not found:
        return _nothing_matched(report.unmatched, text_encoder, training, model)
    for what, names in (
        ("has factors of the wrong shape", report.misshapen),
        ("has factors without their other half", report.unpaired),
        ("holds NaN or infinity: its training failed or the file is damaged", report.not_finite),
    ):
        if names:
            return (
                f"{what}: {shortlist(names)}. It was trained for {training.describe()}; the model "
                f"is {model.describe()}. Use a LoRA that fits, or set on_mismatch to warn to apply "
                "the rest."
            )
    if not report.matched:
        return f"holds nothing that can be applied: {shortlist(report.unsupported)}."
    return ""


def _nothing_matched(
    unmatched: Sequence[str], text_encoder: Sequence[str], training: Training, model: Flux2Model
) -> str:
    if not unmatched and not text_encoder:
        return "holds no tensors at all. Delete it and fetch it again."
    if not unmatched:
        return (
            f"trains a text encoder alone ({text_encoder[0][:120]}) and matches none of the "
            f"model's modules. Use a LoRA made for {model.describe()}."
        )
    named = f" It was trained for {training.describe()}." if training.base_model else ""
    return (
        f"matches none of the model's modules: its names are like {unmatched[0][:120]}."
        f"{named} The model is {model.describe()}: use a LoRA made for it."
    )

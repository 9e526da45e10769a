"""Why a file should not be used although it may be for this model: the words for the user."""

from ...flux2.variants import Flux2Model
from .compatibility import Training
from .matching import Matching
from .report import LoraReport, shortlist

_TEXT_ENCODER = (
    "text_encoder",
    "lora_te",
    "te1",
    "te2",
    "text_model",
    "clip_l",
    "qwen3",
    "mistral",
)


def is_text_encoder(stem: str) -> bool:
    return stem.startswith(_TEXT_ENCODER) or ".text_model." in stem


def refusal(matching: Matching, report: LoraReport, training: Training, model: Flux2Model) -> str:
    """Why a file for this model still should not be used; the sentence goes after its name."""
    if matching.weights and len(matching.weights) >= len(matching.groups):
        return (
            f"is a whole model ({len(matching.weights)} of its weights are the model's own), not a "
            "LoRA. Load it with Load Diffusion Model instead."
        )
    if not matching.groups:
        return _nothing_matched(matching, training, model)
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


def _nothing_matched(matching: Matching, training: Training, model: Flux2Model) -> str:
    if not matching.unmatched:
        return "holds no tensors at all. Delete it and fetch it again."
    named = f" It was trained for {training.describe()}." if training.base_model else ""
    what = matching.unmatched[0][:120]
    if all(is_text_encoder(stem) for stem in matching.unmatched):
        return (
            f"trains a text encoder alone ({what}) and matches none of the model's modules. Use a "
            f"LoRA made for {model.describe()}."
        )
    return (
        f"matches none of the model's modules: its names are like {what}."
        f"{named} The model is {model.describe()}: use a LoRA made for it."
    )

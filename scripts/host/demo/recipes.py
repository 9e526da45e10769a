"""What goes with which FLUX.2: settings, text encoder, and where the files are to be had."""

from typing import Any, NamedTuple

from examples import models as families

from .survey import Candidate

HUB_9B = "https://huggingface.co/Comfy-Org/flux2-klein-9B/resolve/main/split_files/text_encoders"


class Recipe(NamedTuple):
    """How to sample with a model; ``why`` says what of its file told so."""

    title: str
    steps: int
    guidance: float
    negative: bool
    why: str
    pace: int


class Encoder(NamedTuple):
    """The text encoder of a released model: its table of words, and its file."""

    title: str
    words: int
    width: int
    file: families.File


ENCODERS = {
    "dev": Encoder("Mistral 3 Small", 131072, 5120, families.DEV.text_encoder),
    "klein 9B": Encoder(
        "Qwen3 8B",
        151936,
        4096,
        families.File(
            "qwen_3_8b_fp8mixed.safetensors",
            "text_encoders",
            f"{HUB_9B}/qwen_3_8b_fp8mixed.safetensors",
        ),
    ),
    "klein 4B": Encoder("Qwen3 4B", 151936, 2560, families.KLEIN.text_encoder),
}


def recipe(model: Any, name: str) -> Recipe:
    """For a transformer (``flux2.variants.Flux2Model``) in the file ``name``."""
    title = f"FLUX.2 {model.name}" if model.name else "a FLUX.2"
    size = f"{model.width} wide, {model.double_blocks} + {model.single_blocks} blocks"
    if model.guidance:
        family, why = families.DEV, f"{size}, with a guidance input as dev has"
        title = title if model.name else "a FLUX.2 of dev's kind"
        return Recipe(title, family.steps, family.guidance, False, why, 1)
    title = title if model.name else "a FLUX.2 of klein's kind"
    # Both have the same shapes, so the name is all there is to go by.
    if "base" in name.lower():
        family, why = families.KLEIN_BASE, f'{size}, no guidance input, "base" in its name'
        return Recipe(f"{title} base", family.steps, family.guidance, True, why, 2)
    family, why = families.KLEIN, f'{size}, no guidance input, no "base" in its name'
    return Recipe(f"{title}, distilled", family.steps, family.guidance, False, why, 0)


def encodes_for(model: Candidate, encoder: Candidate) -> bool:
    """Whether the text encoder's width is what the model takes: of three layers, or of one."""
    words, width = encoder.vocabulary
    known = ENCODERS.get(model.flux2.name)
    if known is not None:
        return (words, width) == (known.words, known.width)
    return width > 0 and model.text_width in (width, 3 * width)


def missing(model: Candidate | None, encoder: Candidate | None, vae: str) -> list[families.File]:
    """The files that are still needed, with where to get them."""
    files = [] if model else [families.KLEIN.model]
    if encoder is None:
        known = ENCODERS.get(model.flux2.name) if model else ENCODERS["klein 4B"]
        files += [known.file] if known else []
    return files if vae else [*files, families.VAE]

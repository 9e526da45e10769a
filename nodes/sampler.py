"""FLUX.2 Sampler: one node for the host's own SamplerCustomAdvanced graph, set up for FLUX.2.

Everything numeric is the host's: noise, guider, schedule, sampler and preview are its own nodes,
called as they stand, so that the same inputs give the same latent bit for bit.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import comfy.samplers
import node_helpers
import torch
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    CFGGuider,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_flux import Flux2Scheduler

from .category import CATEGORY
from .notice import SAID_AGAIN, show_text

logger = logging.getLogger(__name__)

MAX_STEPS = 100
MAX_GUIDANCE = 20.0
MIN_DENOISE = 0.01
MAX_SEED = 0xFFFFFFFFFFFFFFFF
LATENT_CHANNELS, LATENT_RATIO = 128, 16

TEXT_ENCODERS = {
    15360: "Mistral 3 Small (FLUX.2 dev)",
    12288: "Qwen3 8B (FLUX.2 klein 9B)",
    7680: "Qwen3 4B (FLUX.2 klein 4B)",
}
"""Text encoder by the width of its conditioning; three layers side by side."""


class SamplerInputError(ValueError):
    """An input the sampler cannot use; the message names it and the way out."""


class ModelTraits(NamedTuple):
    """What the sampler must know of a FLUX.2 model."""

    embeds_guidance: bool
    """True for dev: guidance is an input of the model. False for klein: guidance means CFG."""
    text_width: int
    """Channels of the text conditioning it takes."""


def model_traits(model: io.Model.Type) -> ModelTraits:
    """The traits of ``model``, or an error where it is no FLUX.2 model."""
    config = getattr(getattr(model.model, "model_config", None), "unet_config", {})
    kind = config.get("image_model")
    if kind != "flux2":
        what = f'a "{kind}" model' if kind else type(model.model).__name__
        raise SamplerInputError(
            f"model is not FLUX.2: it is {what}. Load FLUX.2 dev or klein with "
            "Load Diffusion Model."
        )
    return ModelTraits(bool(config.get("guidance_embed")), config["context_in_dim"])


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside its range: linked values do not pass the host's own check."""
    if not (math.isfinite(value) and low <= value <= high):
        raise SamplerInputError(f"{name} is {value}; it takes {low:g} to {high:g}.")


def check_latent(samples: torch.Tensor) -> None:
    """Refuse a latent of another model family, or one that is not finite."""
    if samples.is_nested or samples.ndim != 4 or samples.shape[1] != LATENT_CHANNELS:
        shape = "nested" if samples.is_nested else "x".join(str(side) for side in samples.shape)
        raise SamplerInputError(
            f"latent_image has the shape {shape}; FLUX.2 takes {LATENT_CHANNELS} channels at "
            f"1/{LATENT_RATIO} of the size. Use FLUX.2 Image Size, Empty Flux 2 Latent, or encode "
            "with a FLUX.2 VAE."
        )
    if not torch.isfinite(samples).all():
        raise SamplerInputError("latent_image has NaN or infinite values.")


def check_conditioning(name: str, conditioning: list, traits: ModelTraits) -> None:
    """Refuse text of another encoder and references of another VAE, before anything is loaded."""
    if not conditioning:
        raise SamplerInputError(f"{name} is empty. Connect FLUX.2 Edit Conditioning.")
    for text, extras in conditioning:
        if text.shape[-1] != traits.text_width:
            wanted = TEXT_ENCODERS.get(traits.text_width, f"width {traits.text_width}")
            given = TEXT_ENCODERS.get(text.shape[-1], f"width {text.shape[-1]}")
            raise SamplerInputError(
                f"{name} comes from another text encoder: {given}; this model needs {wanted}. "
                "Load the matching encoder with Load CLIP, type flux2."
            )
        for number, reference in enumerate(extras.get("reference_latents", []), 1):
            if reference.ndim != 4 or reference.shape[1] != LATENT_CHANNELS:
                raise SamplerInputError(
                    f"{name}: reference latent {number} has {reference.shape[1]} channels; "
                    f"FLUX.2 takes {LATENT_CHANNELS}. Encode it with a FLUX.2 VAE."
                )


class Guidance(NamedTuple):
    """How a guidance value acts on a model."""

    cfg: bool
    text: str


def plan_guidance(traits: ModelTraits, guidance: float, has_negative: bool) -> Guidance:
    """Whether CFG runs, and in words what guidance and the negative do on this model."""
    if traits.embeds_guidance:
        unused = "; negative does nothing on dev: its guidance is embedded" if has_negative else ""
        return Guidance(False, f"embedded guidance {guidance:g}{unused}")
    if not has_negative:
        return Guidance(False, "no CFG: guidance does nothing on klein without a negative")
    if guidance <= 1:
        return Guidance(
            False, f"no CFG: negative does nothing at guidance {guidance:g}; above 1 it does"
        )
    return Guidance(True, f"CFG {guidance:g}, two forwards a step")


def make_sigmas(steps: int, width: int, height: int, denoise: float) -> torch.Tensor:
    """The model's own schedule for the OUTPUT size: ``[steps + 1]`` sigmas, falling to 0.

    ``width`` and ``height`` are in pixels. With ``denoise`` below 1 these are the last ``steps``
    of a schedule of steps/denoise, as in the host's BasicScheduler.
    """
    sigmas = Flux2Scheduler.execute(int(steps / denoise), width, height)[0]
    return sigmas[-(steps + 1) :]


class Flux2EditSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditSampler",
            display_name="FLUX.2 Sampler",
            category=CATEGORY,
            description=(
                "Samples FLUX.2 dev or klein with the model's own schedule. dev: guidance is "
                "embedded. klein: guidance above 1 with a negative is classifier-free guidance."
            ),
            search_aliases=[
                "ksampler",
                "sample",
                "sampler custom advanced",
                "flux 2 sampler",
                "denoise",
                "flux guidance",
                "scheduler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.2 dev, klein 9B or klein 4B."),
                io.Conditioning.Input(
                    "positive", tooltip="From FLUX.2 Edit Conditioning, with its references."
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip=(
                        "An empty latent from FLUX.2 Image Size, or a picture's latent with "
                        "denoise below 1. Its size is the output's."
                    ),
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="klein base only; without it there is no CFG. dev does not use it.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="The noise: the same seed and inputs give the same picture.",
                ),
                io.Int.Input(
                    "steps",
                    default=28,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="dev 28 to 50, klein distilled 4, klein base 20 to 50.",
                ),
                io.Float.Input(
                    "guidance",
                    default=2.5,
                    min=0.0,
                    max=MAX_GUIDANCE,
                    step=0.1,
                    round=0.01,
                    tooltip=(
                        "dev: embedded guidance, 2.5 to 4. klein base: CFG, 4 to 5, needs a "
                        "negative. klein distilled: leave the negative open."
                    ),
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.SAMPLER_NAMES,
                    default="euler",
                    optional=True,
                    advanced=True,
                    tooltip="euler is what the model's authors use.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=MIN_DENOISE,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Below 1 keeps part of latent_image; 1 starts from pure noise.",
                ),
            ],
            outputs=[io.Latent.Output("latent", display_name="latent")],
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent_image,
        seed,
        steps,
        guidance,
        negative=None,
        sampler_name="euler",
        denoise=1.0,
    ) -> io.NodeOutput:
        traits = model_traits(model)
        check_number("seed", seed, 0, MAX_SEED)
        check_number("steps", steps, 1, MAX_STEPS)
        check_number("guidance", guidance, 0, MAX_GUIDANCE)
        check_number("denoise", denoise, MIN_DENOISE, 1)
        samples = latent_image["samples"]
        check_latent(samples)
        check_conditioning("positive", positive, traits)
        plan = plan_guidance(traits, guidance, negative is not None)

        if plan.cfg:
            check_conditioning("negative", negative, traits)
            guider = CFGGuider.execute(model, positive, negative, guidance)[0]
        else:
            if traits.embeds_guidance:
                positive = node_helpers.conditioning_set_values(positive, {"guidance": guidance})
            guider = BasicGuider.execute(model, positive)[0]

        width, height = (side * LATENT_RATIO for side in (samples.shape[3], samples.shape[2]))
        count = "1 step" if steps == 1 else f"{steps} steps"
        text = f"{width}x{height}, {count}, {plan.text}"
        logger.info("FLUX.2 Sampler: %s", text)
        show_text(text, cls.hidden.unique_id)
        latent = SamplerCustomAdvanced.execute(
            RandomNoise.execute(seed)[0],
            guider,
            KSamplerSelect.execute(sampler_name)[0],
            make_sigmas(steps, width, height, denoise),
            latent_image,
        )[0]
        return io.NodeOutput(latent, ui={"text": (text,)})

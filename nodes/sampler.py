"""FLUX.2 Sampler: one node for the host's own SamplerCustomAdvanced graph, set up for FLUX.2.

Everything numeric is the host's: noise, guider, schedule, sampler and preview are its own nodes,
called as they stand, so that the same inputs give the same latent bit for bit.
"""

import logging
import math
from typing import Any

import torch

from ..flux2 import sampling, settings
from ..flux2.references import MULTIPLE
from ..flux2.variants import PREFIX, identify
from ..lora_loader.patch import model_file, weight_shapes
from . import host
from .host import io

logger = logging.getLogger(__name__)


def make_sigmas(
    steps: int, width: int, height: int, denoise: float, own: tuple[float, ...] = ()
) -> torch.Tensor:
    """The model's own schedule for the OUTPUT size: ``[steps + 1]`` sigmas, falling to 0.

    ``width`` and ``height`` are in pixels. With ``denoise`` below 1 these are the last ``steps``
    of a schedule of steps/denoise, as in the host's BasicScheduler. ``own`` is a schedule of the
    LoRA's own, before its shift for that size; ``denoise`` takes its last part then, at least a
    step, as in the host's SplitSigmasDenoise.
    """
    if not own:
        return host.Flux2Scheduler.execute(int(steps / denoise), width, height)[0][-(steps + 1) :]
    mu = host.compute_empirical_mu(round(width * height / MULTIPLE**2), len(own))
    whole = host.generalized_time_snr_shift(torch.tensor(own), mu, 1.0)
    return torch.cat([whole, torch.zeros(1)])[-(max(1, round(steps * denoise)) + 1) :]


def model_traits(model: io.Model.Type) -> tuple[bool, int]:
    """Whether guidance is an input of the model, and the width of its text. Raises NotFlux2Error.

    By the host's word, which holds for a model that was compiled in place too, else by the weights.
    """
    config = getattr(getattr(model.model, "model_config", None), "unet_config", {})
    if config.get("image_model") == "flux2":
        return bool(config.get("guidance_embed")), config["context_in_dim"]
    shapes = weight_shapes(model)
    return identify(shapes).guidance, shapes[f"{PREFIX}txt_in.weight"][-1]


def make_guider(
    model: io.Model.Type, positive: Any, negative: Any, guidance: float, embeds: bool
) -> Any:
    """The host's guider: CFG with a ``negative``, else one forward a step, with the guidance
    embedded where the model ``embeds`` it."""
    if negative is not None:
        return host.CFGGuider.execute(model, positive, negative, guidance)[0]
    if embeds:
        positive = host.conditioning_set_values(positive, {"guidance": guidance})
    return host.BasicGuider.execute(model, positive)[0]


def advice(hidden: Any, model: io.Model.Type, *settled: Any) -> str:
    """A line of its own on what is ``settled`` (``settings.advise``), by what is known of where
    ``model`` comes from; or ""."""
    named = host.texts_behind(hidden, "model")
    line = settings.advise(
        *settled,
        file=model_file(model) or settings.model_file(named),
        texts=[text for _, text in named],
        bare=not (model.patches or model.injections or model.additional_models),
    )
    return f"\nSettings: {line}" if line else ""


class Flux2EditSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditSampler",
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            display_name="FLUX.2 Sampler",
            description=(
                "Samples FLUX.2 dev or klein with the model's own schedule. dev: guidance is "
                "embedded. klein: guidance above 1 with a negative is classifier-free guidance."
            ),
            search_aliases=[
                "ksampler", "sample", "sampler custom advanced", "flux 2 sampler", "denoise",
                "flux guidance", "scheduler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.2 dev, klein 9B or klein 4B."),
                io.Conditioning.Input(
                    "positive", tooltip="From FLUX.2 Edit Conditioning, with its references."
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip=(
                        "An empty latent from FLUX.2 Image Size (or of any model), or a picture's "
                        "latent with denoise below 1. Its size is the output's."
                    ),
                ),
                io.Conditioning.Input(
                    "negative", optional=True,
                    tooltip=(
                        "klein base: CFG, with guidance above 1. klein distilled: what a NAG node "
                        "on the model steers away from, with guidance 1. dev does not use it."
                    ),
                ),
                io.Int.Input(
                    "seed", default=0, **sampling.RANGES["seed"], control_after_generate=True,
                    tooltip="The noise: the same seed and inputs give the same picture.",
                ),
                io.Int.Input(
                    "steps", default=28, **sampling.RANGES["steps"],
                    tooltip="dev 28 to 50, klein distilled 4, klein base 20 to 50.",
                ),
                io.Float.Input(
                    "guidance", default=2.5, **sampling.RANGES["guidance"], step=0.1, round=0.01,
                    tooltip=(
                        "dev: embedded guidance, 2.5 to 4. klein base: CFG, 4 to 5, needs a "
                        "negative. klein distilled: 1, or leave the negative open."
                    ),
                ),
                io.Combo.Input(
                    "sampler_name", options=host.samplers.SAMPLER_NAMES, default="euler",
                    optional=True, advanced=True,
                    tooltip="euler is what the model's authors use.",
                ),
                io.Float.Input(
                    "denoise", default=1.0, **sampling.RANGES["denoise"], step=0.01, optional=True,
                    advanced=True,
                    tooltip="Below 1 keeps part of latent_image; 1 starts from pure noise.",
                ),
                io.Combo.Input(
                    "preset", options=[settings.AS_SET, *settings.PRESETS],
                    default=settings.AS_SET, optional=True,
                    tooltip=(
                        "Sets steps, guidance and the schedule for a model, in place of the "
                        "widgets. Turbo LoRA: the 8 steps of fal's FLUX.2-dev-Turbo."
                    ),
                ),
                io.Sigmas.Input(
                    "sigmas", optional=True,
                    tooltip="Another schedule, in place of steps, denoise and the preset's.",
                ),
            ],
            outputs=[
                io.Latent.Output("latent", display_name="latent"),
                io.Latent.Output(
                    "denoised_output", display_name="denoised_output",
                    tooltip="What the last step took the picture for; SamplerCustomAdvanced's.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, latent_image, seed=0, steps=28, guidance=2.5,
        negative=None, sampler_name="euler", denoise=1.0, preset=settings.AS_SET, sigmas=None,
    ) -> io.NodeOutput:  # fmt: skip
        embeds, text_width = model_traits(model)
        chosen = settings.settle(preset, embeds, negative is not None, steps, guidance)
        guidance = chosen.guidance
        sampling.check_ranges(seed=seed, steps=chosen.steps, guidance=guidance, denoise=denoise)
        given, scale = latent_image["samples"], latent_image.get("downscale_ratio_spacial")
        samples = host.fix_empty_latent_channels(model, given, scale)
        said = sampling.check_latent(samples, given, scale)
        sampling.check_conditioning("positive", positive, text_width)
        said += sampling.unused_guidance(positive, guidance if embeds else None)
        nag = model.model_options.get("disable_cfg1_optimization", False)
        cfg, words = sampling.plan_guidance(embeds, guidance, negative is not None, nag)
        if cfg:
            sampling.check_conditioning("negative", negative, text_width)

        height, width = (side * MULTIPLE for side in samples.shape[2:])
        if sigmas is None:
            schedule = make_sigmas(chosen.steps, width, height, denoise, chosen.sigmas)
        else:
            schedule = settings.check_sigmas(sigmas)
        count = settings.describe_steps(len(schedule) - 1, preset, chosen, sigmas is not None)
        text = f"{width}x{height}, {count}, {words}{said}"
        steps = len(schedule) - 1 if sigmas is None else math.nan
        text += advice(cls.hidden, model, chosen, steps, denoise, cfg, nag)
        logger.info("FLUX.2 Sampler: %s", text)
        shown = host.show_text(text, cls.hidden.unique_id)
        latents = host.SamplerCustomAdvanced.execute(
            host.RandomNoise.execute(seed)[0],
            make_guider(model, positive, negative if cfg else None, guidance, embeds),
            host.KSamplerSelect.execute(sampler_name)[0],
            schedule,
            latent_image,
        )
        return io.NodeOutput(latents[0], latents[1], ui=shown)

"""FLUX.2 Edit Conditioning: a prompt and its reference images, by the authors' rules.

Text and pictures are encoded by the host's own CLIPTextEncode and VAEEncode; of ours are the pixel
rule, the checks and the bookkeeping.
"""

import logging
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ..flux2 import references
from ..flux2.prompt import missing_words
from ..flux2.references import IMAGES, LATENT_CHANNELS, MULTIPLE, ReferencePlan, ReferenceSize
from ..flux2.sampling import references_cost
from . import host
from .host import io

logger = logging.getLogger(__name__)

SIDE_WITHOUT_REFERENCE = 1024
MAX_TEXTS = 8
"""Texts kept for one text encoder; a FLUX.2 dev conditioning is about 30 MB."""
_NAMES = [name.replace("_", " ") for name in IMAGES]
"""What the pictures are called in a prompt."""


class EncodeMemory:
    """What the encoders made: latents by (VAE, picture, plan), conditionings by (encoder, text).

    Why not leave this to the host's cache: its entry is the whole node, so a changed prompt would
    encode every picture again; and of a node that expands into inner ones, ComfyUI 0.30's default
    cache drops the inner results in every run that did not need them (a new seed, say), since only
    nodes of the queued graph count as in use. Both measured.

    Entries hang on the encoder and on the picture by weak references: the host keeps the same
    objects while their nodes are unchanged, and when it lets go of one, its entries go too.
    """

    def __init__(self) -> None:
        self._latents: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._texts: WeakKeyDictionary[Any, OrderedDict[str, Any]] = WeakKeyDictionary()

    def latent(self, vae: Any, image: torch.Tensor, plan: ReferencePlan) -> torch.Tensor:
        """The latent ``[1, 128, h/16, w/16]`` of ``image`` under ``plan``: the VAE's mean."""
        pictures = self._latents.setdefault(vae, WeakTensorKeyDictionary())
        if image not in pictures or pictures[image][0] != plan:
            # One per picture: a changed rule replaces it.
            pixels = references.prepare_reference(image[0], plan).unsqueeze(0)
            pictures[image] = plan, host.VAEEncode().encode(vae, pixels)[0]["samples"]
        return pictures[image][1]

    def text(self, clip: Any, text: str) -> list:
        """The conditioning of ``text``."""
        texts = self._texts.setdefault(clip, OrderedDict())
        if text not in texts:
            texts[text] = host.CLIPTextEncode().encode(clip, text)[0]
        texts.move_to_end(text)
        if len(texts) > MAX_TEXTS:
            texts.popitem(last=False)
        return texts[text]


# Changing the prompt must not encode the pictures again, nor the reverse.
MEMORY = EncodeMemory()


def check_vae(vae: io.Vae.Type) -> None:
    """Refuse a VAE that is not FLUX.2's: another one's latent would fail deep inside the model.

    The host's compression figure is no sign: it says 8 for the tiny autoencoder taef2.
    """
    if vae.latent_channels != LATENT_CHANNELS or vae.latent_dim != 2:
        raise ValueError(
            f"vae is not a FLUX.2 VAE: its latents have {vae.latent_channels} channels, FLUX.2's "
            f"have {LATENT_CHANNELS}. Load flux2-vae.safetensors."
        )


class Flux2EditConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditConditioning",
            display_name="FLUX.2 Edit Conditioning",
            description=(
                f"A prompt and up to {references.NUMBERS[len(IMAGES)]} reference images for "
                f"FLUX.2. Refer to them as {', '.join(_NAMES)}: these are the socket numbers. "
                "Without an image it is text to image."
            ),
            search_aliases=[
                "reference image", "reference latent", "kontext", "image edit", "edit image",
                "multi reference", "text encode", "prompt", "flux 2 edit", "image to image",
            ],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="FLUX.2's text encoder: Mistral 3 for dev, Qwen3 8B or 4B for klein.",
                ),
                io.Vae.Input(
                    "vae", tooltip=f"A FLUX.2 VAE ({LATENT_CHANNELS} channels at 1/{MULTIPLE})."
                ),
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, default="",
                    tooltip=(
                        "What to make or change. Call the pictures "
                        + ", ".join(f'"{name}"' for name in _NAMES)
                        + ". Weights such as (x:1.3) have no effect on FLUX.2."
                    ),
                ),
                io.String.Input(
                    "negative_prompt", multiline=True, dynamic_prompts=True, default="",
                    optional=True,
                    tooltip="For klein base with guidance above 1 only; dev has no use for it.",
                ),
                *(
                    io.Image.Input(
                        name, optional=True,
                        tooltip=(
                            f'"{called}" in the prompt: one picture, at least '
                            f"{references.MIN_SIDE} px a side and at most "
                            f"{references.MAX_ASPECT}:1."
                        ),
                    )
                    for name, called in zip(IMAGES, _NAMES, strict=True)
                ),
                io.Combo.Input(
                    "reference_size", options=[rule.value for rule in ReferenceSize],
                    default=ReferenceSize.FLUX2.value, optional=True,
                    tooltip=(
                        "flux2: the model authors' rule, shrink to "
                        f"{references.ONE_REFERENCE_AREA // 10**6} megapixels for one reference "
                        f"and to {references.SEVERAL_REFERENCES_AREA // 10**6} megapixel each for "
                        "several. 1 megapixel each: as diffusers and ai-toolkit train. as is: no "
                        f"resizing. All cut to multiples of {MULTIPLE}, none enlarges."
                    ),
                ),
                io.String.Input(
                    "trigger_words", default="", optional=True,
                    tooltip=(
                        "Words that LoRAs were trained with, divided by commas, as FLUX.2 LoRA "
                        "Info gives them. Those that the prompt does not hold are put before it."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output(
                    "negative", display_name="negative",
                    tooltip="Carries the same references, as classifier-free guidance needs.",
                ),
                *(
                    io.Int.Output(
                        side, display_name=side,
                        tooltip=(
                            f"{side.capitalize()} of the first reference in pixels; "
                            f"{SIDE_WITHOUT_REFERENCE} without one."
                        ),
                    )
                    for side in ("width", "height")
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, clip, vae, prompt="", negative_prompt="", reference_size=ReferenceSize.FLUX2.value,
        trigger_words="", **images,
    ) -> io.NodeOutput:  # fmt: skip
        connected = {name: images[name] for name in IMAGES if images.get(name) is not None}
        check_vae(vae)
        plans = references.plan_references(connected, ReferenceSize(reference_size))
        notice = references.gap_notice(list(connected))
        if notice:
            logger.warning("FLUX.2 Edit Conditioning: %s", notice)
        lines = [f"{name}: {plan.describe()}" for name, plan in plans.items()]

        missing = missing_words(prompt, trigger_words)
        prompt = ", ".join([*missing, *filter(str.strip, [prompt])])
        positive, negative = (MEMORY.text(clip, words) for words in (prompt, negative_prompt))
        if plans:
            tokens = sum(references.token_count(*plan.size) for plan in plans.values())
            lines.append(references_cost(positive[0][0], tokens, SIDE_WITHOUT_REFERENCE))
        else:
            lines.append("no reference: text to image")
        if trigger_words.strip():
            put = f"put before it: {', '.join(missing)}" if missing else "are all in the prompt"
            lines.append(f"trigger words {put}")
        shown = host.show_text("\n".join([*lines, notice]).strip(), cls.hidden.unique_id)

        latents = [MEMORY.latent(vae, connected[name], plan) for name, plan in plans.items()]
        if latents:
            positive, negative = (
                host.conditioning_set_values(half, {"reference_latents": latents})
                for half in (positive, negative)
            )
        without = (SIDE_WITHOUT_REFERENCE, SIDE_WITHOUT_REFERENCE)
        width, height = next((plan.size for plan in plans.values()), without)
        return io.NodeOutput(positive, negative, width, height, ui=shown)

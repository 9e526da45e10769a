"""FLUX.2 Edit Conditioning: a prompt and up to three reference images, by the authors' rules.

Text and pictures are encoded by the host's own CLIPTextEncode and VAEEncode; of ours are the pixel
rule, the checks and the bookkeeping.
"""

from __future__ import annotations

import logging
from typing import Any

import node_helpers
import torch
from comfy_api.latest import io
from nodes import CLIPTextEncode, VAEEncode

from ..flux2.references import (
    ReferenceImageError,
    ReferencePlan,
    ReferenceSize,
    plan_reference,
    prepare_reference,
)
from .category import CATEGORY
from .encode_memory import EncodeMemory
from .notice import SAID_AGAIN, show_text

logger = logging.getLogger(__name__)

IMAGES = ("image_1", "image_2", "image_3")
SIZE_WITHOUT_REFERENCE = (1024, 1024)
LATENT_CHANNELS = 128

# Changing the prompt must not encode the pictures again, nor the reverse.
MEMORY = EncodeMemory()


def gap_notice(connected: list[str]) -> str:
    """What a skipped socket does to the prompt's image numbers; empty where none is skipped."""
    if connected == list(IMAGES[: len(connected)]):
        return ""
    moved = ", ".join(
        f'{name} is "image {number}" to the model'
        for number, name in enumerate(connected, 1)
        if name != f"image_{number}"
    )
    empty = ", ".join(
        name for name in IMAGES[: IMAGES.index(connected[-1])] if name not in connected
    )
    return f"{empty} is empty, so {moved}. Connect from image_1 on without a gap."


def check_vae(vae: io.Vae.Type) -> None:
    """Refuse a VAE that is not FLUX.2's: another one's latent would fail deep inside the model.

    The host's compression figure is no sign: it says 8 for the tiny autoencoder taef2.
    """
    if vae.latent_channels != LATENT_CHANNELS or vae.latent_dim != 2:
        raise ValueError(
            f"vae is not a FLUX.2 VAE: its latents have {vae.latent_channels} channels, FLUX.2's "
            f"have {LATENT_CHANNELS}. Load flux2-vae.safetensors."
        )


def check_picture(image: torch.Tensor, name: str) -> None:
    """Refuse what is not one finite picture of 1, 3 or 4 channels."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ReferenceImageError(f"{name} is no picture: its shape is {tuple(image.shape)}.")
    if image.shape[0] != 1:
        raise ReferenceImageError(
            f"{name} carries a batch of {image.shape[0]} images; a reference is one picture. "
            "Connect each picture to its own socket, image_1 to image_3, or pick one with "
            "Get Image from Batch."
        )
    if not torch.isfinite(image).all():
        raise ReferenceImageError(
            f"{name} has NaN or infinite pixels. Look at the node that made it."
        )


def plan_pictures(images: dict[str, torch.Tensor], rule: ReferenceSize) -> dict[str, ReferencePlan]:
    """The crop plan of each connected picture ``[1, H, W, C]``; errors name the socket."""
    plans = {}
    for name, image in images.items():
        check_picture(image, name)
        height, width = image.shape[1:3]
        try:
            plans[name] = plan_reference(width, height, rule, several=len(images) > 1)
        except ReferenceImageError as error:
            raise ReferenceImageError(f"{name} {error}") from error
    return plans


def encode_text(clip: io.Clip.Type, text: str) -> Any:
    return MEMORY.text(clip, text, lambda: CLIPTextEncode().encode(clip, text)[0])


def encode_picture(vae: io.Vae.Type, image: torch.Tensor, plan: ReferencePlan) -> torch.Tensor:
    """The latent ``[1, 128, h/16, w/16]`` of ``image`` under ``plan``: the VAE's mean."""

    def encode() -> torch.Tensor:
        pixels = prepare_reference(image[0], plan).unsqueeze(0)
        return VAEEncode().encode(vae, pixels)[0]["samples"]

    return MEMORY.latent(vae, image, plan, encode)


class Flux2EditConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditConditioning",
            display_name="FLUX.2 Edit Conditioning",
            category=CATEGORY,
            description=(
                "A prompt and up to three reference images for FLUX.2. Refer to them as image 1, "
                "image 2, image 3: these are the socket numbers. Without an image it is text to "
                "image."
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
                io.Vae.Input("vae", tooltip="A FLUX.2 VAE (128 channels at 1/16)."),
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, default="",
                    tooltip=(
                        'What to make or change. Call the pictures "image 1", "image 2", '
                        '"image 3". Weights such as (x:1.3) have no effect on FLUX.2.'
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
                            f'"image {number}" in the prompt: one picture, at least 64 px a side '
                            "and at most 8:1."
                        ),
                    )
                    for number, name in enumerate(IMAGES, 1)
                ),
                io.Combo.Input(
                    "reference_size",
                    options=[rule.value for rule in ReferenceSize],
                    default=ReferenceSize.FLUX2.value,
                    optional=True,
                    tooltip=(
                        "flux2: the model authors' rule, shrink to 4 megapixels for one reference "
                        "and to 1 megapixel each for several. 1 megapixel each: as diffusers and "
                        "ai-toolkit train. as is: no resizing. All cut to multiples of 16, none "
                        "enlarges."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output(
                    "negative", display_name="negative",
                    tooltip="Carries the same references, as classifier-free guidance needs.",
                ),
                io.Int.Output(
                    "width", display_name="width",
                    tooltip="Width of the first reference in pixels; 1024 without one.",
                ),
                io.Int.Output(
                    "height", display_name="height",
                    tooltip="Height of the first reference in pixels; 1024 without one.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, clip, vae, prompt, negative_prompt="",
        image_1=None, image_2=None, image_3=None, reference_size=ReferenceSize.FLUX2.value,
    ) -> io.NodeOutput:  # fmt: skip
        sockets = zip(IMAGES, (image_1, image_2, image_3), strict=True)
        images = {name: image for name, image in sockets if image is not None}
        check_vae(vae)
        plans = plan_pictures(images, ReferenceSize(reference_size))
        notice = gap_notice(list(images))
        if notice:
            logger.warning("FLUX.2 Edit Conditioning: %s", notice)
        lines = [f"{name}: {plan.describe()}" for name, plan in plans.items()]
        text = "\n".join([*lines, notice]).strip() or "no reference: text to image"
        show_text(text, cls.hidden.unique_id)

        positive, negative = (encode_text(clip, words) for words in (prompt, negative_prompt))
        latents = [encode_picture(vae, images[name], plan) for name, plan in plans.items()]
        if latents:
            positive, negative = (
                node_helpers.conditioning_set_values(half, {"reference_latents": latents})
                for half in (positive, negative)
            )
        width, height = next(iter(plans.values())).size if plans else SIZE_WITHOUT_REFERENCE
        return io.NodeOutput(positive, negative, width, height, ui={"text": (text,)})

"""FLUX.2 Edit Conditioning: a prompt and up to three reference images, by the authors' rules.

The node expands into the host's own CLIPTextEncode, VAEEncode and ReferenceLatent, with two small
inner nodes of ours for the pixel rule and the report. So the host's cache keeps every picture's
latent while the prompt changes, and the text while a picture changes. For that to work the inputs
that are only handed on are raw links: a tensor or model passed by value cannot be a cache key.
"""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..flux2.references import (
    ReferenceImageError,
    ReferenceSize,
    plan_reference,
    prepare_reference,
)
from .category import CATEGORY
from .notice import show_text

logger = logging.getLogger(__name__)

IMAGES = ("image_1", "image_2", "image_3")
SIZE_WITHOUT_REFERENCE = 1024
LATENT_CHANNELS, LATENT_RATIO = 128, 16


def gap_notice(connected: list[str]) -> str:
    """What a skipped socket does to the prompt's image numbers; empty where none is skipped."""
    if connected == list(IMAGES[: len(connected)]):
        return ""
    moved = ", ".join(
        f'{name} is "image {number}" to the model'
        for number, name in enumerate(connected, 1)
        if name != f"image_{number}"
    )
    empty = ", ".join(name for name in IMAGES if name not in connected)
    return f"Sockets skipped ({empty} empty): {moved}. Connect from image_1 on without a gap."


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
                "reference image",
                "reference latent",
                "kontext",
                "image edit",
                "edit image",
                "multi reference",
                "text encode",
                "prompt",
                "flux 2 edit",
                "image to image",
            ],
            inputs=[
                io.Clip.Input(
                    "clip",
                    raw_link=True,
                    tooltip="FLUX.2's text encoder: Mistral 3 for dev, Qwen3 8B or 4B for klein.",
                ),
                io.Vae.Input("vae", raw_link=True, tooltip="A FLUX.2 VAE (128 channels at 1/16)."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip=(
                        'What to make or change. Call the pictures "image 1", "image 2", '
                        '"image 3". Weights such as (x:1.3) have no effect on FLUX.2.'
                    ),
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    optional=True,
                    tooltip="For klein base with guidance above 1 only; dev has no use for it.",
                ),
                *(
                    io.Image.Input(
                        name,
                        optional=True,
                        raw_link=True,
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
                    "negative",
                    display_name="negative",
                    tooltip="Carries the same references, as classifier-free guidance needs.",
                ),
                io.Int.Output(
                    "width",
                    display_name="width",
                    tooltip="Width of the first reference in pixels; 1024 without one.",
                ),
                io.Int.Output(
                    "height",
                    display_name="height",
                    tooltip="Height of the first reference in pixels; 1024 without one.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(
        cls,
        clip,
        vae,
        prompt,
        negative_prompt="",
        image_1=None,
        image_2=None,
        image_3=None,
        reference_size=ReferenceSize.FLUX2.value,
    ) -> io.NodeOutput:
        ReferenceSize(reference_size)
        linked = {
            name: link
            for name, link in zip(IMAGES, (image_1, image_2, image_3), strict=True)
            if link is not None
        }
        notice = gap_notice(list(linked))
        if notice:
            logger.warning("FLUX.2 Edit Conditioning: %s", notice)

        graph = GraphBuilder()
        references = [
            graph.node(
                "Flux2EditReference",
                id=name,
                image=link,
                vae=vae,
                name=name,
                reference_size=reference_size,
                several=len(linked) > 1,
            )
            for name, link in linked.items()
        ]
        latents = [
            graph.node("VAEEncode", id=f"latent_{name}", pixels=reference.out(0), vae=vae).out(0)
            for name, reference in zip(linked, references, strict=True)
        ]
        halves = []
        for half, text in (("positive", prompt), ("negative", negative_prompt)):
            link = graph.node("CLIPTextEncode", id=half, clip=clip, text=text).out(0)
            for name, latent in zip(linked, latents, strict=True):
                link = graph.node(
                    "ReferenceLatent", id=f"{half}_{name}", conditioning=link, latent=latent
                ).out(0)
            halves.append(link)
        report = graph.node(
            "Flux2EditReferenceReport",
            id="report",
            notice=notice,
            width=references[0].out(1) if references else SIZE_WITHOUT_REFERENCE,
            height=references[0].out(2) if references else SIZE_WITHOUT_REFERENCE,
            **{name: ref.out(3) for name, ref in zip(linked, references, strict=True)},
        )
        return io.NodeOutput(*halves, report.out(0), report.out(1), expand=graph.finalize())


def check_vae(vae: io.Vae.Type) -> None:
    """Refuse a VAE that is not FLUX.2's: another one's latent would fail deep inside the model."""
    ratio = vae.spacial_compression_encode()
    if (vae.latent_channels, ratio, vae.latent_dim) != (LATENT_CHANNELS, LATENT_RATIO, 2):
        raise ValueError(
            f"vae is not a FLUX.2 VAE: it makes {vae.latent_channels} channels at 1/{ratio}, "
            f"FLUX.2 needs {LATENT_CHANNELS} at 1/{LATENT_RATIO}. Load flux2-vae.safetensors."
        )


def check_picture(image: torch.Tensor, name: str) -> None:
    """Refuse what is not one finite picture of 1, 3 or 4 channels."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise ReferenceImageError(f"{name} is no picture: its shape is {tuple(image.shape)}.")
    if image.shape[0] != 1:
        raise ReferenceImageError(
            f"{name} carries a batch of {image.shape[0]} images; a reference is one picture. "
            "Connect each picture to its own socket, image_1 to image_3, or pick one with "
            "Image From Batch."
        )
    if not torch.isfinite(image).all():
        raise ReferenceImageError(
            f"{name} has NaN or infinite pixels. Look at the node that made it."
        )


class Flux2EditReference(io.ComfyNode):
    """Inner node of FLUX.2 Edit Conditioning: one picture by the pixel rule, ready for the VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditReference",
            display_name="FLUX.2 Reference (inner)",
            category=CATEGORY,
            description="Part of FLUX.2 Edit Conditioning: shrinks and crops one reference image.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image", tooltip="One picture."),
                io.Vae.Input("vae", tooltip="A FLUX.2 VAE, checked before anything is encoded."),
                io.String.Input("name", default="image", tooltip="The name errors call it by."),
                io.Combo.Input(
                    "reference_size",
                    options=[rule.value for rule in ReferenceSize],
                    tooltip="The pixel rule.",
                ),
                io.Boolean.Input(
                    "several", default=False, tooltip="Whether it is one of several references."
                ),
            ],
            outputs=[
                io.Image.Output("prepared", display_name="image"),
                io.Int.Output("width", display_name="width"),
                io.Int.Output("height", display_name="height"),
                io.String.Output("description", display_name="description"),
            ],
        )

    @classmethod
    def execute(cls, image, vae, name, reference_size, several) -> io.NodeOutput:
        check_vae(vae)
        check_picture(image, name)
        try:
            plan = plan_reference(
                image.shape[2], image.shape[1], ReferenceSize(reference_size), several
            )
        except ReferenceImageError as error:
            raise ReferenceImageError(f"{name} {error}") from error
        prepared = prepare_reference(image[0], plan).unsqueeze(0)
        return io.NodeOutput(prepared, *plan.size, plan.describe())


class Flux2EditReferenceReport(io.ComfyNode):
    """Inner node of FLUX.2 Edit Conditioning: says on its face what became of each reference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditReferenceReport",
            display_name="FLUX.2 Reference Report (inner)",
            category=CATEGORY,
            description="Part of FLUX.2 Edit Conditioning: shows sizes and tokens on its face.",
            is_dev_only=True,
            inputs=[
                io.String.Input("notice", default="", tooltip="Shown last, when there is one."),
                io.Int.Input("width", default=1024, min=1, max=16384, tooltip="Passed on."),
                io.Int.Input("height", default=1024, min=1, max=16384, tooltip="Passed on."),
                *(
                    io.String.Input(
                        name, optional=True, force_input=True, tooltip="What was done to it."
                    )
                    for name in IMAGES
                ),
            ],
            outputs=[
                io.Int.Output("width", display_name="width"),
                io.Int.Output("height", display_name="height"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, notice, width, height, **descriptions) -> io.NodeOutput:
        lines = [
            f"{name}: {descriptions[name]}" for name in IMAGES if descriptions.get(name) is not None
        ] or ["no reference: text to image"]
        text = "\n".join((*lines, notice) if notice else lines)
        display_node = cls.hidden.dynprompt.get_display_node_id(cls.hidden.unique_id)
        show_text(text, display_node)
        return io.NodeOutput(width, height, ui={"text": (text,)})

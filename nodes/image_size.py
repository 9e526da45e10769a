"""FLUX.2 Image Size: a preset, a size of one's own, or the size of a picture."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.nodes_flux import EmptyFlux2LatentImage

from ..flux2 import image_size as sizes
from .category import CATEGORY
from .notice import SAID_AGAIN, show_text

MAX_BATCH = 64


class Flux2EditImageSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Flux2EditImageSize",
            display_name="FLUX.2 Image Size",
            category=CATEGORY,
            description=(
                "The output size: one of the hosted API's presets, a size of your own, or the "
                "size of a picture. Always a multiple of 16, never stretched."
            ),
            search_aliases=[
                "resolution",
                "aspect ratio",
                "dimensions",
                "width height",
                "empty latent",
                "empty flux 2 latent",
                "preset size",
                "landscape",
                "portrait",
                "match image",
            ],
            inputs=[
                io.Combo.Input(
                    "image_size",
                    options=sizes.CHOICES,
                    default="square_hd",
                    tooltip=(
                        "square_hd 1024x1024, square 512x512, portrait_4_3 768x1024, "
                        "portrait_16_9 576x1024, landscape_4_3 1024x768, landscape_16_9 1024x576; "
                        "custom takes width and height; match image takes the connected image."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=sizes.MIN_CUSTOM,
                    max=sizes.MAX_CUSTOM,
                    step=16,
                    tooltip="Used by custom only, in pixels; cut down to a multiple of 16.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=sizes.MIN_CUSTOM,
                    max=sizes.MAX_CUSTOM,
                    step=16,
                    tooltip="Used by custom only, in pixels; cut down to a multiple of 16.",
                ),
                io.Boolean.Input(
                    "swap",
                    default=False,
                    tooltip="Exchange width and height: portrait for landscape and the reverse.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=(
                        "The picture whose size match image takes: shrunk to 4 megapixels where "
                        "larger, and cut to multiples of 16, exactly as it is as a reference."
                    ),
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="How many pictures to make in one run.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="Empty FLUX.2 latent: 128 channels at 1/16 of the size.",
                ),
                io.Int.Output("width", display_name="width", tooltip="Effective width in pixels."),
                io.Int.Output(
                    "height", display_name="height", tooltip="Effective height in pixels."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **SAID_AGAIN,
        )

    @classmethod
    def execute(cls, image_size, width, height, swap, batch_size=1, image=None) -> io.NodeOutput:
        if not 1 <= batch_size <= MAX_BATCH:
            raise sizes.ImageSizeError(f"batch_size is {batch_size}; it takes 1-{MAX_BATCH}.")
        picture = None if image is None else (image.shape[2], image.shape[1])
        size = sizes.resolve(image_size, width, height, swap, picture)
        text = size.describe()
        show_text(text, cls.hidden.unique_id)
        latent = EmptyFlux2LatentImage.execute(size.width, size.height, batch_size)[0]
        return io.NodeOutput(latent, size.width, size.height, ui={"text": (text,)})

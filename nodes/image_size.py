"""FLUX.2 Image Size: a preset, a size of one's own, or the size of a picture."""

from ..flux2 import image_size as sizes
from ..flux2.references import LATENT_CHANNELS, MULTIPLE, ONE_REFERENCE_AREA, InputError
from . import host
from .host import io

MAX_BATCH = 64


class Flux2EditImageSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditImageSize",
            display_name="FLUX.2 Image Size",
            description=(
                "The output size: one of the hosted API's presets, a size of your own, or the "
                "size of a picture. Always a multiple of 16, never stretched."
            ),
            search_aliases=[
                "resolution", "aspect ratio", "dimensions", "width height", "empty latent",
                "empty flux 2 latent", "preset size", "landscape", "portrait", "match image",
            ],
            inputs=[
                io.Combo.Input(
                    "image_size", options=sizes.CHOICES, default="square_hd",
                    tooltip=(
                        f"{sizes.PRESETS_IN_WORDS}; "
                        "custom takes width and height; match image takes the connected image."
                    ),
                ),
                *(
                    io.Int.Input(
                        side, default=1024, min=sizes.MIN_CUSTOM, max=sizes.MAX_CUSTOM,
                        step=MULTIPLE,
                        tooltip=(
                            f"Used by custom only, in pixels; cut down to a multiple of {MULTIPLE}."
                        ),
                    )
                    for side in ("width", "height")
                ),
                io.Boolean.Input(
                    "swap", default=False,
                    tooltip="Exchange width and height: portrait for landscape and the reverse.",
                ),
                io.Image.Input(
                    "image", optional=True,
                    tooltip=(
                        "The picture whose size match image takes: shrunk to "
                        f"{ONE_REFERENCE_AREA // 10**6} megapixels where larger, and cut to "
                        f"multiples of {MULTIPLE}, as it is where it is the only reference."
                    ),
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=MAX_BATCH,
                    tooltip="How many pictures to make in one run.",
                ),
                io.Float.Input(
                    "megapixels", default=0.0, min=0.0, max=sizes.MAX_MEGAPIXELS, step=0.05,
                    round=0.01, optional=True,
                    tooltip=(
                        "Used by match image only: the most that its size may come to, of "
                        "1024x1024 pixels each. A larger picture's is shrunk in its shape; 0 "
                        "leaves it as it is."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent", display_name="latent",
                    tooltip=(
                        f"Empty FLUX.2 latent: {LATENT_CHANNELS} channels at 1/{MULTIPLE} of the "
                        "size."
                    ),
                ),
                io.Int.Output("width", display_name="width", tooltip="Effective width in pixels."),
                io.Int.Output(
                    "height", display_name="height", tooltip="Effective height in pixels."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image_size="square_hd", width=1024, height=1024, swap=False, batch_size=1, image=None,
        megapixels=0.0,
    ) -> io.NodeOutput:  # fmt: skip
        if not 1 <= batch_size <= MAX_BATCH:
            raise InputError(f"batch_size is {batch_size}; it takes 1-{MAX_BATCH}.")
        picture = None if image is None else (image.shape[2], image.shape[1])
        size = sizes.resolve(image_size, width, height, swap, picture, megapixels)
        shown = host.show_text(size.describe(), cls.hidden.unique_id)
        latent = host.EmptyFlux2LatentImage.execute(size.width, size.height, batch_size)[0]
        return io.NodeOutput(latent, size.width, size.height, ui=shown)

"""FLUX.2 Region Crop: what is painted over and its surroundings, as a picture for FLUX.2."""

from ...flux2.region.crop import make_region, noise_mask
from ...flux2.region.lattice import DEFAULTS, RANGES, Settings
from .. import host
from ..host import io
from . import RegionType

_TIPS = {
    "context": (
        "How much of its surroundings the model sees: the crop is this many times as long as "
        "what is pasted, at least 32 px more on each side."
    ),
    "megapixels": (
        "The most that the crop may come to, of 1024x1024 pixels each; a larger one is shrunk."
    ),
    "max_upscale": "The most that a small crop is enlarged, so that the model can draw detail.",
    "grow": "Pixels of the picture that are added around what is painted.",
    "feather": "Pixels of the picture over which the edit then fades into the original.",
}


class Flux2EditRegionCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        numbers = []
        for name, tip in _TIPS.items():
            whole = isinstance(getattr(DEFAULTS, name), int)
            low, high = RANGES[name]
            kind, step = (io.Int, {}) if whole else (io.Float, {"step": 0.05, "round": 0.01})
            numbers.append(
                kind.Input(
                    name, default=getattr(DEFAULTS, name), min=low, max=high, tooltip=tip, **step
                )
            )
        return host.schema(
            node_id="Flux2EditRegionCrop",
            display_name="FLUX.2 Region Crop",
            description=(
                "Cuts out what you painted over and its surroundings, at a size that FLUX.2 "
                "takes as it is. FLUX.2 Region Paste puts the edit back and leaves every other "
                "pixel as it was."
            ),
            search_aliases=[
                "inpaint", "inpaint crop", "crop and stitch", "mask", "masked edit", "region",
                "outpaint", "outpainting", "remove object", "crop by mask", "detailer",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or a batch with a mask each."),
                *numbers,
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip=(
                        "What to change, of the picture's size; several for one picture give an "
                        "edit each. Left open, the whole picture is the region, and FLUX.2 Region "
                        "Paste finds what has changed."
                    ),
                ),
            ],
            outputs=[
                RegionType.Output(
                    "region", display_name="region",
                    tooltip="For FLUX.2 Region Paste: the picture and the crop's place in it.",
                ),
                io.Image.Output(
                    "image", display_name="image",
                    tooltip="The crop: for image_1 of FLUX.2 Edit Conditioning or the hosted node.",
                ),
                io.Mask.Output(
                    "mask", display_name="mask",
                    tooltip=(
                        "For the host's Set Latent Noise Mask: the tokens that may change, whole."
                    ),
                ),
                io.Int.Output("width", display_name="width", tooltip="The crop's, in pixels."),
                io.Int.Output("height", display_name="height", tooltip="The crop's, in pixels."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image, context=2.0, megapixels=1.0, max_upscale=2.0, grow=0, feather=16, mask=None
    ) -> io.NodeOutput:
        settings = Settings(context, megapixels, max_upscale, grow, feather)
        region = make_region(image, mask, settings)
        shown = host.show_text(region.describe(), cls.hidden.unique_id)
        # A copy: what follows may write into it, and the region must stay.
        crops = region.crop.repeat(region.count // len(region.crop), 1, 1, 1)
        width, height = region.lattice.canvas
        return io.NodeOutput(region, crops, noise_mask(region), width, height, ui=shown)

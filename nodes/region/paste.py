"""FLUX.2 Region Paste: the edit of a region, back in its picture."""

from ...flux2.references import InputError
from ...flux2.region.paste import Choices, paste
from .. import host
from ..host import io
from . import RegionType

_AUTO, _OFF = "auto", "off"


def _asked(name: str, choice: str) -> bool:
    if choice not in (_AUTO, _OFF):
        raise InputError(f'{name} is "{choice}"; it takes {_AUTO} or {_OFF}.')
    return choice == _AUTO


class Flux2EditRegionPaste(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditRegionPaste",
            display_name="FLUX.2 Region Paste",
            description=(
                "Puts an edited crop back into its picture. Outside of the mask every pixel "
                "stays as it was; the edit's drift and tint are undone where its surroundings "
                "prove them."
            ),
            search_aliases=[
                "inpaint", "inpaint stitch", "crop and stitch", "stitch", "composite", "region",
                "paste back", "uncrop", "outpaint", "restore unchanged", "pixel drift",
            ],
            inputs=[
                RegionType.Input("region", tooltip="From FLUX.2 Region Crop."),
                io.Image.Input(
                    "image",
                    tooltip="The edited crop, at its size or any other of the same shape.",
                ),
                io.Combo.Input(
                    "align", options=[_AUTO, _OFF], default=_AUTO,
                    tooltip=(
                        "auto moves and zooms the edit back where it has drifted; refused, and "
                        "said, where the surroundings do not prove it."
                    ),
                ),
                io.Combo.Input(
                    "colour", options=[_AUTO, _OFF], default=_AUTO,
                    tooltip="auto undoes the tint that the edit has given the surroundings.",
                ),
                io.Boolean.Input(
                    "keep_detail", default=True,
                    tooltip=(
                        "Where the crop was resampled and the edit has changed nothing, keep the "
                        "original's detail; off takes the resampled edit as it is."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image", display_name="image",
                    tooltip="The picture with the edit in it, at its own size.",
                ),
                io.Mask.Output(
                    "mask", display_name="mask",
                    tooltip="How much of the edit was taken: 0 where the original is untouched.",
                ),
                io.String.Output(
                    "report", display_name="report",
                    tooltip="The region, and what was aligned, matched or refused.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, region, image, align=_AUTO, colour=_AUTO, keep_detail=True) -> io.NodeOutput:
        choices = Choices(_asked("align", align), _asked("colour", colour), keep_detail)
        pasted = paste(region, image, choices)
        shown = host.show_text(pasted.report, cls.hidden.unique_id)
        return io.NodeOutput(pasted.image, pasted.mask, pasted.report, ui=shown)

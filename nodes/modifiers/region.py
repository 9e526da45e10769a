"""FLUX.2 LoRA Region: a LoRA for a part of the picture, and for some blocks of the model."""

from typing import Any

from ...lora_loader.modifiers.blocks import Blocks
from ...lora_loader.modifiers.region import Region
from ..host import io, schema
from . import output, stack_inputs, stack_output


class Flux2EditLoraRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        return schema(
            node_id="Flux2EditLoraRegion",
            display_name="FLUX.2 LoRA Region",
            description=(
                "Lets a LoRA act where a mask is white, and with weights per block. What it "
                "changes there still reaches the rest through attention, a little."
            ),
            search_aliases=[
                "lora", "lora mask", "masked lora", "regional lora", "lora region",
                "lora block weight", "block weight", "two loras two characters",
            ],
            inputs=[
                *stack_inputs(),
                io.Float.Input(
                    "text", **share,
                    tooltip=(
                        "The LoRA's share on the prompt's tokens and on the layers that see no "
                        "tokens. 0 keeps more of it inside the mask."
                    ),
                ),
                io.Float.Input(
                    "references", **share,
                    tooltip=(
                        "The LoRA's share on the reference images' tokens. 0 keeps more of it "
                        "inside the mask."
                    ),
                ),
                io.String.Input(
                    "blocks", default="",
                    tooltip=(
                        "Multipliers by block, counted from 0, the later wins: double 0-3=0.5, "
                        "single=0, other=1. Or a vector as Inspire's: other, doubles, singles."
                    ),
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip=(
                        "White where the LoRA acts, one for all pictures or one each, of the "
                        "output's shape. Left open: the whole picture."
                    ),
                ),
            ],
            outputs=[stack_output()],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, blocks: str | None = "") -> bool:
        Blocks.read(blocks or "")
        return True

    @classmethod
    def execute(
        cls, lora_stack: object, lora: str = "all", text: float = 1.0, references: float = 1.0,
        blocks: str = "", mask: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        by: list[Any] = []
        if mask is not None or text != 1 or references != 1:
            by.append(Region(mask, text, references))
        if (read := Blocks.read(blocks)).rules:
            by.append(read)
        return output(lora_stack, lora, by, cls.hidden.unique_id)

"""FLUX.2 LoRA Region: a LoRA for a part of the picture, and for some blocks of the model."""

from typing import Any

from ...lora_loader.modifiers.blocks import Blocks
from ...lora_loader.modifiers.region import Region
from ...lora_loader.modifiers.text import ModifierError
from ..host import io, schema
from . import output, stack_inputs, stack_output

_BLACK = (
    "The mask is black: on the picture the LoRA does nothing. Load Image gives such a mask for a "
    "picture without transparency"
)


class Flux2EditLoraRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        return schema(
            node_id="Flux2EditLoraRegion",
            display_name="FLUX.2 LoRA Region",
            description=(
                "Lets a LoRA act where a mask is white, and with another weight in each block of "
                "the model. What it changes there still reaches the rest through attention."
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
                        "The LoRA's share on the prompt's tokens and in the layers that see no "
                        "tokens, 0 to 1. 0 keeps more of it inside the mask."
                    ),
                ),
                io.Float.Input(
                    "references", **share,
                    tooltip=(
                        "The LoRA's share on the reference images' tokens, 0 to 1. 0 keeps more "
                        "of it inside the mask."
                    ),
                ),
                io.String.Input(
                    "blocks", default="",
                    tooltip=(
                        "Multipliers by block, counted from 0, -10 to 10; the later wins: double "
                        "0-3=0.5, single=0, other=1. Or a number each, as Inspire Pack's vector."
                    ),
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip=(
                        "White where the LoRA acts: one for all pictures, or one each; it is "
                        "stretched over the output. Left open: the whole picture."
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
        cls, lora_stack: object = None, lora: str = "all", text: float = 1.0,
        references: float = 1.0, blocks: str = "", mask: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        for name, value in (("text", text), ("references", references)):
            if not 0 <= value <= 1:  # nor NaN
                raise ModifierError(f"{name} is {value:g}; it takes 0 to 1.")
        by: list[Region | Blocks] = []
        if mask is not None or text != 1 or references != 1:
            by.append(Region(None if mask is None else _masks(mask), text, references))
        if (read := Blocks.read(blocks)).rules:
            by.append(read)
        said = ", ".join(one.describe() for one in by)
        if mask is not None and not mask.any():
            said += f". {_BLACK}"
        return output(lora_stack, lora, by, said, cls.hidden.unique_id)


def _masks(mask: Any) -> Any:
    """(pictures, height, width); raises ModifierError."""
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask.squeeze(1)
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or not mask.numel():
        raise ModifierError(f"mask is no mask: its shape is {tuple(mask.shape)}.")
    return mask

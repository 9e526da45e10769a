"""What multiplies a LoRA's scale within a run: FLUX.2 LoRA Schedule and FLUX.2 LoRA Region."""

from collections.abc import Sequence

from ...lora_loader.modifiers.blocks import Blocks
from ...lora_loader.modifiers.weights import Modifier
from ...lora_loader.stack import SLOTS, as_entries, modified
from .. import host
from ..host import LoraStackType, io

WHICH = ("all", *SLOTS)


def stack_inputs() -> list[io.Input]:
    """The stack, and which LoRA of it."""
    return [
        LoraStackType.Input(
            "lora_stack", optional=True,
            tooltip=(
                "From FLUX.2 LoRA Stack or another pack's stacker. What is set here is for Apply "
                "FLUX.2 LoRA Stack: other packs' nodes know the plain scale, and a stacker of "
                "theirs behind this node loses the rest."
            ),
        ),
        io.Combo.Input(
            "lora", options=list(WHICH), default=WHICH[0],
            tooltip=(
                "Which LoRA: the number of its slot, also while others are off. In stacks chained "
                "or of another pack: its place."
            ),
        ),
    ]  # fmt: skip


def stack_output() -> io.Output:
    """The stack with what was set."""
    return LoraStackType.Output(
        "lora_stack", display_name="lora_stack",
        tooltip="The same LoRAs, for Apply FLUX.2 LoRA Stack or another of these nodes.",
    )  # fmt: skip


def output(
    stack: object, which: str, by: Sequence[Modifier | Blocks], said: str, node_id: str | None
) -> io.NodeOutput:
    """The stack with ``by`` on the LoRA, and on the node in a line which that is and what is
    ``said`` of it."""
    before, after = as_entries(stack), modified(stack, which, by)
    names = [
        new.name for old, new in zip(before, after, strict=True) if old.modifiers != new.modifiers
    ]
    text = f"{', '.join(names)}: {said}"
    if not by:
        text = "Nothing is set here: the LoRAs pass through as they are."
    elif not names:
        held = ", ".join(one.slot for one in before) or "nothing"
        text = f"lora is {which}, and the stack holds {held}: nothing changes."
    return io.NodeOutput(after, ui=host.show_text(text, node_id))

"""What multiplies a LoRA's scale within a run: FLUX.2 LoRA Schedule and FLUX.2 LoRA Region."""

from collections.abc import Iterable

from ...lora_loader.modifiers.blocks import Blocks
from ...lora_loader.modifiers.weights import Modifier
from ...lora_loader.stack import MAX_LORAS, modified
from .. import host
from ..host import LoraStackType, io

WHICH = ("all", *map(str, range(1, MAX_LORAS + 1)))


def stack_inputs() -> list[io.Input]:
    """The stack, and which LoRA of it."""
    return [
        LoraStackType.Input(
            "lora_stack",
            tooltip=(
                "From FLUX.2 LoRA Stack. Only Apply FLUX.2 LoRA Stack understands what is set "
                "here: other packs' loaders see the plain scale."
            ),
        ),
        io.Combo.Input(
            "lora", options=list(WHICH), default=WHICH[0],
            tooltip=(
                "Which LoRA: the number of its slot, or its place in a stack of several nodes or "
                "another pack."
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
    stack: object, which: str, by: Iterable[Modifier | Blocks], node_id: str | None
) -> io.NodeOutput:
    """The stack with ``by`` on the LoRA, and on the node what that is."""
    by = tuple(by)
    before = modified(stack, which, ())
    after = modified(stack, which, by)
    names = [
        new.name for old, new in zip(before, after, strict=True) if old.modifiers != new.modifiers
    ]
    lines = [f"{name}: {', '.join(one.describe() for one in by)}" for name in names]
    if not by:
        lines = ["Nothing is set here; the stack passes through."]
    elif not names:
        lines = [f"LoRA {which} is not in the stack, or off: nothing changes."]
    return io.NodeOutput(after, ui=host.show_text("\n".join(lines), node_id))

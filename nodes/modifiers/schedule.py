"""FLUX.2 LoRA Schedule: a LoRA's scale over the steps, and for each picture of a batch."""

from ...lora_loader.modifiers.schedule import BETWEEN, CLOCKS, Schedule
from ..host import io, schema
from . import output, stack_inputs, stack_output

_STEPS = 16
"""Of the curve on the node."""


class Flux2EditLoraSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Flux2EditLoraSchedule",
            display_name="FLUX.2 LoRA Schedule",
            description=(
                "Multiplies a LoRA's scale by another number at each step of a run, or for each "
                "picture of a batch. No weight is touched, whatever the model is stored as."
            ),
            search_aliases=[
                "lora", "lora schedule", "lora scheduler", "lora keyframes", "lora hook keyframes",
                "prompt control", "lora strength over steps", "lora fade", "lora batch",
                "compare lora scales", "xy plot",
            ],
            inputs=[
                *stack_inputs(),
                io.String.Input(
                    "schedule", default="0:1",
                    tooltip=(
                        "moment:multiplier pairs, from 0 (the first step) to 1 (the end): 0:1, "
                        "0.5:0 fades out over the first half. A multiplier is from -10 to 10."
                    ),
                ),
                io.Combo.Input(
                    "between", options=list(BETWEEN), default=BETWEEN[0],
                    tooltip=(
                        "The way from one moment's multiplier to the next one's: in a line, eased, "
                        "or hold, which keeps the former until the next moment comes."
                    ),
                ),
                io.Combo.Input(
                    "clock", options=list(CLOCKS), default=CLOCKS[0], advanced=True,
                    tooltip=(
                        "steps: step i of N, counted from 0, is the moment i / N. core percent: "
                        "ComfyUI's start_percent of hooks, which is no share of FLUX.2's steps."
                    ),
                ),
                io.String.Input(
                    "pictures", default="", optional=True,
                    tooltip=(
                        "A multiplier for each picture of the batch, as 0, 0.5, 1, 1.5: scales "
                        "side by side in one run. Empty: all alike."
                    ),
                ),
            ],
            outputs=[stack_output()],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, schedule: str | None = "0:1", pictures: str | None = ""
    ) -> bool:  # a mistake is shown at the queue, before anything runs
        Schedule.read("0:1" if schedule is None else schedule, "hold", "steps", pictures or "")
        return True

    @classmethod
    def execute(
        cls, lora_stack: object = None, lora: str = "all", schedule: str = "0:1",
        between: str = BETWEEN[0], clock: str = CLOCKS[0], pictures: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        read = Schedule.read(schedule, between, clock, pictures)
        moved = any(multiplier != 1 for _, multiplier in read.pairs)
        said = f"{read.curve(_STEPS)} {read.describe()}" if moved else read.describe()
        by = (read,) if moved or read.pictures else ()
        return output(lora_stack, lora, by, said, cls.hidden.unique_id)

"""Four scales of a LoRA: one batch with a multiplier a picture, over four runs of the host's own.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/four_scales.py [--quick]

The host's side is LoraLoaderModelOnly at 0, 0.5, 1 and 1.5, one queue each, in a warm process that
has the model and the file: it puts the weights back and patches them anew at each scale. Ours is
FLUX.2 LoRA Schedule's ``pictures``. Real sampling by the host of a random model, four steps with
one reference; seconds are the process's own, of one thread, so that what else runs counts for
little. The bytes of patched weights are counted, and the same on every machine.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import bench
import subjects
from bench import Row

SCALES = (0.0, 0.5, 1.0, 1.5)
STEPS, RANK = 4, 32
FULL, QUICK = ((1024, 1, 2, 12), 3), ((256, 1, 1, 8), 1)
"""Width, double and single blocks, latent cells a side; rounds."""


class Sides:
    """One model each, so that neither pays for the other's patches."""

    def __init__(self, size: tuple[int, int, int, int], paths: Any) -> None:
        import torch

        from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule

        *shape, self.cells = size
        self.models = [subjects.model(*shape, "klein-9b", torch.bfloat16) for _ in range(2)]
        self.host = subjects.StockApplier(paths)
        self.ours = subjects.Applier(paths, "side path")
        self.by_picture = Schedule(((0.0, 1.0),), pictures=SCALES)
        self.weights = sum(
            value.numel() * value.element_size() for value in self.models[0].model.parameters()
        )

    def four_queues(self) -> Any:
        """(4, channels, cells, cells), one after the other."""
        import torch

        model, made = self.models[0], []
        for scale in SCALES:  # the loader hands the model on where the scale is 0
            applied = self.host(model, (scale,)) if scale else model
            made.append(subjects.sample(applied, self.cells, 1, STEPS))
        return torch.cat(made)

    def one_batch(self) -> Any:
        """The same of one run."""
        from flux2_lora_edit.lora_loader.patch import apply_stack

        model = self.models[1]
        loras = [
            replace(lora, modifiers=(self.by_picture,)) for lora in self.ours.read(model, (1.0,))
        ]
        side = apply_stack(model, loras, "side path", side_paths=self.ours.side_paths).model
        return subjects.sample(side, self.cells, 1, STEPS, len(SCALES))


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes of each weight that the host patches while this is open, in the model's bfloat16."""
    import comfy.lora

    found: list[int] = []
    patching = comfy.lora.calculate_weight

    def patch(patches: Any, weight: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        found.append(weight.numel() * 2)  # it is handed a float32 copy
        return patching(patches, weight, key, *args, **kwargs)

    comfy.lora.calculate_weight = patch
    try:
        yield found
    finally:
        comfy.lora.calculate_weight = patching


def measure(quick: bool = False) -> list[Row]:
    import torch

    torch.set_num_threads(1)
    size, rounds = QUICK if quick else FULL
    with subjects.three_loras(*size[:3], "ai_toolkit", (RANK,)) as paths:
        sides = Sides(size, paths)
        ways = {"four": sides.four_queues, "one": sides.one_batch}
        times: dict[str, list[float]] = {way: [] for way in ways}
        patched: dict[str, list[int]] = {}
        made: dict[str, Any] = {}
        for number in range(1 + rounds):
            for way, run in ways.items():
                gc.collect()
                begun = time.process_time()
                with counted() as patched[way]:
                    made[way] = run()
                if number:
                    times[way].append(time.process_time() - begun)
    ratio, spread = bench.ratios(times["four"], times["one"])
    apart = float((made["four"] - made["one"]).norm() / made["four"].norm())
    seconds = [sorted(times[way])[rounds // 2] for way in ways]
    four, one = (sum(patched[way]) / 2**20 for way in ways)
    return [
        Row("four queues over one batch", "s", seconds[0], seconds[1], ratio, spread,
            note=f"the pictures differ by {apart:.1g} of their norm, in bfloat16"),
        Row("weights patched", "MiB", four, one, one / four, None, "ours 0", one == 0,
            f"{len(patched['four'])} times, of {sides.weights / 2**20:.0f} MiB of weights"),
    ]  # fmt: skip


if __name__ == "__main__":
    bench.main(__doc__, measure)

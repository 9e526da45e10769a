"""The demo's graph: an edit of the photographs with up to three LoRAs, in this pack's nodes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..graph import Graph, Ref
from .trial import Trial


def installed(loras: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """The inputs of a LoRA Stack with these installed files at these scales."""
    slots: dict[str, Any] = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}
    for number, (name, scale) in enumerate(loras, 1):
        slot = f"lora_{number}"
        slots |= {slot: "installed", f"{slot}.file": name}
        slots |= {f"{slot}.scale": scale, f"{slot}.enabled": True}
    return slots


class Built(NamedTuple):
    """The graph, and the nodes of it that one run of the series has otherwise than the next."""

    graph: Graph
    stack: Ref | None
    save: Ref

    def switch(self, on: Iterable[int], name: str) -> None:
        """Switch on just these slots of the stack (1, 2, 3), and name the picture."""
        self.graph.set(self.save, filename_prefix=name)
        if self.stack is not None:
            slots = [key for key in self.graph.prompt[self.stack]["inputs"] if "enabled" in key]
            wanted = {f"lora_{number}.enabled" for number in on}
            self.graph.set(self.stack, **{slot: slot in wanted for slot in slots})


def build(trial: Trial) -> Built:
    """The graph of the README's picture, in API format."""
    graph = Graph()
    model, clip, vae = trial.models.load(graph)
    stack = report = None
    if trial.loras:
        slots = installed((lora.name, lora.scale) for lora in trial.loras)
        stack = graph.add("Flux2EditLoraStack", **slots)
        model = report = graph.add(
            "Flux2EditApplyLoraStack",
            model=model,
            lora_stack=stack,
            mode="auto",
            on_mismatch="error",
        )
    conditioning = graph.add(
        "Flux2EditConditioning",
        clip=clip,
        vae=vae,
        prompt=trial.prompt,
        negative_prompt="",
        reference_size="flux2",
        **{
            f"image_{number}": graph.add("LoadImage", image=name)
            for number, name in enumerate(trial.images, 1)
        },
    )
    pixels = graph.add("VAEDecode", samples=_sampled(graph, trial, model, conditioning), vae=vae)
    save = graph.add("SaveImage", images=pixels, filename_prefix="edit")
    if report is not None:
        graph.add("PreviewAny", source=report.out(2))
    return Built(graph, stack, save)


def _sampled(graph: Graph, trial: Trial, model: Ref, conditioning: Ref) -> Ref:
    preset, side = (trial.size, 1024) if isinstance(trial.size, str) else ("custom", trial.size)
    size = graph.add(
        "Flux2EditImageSize",
        image_size=preset,
        width=side,
        height=side,
        swap=False,
        batch_size=1,
    )
    negative = {"negative": conditioning.out(1)} if trial.negative else {}
    return graph.add(
        "Flux2EditSampler",
        model=model,
        positive=conditioning.out(0),
        **negative,
        latent_image=size,
        seed=trial.seed,
        steps=trial.steps,
        guidance=trial.guidance,
        sampler_name="euler",
        denoise=1.0,
    )

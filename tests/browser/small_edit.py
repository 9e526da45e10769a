"""A local edit that takes a second on a CPU: two references, two LoRAs, tiny models."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from host.graph import Graph

Prompt = dict[str, dict[str, Any]]


class Picture(NamedTuple):
    name: str
    size: str


IMAGES = (Picture("small-1.png", "96x96"), Picture("small-2.png", "144x96"))
LORAS = (("ai-toolkit.safetensors", 1.0), ("diffusers.safetensors", 0.8))
# The ids in order of creation, for tests that point at a node.
MODEL, CLIP, VAE, STACK, APPLY, IMAGE_1, IMAGE_2, CONDITIONING, SIZE, SAMPLER, DECODE, SAVE = range(
    1, 13
)


def small_edit(
    loras: Sequence[tuple[str, float]] = LORAS, *, steps: int = 4, seed: int = 1
) -> Prompt:
    graph = Graph()
    model = graph.add("UNETLoader", unet_name="flux2-dev-tiny.safetensors", weight_dtype="default")
    clip = graph.add(
        "CLIPLoader", clip_name="clip-l-random.safetensors", type="flux2", device="default"
    )
    vae = graph.add("VAELoader", vae_name="taef2")
    slots: dict[str, Any] = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}
    for number, (name, scale) in enumerate(loras, 1):
        slot = f"lora_{number}"
        slots |= {slot: "installed", f"{slot}.file": name}
        slots |= {f"{slot}.scale": scale, f"{slot}.enabled": True}
    stack = graph.add("Flux2EditLoraStack", **slots)
    applied = graph.add(
        "Flux2EditApplyLoraStack", model=model, lora_stack=stack, mode="auto", on_mismatch="error"
    )
    images = [graph.add("LoadImage", image=image.name) for image in IMAGES]
    conditioning = graph.add(
        "Flux2EditConditioning",
        clip=clip,
        vae=vae,
        prompt="put the cat of image 2 into image 1",
        negative_prompt="",
        reference_size="flux2",
        image_1=images[0],
        image_2=images[1],
    )
    size = graph.add(
        "Flux2EditImageSize",
        image_size="match image",
        width=1024,
        height=1024,
        swap=False,
        batch_size=1,
        image=images[0],
    )
    sampler = graph.add(
        "Flux2EditSampler",
        model=applied,
        positive=conditioning,
        latent_image=size,
        seed=seed,
        steps=steps,
        guidance=2.5,
        sampler_name="euler",
        denoise=1.0,
    )
    decoded = graph.add("VAEDecode", samples=sampler, vae=vae)
    graph.add("SaveImage", images=decoded, filename_prefix="by-hand")
    return graph.prompt


OUTPUTS = {
    "UNETLoader": ("MODEL",),
    "CLIPLoader": ("CLIP",),
    "VAELoader": ("VAE",),
    "LoadImage": ("IMAGE", "MASK"),
    "VAEDecode": ("IMAGE",),
    "Flux2EditLoraStack": ("lora_stack",),
    "Flux2EditApplyLoraStack": ("model", "clip", "report"),
    "Flux2EditConditioning": ("positive", "negative", "width", "height"),
    "Flux2EditImageSize": ("latent", "width", "height"),
    "Flux2EditSampler": ("latent",),
}


def unlinked(prompt: Prompt) -> tuple[Prompt, list[tuple[int, str, int, str]]]:
    """The graph without its links, and the links as (node, output, node, input)."""
    loose, links = {}, []
    for node, entry in prompt.items():
        inputs = {}
        for name, value in entry["inputs"].items():
            if isinstance(value, list):
                output = OUTPUTS[prompt[value[0]]["class_type"]][value[1]]
                links.append((int(value[0]), output, int(node), name))
            else:
                inputs[name] = value
        loose[node] = {**entry, "inputs": inputs}
    return loose, links

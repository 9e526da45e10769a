"""The demo's graph: an edit of two photographs with two LoRAs, in this pack's nodes."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .client import Client
from .graph import Graph
from .stock import Models

PROMPT = "the cat of image 2 on the shoulder of the astronaut of image 1"


class Edit(NamedTuple):
    """What the user may choose."""

    models: Models
    images: Sequence[str]
    loras: Sequence[tuple[str, float]]
    prompt: str = PROMPT
    size: str = "landscape_4_3"
    steps: int = 4
    seed: int = 42
    guidance: float = 2.5


def installed(loras: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """The inputs of a LoRA Stack with these installed files at these scales."""
    slots: dict[str, Any] = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}
    for number, (name, scale) in enumerate(loras, 1):
        slot = f"lora_{number}"
        slots |= {slot: "installed", f"{slot}.file": name}
        slots |= {f"{slot}.scale": scale, f"{slot}.enabled": True}
    return slots


def build(edit: Edit) -> Graph:
    """The graph of the README's picture, in API format."""
    graph = Graph()
    model, clip, vae = edit.models.load(graph)
    report: dict[str, Any] | None = None
    if edit.loras:
        stack = graph.add("Flux2EditLoraStack", **installed(edit.loras))
        loaded = graph.add(
            "Flux2EditApplyLoraStack",
            model=model,
            lora_stack=stack,
            mode="auto",
            on_mismatch="error",
        )
        model, report = loaded, {"source": loaded.out(2)}
    conditioning = graph.add(
        "Flux2EditConditioning",
        clip=clip,
        vae=vae,
        prompt=edit.prompt,
        negative_prompt="",
        reference_size="flux2",
        **{
            f"image_{number}": graph.add("LoadImage", image=name)
            for number, name in enumerate(edit.images, 1)
        },
    )
    size = graph.add(
        "Flux2EditImageSize",
        image_size=edit.size,
        width=1024,
        height=1024,
        swap=False,
        batch_size=1,
    )
    samples = graph.add(
        "Flux2EditSampler",
        model=model,
        positive=conditioning.out(0),
        negative=conditioning.out(1),
        latent_image=size,
        seed=edit.seed,
        steps=edit.steps,
        guidance=edit.guidance,
        sampler_name="euler",
        denoise=1.0,
    )
    pixels = graph.add("VAEDecode", samples=samples, vae=vae)
    graph.add("SaveImage", images=pixels, filename_prefix="flux2-edit")
    if report:
        graph.add("PreviewAny", **report)
    return graph


def choose(client: Client, unet: str, clip: str, vae: str) -> Models:
    """The three files to use: those named, the others by what FLUX.2's are usually called.

    Raises LookupError with the files that there are.
    """
    listed = {
        kind: _choices(client, node, name)
        for kind, node, name in (
            ("unet", "UNETLoader", "unet_name"),
            ("clip", "CLIPLoader", "clip_name"),
            ("vae", "VAELoader", "vae_name"),
        )
    }
    unet = _pick("unet", unet, listed["unet"], r"flux[._-]?2")
    # The text encoder goes with the model: klein 4B and 9B have a Qwen3 each, dev has Mistral 3.
    encoder = r"mistral"
    if "klein" in unet.lower():
        encoder = r"qwen_?3.*8b" if re.search(r"9b", unet, re.IGNORECASE) else r"qwen_?3.*4b"
    return Models(
        unet=unet,
        clip=_pick("clip", clip, listed["clip"], encoder),
        vae=_pick("vae", vae, listed["vae"], r"flux[._-]?2"),
    )


def _choices(client: Client, node: str, name: str) -> list[str]:
    spec = client.object_info(node)["input"]["required"][name]
    options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    return [str(option) for option in options]


def _pick(kind: str, named: str, listed: Sequence[str], pattern: str) -> str:
    if named:
        found = [name for name in listed if name == named or name.endswith("/" + named)]
    else:
        found = [name for name in listed if re.search(pattern, name, re.IGNORECASE)]
    if not found:
        wanted = f"no {named}" if named else "none that looks like FLUX.2's"
        raise LookupError(
            f"--{kind}: there is {wanted} in that models folder. Name one of these with --{kind}:\n"
            + "\n".join(f"  {name}" for name in listed)
        )
    return found[0]

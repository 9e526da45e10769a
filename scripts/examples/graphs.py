"""The graphs of the examples in API format: what each shows, without how it is laid out."""

from collections.abc import Sequence
from typing import Any

from host.graph import Graph, Output, Ref

from .models import Family

# ComfyUI puts this picture into every new input folder.
PICTURE = "example.png"


def loaders(graph: Graph, family: Family) -> tuple[Ref, Ref, Ref]:
    return (
        graph.add(
            "UNETLoader",
            "Load Diffusion Model",
            unet_name=family.model.name,
            weight_dtype="default",
        ),
        graph.add(
            "CLIPLoader",
            "Load CLIP",
            clip_name=family.text_encoder.name,
            type="flux2",
            device="default",
        ),
        graph.add("VAELoader", "Load VAE", vae_name=family.vae.name),
    )


def pictures(graph: Graph, *names: str) -> dict[str, Ref]:
    """A Load Image node for each name, as the inputs image_1 to image_3."""
    return {
        f"image_{number}": graph.add("LoadImage", f"image {number}", image=name)
        for number, name in enumerate(names, 1)
    }


def stack(graph: Graph, repos: Sequence[tuple[str, float]] = ()) -> Ref:
    """A LoRA stack of Hugging Face repos and their scales; the other slots are ``none``."""
    slots: dict[str, Any] = {}
    for number in (1, 2, 3):
        slot = f"lora_{number}"
        slots[slot] = "none"
        if number <= len(repos):
            repo, scale = repos[number - 1]
            slots |= {slot: "hugging face", f"{slot}.repo": repo}
            slots |= {f"{slot}.scale": scale, f"{slot}.enabled": True}
    return graph.add("Flux2EditLoraStack", "FLUX.2 LoRA Stack", **slots)


def local(
    graph: Graph,
    family: Family,
    prompt: str,
    *,
    images: dict[str, Ref],
    loras: Ref,
    size: str,
    cfg: bool = False,
    prefix: str = "flux2-edit",
    seed: int = 42,
) -> dict[str, Ref]:
    """Loaders to Save Image on this machine; returns the nodes that a layout wants by name."""
    model, clip, vae = loaders(graph, family)
    applied = graph.add(
        "Flux2EditApplyLoraStack",
        "Apply FLUX.2 LoRA Stack",
        model=model,
        lora_stack=loras,
        mode="auto",
        on_mismatch="error",
    )
    conditioning = graph.add(
        "Flux2EditConditioning",
        "FLUX.2 Edit Conditioning",
        clip=clip,
        vae=vae,
        prompt=prompt,
        negative_prompt="",
        reference_size="flux2",
        trigger_words="",
        **images,
    )
    first: dict[str, Any] = {"image": images["image_1"]} if size == "match image" else {}
    latent = graph.add(
        "Flux2EditImageSize",
        "FLUX.2 Image Size",
        image_size=size,
        width=1024,
        height=1024,
        swap=False,
        batch_size=1,
        megapixels=1.0 if first else 0.0,
        **first,
    )
    half: dict[str, Output] = {"negative": conditioning.out(1)} if cfg else {}
    sampler = graph.add(
        "Flux2EditSampler",
        "FLUX.2 Sampler",
        model=applied,
        positive=conditioning,
        latent_image=latent,
        seed=seed,
        steps=family.steps,
        guidance=family.guidance,
        sampler_name="euler",
        denoise=1.0,
        preset="as set",
        **half,
    )
    decoded = graph.add("VAEDecode", "VAE Decode", samples=sampler, vae=vae)
    saved = graph.add("SaveImage", "Save Image", images=decoded, filename_prefix=prefix)
    return {
        "model": model,
        "clip": clip,
        "vae": vae,
        "apply": applied,
        "conditioning": conditioning,
        "size": latent,
        "sampler": sampler,
        "decode": decoded,
        "save": saved,
    }


def hosted(
    graph: Graph,
    prompt: str,
    *,
    images: dict[str, Ref],
    loras: Ref,
    size: str = "auto",
    prefix: str = "runcomfy",
    seed: int = 42,
) -> dict[str, Ref]:
    """The RunComfy node and Save Image."""
    node = graph.add(
        "Flux2EditRunComfy",
        "RunComfy FLUX.2 LoRA",
        prompt=prompt,
        image_urls="",
        lora_stack=loras,
        mode="auto",
        image_size=size,
        guidance_scale=2.5,
        num_inference_steps=28,
        seed=seed,
        output_format="png",
        batch_count=1,
        timeout_minutes=30,
        resume_request_id="",
        max_cost=0.0,
        **images,
    )
    saved = graph.add("SaveImage", "Save Image", images=node, filename_prefix=prefix)
    return {"hosted": node, "save": saved}

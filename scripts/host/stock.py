"""The edit graph in ComfyUI's own nodes: what ours are compared with.

The layout is the one of ComfyUI's FLUX.2 template; see ``comfy_extras/nodes_flux.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .graph import Graph, Output, Ref


@dataclass(frozen=True)
class Models:
    """File names as the loaders list them; the tiny models by default."""

    unet: str = "flux2-dev-tiny.safetensors"
    clip: str = "clip-l-random.safetensors"
    vae: str = "taef2"

    def load(self, graph: Graph) -> tuple[Ref, Ref, Ref]:
        """Add the three stock loaders; returns model, clip and vae."""
        model = graph.add("UNETLoader", unet_name=self.unet, weight_dtype="default")
        clip = graph.add("CLIPLoader", clip_name=self.clip, type="flux2", device="default")
        return model, clip, graph.add("VAELoader", vae_name=self.vae)


TINY = Models()


def sampled(
    graph: Graph,
    model: Ref | Output,
    positive: Ref | Output,
    latent: Ref | Output,
    *,
    width: int,
    height: int,
    seed: int = 0,
    steps: int = 4,
    sampler: str = "euler",
) -> Ref:
    """Noise, guider, FLUX.2's schedule and SamplerCustomAdvanced; returns the sampler."""
    return graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=seed),
        guider=graph.add("BasicGuider", model=model, conditioning=positive),
        sampler=graph.add("KSamplerSelect", sampler_name=sampler),
        sigmas=graph.add("Flux2Scheduler", steps=steps, width=width, height=height),
        latent_image=latent,
    )


def edit(
    models: Models = TINY,
    *,
    prompt: str = "a red bicycle",
    images: Sequence[str] = (),
    loras: Sequence[tuple[str, float]] = (),
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    seed: int = 0,
    guidance: float = 2.5,
    prefix: str = "stock",
) -> Graph:
    """A whole edit from loaders to ``SaveImage``.

    Each reference is scaled to exactly ``width`` x ``height``, which keeps tests small and every
    VAE content (taef2 wants multiples of 16); the real rule is the pack's own business.
    """
    graph = Graph()
    model, clip, vae = models.load(graph)
    for name, strength in loras:
        inputs = {"model": model, "lora_name": name, "strength_model": strength}
        model = graph.add("LoraLoaderModelOnly", **inputs)
    positive = graph.add("CLIPTextEncode", clip=clip, text=prompt)
    positive = graph.add("FluxGuidance", conditioning=positive, guidance=guidance)
    for name in images:
        image = graph.add(
            "ImageScale",
            image=graph.add("LoadImage", image=name),
            upscale_method="lanczos",
            width=width,
            height=height,
            crop="center",
        )
        latent = graph.add("VAEEncode", pixels=image, vae=vae)
        positive = graph.add("ReferenceLatent", conditioning=positive, latent=latent)
    empty = graph.add("EmptyFlux2LatentImage", width=width, height=height, batch_size=1)
    size = {"width": width, "height": height}
    samples = sampled(graph, model, positive, empty, seed=seed, steps=steps, **size)
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    graph.add("SaveImage", images=decoded, filename_prefix=prefix)
    return graph

"""Graphs the host tests share: the stock way and ours, side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from host.client import Client
from host.graph import Graph, Output, Ref

MODELS = {"dev": "flux2-dev-tiny.safetensors", "klein": "flux2-klein-tiny.safetensors"}
PROMPT = "put the cat of image 1 into the cup of image 2"


def loaders(graph: Graph, model: str, vae: str) -> tuple[Ref, Ref, Ref]:
    """Model, text encoder and VAE loaders, all stock."""
    return (
        graph.add("UNETLoader", unet_name=MODELS[model], weight_dtype="default"),
        graph.add("CLIPLoader", clip_name="clip-l-random.safetensors", type="flux2"),
        graph.add("VAELoader", vae_name=vae),
    )


def noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with detail at every scale: a shift or another filter changes every latent."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def upload(client: Client, name: str, picture: Image.Image) -> str:
    """Put ``picture`` among the server's inputs as PNG; returns its name for LoadImage."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return client.upload_image(name, buffer.getvalue())


def stock_reference(graph: Graph, conditioning: Ref | Output, image: Ref, vae: Ref) -> Ref:
    latent = graph.add("VAEEncode", pixels=image, vae=vae)
    return graph.add("ReferenceLatent", conditioning=conditioning, latent=latent)


def stock_sampler(
    graph: Graph, guider: Ref, latent: Ref, size: tuple[int, int], steps: int, seed: int
) -> Ref:
    """ComfyUI's own SamplerCustomAdvanced graph; ``size`` in pixels."""
    return graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=seed),
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler"),
        sigmas=graph.add("Flux2Scheduler", steps=steps, width=size[0], height=size[1]),
        latent_image=latent,
    )


def read_latent(output: Path, prefix: str) -> torch.Tensor:
    """What the stock SaveLatent wrote last under ``prefix``."""
    newest = max(output.glob(f"{prefix}_*.latent"), key=lambda path: path.stat().st_mtime_ns)
    return load_file(newest)["latent_tensor"]

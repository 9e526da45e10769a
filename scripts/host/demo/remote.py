"""The demo's second half: the same edit through RunComfy's API, played by the bundled stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standin_server import Standin, Timing

from ..client import Client
from ..graph import Graph
from .trial import PROMPT

NODE = "Flux2EditRunComfy"
# Only handed on to the stand-in, which fetches nothing; and nobody is asked for it (see below).
LORA = "https://huggingface.co/owner/styles/blob/main/ink.safetensors"


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """A running stand-in; the variables that make the node use it, and no real account."""
    with Standin(timing=Timing(0.5, 1.0)) as server:
        yield {
            "RUNCOMFY_API_BASE": server.origin,
            "RUNCOMFY_API_TOKEN": "standin-token-0000",
            "HF_HUB_OFFLINE": "1",
        }


def edit(client: Client, images: tuple[str, ...], output: Path, timeout: float) -> None:
    """Queue the remote edit and tell what came back. Raises RuntimeError when it fails."""
    graph = Graph()
    stack = graph.add(
        "Flux2EditLoraStack",
        lora_1="url",
        lora_2="none",
        lora_3="none",
        **{"lora_1.url": LORA, "lora_1.scale": 0.8, "lora_1.enabled": True},
    )
    photos = {
        f"image_{number}": graph.add("LoadImage", image=name)
        for number, name in enumerate(images, 1)
    }
    remote = graph.add(
        NODE,
        prompt=PROMPT,
        image_urls="",
        lora_stack=stack,
        mode="auto",
        image_size="square",
        guidance_scale=2.5,
        num_inference_steps=4,
        seed=42,
        output_format="png",
        batch_count=1,
        timeout_minutes=5,
        **photos,
    )
    graph.add("SaveImage", images=remote, filename_prefix="standin")
    graph.add("PreviewAny", source=remote.out(3))
    result = client.run(graph.prompt, timeout).check()
    for image in result.images():
        path = output / image["subfolder"] / image["filename"]
        said = "a picture that the stand-in drew"
        print(f"[demo]   {said:<44}{result.wall:8.2f} s   {path.name}")

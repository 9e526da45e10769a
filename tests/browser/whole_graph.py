"""One graph with every node of the pack and no input at its default, and what a graph means."""

from collections import Counter
from typing import Any

from host.graph import Graph

Prompt = dict[str, dict[str, Any]]


def whole_graph() -> Prompt:
    """Every node, every kind of LoRA slot; it runs on the tiny models and the stand-in."""
    graph = Graph()
    model = graph.add(
        "UNETLoader", unet_name="flux2-klein-tiny.safetensors", weight_dtype="default"
    )
    clip = graph.add(
        "CLIPLoader", clip_name="clip-l-random.safetensors", type="flux2", device="default"
    )
    vae = graph.add("VAELoader", vae_name="taef2")
    one, two = (graph.add("LoadImage", image=f"small-{number}.png") for number in (1, 2))
    other = graph.add(
        "Flux2EditLoraStack",
        lora_1="none",
        lora_2="installed",
        lora_3="none",
        **{"lora_2.file": "ai-toolkit.safetensors", "lora_2.scale": 0.35, "lora_2.enabled": True},
    )
    # The two that would be fetched are switched off, and must keep what is written in them.
    stack = graph.add(
        "Flux2EditLoraStack",
        lora_stack=other,
        lora_1="hugging face",
        lora_2="url",
        lora_3="installed",
        **{
            "lora_1.repo": "owner/repo@main:style.safetensors",
            "lora_1.scale": 0.65,
            "lora_1.enabled": False,
            "lora_2.url": "https://example.org/ink.safetensors?download=1",
            "lora_2.scale": 1.25,
            "lora_2.enabled": False,
            "lora_3.file": "diffusers.safetensors",
            "lora_3.scale": 0.0,
            "lora_3.enabled": True,
        },
    )
    fetched = graph.add("Flux2EditDownloadLoras", lora_stack=stack)
    # Of slot 3, whose scale is 0: mode merge can have the rest.
    scheduled = graph.add(
        "Flux2EditLoraSchedule",
        lora_stack=fetched,
        lora="3",
        schedule="0:1, 0.5:-.5",
        between="ease in out",
        clock="core percent",
        pictures="1, 0.5",
    )
    weighed = graph.add(
        "Flux2EditLoraRegion",
        lora_stack=scheduled,
        lora="3",
        text=0.25,
        references=0.5,
        blocks="double 0-1=0.5, single=-1",
        mask=graph.add("ImageToMask", image=two, channel="green"),
    )
    applied = graph.add(
        "Flux2EditApplyLoraStack",
        model=model,
        lora_stack=weighed,
        clip=clip,
        mode="merge",
        on_mismatch="warn",
    )
    told = graph.add("Flux2EditLoraInfo", lora_stack=stack)
    size = graph.add(
        "Flux2EditImageSize",
        image_size="match image",
        width=640,
        height=768,
        swap=True,
        image=two,
        batch_size=2,
        megapixels=0.75,
    )
    conditioning = graph.add(
        "Flux2EditConditioning",
        clip=applied.out(1),
        vae=vae,
        prompt='a "red" bicycle, 100% (sharp:1.2)',
        negative_prompt="grey\nflat",
        image_1=one,
        image_2=two,
        reference_size="1 megapixel each",
        trigger_words="ohwx, (film grain)",
    )
    sampler = graph.add(
        "Flux2EditSampler",
        model=applied,
        positive=conditioning,
        negative=conditioning.out(1),
        latent_image=size,
        seed=2**50 + 1,
        steps=1,
        guidance=4.5,
        sampler_name="heun",
        denoise=0.9,
        preset="klein distilled",
    )
    decoded = graph.add("VAEDecode", samples=sampler, vae=vae)
    graph.add("SaveImage", images=decoded, filename_prefix="whole")
    hosted = graph.add(
        "Flux2EditRunComfy",
        prompt="make it winter",
        image_1=one,
        image_urls="",
        lora_stack=other,
        mode="edit",
        image_size="portrait_4_3",
        guidance_scale=3.5,
        num_inference_steps=20,
        seed=11,
        output_format="webp",
        batch_count=2,
        timeout_minutes=5,
        resume_request_id="",
        max_cost=0.0,
    )
    graph.add("SaveImage", images=hosted, filename_prefix="whole-hosted")
    region = graph.add(
        "Flux2EditRegionCrop",
        image=two,
        mask=graph.add("ImageToMask", image=two, channel="red"),
        context=1.5,
        megapixels=0.75,
        max_upscale=1.25,
        grow=3,
        feather=5,
    )
    pasted = graph.add(
        "Flux2EditRegionPaste",
        region=region,
        image=region.out(1),
        align="off",
        colour="off",
        keep_detail=False,
    )
    graph.add("PreviewAny", source=pasted.out(2))
    graph.add("PreviewAny", source=applied.out(2))
    graph.add("PreviewAny", source=told)
    graph.add("PreviewAny", source=hosted.out(3))
    return graph.prompt


def meaning(prompt: Prompt) -> Counter[str]:
    """What a graph says apart from its ids: each node's type, values and sources, counted."""
    said: Counter[str] = Counter()
    for entry in prompt.values():
        inputs = {
            name: _source(prompt, value) if isinstance(value, list) else _plain(value)
            for name, value in entry["inputs"].items()
        }
        said[f"{entry['class_type']} {sorted(inputs.items())}"] += 1
    return said


def _plain(value: Any) -> Any:
    """The page knows one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _source(prompt: Prompt, link: list[Any]) -> str:
    return f"from {prompt[str(link[0])]['class_type']} {link[1]}"


def bare(prompt: Prompt) -> Prompt:
    """A prompt without titles, which only the page adds."""
    return {
        node: {key: value for key, value in entry.items() if key != "_meta"}
        for node, entry in prompt.items()
    }

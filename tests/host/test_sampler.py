"""The sampler's latent is ComfyUI's own SamplerCustomAdvanced graph's, bit for bit."""

import itertools

import pytest
import torch

from graphs import (
    PROMPT,
    loaders,
    noise_picture,
    read_latent,
    stock_reference,
    stock_sampler,
    upload,
)
from host.graph import Graph

pytestmark = pytest.mark.host

# Multiples of 16, so that the stock nodes crop nothing either; 2 and 3 differ in size.
REFERENCES = ((96, 64), (64, 80), (112, 96))
names = itertools.count()


def sample_both(
    server, client, vae_name, *, model, count, size, guidance, steps=3, batch=1, negative=None,
    ours_references=None, lora=False,
):  # fmt: skip
    """(our latent, the stock graph's latent) of one prompt on one server."""
    graph = Graph()
    unet, clip, vae = loaders(graph, model, vae_name)
    images = [
        graph.add(
            "LoadImage", image=upload(client, f"s{i}.png", noise_picture(*REFERENCES[i], seed=i))
        )
        for i in range(count)
    ]
    order = range(count) if ours_references is None else ours_references
    ours = graph.add(
        "Flux2EditConditioning",
        clip=clip,
        vae=vae,
        prompt=PROMPT,
        negative_prompt=negative or "",
        **{f"image_{n}": images[i] for n, i in enumerate(order, 1)},
    )
    positive = graph.add("CLIPTextEncode", clip=clip, text=PROMPT)
    unwanted = graph.add("CLIPTextEncode", clip=clip, text=negative or "")
    for image in images:
        positive = stock_reference(graph, positive, image, vae)
        unwanted = stock_reference(graph, unwanted, image, vae)
    latent = graph.add("EmptyFlux2LatentImage", width=size[0], height=size[1], batch_size=batch)
    sampler = graph.add(
        "Flux2EditSampler",
        model=unet,
        positive=ours,
        latent_image=latent,
        seed=7,
        steps=steps,
        guidance=guidance,
        **({} if negative is None else {"negative": ours.out(1)}),
    )
    if model == "dev":
        guided = graph.add("FluxGuidance", conditioning=positive, guidance=guidance)
        guider = graph.add("BasicGuider", model=unet, conditioning=guided)
    elif negative is not None and guidance > 1:
        guider = graph.add(
            "CFGGuider", model=unet, positive=positive, negative=unwanted, cfg=guidance
        )
    else:
        guider = graph.add("BasicGuider", model=unet, conditioning=positive)
    stock = stock_sampler(graph, guider, latent, size, steps, seed=7)
    number = next(names)
    graph.add("SaveLatent", samples=sampler, filename_prefix=f"ours{number}")
    graph.add("SaveLatent", samples=stock, filename_prefix=f"stock{number}")
    client.run(graph.prompt, timeout=250).check()
    return (
        read_latent(server.output, f"ours{number}"),
        read_latent(server.output, f"stock{number}"),
    )


@pytest.mark.parametrize(
    "case",
    [
        dict(model="dev", count=0, size=(128, 128), guidance=2.5),
        dict(model="dev", count=1, size=(112, 80), guidance=4.0),
        dict(model="dev", count=2, size=(144, 96), guidance=0.0),
        dict(model="dev", count=3, size=(80, 176), guidance=2.5),
        dict(model="dev", count=1, size=(96, 96), guidance=2.5, negative="blurred"),
        dict(model="dev", count=1, size=(96, 96), guidance=2.5, batch=2),
        dict(model="klein", count=0, size=(128, 128), guidance=2.5),
        dict(model="klein", count=3, size=(112, 80), guidance=1.0, steps=4),
        dict(model="klein", count=0, size=(96, 128), guidance=4.0, negative="blurred"),
        dict(model="klein", count=2, size=(112, 80), guidance=5.0, negative=""),
        dict(model="klein", count=1, size=(96, 96), guidance=1.0, negative="blurred"),
    ],
    ids=lambda case: "-".join(f"{value}" for value in case.values()).replace(" ", ""),
)
def test_bit_equal_to_the_stock_graph(server, client, small_vae, case):
    ours, stock = sample_both(server, client, small_vae, **case)
    assert torch.isfinite(ours).all() and ours.std() > 0
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("references", [(0,), (1, 0)], ids=["dropped", "swapped"])
def test_the_check_sees_a_dropped_or_swapped_reference(server, client, small_vae, references):
    ours, stock = sample_both(
        server, client, small_vae, model="dev", count=2, size=(96, 96), guidance=2.5,
        ours_references=references,
    )  # fmt: skip
    assert not torch.allclose(ours, stock, atol=1e-3)


def test_denoise_is_the_tail_of_a_longer_schedule(server, client, small_vae):
    graph = Graph()
    unet, clip, vae = loaders(graph, "dev", small_vae)
    image = graph.add("LoadImage", image=upload(client, "d.png", noise_picture(96, 96)))
    encoded = graph.add("VAEEncode", pixels=image, vae=vae)
    ours = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=ours, latent_image=encoded, seed=7, steps=3,
        guidance=2.5, denoise=0.5,
    )  # fmt: skip
    text = graph.add("CLIPTextEncode", clip=clip, text=PROMPT)
    guided = graph.add("FluxGuidance", conditioning=text, guidance=2.5)
    sigmas = graph.add("Flux2Scheduler", steps=6, width=96, height=96)
    stock = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=7),
        guider=graph.add("BasicGuider", model=unet, conditioning=guided),
        sampler=graph.add("KSamplerSelect", sampler_name="euler"),
        sigmas=graph.add("SplitSigmas", sigmas=sigmas, step=3).out(1),
        latent_image=encoded,
    )
    graph.add("SaveLatent", samples=sampler, filename_prefix="ours_denoise")
    graph.add("SaveLatent", samples=stock, filename_prefix="stock_denoise")
    client.run(graph.prompt).check()
    assert torch.equal(
        read_latent(server.output, "ours_denoise"), read_latent(server.output, "stock_denoise")
    )


def test_the_status_says_what_does_nothing(client, small_vae):
    graph = Graph()
    dev, clip, vae = loaders(graph, "dev", small_vae)
    klein = graph.add(
        "UNETLoader", unet_name="flux2-klein-tiny.safetensors", weight_dtype="default"
    )
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
    common = dict(positive=text, latent_image=latent, seed=1, steps=1, guidance=2.5)
    cases = {
        graph.add("Flux2EditSampler", model=dev, negative=text.out(1), **common): "negative does",
        graph.add("Flux2EditSampler", model=klein, **common): "guidance does nothing on klein",
        graph.add("Flux2EditSampler", model=klein, negative=text.out(1), **common): "CFG 2.5",
    }
    for sampler in list(cases):
        graph.add("SaveLatent", samples=sampler, filename_prefix="status")
    result = client.run(graph.prompt).check()
    for sampler, words in cases.items():
        assert words in result.outputs[sampler]["text"][0]
        assert [text for node, text in result.texts if node == sampler] == result.outputs[sampler][
            "text"
        ]


def test_preview_and_progress_belong_to_the_node(client, small_vae):
    graph = Graph()
    unet, clip, vae = loaders(graph, "dev", small_vae)
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt="preview")
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, latent_image=latent, seed=11, steps=4,
        guidance=2.5,
    )  # fmt: skip
    graph.add("SaveLatent", samples=sampler, filename_prefix="preview")
    result = client.run(graph.prompt).check()
    assert {p.value for p in result.progress if p.display == sampler and p.maximum == 4} >= {1, 4}
    assert any(node == sampler and data[:2] == b"\xff\xd8" for node, data in result.previews)

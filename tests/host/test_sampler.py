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
    ours_references=None, nag=False, empty="EmptyFlux2LatentImage",
):  # fmt: skip
    """(our latent, the stock graph's latent) of one prompt on one server."""
    graph = Graph()
    unet, clip, vae = loaders(graph, model, vae_name)
    if nag:
        unet = graph.add("NAGuidance", model=unet, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
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
    latent = graph.add(empty, width=size[0], height=size[1], batch_size=batch)
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
    elif negative is not None:
        guider = graph.add(
            "CFGGuider", model=unet, positive=positive, negative=unwanted, cfg=guidance
        )
    else:
        guider = graph.add("BasicGuider", model=unet, conditioning=positive)
    stock = stock_sampler(graph, guider, latent, size, steps, seed=7)
    number = next(names)
    graph.add("SaveLatent", samples=sampler, filename_prefix=f"ours{number}")
    graph.add("SaveLatent", samples=stock, filename_prefix=f"stock{number}")
    client.run(graph.prompt).check()
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
        dict(model="klein", count=1, size=(96, 96), guidance=0.5, negative="blurred"),
        dict(model="klein", count=1, size=(96, 96), guidance=1.0, negative="blurred", nag=True),
        dict(model="klein", count=0, size=(64, 96), guidance=3.0, negative="blurred", nag=True),
        dict(model="klein", count=0, size=(64, 96), guidance=1.0, nag=True),
        dict(model="dev", count=1, size=(96, 64), guidance=2.5, empty="EmptyLatentImage"),
        dict(model="klein", count=0, size=(64, 96), guidance=1.0, empty="EmptySD3LatentImage"),
    ],
    ids=lambda case: "-".join(f"{value}" for value in case.values()).replace(" ", ""),
)
def test_bit_equal_to_the_stock_graph(server, client, small_vae, case):
    ours, stock = sample_both(server, client, small_vae, **case)
    assert torch.isfinite(ours).all() and ours.std() > 0
    assert torch.equal(ours, stock)


def test_nag_on_the_model_has_its_effect(server, client, small_vae):
    same = dict(model="klein", count=1, size=(96, 96), guidance=1.0, negative="blurred")
    plain, _ = sample_both(server, client, small_vae, **same)
    guided, _ = sample_both(server, client, small_vae, **same, nag=True)
    assert not torch.allclose(plain, guided, atol=1e-3)


def test_the_denoised_output_is_the_stock_graphs(server, client, small_vae):
    """With dpm_fast, whose last step is not its last look at the picture."""
    graph = Graph()
    unet, clip, vae = loaders(graph, "dev", small_vae)
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=96, batch_size=1)
    ours = graph.add(
        "Flux2EditSampler", model=unet, positive=text, latent_image=latent, seed=7, steps=3,
        sampler_name="dpm_fast",
    )  # fmt: skip
    guided = graph.add("FluxGuidance", conditioning=text, guidance=2.5)
    guider = graph.add("BasicGuider", model=unet, conditioning=guided)
    stock = stock_sampler(graph, guider, latent, (64, 96), 3, seed=7)
    graph.set(stock, sampler=graph.add("KSamplerSelect", sampler_name="dpm_fast"))
    found = [f"{one}-{index}" for one in ("ours", "stock") for index in (0, 1)]
    for name, sampler in zip(found, (ours, ours, stock, stock), strict=True):
        graph.add("SaveLatent", samples=sampler.out(int(name[-1])), filename_prefix=name)
    client.run(graph.prompt).check()
    latents = {name: read_latent(server.output, name) for name in found}
    assert torch.equal(latents["ours-0"], latents["stock-0"])
    assert torch.equal(latents["ours-1"], latents["stock-1"])
    assert not torch.equal(latents["ours-0"], latents["ours-1"])


@pytest.mark.parametrize(
    ("made", "size", "words"),
    [
        ("EmptyLatentImage", "96x64", "latent_image was an empty one of 4 channels"),
        ("EmptySD3LatentImage", "96x64", "latent_image was an empty one of 16 channels"),
        ("TestEmptyLatent", "192x128", "of 4 channels and does not say its scale: 16 px a cell"),
        ("EmptyFlux2LatentImage", "96x64", ""),
    ],
)
def test_an_empty_latent_of_any_model_is_taken_as_the_host_takes_it(
    server, client, small_vae, made, size, words
):
    graph = Graph()
    unet, clip, vae = loaders(graph, "dev", small_vae)
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT)
    latent = graph.add(made, width=96, height=64, batch_size=1)
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, latent_image=latent, steps=1, seed=7
    )
    pixels = [int(side) for side in size.split("x")]
    guided = graph.add("FluxGuidance", conditioning=text, guidance=2.5)
    guider = graph.add("BasicGuider", model=unet, conditioning=guided)
    stock = stock_sampler(graph, guider, latent, pixels, 1, seed=7)
    graph.add("SaveLatent", samples=sampler, filename_prefix="empty-ours")
    graph.add("SaveLatent", samples=stock, filename_prefix="empty-stock")
    said, advice = client.run(graph.prompt).check().outputs[sampler]["text"][0].split("\n")
    assert advice.startswith("Settings: dev takes more steps than 1")
    assert said.startswith(f"{size}, 1 step") and said.endswith(words)
    assert words or "empty" not in said
    ours, host = (read_latent(server.output, f"empty-{name}") for name in ("ours", "stock"))
    assert torch.equal(ours, host) and list(ours.shape[:1:-1]) == [side // 16 for side in pixels]


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
    guided = common | {"positive": graph.add("FluxGuidance", conditioning=text, guidance=4.0)}
    off = common | {"positive": graph.add("FluxDisableGuidance", conditioning=text)}
    for changed, model in ((guided, dev), (guided, klein), (off, dev)):
        words = f"positive brings ({'4' if changed is guided else 'off'}) does nothing"
        cases[graph.add("Flux2EditSampler", model=model, **changed)] = words
    same = graph.add("FluxGuidance", conditioning=text, guidance=2.5)
    quiet = graph.add("Flux2EditSampler", model=dev, **common | {"positive": same})
    cases[quiet] = "embedded guidance 2.5"
    for sampler in list(cases):
        graph.add("SaveLatent", samples=sampler, filename_prefix="status")
    result = client.run(graph.prompt).check()
    assert "brings" not in result.outputs[quiet]["text"][0]
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

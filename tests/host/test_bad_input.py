"""Bad input: one clear message each, naming the input and the way out."""

import re

import pytest

from graphs import loaders, noise_picture, upload
from host.client import PromptRefused
from host.graph import Graph

pytestmark = pytest.mark.host


def edit_graph(client, vae_name, *, size=(96, 96), model="dev", **sampler_inputs):
    """Our whole graph with one reference; returns it with its parts by name."""
    graph = Graph()
    unet, clip, vae = loaders(graph, model, vae_name)
    picture = upload(client, f"bad-{size[0]}x{size[1]}.png", noise_picture(*size))
    image = graph.add("LoadImage", image=picture)
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, prompt="x", image_1=image)
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
    inputs = dict(model=unet, positive=text, latent_image=latent, seed=1, steps=1, guidance=2.5)
    sampler = graph.add("Flux2EditSampler", **{**inputs, **sampler_inputs})
    graph.add("SaveLatent", samples=sampler, filename_prefix="bad")
    parts = dict(unet=unet, clip=clip, vae=vae, image=image, text=text, latent=latent)
    return graph, parts | {"sampler": sampler}


def fails(client, graph, node, pattern):
    """The run fails at ``node`` of the page, with words that match ``pattern``."""
    result = client.run(graph.prompt)
    assert result.status == "error", "it ran"
    assert result.error.node_id == node
    assert re.search(pattern, result.error.message, re.DOTALL), result.error.message
    return result.error.message


def refused(client, graph, node, pattern):
    """The queue refuses the graph because of ``node``."""
    with pytest.raises(PromptRefused) as caught:
        client.queue(graph.prompt)
    words = "\n".join(caught.value.details(node))
    assert re.search(pattern, words, re.DOTALL), words


def test_four_references_through_a_batch(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    batch = graph.add("RepeatImageBatch", image=parts["image"], amount=4)
    graph.set(parts["text"], image_2=batch)
    fails(client, graph, parts["text"], "image_2 carries a batch of 4 images.*own socket")


@pytest.mark.parametrize(
    ("size", "words"),
    [((60, 200), "image_1 is 60x200.*at least 64 px"), ((640, 72), "image_1 is 640x72.*8:1")],
)
def test_a_reference_too_small_or_too_long(client, small_vae, size, words):
    graph, parts = edit_graph(client, small_vae, size=size)
    fails(client, graph, parts["text"], words)


def test_a_nan_picture(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    graph.set(parts["text"], image_1=graph.add("TestNaNImage"))
    fails(client, graph, parts["text"], "image_1 has NaN")


def test_width_48(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    size = graph.add(
        "Flux2EditImageSize", image_size="custom", width=48, height=512, swap=False, batch_size=1
    )
    graph.set(parts["sampler"], latent_image=size)
    refused(client, graph, size, "48.*64.*width")


def test_width_48_through_a_link(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    number = graph.add("PrimitiveInt", value=48)
    size = graph.add(
        "Flux2EditImageSize", image_size="custom", width=number, height=512, swap=False,
        batch_size=1,
    )  # fmt: skip
    graph.set(parts["sampler"], latent_image=size)
    fails(client, graph, size, "width is 48.*64-16384")


def test_match_image_without_image(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    size = graph.add(
        "Flux2EditImageSize", image_size="match image", width=512, height=512, swap=False,
        batch_size=1,
    )  # fmt: skip
    graph.set(parts["sampler"], latent_image=size)
    fails(client, graph, size, "image is not connected")


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [("steps", 0, "1"), ("steps", 101, "100"), ("guidance", 20.5, "20"), ("denoise", 0.0, "0.01")],
)
def test_numbers_out_of_range(client, small_vae, name, value, limit):
    graph, parts = edit_graph(client, small_vae, **{name: value})
    refused(client, graph, parts["sampler"], rf"{value} .*{limit}.*{name}")


def test_steps_0_through_a_link(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    graph.set(parts["sampler"], steps=graph.add("PrimitiveInt", value=0))
    fails(client, graph, parts["sampler"], "steps is 0; it takes 1 to 100")


def test_a_model_that_is_not_flux2(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    flux1 = graph.add("UNETLoader", unet_name="flux1-dev-tiny.safetensors", weight_dtype="default")
    graph.set(parts["sampler"], model=flux1)
    fails(client, graph, parts["sampler"], "model is not FLUX.2: its weights are those of FLUX.1")


def test_a_vae_that_is_not_flux2s(client, small_vae, other_vae):
    graph, parts = edit_graph(client, small_vae)
    graph.set(parts["text"], vae=graph.add("VAELoader", vae_name=other_vae))
    fails(client, graph, parts["text"], "vae is not a FLUX.2 VAE.*16 channels.*flux2-vae")


def test_a_picture_in_16_channels(client, small_vae, other_vae):
    graph, parts = edit_graph(client, small_vae)
    other = graph.add("VAELoader", vae_name=other_vae)
    latent = graph.add("VAEEncode", pixels=parts["image"], vae=other)
    graph.set(parts["sampler"], latent_image=latent, denoise=0.5)
    fails(client, graph, parts["sampler"], "latent_image has the shape 1x16x.*128 channels")


def test_an_empty_latent_of_a_video(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
    graph.set(parts["sampler"], latent_image=latent)
    fails(client, graph, parts["sampler"], "latent_image has the shape 1x16x2x.*128 channels")


def test_text_of_another_encoder(client, small_vae, narrow_model):
    graph, parts = edit_graph(client, small_vae)
    other = graph.add("UNETLoader", unet_name=narrow_model, weight_dtype="default")
    graph.set(parts["sampler"], model=other)
    fails(client, graph, parts["sampler"], "positive comes from another text encoder.*768.*512")


def test_an_unknown_reference_size(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    graph.set(parts["text"], reference_size="huge")
    refused(client, graph, parts["text"], "reference_size")


def test_a_gap_is_reported_and_runs(client, small_vae):
    graph, parts = edit_graph(client, small_vae)
    graph.set(parts["text"], image_3=parts["image"])
    result = client.run(graph.prompt).check()
    words = next(text for node, text in result.texts if node == parts["text"])
    assert "image_3 is “image 2” to the model" in words


def test_a_run_after_an_error_is_unaffected(server, client, small_vae):
    import torch

    from graphs import read_latent

    graph, parts = edit_graph(client, small_vae)
    client.run(graph.prompt).check()
    before = read_latent(server.output, "bad")
    graph.set(parts["text"], image_2=graph.add("TestNaNImage"))
    fails(client, graph, parts["text"], "image_2 has NaN")
    del graph.prompt[parts["text"]]["inputs"]["image_2"]
    client.forget()
    client.run(graph.prompt).check()
    assert torch.equal(before, read_latent(server.output, "bad"))

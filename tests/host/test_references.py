"""Our reference latents against the host's VAE encode of pictures prepared by hand with PIL."""

import math

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from graphs import loaders, noise_picture, upload
from host.graph import Graph

pytestmark = pytest.mark.host

ONE, SEVERAL = 2024**2, 1024**2


def by_hand(picture: Image.Image, cap: int | None, shift: int = 0) -> Image.Image:
    """The authors' rule with PIL alone; ``shift`` moves the crop, to see the test fail."""
    if cap and picture.width * picture.height > cap:
        factor = math.sqrt(cap / (picture.width * picture.height))
        size = int(picture.width * factor), int(picture.height * factor)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    width, height = picture.width // 16 * 16, picture.height // 16 * 16
    left, top = (picture.width - width) // 2 + shift, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def encode_both(server, client, vae_name, sizes, rule, cap, *, shift=0, quick=False):
    """(ours, the host's encode of the pictures prepared by hand), a list of latents each.

    ``quick`` leaves the VAE's network out: what is compared is what reaches it.
    """
    graph = Graph()
    _, clip, vae = loaders(graph, "dev", vae_name)
    if quick:
        vae = graph.add("TestQuickVae", vae=vae)
    images, hands = {}, []
    for number, size in enumerate(sizes, 1):
        picture = noise_picture(*size, seed=number)
        name = f"reference-{size[0]}x{size[1]}-{number}.png"
        images[f"image_{number}"] = graph.add("LoadImage", image=upload(client, name, picture))
        prepared = upload(client, f"by-hand-{name}", by_hand(picture, cap, shift))
        image = graph.add("LoadImage", image=prepared)
        latent = graph.add("VAEEncode", pixels=image, vae=vae)
        text = graph.add("CLIPTextEncode", clip=clip, text="")
        reference = graph.add("ReferenceLatent", conditioning=text, latent=latent)
        graph.add("TestSaveConditioning", conditioning=reference, name=f"hand_{number}")
        hands.append(f"hand_{number}")
    ours = graph.add(
        "Flux2EditConditioning", clip=clip, vae=vae, prompt="x", reference_size=rule, **images
    )
    graph.add("TestSaveConditioning", conditioning=ours, name="ours_positive")
    graph.add("TestSaveConditioning", conditioning=ours.out(1), name="ours_negative")
    client.run(graph.prompt).check()

    def read(name):
        return load_file(server.output / f"{name}.safetensors")

    positive, negative = read("ours_positive"), read("ours_negative")
    latents = [positive[f"reference_0_{n}"] for n in range(1, len(sizes) + 1)]
    for n, latent in enumerate(latents, 1):
        assert torch.equal(latent, negative[f"reference_0_{n}"]), "negative must carry them too"
    assert len([key for key in positive if key.startswith("reference")]) == len(sizes)
    return latents, [read(name)["reference_0_1"] for name in hands]


@pytest.mark.parametrize(
    ("sizes", "rule", "cap"),
    [
        ([(148, 100)], "flux2", ONE),
        ([(1000, 750)], "flux2", ONE),
        ([(2300, 2100)], "flux2", ONE),
        ([(2300, 2100)], "1 megapixel each", SEVERAL),
        ([(1300, 1000)], "as is", None),
        ([(1300, 1000), (148, 100)], "flux2", SEVERAL),
        ([(300, 1500), (1300, 1000), (1000, 750)], "flux2", SEVERAL),
    ],
)
def test_reference_latents_equal_the_hosts(server, client, small_vae, sizes, rule, cap):
    ours, hand = encode_both(server, client, small_vae, sizes, rule, cap, quick=True)
    for mine, theirs in zip(ours, hand, strict=True):
        assert mine.shape == theirs.shape
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("quick", [True, False])
def test_the_check_sees_a_crop_that_is_off_by_one(server, client, small_vae, quick):
    sizes = [(150, 100)]
    ours, hand = encode_both(server, client, small_vae, sizes, "flux2", ONE, shift=1, quick=quick)
    assert ours[0].shape == hand[0].shape
    assert not torch.allclose(ours[0], hand[0], atol=1e-3)


def test_the_whole_vae_agrees_too(server, client, small_vae):
    ours, hand = encode_both(server, client, small_vae, [(500, 300), (148, 100)], "flux2", SEVERAL)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, hand, strict=True))


def test_the_full_autoencoder_agrees_too(server, client, full_vae):
    ours, hand = encode_both(server, client, full_vae, [(150, 101)], "flux2", ONE)
    assert torch.equal(ours[0], hand[0])


@pytest.mark.parametrize(
    ("picture", "rule", "tokens", "size"),
    [
        ((64, 80), "flux2", 20, (64, 80)),
        ((4000, 3000), "flux2", 15914, (2336, 1744)),
        ((4000, 3000), "as is", 46750, (4000, 2992)),
    ],
)
def test_a_references_size_is_the_outputs_by_links(client, small_vae, picture, rule, tokens, size):
    """``width`` and ``height`` into ``custom``, smaller and larger than the presets are."""
    graph = Graph()
    _, clip, vae = loaders(graph, "dev", small_vae)
    # Another picture each time: hosts before 0.20 say a node's words only where it runs.
    image = graph.add("EmptyImage", width=picture[0], height=picture[1], batch_size=1, color=tokens)
    text = graph.add(
        "Flux2EditConditioning", clip=clip, vae=graph.add("TestQuickVae", vae=vae), image_1=image,
        reference_size=rule,
    )  # fmt: skip
    custom = graph.add(
        "Flux2EditImageSize", image_size="custom", width=text.out(2), height=text.out(3)
    )
    small = graph.add("Flux2EditImageSize", image_size="match image", image=image, megapixels=1.0)
    sides = [graph.add("PreviewAny", source=custom.out(index)) for index in (1, 2)]
    graph.add("PreviewAny", source=small.out(1))
    result = client.run(graph.prompt).check()
    assert [int(result.outputs[node]["text"][0]) for node in sides] == list(size)
    assert f"in all {tokens} tokens" in result.outputs[text]["text"][0]
    said = result.outputs[small]["text"][0]
    shrunk = "1168x880 (from 4000x3000, at most 1 MP), 4015 tokens"
    assert said == (shrunk if tokens > 20 else "64x80, 20 tokens")

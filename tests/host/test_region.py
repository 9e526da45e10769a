"""A region on the real host: sampled under its mask, edited here or hosted, and put back."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

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

SIZE = (320, 240)
PAINTED = (120, 80, 184, 140)
names = itertools.count()


def painted_picture(client, box=PAINTED, size=SIZE, seed=1):
    """(its name, its pixels): a PNG with a hole, which LoadImage hands out as the mask."""
    pixels = np.array(noise_picture(*size, seed=seed))
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    if box:
        alpha[box[1] : box[3], box[0] : box[2]] = 0
    picture = Image.fromarray(np.concatenate([pixels, alpha], axis=2))
    return upload(client, f"painted-{next(names)}.png", picture), pixels


def masked_latent(graph, region, vae):
    latent = graph.add("VAEEncode", pixels=region.out(1), vae=vae)
    return graph.add("SetLatentNoiseMask", samples=latent, mask=region.out(2))


def saved(client, result, node):
    (picture,) = result.images(node)
    return np.asarray(Image.open(io.BytesIO(client.view(picture))))


@pytest.mark.parametrize("model", ["dev", "klein"])
@pytest.mark.parametrize(("steps", "denoise"), [(3, 1.0), (3, 0.6), (2, 0.34)])
def test_a_noise_mask_is_the_stock_graphs_bit_for_bit(
    server, client, small_vae, model, steps, denoise
):
    graph = Graph()
    unet, clip, vae = loaders(graph, model, small_vae)
    image = graph.add("LoadImage", image=painted_picture(client)[0])
    region = graph.add(
        "Flux2EditRegionCrop", image=image, mask=image.out(1), max_upscale=1, feather=4
    )
    latent = masked_latent(graph, region, vae)
    ours = graph.add(
        "Flux2EditSampler", model=unet, latent_image=latent, seed=7, steps=steps, guidance=2.5,
        positive=graph.add(
            "Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT, image_1=region.out(1)
        ),
        denoise=denoise,
    )  # fmt: skip
    text = graph.add("CLIPTextEncode", clip=clip, text=PROMPT)
    positive = stock_reference(graph, text, region.out(1), vae)
    if model == "dev":
        positive = graph.add("FluxGuidance", conditioning=positive, guidance=2.5)
    guider = graph.add("BasicGuider", model=unet, conditioning=positive)
    total = int(steps / denoise)
    size = (region.out(3), region.out(4))
    stock = stock_sampler(graph, guider, latent, size, total, seed=7)
    sigmas = graph.prompt[stock]["inputs"]["sigmas"]
    split = graph.add("SplitSigmas", sigmas=sigmas, step=total - steps)
    graph.set(stock, sigmas=split.out(1))
    found = {"ours": ours, "stock": stock, "given": latent}
    number = next(names)
    for name, samples in found.items():
        graph.add("SaveLatent", samples=samples, filename_prefix=f"region-{name}-{number}")
    client.run(graph.prompt).check()
    latents = {name: read_latent(server.output, f"region-{name}-{number}") for name in found}
    assert torch.equal(latents["ours"], latents["stock"])

    kept, changed = outside_and_inside(latents["ours"], latents["given"])
    assert kept < 1e-4 and changed > 0.05


def outside_and_inside(samples, given):
    """How far the latent moved in the corner, which no paint reaches, and in the middle."""
    difference = (samples - given).abs().amax(dim=(0, 1))
    high, wide = difference.shape
    return difference[0, 0], difference[high // 2, wide // 2]


def edit_graph(client, small_vae, name, **crop):
    """(graph, its parts): a picture cropped, edited with itself as reference, and put back."""
    graph = Graph()
    unet, clip, vae = loaders(graph, "klein", small_vae)
    image = graph.add("LoadImage", image=name)
    region = graph.add("Flux2EditRegionCrop", **{"image": image, "mask": image.out(1), **crop})
    text = graph.add(
        "Flux2EditConditioning", clip=clip, vae=vae, prompt=PROMPT, image_1=region.out(1)
    )
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, seed=3, steps=2,
        latent_image=masked_latent(graph, region, vae),
    )  # fmt: skip
    edited = graph.add("VAEDecode", samples=sampler, vae=vae)
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=edited)
    parts = {
        "picture": graph.add("SaveImage", images=pasted, filename_prefix="region"),
        "report": graph.add("PreviewAny", source=pasted.out(2)),
        "mask": graph.add(
            "SaveImage",
            images=graph.add("MaskToImage", mask=pasted.out(1)),
            filename_prefix="region-mask",
        ),
        "region": region, "text": text, "pasted": pasted, "image": image,
    }  # fmt: skip
    return graph, parts


def test_an_edit_changes_what_was_painted_and_nothing_else(client, small_vae):
    name, pixels = painted_picture(client)
    graph, parts = edit_graph(client, small_vae, name, feather=8)
    result = client.run(graph.prompt).check()
    after = saved(client, result, parts["picture"])
    left, top, right, bottom = PAINTED
    around = np.ones(pixels.shape[:2], bool)
    around[top - 8 : bottom + 8, left - 8 : right + 8] = False
    assert np.array_equal(after[around], pixels[around])
    inside = np.s_[top:bottom, left:right]
    assert (after[inside] != pixels[inside]).any(2).mean() > 0.95
    mask = saved(client, result, parts["mask"])[..., 0]
    assert (mask[inside] == 255).all() and (mask[around] == 0).all()
    (report,) = result.outputs[parts["report"]]["text"]
    assert report.startswith("320x320 (2x of 160x160 at 72,30), 400 tokens")
    assert "In place" in report or "lign" in report  # done or refused, but said


def test_the_size_of_a_crop_is_the_size_of_the_edit(client, small_vae):
    graph, parts = edit_graph(client, small_vae, painted_picture(client)[0])
    size = graph.add("Flux2EditImageSize", image_size="match image", image=parts["region"].out(1))
    said = [
        [graph.add("PreviewAny", source=node.out(index)) for index in indices]
        for node, indices in ((parts["region"], (3, 4)), (parts["text"], (2, 3)), (size, (1, 2)))
    ]
    result = client.run(graph.prompt).check()
    crop, conditioning, image_size = (
        [result.outputs[node]["text"] for node in nodes] for nodes in said
    )
    assert crop == conditioning == image_size


def test_outpainting(client, small_vae):
    """The host pads; the content stays to the bit, and what is new is drawn."""
    pixels = np.array(noise_picture(160, 128, seed=4))
    name = upload(client, "content.png", Image.fromarray(pixels))
    graph, parts = edit_graph(client, small_vae, name, feather=0)
    pad = graph.add(
        "ImagePadForOutpaint", image=parts["image"], left=0, top=0, right=70, bottom=0,
        feathering=0,
    )  # fmt: skip
    graph.set(parts["region"], image=pad, mask=pad.out(1))
    result = client.run(graph.prompt).check()
    after = saved(client, result, parts["picture"])
    assert after.shape == (128, 230, 3)
    assert np.array_equal(after[:, :160], pixels)
    assert after[:, 160:].std() > 1 and not (np.abs(after[:, 160:].astype(int) - 127) <= 1).all()


def test_a_whole_picture_without_a_mask(client):
    """Whatever came back as it was gives the picture back."""
    name, pixels = painted_picture(client, box=None)
    graph = Graph()
    image = graph.add("LoadImage", image=name)
    region = graph.add("Flux2EditRegionCrop", image=image)
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=region.out(1))
    shown = graph.add("SaveImage", images=pasted, filename_prefix="region-whole")
    result = client.run(graph.prompt).check()
    assert np.array_equal(saved(client, result, shown), pixels)


def test_one_picture_and_several_masks(client, small_vae):
    name, pixels = painted_picture(client)
    graph, parts = edit_graph(client, small_vae, name, max_upscale=1, feather=0)
    second = graph.add("LoadImage", image=painted_picture(client, box=(20, 30, 60, 70))[0])
    masks = [graph.add("MaskToImage", mask=one.out(1)) for one in (parts["image"], second)]
    batch = graph.add("ImageBatch", image1=masks[0], image2=masks[1])
    graph.set(parts["region"], mask=graph.add("ImageToMask", image=batch, channel="red"))
    graph.set(parts["text"], image_1=parts["image"])
    pictures = client.run(graph.prompt).check().images(parts["picture"])
    after = [np.asarray(Image.open(io.BytesIO(client.view(one)))) for one in pictures]
    assert len(after) == 2
    for picture, (left, top, right, bottom) in zip(after, (PAINTED, (20, 30, 60, 70)), strict=True):
        changed = (picture != pixels).any(2)
        assert changed[top:bottom, left:right].mean() > 0.9
        changed[top:bottom, left:right] = False
        assert not changed.any()


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        ({}, "The mask is empty. Paint the part to change"),
        ({"mask": "other"}, "Mask 64x48, picture 320x240: same size needed."),
    ],
)
def test_refused(client, crop, words):
    graph = Graph()
    plain = upload(client, "no-hole.png", noise_picture(*SIZE))
    image = graph.add("LoadImage", image=plain)
    other = graph.add("SolidMask", value=1.0, width=64, height=48)
    mask = other if crop else image.out(1)
    region = graph.add("Flux2EditRegionCrop", image=image, mask=mask)
    graph.add("PreviewImage", images=region.out(1))
    result = client.run(graph.prompt)
    assert result.status == "error" and words in result.error.message


def test_an_edit_of_another_shape_is_refused(client):
    graph = Graph()
    image = graph.add("LoadImage", image=painted_picture(client)[0])
    region = graph.add("Flux2EditRegionCrop", image=image, mask=image.out(1))
    other = graph.add("EmptyImage", width=100, height=90, batch_size=1, color=0)
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=other)
    graph.add("PreviewImage", images=pasted)
    result = client.run(graph.prompt)
    assert "Edited picture 100x90, expected 384x384 or the same shape." in result.error.message


@pytest.mark.parametrize("side", [0, 100])
def test_a_hosted_edit_is_put_back(client, standin, monkeypatch, side):
    """The crop goes out; what comes back is square as it is, whatever its size."""
    monkeypatch.setattr(standin, "picture_side", side)
    name, pixels = painted_picture(client, box=(100, 100, 140, 140), size=(300, 300))
    graph = Graph()
    image = graph.add("LoadImage", image=name)
    region = graph.add("Flux2EditRegionCrop", image=image, mask=image.out(1), feather=0)
    hosted = graph.add(
        "Flux2EditRunComfy", prompt="a heron", image_1=region.out(1),
        image_size="auto" if side else "square",
    )  # fmt: skip
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=hosted)
    shown = graph.add("SaveImage", images=pasted, filename_prefix="region-hosted")
    after = saved(client, client.run(graph.prompt).check(), shown)
    changed = (after != pixels).any(2)
    assert changed[100:140, 100:140].all()
    changed[100:140, 100:140] = False
    assert not changed.any()

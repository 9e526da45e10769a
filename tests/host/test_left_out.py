"""A headless prompt may leave out whatever has a default, alone or all at once, on every node."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from graphs import loaders, read_latent
from host.client import PromptRefused
from host.graph import Graph

pytestmark = pytest.mark.host

FILE = {"lora_1": "installed", "lora_1.file": "ai-toolkit.safetensors"}
FETCHED = {  # by Apply and Download LoRAs alone
    "hugging face": {"lora_1.repo": "owner/repo"},
    "url": {"lora_1.url": "https://example.org/ink.safetensors"},
}


def defaults(client, node):
    """The inputs of ``node`` that have a default, with it."""
    info = client.object_info(node)["input"]
    both = info.get("required", {}) | info.get("optional", {})
    given = {name: rest[0].get("default") for name, (_, *rest) in both.items() if rest}
    return {name: default for name, default in given.items() if default is not None}


def outcomes(client, graph, node, given, outcome):
    """What the run with ``given`` gives, and each that leaves one of them out, or all."""
    assert given
    sets = {"none": given, "all": {}}
    sets |= {name: {key: given[key] for key in given if key != name} for name in given}
    kept = dict(graph.prompt[node]["inputs"])
    found = {}
    for left_out, inputs in sets.items():
        graph.prompt[node]["inputs"] = kept | inputs
        found[left_out] = outcome(client.run(graph.prompt).check())
    return found


def shown(graph, source):
    node = graph.add("PreviewAny", source=source)
    return lambda result: result.outputs[node]["text"][0]


def latent_of(graph, server, samples):
    graph.add("SaveLatent", samples=samples, filename_prefix="left-out")
    return lambda _: read_latent(server.output, "left-out").numpy().tobytes()


def all_same(found):
    expected = found.pop("none")
    assert [name for name, one in found.items() if one != expected] == []


@pytest.mark.parametrize("node", ["Flux2EditSampler", "Flux2EditConditioning"])
def test_the_sampler_and_its_conditioning(client, server, small_vae, node):
    graph = Graph()
    unet, clip, vae = loaders(graph, "klein", small_vae)
    image = graph.add("LoadImage", image="astronaut.png")
    small = graph.add(
        "ImageScale", image=image, upscale_method="area", width=64, height=64, crop="disabled"
    )
    text = graph.add("Flux2EditConditioning", clip=clip, vae=vae, image_1=small)
    latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
    sampler = graph.add(
        "Flux2EditSampler", model=unet, positive=text, negative=text.out(1), latent_image=latent
    )
    outcome = latent_of(graph, server, sampler)
    tried = sampler if node == "Flux2EditSampler" else text
    given = defaults(client, node)
    if tried == sampler:
        steps = {"steps": given.pop("steps")}
        assert steps["steps"] > 1
        all_same(outcomes(client, graph, tried, steps, outcome))
    # The others need no more than one.
    graph.set(sampler, steps=1)
    all_same(outcomes(client, graph, tried, given, outcome))


def test_the_size(client, server):
    graph = Graph()
    size = graph.add("Flux2EditImageSize")
    outcome = latent_of(graph, server, size)
    shape = shown(graph, size)
    all_same(outcomes(
        client, graph, size, defaults(client, "Flux2EditImageSize"),
        lambda result: (outcome(result), shape(result)),
    ))  # fmt: skip


@pytest.mark.parametrize("node", ["Flux2EditRegionCrop", "Flux2EditRegionPaste"])
def test_a_region(client, node):
    graph = Graph()
    image = graph.add("LoadImage", image="astronaut.png")
    image = graph.add(
        "ImageScale", image=image, upscale_method="area", width=256, height=256, crop="disabled"
    )
    red = graph.add("ImageToMask", image=image, channel="red")
    mask = graph.add("ThresholdMask", mask=red, value=0.98)
    region = graph.add("Flux2EditRegionCrop", image=image, mask=mask)
    edit = graph.add("ImageInvert", image=region.out(1))
    pasted = graph.add("Flux2EditRegionPaste", region=region, image=edit)
    picture = graph.add("SaveImage", images=pasted, filename_prefix="left-out-region")

    def outcome(result):
        (saved,) = result.images(picture)
        return np.asarray(Image.open(io.BytesIO(client.view(saved)))).tobytes()

    tried = region if node == "Flux2EditRegionCrop" else pasted
    all_same(outcomes(client, graph, tried, defaults(client, node), outcome))


def test_a_slot_and_what_is_in_it(client):
    graph = Graph()
    stack = graph.add("Flux2EditLoraStack")
    kinds = dict(client.object_info("Flux2EditLoraStack")["input"]["optional"])
    options = {one["key"]: one["inputs"] for one in kinds["lora_1"][1]["options"]}
    outcome = shown(graph, stack)

    none = {f"lora_{number}": "none" for number in (1, 2, 3)}
    empty = outcomes(client, graph, stack, none, outcome)
    assert set(empty.values()) == {"[]"}

    for kind in ("installed", *FETCHED):
        where = FILE if kind == "installed" else {"lora_1": kind, **FETCHED[kind]}
        graph.prompt[stack]["inputs"] = where
        inside = options[kind]["optional"].items()
        given = {f"lora_1.{name}": rest["default"] for name, (_, rest) in inside}
        found = outcomes(client, graph, stack, given, outcome)
        assert json.loads(found["none"])[0][1:] == [1.0, 1.0]
        all_same(found)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"lora_1": "magic"}, "LoRA slot 1 is missing or of an unknown kind"),
        ({"lora_1": 3}, "LoRA slot 1 is missing or of an unknown kind"),
        ({"lora_2.file": "ai-toolkit.safetensors"}, "LoRA slot 2 is missing or of an unknown"),
        ({"lora_1": "url"}, "Required input is missing: url"),
    ],
)
def test_a_slot_that_is_wrong_is_not_one_that_was_left_out(client, inputs, words):
    graph = Graph()
    stack = graph.add("Flux2EditLoraStack", **inputs)
    shown(graph, stack)
    with pytest.raises(PromptRefused, match=words):
        client.queue(graph.prompt)


def test_applying(client):
    graph = Graph()
    unet = graph.add("UNETLoader", unet_name="flux2-klein-tiny.safetensors", weight_dtype="default")
    stack = graph.add("Flux2EditLoraStack", **FILE)
    applied = graph.add("Flux2EditApplyLoraStack", model=unet, lora_stack=stack)
    report = shown(graph, applied.out(2))
    given = defaults(client, "Flux2EditApplyLoraStack")
    all_same(outcomes(client, graph, applied, given, lambda result: json.loads(report(result))))


def test_the_hosted_run(client):
    """The same request is not paid again: its id is the first one's."""
    graph = Graph()
    node = graph.add("Flux2EditRunComfy", prompt="a heron")
    picture = graph.add("SaveImage", images=node, filename_prefix="left-out")
    identity = shown(graph, node.out(2))

    def outcome(result):
        (image,) = result.images(picture)
        pixels = np.asarray(Image.open(io.BytesIO(client.view(image))))
        return identity(result), pixels.tobytes()

    given = defaults(client, "Flux2EditRunComfy")
    del given["prompt"]  # has to say something where it is not a resumed request
    all_same(outcomes(client, graph, node, given, outcome))
    del graph.prompt[node]["inputs"]["prompt"]
    result = client.run(graph.prompt)
    assert result.status == "error" and "prompt is empty" in result.error.message

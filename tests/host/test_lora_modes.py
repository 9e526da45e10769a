"""merge, side path and auto on the real host: the same pictures, whatever moves round them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphs import loaders, noise_picture, read_latent, upload
from host import tiny, tiny_quantised
from host.demo.graph import installed
from host.graph import Graph

pytestmark = pytest.mark.host

LORAS = ("ai-toolkit.safetensors", "diffusers.safetensors", "kohya.safetensors")


def stack(graph, scales):
    return graph.add("Flux2EditLoraStack", **installed(zip(LORAS, scales, strict=False)))


class Case:
    """A small edit whose graph differs in the ways that ``settings`` name."""

    def __init__(self, server, client, vae, image):
        self.server, self.client, self.vae, self.image = server, client, vae, image

    def __call__(self, mode, *stacks, model="dev", unet=None, batch=1, references=0, cfg=False):
        """(latent, the last report) with each of ``stacks`` (scales) applied one after another."""
        graph = Graph()
        found, clip, vae = loaders(graph, model, self.vae)
        if unet:
            found = graph.add("UNETLoader", unet_name=unet, weight_dtype="default")
        for scales in stacks:
            found = graph.add(
                "Flux2EditApplyLoraStack",
                model=found,
                lora_stack=stack(graph, scales),
                mode=mode,
                on_mismatch="error",
            )
            report = graph.add("PreviewAny", source=found.out(2))
        sockets = {f"image_{n}": self.image(graph) for n in range(1, references + 1)}
        text = graph.add(
            "Flux2EditConditioning",
            clip=clip,
            vae=vae,
            prompt="a cat",
            negative_prompt="a dog",
            **sockets,
        )
        latent = graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=batch)
        settings = {"negative": text.out(1)} if cfg else {}
        sampler = graph.add(
            "Flux2EditSampler",
            model=found,
            positive=text,
            latent_image=latent,
            seed=3,
            steps=2,
            guidance=2.5,
            **settings,
        )
        graph.add("SaveLatent", samples=sampler, filename_prefix="modes")
        result = self.client.run(graph.prompt).check()
        words = json.loads(result.outputs[report]["text"][0]) if stacks else None
        return read_latent(self.server.output, "modes"), words


@pytest.fixture
def case(server, client, small_vae):
    name = upload(client, "modes.png", noise_picture(64, 80))
    return Case(server, client, small_vae, lambda graph: graph.add("LoadImage", image=name))


def error(found, wanted, plain):
    """The difference, as a share of what the LoRAs do to the picture."""
    return ((found - wanted).norm() / (wanted - plain).norm()).item()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch": 2},
        {"references": 2},
        {"model": "klein", "cfg": True, "references": 1},
        {"model": "klein", "cfg": True, "batch": 2},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_merge_and_side_path_make_the_same_picture(case, settings):
    scales = (1.0, 0.6, 0.3)
    plain, _ = case("merge", **settings)
    merged, report = case("merge", scales, **settings)
    assert report["mode"] == {"asked": "merge", "taken": "merge", "reason": "asked for"}
    beside, report = case("side path", scales, **settings)
    assert report["mode"]["taken"] == "side path"
    assert (merged - plain).abs().max() > 0.05
    assert error(beside, merged, plain) < 1e-3
    again, _ = case("merge", **settings)
    assert torch.equal(again, plain), "the loader's model was changed"


def test_a_moved_slider_and_back(case):
    plain, _ = case("side path")
    half, _ = case("side path", (0.5,))
    full, _ = case("side path", (1.0,))
    back, _ = case("side path", (0.5,))
    assert torch.equal(back, half)
    merged, _ = case("merge", (0.5,))
    assert error(half, merged, plain) < 1e-3
    assert error(full, merged, plain) > 0.1


def test_stacks_in_a_row(case):
    plain, _ = case("merge")
    merged, _ = case("merge", (0.5, 0.25), (0.0, 0.75))
    beside, _ = case("side path", (0.5, 0.25), (0.0, 0.75))
    at_once, _ = case("merge", (0.5, 1.0))
    assert error(merged, at_once, plain) < 1e-3
    assert error(beside, at_once, plain) < 1e-3


@pytest.mark.parametrize("form", ["float8_e4m3fn", "nvfp4"])
def test_auto_on_a_quantised_model(case, server, form):
    """The file as its makers publish it, through the stock loader."""
    import inprocess

    inprocess.import_comfy()
    name = f"modes-{form}.safetensors"
    path = server.base / "models" / "diffusion_models" / name
    save_file(tiny_quantised.quantised(tiny.transformer("dev"), form), path)
    try:
        plain, _ = case("auto", unet=name)
        changed, report = case("auto", (1.0,), unet=name)
        assert report["mode"]["taken"] == "side path"
        assert "the weights are" in report["mode"]["reason"]
        merged, _ = case("merge", (1.0,), unet=name)
    finally:
        path.unlink()
    # Merged, requantisation adds its own noise: the same way, not the same picture.
    assert error(changed, merged, plain) < 1.0
    assert (changed - plain).abs().max() > 0.01


@pytest.mark.parametrize("in_place", [True, False])
def test_a_model_that_a_node_has_compiled(server, client, small_vae, in_place):
    """It is FLUX.2, and the very weights that the host would patch, under its names for them."""
    client.forget()
    graph = Graph()
    plain, _, _ = loaders(graph, "dev", small_vae)
    apply = graph.add("Flux2EditApplyLoraStack", model=plain, lora_stack=stack(graph, (0.8, 0.5)))
    dump = graph.add("TestDumpPatchedWeights", model=apply, name="plain")
    client.run(graph.prompt).check()
    compiled = graph.add("TestCompileInPlace", model=plain, in_place=in_place)
    graph.set(apply, model=compiled, mode="merge")
    graph.set(dump, name="compiled")
    try:
        client.run(graph.prompt).check()
    finally:
        client.forget()
    want, found = (load_file(server.output / f"{n}.safetensors") for n in ("plain", "compiled"))
    assert len(want) > 10 and all("._orig_mod." in name for name in found)
    found = {name.replace("._orig_mod", ""): tensor for name, tensor in found.items()}
    assert found.keys() == want.keys()
    assert all(torch.equal(found[name], want[name]) for name in want)

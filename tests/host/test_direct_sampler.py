"""A sampler that calls the diffusion model by itself, as packs have: the LoRAs are in its picture.

Flux2Klein KSampler Experimental is one; ``benchmarks/results/packs.md`` has the real one.
"""

import json
import time

import pytest
import torch

from graphs import loaders, read_latent
from host.demo.graph import installed
from host.graph import Graph

pytestmark = pytest.mark.host

UNUSED = "the LoRAs beside the weights were not used"


class Case:
    """The graph round such a sampler: (latent, the mode that was taken, all that nodes said)."""

    def __init__(self, server, client, vae):
        self.server, self.client, self.graph = server, client, Graph()
        self.model, clip, _ = loaders(self.graph, "dev", vae)
        self.text = self.graph.add("CLIPTextEncode", clip=clip, text="a cat")
        self.latent = self.graph.add("EmptyFlux2LatentImage", width=64, height=64, batch_size=1)
        self.stack = self.graph.add("Flux2EditLoraStack", **installed([("kohya.safetensors", 1.0)]))
        self.apply = self.graph.add(
            "Flux2EditApplyLoraStack", model=self.model, lora_stack=self.stack
        )
        self.report = self.graph.add("PreviewAny", source=self.apply.out(2))
        self.sampler = self.graph.add("TestDirectSampler", positive=self.text, latent=self.latent)
        self.graph.add("SaveLatent", samples=self.sampler, filename_prefix="direct")

    def __call__(self, mode, scale, runs=True):
        model = self.apply if mode else self.model
        self.graph.set(self.sampler, model=model, runs=runs)
        self.graph.set(self.apply, mode=mode or "merge")
        self.graph.set(self.stack, **{"lora_1.scale": scale})
        result = self.client.run(self.graph.prompt).check()
        taken = json.loads(result.outputs[self.report]["text"][0])["mode"]["taken"]
        return read_latent(self.server.output, "direct"), taken


@pytest.fixture
def case(server, client, small_vae):
    client.forget()
    return Case(server, client, small_vae)


def error(found, wanted, plain):
    return ((found - wanted).norm() / (wanted - plain).norm()).item()


def test_its_picture_has_the_loras(case):
    """Also where auto has come to the side path by one moved scale."""
    plain, _ = case("", 1.0)
    wants = {scale: case("merge", scale)[0] for scale in (1.0, 0.4)}
    assert (wants[1.0] - plain).abs().max() > 0.05
    for mode, scale, taken in (("side path", 1.0, "side path"), ("side path", 0.4, "side path"),
                               ("auto", 1.0, "merge"), ("auto", 0.4, "side path")):  # fmt: skip
        found, way = case(mode, scale)
        assert way == taken
        assert error(found, wants[scale], plain) < 1e-3
    assert torch.equal(case("", 1.0)[0], plain), "the loader's model was changed"


def test_a_stack_that_nothing_ran_is_said(case):
    start = case.server.log_size()
    case("side path", 1.0)
    case("side path", 0.9, runs=False)
    ends = time.monotonic() + 60
    while UNUSED not in case.server.log(start) and time.monotonic() < ends:
        time.sleep(0.1)
    assert f"(node {case.apply}): {UNUSED}" in case.server.log(start)
    start = case.server.log_size()
    case("side path", 0.8)
    case("", 1.0, runs=False)
    case("merge", 0.5, runs=False)
    assert UNUSED not in case.server.log(start)

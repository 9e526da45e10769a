"""What saves or mixes a model's weights behind Apply finds the LoRAs in them, whatever was before.

``auto`` would have computed them beside the weights after the first moved scale: in such files they
would be missing without a word.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from graphs import loaders
from host.demo.graph import installed
from host.graph import Graph

pytestmark = pytest.mark.host

LORAS = ("ai-toolkit.safetensors", "diffusers.safetensors")
WHY = "takes the weights"


class Case:
    """A graph with one Apply, whose knobs turn between the runs."""

    def __init__(self, server, client, vae, mode):
        self.server, self.client, self.graph = server, client, Graph()
        self.plain, _, _ = loaders(self.graph, "dev", vae)
        self.stack = self.graph.add("Flux2EditLoraStack", **installed([(LORAS[0], 1.0)]))
        self.model = self.graph.add(
            "Flux2EditApplyLoraStack", model=self.plain, lora_stack=self.stack, mode=mode
        )
        self.report = self.graph.add("PreviewAny", source=self.model.out(2))

    def __call__(self, scale):
        """The mode that was taken at this scale, and the report's warnings."""
        self.graph.set(self.stack, **{"lora_1.scale": scale})
        result = self.client.run(self.graph.prompt).check()
        self.executed = result.executed
        report = json.loads(result.outputs[self.report]["text"][0])
        return report["mode"], report["warnings"]

    def saved(self, name):
        """The tensors of the file that was written last under ``name``."""
        files = self.server.output.glob(f"{name}_*.safetensors")
        return load_file(max(files, key=lambda path: path.stat().st_mtime_ns))

    def add_save(self, name, model=None):
        return self.graph.add("ModelSave", model=model or self.model, filename_prefix=name)


@pytest.fixture
def case(server, client, small_vae):
    client.forget()
    return lambda mode: Case(server, client, small_vae, mode)


def same(found, want):
    assert found.keys() == want.keys()
    assert [key for key in want if not torch.equal(found[key], want[key])] == []


def test_a_moved_scale_is_in_the_next_file(case):
    want, found = case("merge"), case("auto")
    want.add_save("want")
    found.add_save("found")
    files = []
    for scale in (0.8, 0.4):
        want(scale)
        mode, warnings = found(scale)
        assert mode["taken"] == "merge" and WHY in mode["reason"] and not warnings
        assert "ModelSave (node" in mode["reason"]
        same(found.saved("found"), want.saved("want"))
        files.append(found.saved("found"))
    assert any(not torch.equal(files[0][key], files[1][key]) for key in files[0])


def test_a_save_that_joins_the_graph_later(case):
    """The host's cache holds the side path then, and knows of nothing behind a node."""
    want, found = case("merge"), case("auto")
    assert found(0.8)[0]["taken"] == "merge"
    assert found(0.4)[0]["taken"] == "side path"
    want.add_save("want")
    want(0.4)
    save = found.add_save("found")
    assert found(0.4)[0]["taken"] == "merge"
    same(found.saved("found"), want.saved("want"))
    found(0.4)
    assert found.model not in found.executed, "nothing has changed"
    del found.graph.prompt[save]
    assert found(0.4)[0]["taken"] == "side path", "a setting keeps its way"


def test_a_merge_of_models(case):
    """Behind a node between, into the second input, and from there into a file."""
    files = []
    for mode in ("merge", "auto"):
        one = case(mode)
        one(0.8)
        mixed = one.graph.add(
            "ModelMergeSimple",
            model1=one.plain,
            model2=one.graph.add("ModelSamplingFlux", model=one.model, max_shift=1.15,
                                 base_shift=0.5, width=64, height=64),
            ratio=0.25,
        )  # fmt: skip
        one.add_save(mode, mixed)
        words, _ = one(0.4)
        assert words["taken"] == "merge" and (
            mode == "merge" or "ModelMergeSimple" in words["reason"]
        )
        files.append(one.saved(mode))
    same(*reversed(files))


def test_a_lora_that_is_extracted(case):
    files = []
    for mode in ("merge", "auto"):
        one = case(mode)
        one(0.8)
        difference = one.graph.add(
            "ModelMergeSubtract", model1=one.model, model2=one.plain, multiplier=1.0
        )
        one.graph.add("LoraSave", filename_prefix=mode, rank=4, lora_type="standard",
                      bias_diff=False, model_diff=difference)  # fmt: skip
        one(0.4)
        files.append(one.saved(mode))
    same(*reversed(files))
    assert max(tensor.abs().max() for tensor in files[1].values()) > 0.01


def test_a_side_path_that_was_asked_for_warns(case, client):
    one = case("side path")
    one(0.8)
    one.add_save("aside")
    mode, (warning,) = one(0.4)
    assert mode["taken"] == "side path"
    assert "ModelSave (node" in warning and "set mode to merge or auto" in warning


def test_parallel_branches_are_no_moved_slider(case):
    """Each Apply node compares its own settings."""
    one = case("auto")
    stack = one.graph.add("Flux2EditLoraStack", **installed([(LORAS[1], 0.5)]))
    other = one.graph.add("Flux2EditApplyLoraStack", model=one.plain, lora_stack=stack, mode="auto")
    report = one.graph.add("PreviewAny", source=other.out(2))
    result = one.client.run(one.graph.prompt).check()
    for place in (one.report, report):
        assert json.loads(result.outputs[place]["text"][0])["mode"]["taken"] == "merge"

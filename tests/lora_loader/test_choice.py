"""The rule of ``auto``, the story of a model's settings, and what a model tells of itself."""

import gc
from types import SimpleNamespace

import pytest
import torch
from tiny_stacks import load, scaled, stack_of


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


@pytest.mark.parametrize(
    ("quantised", "exceeds", "changing", "way", "says"),
    [
        ("", False, False, "merge", "in memory"),
        ("", False, True, "side path", "being changed"),
        ("", True, False, "side path", "larger than the GPU's memory"),
        ("", True, True, "side path", "larger than the GPU's memory"),
        ("nvfp4", False, False, "side path", "the weights are nvfp4"),
        ("nvfp4", True, True, "side path", "the weights are nvfp4"),
    ],
)
def test_the_rule(patch, quantised, exceeds, changing, way, says):
    history, model = patch.History(), Model()
    if changing:
        history.choice(model, 0, "before")
    taken, reason = history.choice(model, 0, "now", quantised, exceeds)
    assert taken == way
    assert says in reason


class Model:
    """Something that can be held weakly."""


def test_a_setting_keeps_its_way(patch):
    history, model = patch.History(), Model()
    ways = [history.choice(model, 0, setting)[0] for setting in ("a", "b", "a", "b", "c")]
    assert ways == ["merge", "side path", "merge", "side path", "side path"]


def test_models_and_places_are_told_apart(patch):
    history, one, two = patch.History(), Model(), Model()
    assert history.choice(one, 0, "a")[0] == "merge"
    assert history.choice(two, 0, "b")[0] == "merge"
    assert history.choice(one, 1, "b")[0] == "merge"
    assert history.choice(one, 1, "c")[0] == "side path"


def test_the_story_is_bounded_and_holds_no_model(patch):
    history, model = patch.History(most=2), Model()
    for setting in range(10):
        history.choice(model, 0, setting)
    (settings,) = history._models.values()
    assert list(settings) == [(0, 8), (0, 9)]
    del model, settings
    gc.collect()
    assert not history._models


def test_auto_takes_it_on_quantised_weights(patch, tmp_path):
    model = load(form="nvfp4")
    applied = patch.apply_stack(model, stack_of(model, tmp_path), "auto")
    assert applied.taken == "side path"
    assert "the weights are nvfp4" in applied.reason


def test_auto_remembers_what_a_model_had(patch, tmp_path):
    model, history = load(), patch.History()
    loras = stack_of(model, tmp_path)

    def taken(loras, on=model):
        return patch.apply_stack(on, loras, "auto", history=history).taken

    assert taken(loras) == "merge"
    assert taken(scaled(loras, 0.5)) == "side path", "the slider moved"
    assert taken(loras) == "merge", "a setting keeps its way"
    assert taken(scaled(loras, 0.5), on=load()) == "merge", "another model has a story of its own"
    second = patch.apply_stack(model, loras, "merge").model
    assert taken(scaled(loras, 2.0), on=second) == "merge", "a second stack on top is no change"


def test_each_node_has_its_own_story(patch, tmp_path):
    """Two Apply nodes in parallel branches of one loader: neither moves the other's slider."""
    model, history = load(), patch.History()
    loras = stack_of(model, tmp_path)

    def taken(node, loras):
        return patch.apply_stack(model, loras, "auto", history=history, node=node).taken

    assert taken("7", loras) == "merge"
    assert taken("9", scaled(loras, 0.5)) == "merge", "another branch is no moved slider"
    assert taken("7", scaled(loras, 0.25)) == "side path", "the slider moved"
    assert taken("9", scaled(loras, 0.5)) == "merge", "a setting keeps its way"


class Ggml(torch.Tensor):
    """As ComfyUI-GGUF's: bytes that say what they stand for."""


def gguf(name):
    weight = torch.zeros(4, 4).as_subclass(Ggml)
    weight.tensor_type = SimpleNamespace(name=name)
    return weight


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.zeros(4, 4), ""),
        (torch.zeros(4, 4, dtype=torch.bfloat16), ""),
        (torch.zeros(4, 4, dtype=torch.float16), ""),
        (torch.zeros(4, 4).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(4, 4, dtype=torch.int8), "int8"),
        (gguf("Q4_K"), "Q4_K"),
        (gguf("Q8_0"), "Q8_0"),
        (gguf("BF16"), ""),
        (gguf("F16"), ""),
        (gguf("F32"), ""),
    ],
)
def test_what_counts_as_quantised(patch, weight, kind):
    class Patcher:
        class model:  # noqa: N801
            class layer:  # noqa: N801
                pass

    Patcher.model.layer.weight = weight
    assert patch.quantised(Patcher, ["layer.weight"]) == kind


@pytest.mark.parametrize("form", ["float8_e4m3fn", "nvfp4", "int8_tensorwise"])
def test_the_hosts_own_formats(patch, form):
    import comfy.sd

    from host import tiny, tiny_quantised

    if not tiny_quantised.known(form):
        pytest.skip(f"this ComfyUI has no {form}")
    weights = tiny.transformer("klein-9b", dtype=torch.float32, double=1, single=1)
    model = comfy.sd.load_diffusion_model_state_dict(tiny_quantised.quantised(weights, form))
    blocks = "diffusion_model.double_blocks.0.img_attn."
    found = patch.quantised(model, [f"{blocks}qkv.weight", "diffusion_model.img_in.weight"])
    assert found == {"float8_e4m3fn": "fp8e4m3", "nvfp4": "nvfp4", "int8_tensorwise": "int8"}[form]
    assert patch.quantised(model, ["diffusion_model.img_in.weight"]) == ""


@pytest.mark.parametrize(
    ("device", "size", "state", "exceeds"),
    [
        ("cpu", 64, "NORMAL_VRAM", False),
        ("cuda", 64, "NORMAL_VRAM", True),
        ("cuda", 18, "NORMAL_VRAM", False),
        ("cuda", 18, "LOW_VRAM", True),
        ("cuda", 18, "NO_VRAM", True),
        ("cuda", 23.9, "NORMAL_VRAM", True),
    ],
)
def test_a_model_larger_than_the_gpu(patch, monkeypatch, device, size, state, exceeds):
    """A card of 24 GB; the host keeps about one for the work itself."""
    management = patch.model_management
    monkeypatch.setattr(management, "get_total_memory", lambda _: 24 * 2**30)
    monkeypatch.setattr(management, "vram_state", management.VRAMState[state])

    class Patcher:
        load_device = torch.device(device)

        def model_size(self):
            return size * 2**30

    assert patch.exceeds_memory(Patcher()) is exceeds

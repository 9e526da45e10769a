"""The rule of ``auto``, the story of a model's settings, and what a model tells of itself."""

import gc

import pytest
import torch

from flux2_lora_edit.lora_loader.history import History, Seen


@pytest.fixture(scope="module")
def choice(comfy_inprocess):
    from flux2_lora_edit.lora_loader.patch import choice

    return choice


@pytest.fixture(scope="module")
def model_facts(comfy_inprocess):
    from flux2_lora_edit.lora_loader.patch import model

    return model


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
def test_the_rule(choice, quantised, exceeds, changing, way, says):
    taken, reason = choice.choose(choice.Situation(quantised, exceeds, changing))
    assert taken == way
    assert says in reason


class Model:
    """Something that can be held weakly."""


def by_change(changing):
    return Seen("side path" if changing else "merge", "")


def test_a_setting_keeps_its_way():
    history, model = History(), Model()
    ways = [history.way(model, 0, setting, by_change).way for setting in ("a", "b", "a", "b", "c")]
    assert ways == ["merge", "side path", "merge", "side path", "side path"]


def test_models_and_places_are_told_apart():
    history, one, two = History(), Model(), Model()
    assert history.way(one, 0, "a", by_change).way == "merge"
    assert history.way(two, 0, "b", by_change).way == "merge"
    assert history.way(one, 1, "b", by_change).way == "merge"
    assert history.way(one, 1, "c", by_change).way == "side path"


def test_the_story_is_bounded_and_holds_no_model():
    history, model = History(most=2), Model()
    for setting in range(10):
        history.way(model, 0, setting, by_change)
    (settings,) = history._models.values()
    assert list(settings) == [(0, 8), (0, 9)]
    del model, settings
    gc.collect()
    assert not history._models


class Ggml(torch.Tensor):
    """As ComfyUI-GGUF's: bytes that say what they stand for."""

    class tensor_type:  # noqa: N801
        name = "Q4_K"


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.zeros(4, 4), ""),
        (torch.zeros(4, 4, dtype=torch.bfloat16), ""),
        (torch.zeros(4, 4, dtype=torch.float16), ""),
        (torch.zeros(4, 4).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(4, 4, dtype=torch.int8), "int8"),
        (torch.zeros(4, 4).as_subclass(Ggml), "Q4_K"),
    ],
)
def test_what_counts_as_quantised(model_facts, weight, kind):
    class Patcher:
        class model:  # noqa: N801
            class layer:  # noqa: N801
                pass

    Patcher.model.layer.weight = weight
    assert model_facts.quantised(Patcher, ["layer.weight"]) == kind


@pytest.mark.parametrize("form", ["float8_e4m3fn", "nvfp4", "int8_tensorwise"])
def test_the_hosts_own_formats(model_facts, form):
    import comfy.sd

    from host import tiny, tiny_quantised

    if not tiny_quantised.known(form):
        pytest.skip(f"this ComfyUI has no {form}")
    weights = tiny.transformer("klein-9b", dtype=torch.float32, double=1, single=1)
    model = comfy.sd.load_diffusion_model_state_dict(tiny_quantised.quantised(weights, form))
    blocks = "diffusion_model.double_blocks.0.img_attn."
    found = model_facts.quantised(model, [f"{blocks}qkv.weight", "diffusion_model.img_in.weight"])
    assert found == {"float8_e4m3fn": "fp8e4m3", "nvfp4": "nvfp4", "int8_tensorwise": "int8"}[form]
    assert model_facts.quantised(model, ["diffusion_model.img_in.weight"]) == ""


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
def test_a_model_larger_than_the_gpu(model_facts, monkeypatch, device, size, state, exceeds):
    """A card of 24 GB; the host keeps about one for the work itself."""
    management = model_facts.model_management
    monkeypatch.setattr(management, "get_total_memory", lambda _: 24 * 2**30)
    monkeypatch.setattr(management, "vram_state", management.VRAMState[state])

    class Patcher:
        load_device = torch.device(device)

        def model_size(self):
            return size * 2**30

    assert model_facts.exceeds_memory(Patcher()) is exceeds

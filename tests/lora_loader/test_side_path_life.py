"""A side path from run to run: what it shares, what it touches, what it leaves behind."""

import gc
import os
import weakref

import pytest
import torch
from tiny_stacks import beside, effect, forward, load, module, scaled, stack_of

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def test_a_moved_slider_touches_no_weight(patch, tmp_path, monkeypatch):
    import comfy.model_patcher

    model = load()
    loras, side_paths = stack_of(model, tmp_path), patch.SidePathCache()
    first = beside(model, loras, side_paths=side_paths)
    one = forward(first)
    weights = {k: (t.data_ptr(), t._version) for k, t in first.model.state_dict().items()}
    (side,) = first.get_additional_models_with_key("flux2_lora_edit")
    factors = [(p.data_ptr(), p._version) for p in side.model.parameters()]

    def never(*_, **__):
        raise AssertionError("a weight was patched")

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", never)
    second = beside(model, scaled(loras, 0.5), side_paths=side_paths)
    half = forward(second)
    assert {k: (t.data_ptr(), t._version) for k, t in second.model.state_dict().items()} == weights
    (side,) = second.get_additional_models_with_key("flux2_lora_edit")
    assert [(p.data_ptr(), p._version) for p in side.model.parameters()] == factors
    assert second.patches_uuid == model.patches_uuid
    base = forward(model)
    assert 0.2 < effect(half, base).norm() / effect(one, base).norm() < 0.8
    # Nothing of a run lives in the MODEL: the first still is what it was.
    assert torch.equal(forward(first), one)
    assert torch.equal(forward(second), half)


def test_a_slider_moved_outside_of_inference_mode(patch, tmp_path):
    """As a node that trains runs the model, after a sampler has run it."""
    model, side_paths = load(), patch.SidePathCache()
    loras = stack_of(model, tmp_path)
    want = forward(beside(model, scaled(loras, 0.5)))
    forward(beside(model, loras, side_paths=side_paths))
    moved = beside(model, scaled(loras, 0.5), side_paths=side_paths)
    with torch.no_grad():
        assert torch.equal(forward.__wrapped__(moved), want)


def test_it_leaves_when_the_model_fails(patch, tmp_path, monkeypatch):
    model = load()
    kind = type(module(model))
    side = beside(model, stack_of(model, tmp_path))

    def fail(*_, **__):
        assert type(module(model)) is not kind, "it was not there at all"
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(model.model.diffusion_model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(side)
    monkeypatch.undo()
    forward(model)
    assert type(module(model)) is kind
    assert not [name for name in vars(module(model)) if "flux2" in name]


def test_a_module_that_is_gone(patch, tmp_path):
    model = load()
    side = beside(model, stack_of(model, tmp_path))
    kind = type(module(model))
    side.add_object_patch("diffusion_model.single_blocks.0.linear1", None)
    with pytest.raises(patch.PatchError, match="no module diffusion_model.single_blocks.0.linear1"):
        forward(side)
    forward(model)
    assert type(module(model)) is kind, "half a stack was left behind"


def test_the_class_says_what_it_said(patch, tmp_path, monkeypatch):
    """Code that looks at a module's type finds the host's, by isinstance and by name."""
    model = load()
    kind = type(module(model))
    side = beside(model, stack_of(model, tmp_path))
    seen = []
    real = model.model.diffusion_model.forward

    def look(*args, **kwargs):
        seen.append(type(module(model)))
        return real(*args, **kwargs)

    monkeypatch.setattr(model.model.diffusion_model, "forward", look)
    forward(side)
    assert seen[0] is not kind and issubclass(seen[0], kind) and seen[0].__name__ == kind.__name__


def test_the_host_counts_its_memory(patch, tmp_path):
    import comfy.model_management

    model = load()
    side = beside(model, stack_of(model, tmp_path))
    (factors,) = side.get_nested_additional_models()
    total = sum(p.numel() * p.element_size() for p in factors.model.parameters())
    assert factors.model_size() == total > 100_000
    forward(side)
    assert factors in comfy.model_management.loaded_models()
    # Not among the model's own weights: nothing is saved or merged twice.
    assert not [key for key in side.model.state_dict() if "flux2" in key]


def test_offloaded_factors_are_streamed(patch, tmp_path, monkeypatch):
    """Factors that stay off the device are cast as the host casts offloaded weights."""
    import comfy.ops

    model = load()
    side = beside(model, stack_of(model, tmp_path))
    want = forward(side)
    (stack,) = (m.model for m in side.get_nested_additional_models())
    cast = []
    real = comfy.ops.cast_bias_weight

    def counted(module, *args, **kwargs):
        cast.append(module)
        return real(module, *args, **kwargs)

    for layer in stack.layers:
        # Another type stands for another device, of which there is none here.
        layer.factors.weight = torch.nn.Parameter(
            layer.factors.weight.double(), requires_grad=False
        )
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counted)
    assert torch.equal(forward(side), want)
    assert {layer.factors for layer in stack.layers} <= set(cast)


def test_a_model_is_let_go(patch, tmp_path):
    """The side paths kept between runs hold no model."""
    import comfy.model_management

    model, side_paths = load(), patch.SidePathCache()
    side = beside(model, stack_of(model, tmp_path), side_paths=side_paths)
    forward(side)
    gone = [weakref.ref(model.model), weakref.ref(module(model))]
    del model, side
    comfy.model_management.cleanup_models()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_kept_side_paths_are_bounded(patch, tmp_path):
    model, side_paths = load(), patch.SidePathCache(most=2)
    loras, shapes = stack_of(model, tmp_path), patch.weight_shapes(model)
    first = side_paths.get(model, shapes, loras[:1])
    assert side_paths.get(model, shapes, scaled(loras[:1], 3.0)) is first
    assert side_paths.get(load(), shapes, loras[:1]) is first, "another model of the same shapes"
    side_paths.get(model, shapes, loras[:2])
    side_paths.get(model, shapes, loras)
    assert side_paths.get(model, shapes, loras[:1]) is not first
    small = patch.SidePathCache(most_bytes=1)
    first = small.get(model, shapes, loras[:1])
    assert small.get(model, shapes, loras[:1]) is first, "the last one is kept, whatever its size"
    small.get(model, shapes, loras[:2])
    assert small.get(model, shapes, loras[:1]) is not first


def test_the_same_file_changed_on_disk_is_another_setting(patch, tmp_path):
    model = load()
    first = stack_of(model, tmp_path)
    path = tmp_path / "ai_toolkit.safetensors"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    again = stack_of(model, tmp_path)
    assert first[0].identity != again[0].identity
    assert first[1].identity == again[1].identity


def test_a_copy_for_another_gpu(patch, tmp_path):
    """The host asks the patcher for a fresh one, and the wrapper finds it by the model it runs."""
    model = load()
    loras = stack_of(model, tmp_path)
    side = beside(model, loras)
    (own,) = side.get_additional_models_with_key("flux2_lora_edit")
    if not hasattr(own, "cached_patcher_init"):
        pytest.skip("this ComfyUI knows no multi-GPU")
    make, arguments = own.cached_patcher_init[:2]
    twin = make(*arguments)
    assert twin.model is not own.model
    ours, theirs = own.model.layers[0].factors.weight, twin.model.layers[0].factors.weight
    assert ours.data_ptr() == theirs.data_ptr(), "the factors were copied"
    want = forward(side)
    for layer in own.model.layers:  # whoever uses the first stack now is found out
        layer.gains = {}
    side.set_additional_models("flux2_lora_edit", [twin])
    assert torch.equal(forward(side), want)

"""The side path where a sampler runs the diffusion model by itself: what is loaded holds."""

import gc

import pytest
import torch
from tiny_stacks import (
    LINEAR1,
    QKV,
    H,
    beside,
    direct,
    effect,
    error,
    forward,
    inputs,
    load,
    module,
    r,
    scaled,
    stack_of,
)

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def left_behind(model):
    """Modules that are not the host's own, or hold something of ours."""
    return [
        name for name, module in model.model.named_modules()
        if "WithSidePath" in repr(type(module).__mro__) or "side_path" in type(module).__module__
        or [key for key in vars(module) if "flux2" in key]
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["dev", "klein-9b"])
def test_its_picture_is_the_merges(patch, tmp_path, variant):
    model = load(variant)
    loras = stack_of(model, tmp_path)
    base = direct(model, references=1)
    side = beside(model, loras)
    found = direct(side, references=1)
    half = direct(beside(model, scaled(loras, 0.5)), references=1)
    assert torch.equal(direct(side, references=1), found)
    want = direct(patch.apply_stack(model, loras, "merge").model, references=1)
    assert effect(want, base).norm() > 0.02 * base.norm()
    assert error(effect(found, base), effect(want, base)) < 2e-5
    assert 0.2 < effect(half, base).norm() / effect(found, base).norm() < 0.8
    assert torch.equal(direct(model, references=1), base), "something stayed behind"
    assert not left_behind(model)


def test_its_blocks_and_modules_too(patch, tmp_path):
    """Who writes the loop over the blocks himself."""
    import comfy.model_management

    model = load()
    loras = stack_of(model, tmp_path)
    x = r(7, H, std=1.0)
    outputs = []
    for each in (model, beside(model, loras), patch.apply_stack(model, loras, "merge").model):
        comfy.model_management.load_models_gpu([each])
        outputs.append([module(each, key)(x).clone() for key in (QKV, LINEAR1)])
    for base, side, merged in zip(*outputs, strict=True):
        assert error(effect(side, base), effect(merged, base)) < 1e-5


def test_what_runs_next_in_apply_model_is_its_own(patch, tmp_path):
    """Both ways in turn, at other scales of the same kept side path: no layer counts twice."""
    model, side_paths = load(), patch.SidePathCache()
    loras = stack_of(model, tmp_path)
    one = beside(model, loras, side_paths=side_paths)
    two = beside(model, scaled(loras, -0.5), side_paths=side_paths)
    wants = [(forward(each), direct(each)) for each in (one, two)]
    assert not torch.equal(wants[0][1], wants[1][1])
    for _ in range(2):
        for each, (by_host, by_itself) in zip((one, two), wants, strict=True):
            assert torch.equal(forward(each), by_host)
            assert torch.equal(direct(each), by_itself)


def test_a_stack_on_a_stack(patch, tmp_path):
    model = load()
    loras = stack_of(model, tmp_path)
    twice = beside(beside(model, loras[:2]), scaled(loras, 0.5))
    base, found = direct(model), direct(twice)
    merged = patch.apply_stack(model, loras[:2], "merge").model
    merged = patch.apply_stack(merged, scaled(loras, 0.5), "merge").model
    assert error(effect(found, base), effect(direct(merged), base)) < 1e-4


def test_a_clone_of_a_loaded_model(patch, tmp_path):
    """It passes for injected, and injects as soon as it gets patches, whatever is loaded then."""
    model = load()
    loras = stack_of(model, tmp_path)
    base = direct(model)
    side, other = beside(model, loras), beside(model, scaled(loras, 0.5))
    want, want_other = direct(side), direct(other)
    direct(side)
    clone = side.clone()
    direct(other)
    late = clone.clone()
    late.add_patches({QKV: ("diff", (torch.zeros(3 * H, H),))}, 1.0)
    assert torch.equal(direct(other), want_other)
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    late.add_patches({LINEAR1: ("diff", (torch.zeros(9 * H, H),))}, 1.0)
    with torch.inference_mode():
        args = inputs(model)
        context = args[1].pop("c_crossattn")
        assert torch.equal(model.model.diffusion_model.forward(*args[0], context, **args[1]), base)
    assert error(effect(direct(late), base), effect(want, base)) < 1e-6
    del clone, late
    gc.collect()
    direct(model)
    assert not left_behind(model)


def test_a_clone_that_goes_while_another_is_loaded(patch, tmp_path):
    """The host ejects a MODEL when it is collected, which may be in the middle of a run."""
    model = load()
    side = beside(model, stack_of(model, tmp_path))
    want = direct(side)
    clone = side.clone()
    assert clone.is_injected
    clone.cycle = clone
    del clone
    gc.collect()
    with torch.inference_mode():
        args = inputs(model)
        context = args[1].pop("c_crossattn")
        assert torch.equal(model.model.diffusion_model.forward(*args[0], context, **args[1]), want)


@pytest.mark.parametrize("cycle", [False, True])
def test_a_model_that_goes_while_it_is_loaded(patch, tmp_path, cycle):
    model = load()
    base = direct(model)
    side = beside(model, stack_of(model, tmp_path))
    direct(side)
    side.cycle = side if cycle else None
    assert left_behind(model)
    del side
    gc.collect()
    assert not left_behind(model)
    assert torch.equal(direct(model), base)


def test_two_models_of_the_same_modules_loaded_at_once(patch, tmp_path):
    """Their wrappers tell them apart in apply_model; without them none is meant."""
    import comfy.model_management

    model = load()
    side = beside(model, stack_of(model, tmp_path))
    base, want = forward(model), forward(side)
    comfy.model_management.load_models_gpu([model, side, *side.get_nested_additional_models()])

    @torch.inference_mode()
    def run(each):
        each.pre_run()
        args, given = inputs(model)
        options = {"wrappers": each.wrappers}
        return model.model.apply_model(*args, transformer_options=options, **given).clone()

    assert torch.equal(run(model), base)
    assert torch.equal(run(side), want)
    assert torch.equal(run(model), base)


def test_it_stays_through_the_hosts_own_injections(patch, tmp_path):
    """The host takes it out and puts it back when hooks change the weights between two steps."""
    model = load()
    side = beside(model, stack_of(model, tmp_path))
    want = direct(side)
    assert left_behind(model)
    with torch.inference_mode(), side.use_ejected():
        assert not left_behind(model)
    args, given = inputs(model)
    with torch.inference_mode():
        found = model.model.diffusion_model.forward(*args, given.pop("c_crossattn"), **given)
    assert torch.equal(found, want)


def test_factors_that_are_not_loaded_with_it_are_streamed(patch, tmp_path):
    """Such a sampler loads the MODEL alone, not what the MODEL says it needs beside it."""
    import comfy.model_management

    model = load()
    side = beside(model, stack_of(model, tmp_path))
    comfy.model_management.unload_all_models()
    base, found = direct(model), direct(side)
    want = direct(patch.apply_stack(model, stack_of(model, tmp_path), "merge").model)
    assert error(effect(found, base), effect(want, base)) < 2e-5
    (factors,) = side.get_nested_additional_models()
    assert factors not in comfy.model_management.loaded_models()


@pytest.mark.parametrize("run", [forward, direct])
def test_a_stack_that_nothing_ran_is_noticed(patch, tmp_path, run):
    """Once a prompt, however often it is loaded in it."""
    import comfy.model_management
    from comfy_execution.utils import CurrentNodeContext

    model, looks = load(), []
    side = beside(model, stack_of(model, tmp_path), watch=looks.append)
    comfy.model_management.load_models_gpu([side])
    assert not looks, "no prompt runs"
    for prompt in ("one", "two"):
        with CurrentNodeContext(prompt, "7"):
            comfy.model_management.load_models_gpu([side])
            comfy.model_management.load_models_gpu([side])
    unused, too = looks
    assert unused(True) and too(True), "loaded, and nothing of it ran"
    assert not unused(False), "the prompt was stopped, or failed"
    run(side)
    assert not too(True)

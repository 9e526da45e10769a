"""Models that a node before has compiled: ``_orig_mod`` in their names, for good or while loaded.

As an object patch (ComfyUI_essentials' ModelCompile+) they are there while that MODEL is loaded; in
place, which the host itself leaves to packs, from then on.
"""

import pytest
import torch
from tiny_stacks import LINEAR1, QKV, effect, error, forward, load, scaled, stack_of, steady_memory

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

BLOCK = "diffusion_model.single_blocks.0"


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


@pytest.fixture(autouse=True)
def as_they_are():
    """A whole model is traced in a minute; its names are what is asked for here."""
    torch._dynamo.reset()
    with torch.compiler.set_stance("force_eager"):
        yield


def compiled(model, name, in_place):
    """``model`` with the module ``name`` compiled, as such nodes do it."""
    import comfy.utils

    clone = model.clone()
    wrapped = torch.compile(clone.get_model_object(name), backend="eager")
    if in_place:
        comfy.utils.set_attr(clone.model, name, wrapped)
    else:
        clone.add_object_patch(name, wrapped)
    return clone


@pytest.mark.parametrize("mode", ["merge", "side path"])
@pytest.mark.parametrize("names", [("diffusion_model",), (BLOCK,), (BLOCK, "diffusion_model")])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_model_that_was_compiled_takes_the_stack(patch, tmp_path, names, in_place, mode):
    plain = load()
    loras = stack_of(plain, tmp_path)
    base = forward(plain)
    want = forward(patch.apply_stack(plain, loras, "merge").model)
    start = load()
    for name in names:
        start = compiled(start, name, in_place)
    assert torch.equal(forward(start), base)
    assert patch.weight_shapes(start) == patch.weight_shapes(plain)
    applied = patch.apply_stack(start, stack_of(start, tmp_path), mode)
    assert applied.taken == mode
    found = forward(applied.model)
    assert error(effect(found, base), effect(want, base)) < 2e-5
    half = forward(patch.apply_stack(start, scaled(loras, 0.5), mode).model)
    assert 0.2 < effect(half, base).norm() / effect(found, base).norm() < 0.8
    assert torch.equal(forward(start), base), "something stayed behind"


@pytest.mark.parametrize("mode", ["merge", "side path"])
def test_a_block_that_runs_compiled(patch, tmp_path, mode, monkeypatch):
    """Not its names alone: traced as it is, in place."""
    steady_memory(monkeypatch)
    plain = load()
    base = forward(plain)
    want = forward(patch.apply_stack(plain, stack_of(plain, tmp_path), "merge").model)
    start = compiled(load(), BLOCK, in_place=True)
    with torch.compiler.set_stance("default"):
        found = forward(patch.apply_stack(start, stack_of(start, tmp_path), mode).model)
        assert error(effect(found, base), effect(want, base)) < 1e-4
        assert error(effect(forward(start), base), effect(want, base)) > 0.9


def test_what_another_branch_has_compiled(patch, tmp_path):
    """Its names are there while it is loaded; the plain model has none of them when it is."""
    model = load()
    base = forward(model)
    want = forward(patch.apply_stack(model, stack_of(model, tmp_path), "merge").model)
    branch = compiled(model, "diffusion_model", in_place=False)
    forward(branch)
    assert any("_orig_mod" in name for name in model.model.state_dict())
    merged = patch.apply_stack(model, stack_of(model, tmp_path), "merge").model
    assert {QKV, LINEAR1} <= set(merged.patches)
    assert torch.equal(forward(merged), want)
    assert error(effect(forward(branch), base), effect(want, base)) == 1.0


@pytest.mark.parametrize("mode", ["merge", "side path"])
def test_a_wrapper_that_answers_for_what_is_in_it(patch, tmp_path, monkeypatch, mode):
    """As Comfy-WaveSpeed makes torch.compile's: no name of the model tells of it."""
    from torch._dynamo.eval_frame import OptimizedModule

    hidden = {"_modules", "named_modules", "named_children", "named_parameters", "state_dict"}

    def answer(self, name):
        inner = object.__getattribute__(self, "__dict__")["_modules"]["_orig_mod"]
        if name == "_orig_mod":
            return inner
        return getattr(inner, name) if name in hidden else object.__getattribute__(self, name)

    plain = load()
    base = forward(plain)
    want = forward(patch.apply_stack(plain, stack_of(plain, tmp_path), "merge").model)
    start = compiled(load(), "diffusion_model", in_place=False)
    monkeypatch.setattr(OptimizedModule, "__getattribute__", answer)
    found = forward(patch.apply_stack(start, stack_of(start, tmp_path), mode).model)
    assert error(effect(found, base), effect(want, base)) < 2e-5


def test_auto_sees_what_is_quantised_through_it(patch, tmp_path):
    model = compiled(load(form="float8_e4m3fn"), "diffusion_model", in_place=True)
    applied = patch.apply_stack(model, stack_of(model, tmp_path), "auto")
    assert applied.taken == "side path" and "the weights are fp8e4m3" in applied.reason

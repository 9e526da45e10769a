"""The side path on a real ModelPatcher: the merge's own results, alone and among other patches."""

import pytest
import torch
from tiny_stacks import (
    LINEAR1,
    QKV,
    TRAINERS,
    H,
    beside,
    effect,
    error,
    forward,
    load,
    module,
    r,
    scaled,
    stack_of,
)

from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.dora import Dora
from flux2_lora_edit.lora_loader.adapters.lokr import Kronecker
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step
from host import tiny_loras

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

WIDTHS = {QKV: 3 * H, LINEAR1: 9 * H}


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


@torch.no_grad()
def layer_effect(model, base, x, key=QKV):
    """What a MODEL adds to one module's output for ``x``, by what its module returns."""
    import comfy.model_management
    from comfy.patcher_extension import WrapperExecutor

    outputs = []
    for patcher in (model, base):
        comfy.model_management.load_models_gpu([patcher, *patcher.get_nested_additional_models()])
        wrappers = patcher.wrappers.get("apply_model", {}).get("flux2_lora_edit", [])

        def call(x, patcher=patcher):
            return module(patcher, key)(x).clone()

        run = WrapperExecutor.new_class_executor(call, patcher.model, wrappers)
        outputs.append(run.execute(x))
    return effect(*outputs)


def true_effect(loras, x, key=QKV):
    """fp64: each part's dense change of the weight, times its scale, on ``x``."""
    total = 0
    for part in loras:
        for name, step in part.steps:
            if name == key:
                change = step.effect.dense().double() * (step.scale * part.scale)
                after = WIDTHS[key] - step.start - step.rows
                change = torch.nn.functional.pad(change, (0, 0, step.start, after))
                total = total + x.double() @ change.T
    return total


@pytest.mark.parametrize("variant", ["dev", "klein-9b"])
@pytest.mark.parametrize(("batch", "references"), [(1, 0), (1, 2), (2, 1)])
def test_it_equals_the_merge(patch, tmp_path, variant, batch, references):
    model = load(variant)
    loras = stack_of(model, tmp_path)
    run = {"batch": batch, "references": references}
    base = forward(model, **run)
    side = forward(beside(model, loras), **run)
    # Before a merge: the weights that it restores are the same, but lie elsewhere in memory, and
    # the CPU's sums of float32 then differ in their last bit now and then.
    assert torch.equal(forward(model, **run), base), "something stayed behind"
    merged = forward(patch.apply_stack(model, loras, "merge").model, **run)
    assert effect(merged, base).norm() > 0.02 * base.norm()
    assert error(effect(side, base), effect(merged, base)) < 2e-5


@pytest.mark.parametrize("key", [QKV, LINEAR1])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 3e-3)]
)
def test_its_effect_is_the_true_one(patch, tmp_path, dtype, limit, key):
    """Against fp64; the limits are what rounding y to the type costs a change of this size."""
    model = load(dtype=dtype)
    loras = stack_of(model, tmp_path)
    x = r(7, H, std=1.0).to(dtype)
    want = true_effect(loras, x, key)
    side = layer_effect(beside(model, loras), model, x, key)
    merged = layer_effect(patch.apply_stack(model, loras, "merge").model, model, x, key)
    assert error(side, want) < limit
    # Never worse than the merge by more than the second rounding of y.
    assert error(side, want) < 2 * error(merged, want) + 1e-6


@pytest.mark.parametrize(("form", "times"), [("float8_e4m3fn", 5), ("nvfp4", 10),
                                             ("int8_tensorwise", 3)])  # fmt: skip
def test_quantised_weights_keep_the_whole_effect(patch, tmp_path, form, times):
    """Merged, the effect drowns in requantisation; beside the weight it is exact."""
    model = load(form=form)
    loras = scaled(stack_of(model, tmp_path), 0.1)
    x = r(64, H, std=1.0).bfloat16()
    want = true_effect(loras, x)
    side = error(layer_effect(beside(model, loras), model, x), want)
    merged_model = patch.apply_stack(model, loras, "merge").model
    merged = error(layer_effect(merged_model, model, x), want)
    assert side < 0.1
    assert merged > times * side, f"merged {merged:.3f}, beside {side:.3f}"


def test_it_stacks_with_itself(patch, tmp_path):
    model = load()
    loras = stack_of(model, tmp_path)
    twice = beside(beside(model, loras), loras)
    double = beside(model, scaled(loras, 2.0))
    assert len(twice.get_nested_additional_models()) == 2, "the host must load both"
    base = forward(model)
    assert error(effect(forward(twice), base), effect(forward(double), base)) < 1e-4
    assert torch.equal(forward(model), base)


def test_it_stacks_with_itself_at_another_scale(patch, tmp_path):
    """Two Apply nodes with the same files: each side path has scales of its own."""
    model, side_paths = load(), patch.SidePathCache()
    loras = stack_of(model, tmp_path)
    once = beside(model, loras, side_paths=side_paths)
    twice = beside(once, scaled(loras, 0.5), side_paths=side_paths)
    want = beside(model, scaled(loras, 1.5))
    base = forward(model)
    assert error(effect(forward(twice), base), effect(forward(want), base)) < 1e-4


def test_another_packs_patch_on_the_same_weight(patch, tmp_path):
    model = load()
    loras = stack_of(model, tmp_path)
    other = {QKV: ("diff", (r(3 * H, H, seed=5),))}
    want = patch.apply_stack(model, loras, "merge").model
    want.add_patches(other, 0.5)
    before, after = model.clone(), beside(model, loras)
    before.add_patches(other, 0.5)
    after.add_patches(other, 0.5)
    base = forward(model)
    for found in (beside(before, loras), after):
        assert error(effect(forward(found), base), effect(forward(want), base)) < 2e-5


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_hosts_bypass_loader_on_the_same_module(patch, tmp_path, ours_first):
    """It replaces ``forward`` on the instance, for as long as the model is loaded."""
    import comfy.sd

    model = load()
    loras = stack_of(model, tmp_path)
    theirs = tiny_loras.ai_toolkit(double=1, single=1).weights

    def bypass(model):
        return comfy.sd.load_bypass_lora_for_models(model, None, dict(theirs), 0.5, 0)[0]

    base = forward(model)
    want = forward(bypass(patch.apply_stack(model, loras, "merge").model))
    both = bypass(beside(model, loras)) if ours_first else beside(bypass(model), loras)
    assert error(effect(forward(both), base), effect(want, base)) < 2e-5


def test_what_depends_on_the_weight_is_merged(patch, tmp_path):
    model = load()
    lora = LowRank(r(3 * H, 4), r(4, H), 1.0)
    dora = Dora(LowRank(r(9 * H, 4), r(4, H), 1.0), r(9 * H, 1).abs() + 1)
    steps = (
        (QKV, Step(0, 3 * H, 1.0, lora)),
        (QKV, Step(0, 3 * H, 1.0, Dense(r(3 * H, H), 1.0))),
        (LINEAR1, Step(0, 9 * H, 1.0, LowRank(r(9 * H, 2), r(2, H), 1.0))),
        (LINEAR1, Step(0, 9 * H, 1.0, dora)),
    )
    loras = [StackedLora("a", 0.5, steps)]
    applied = patch.apply_stack(model, loras, "side path")
    assert applied.taken == "side path"
    assert "2 of 2 weights are merged" in applied.reason
    assert set(applied.model.patches) == {QKV, LINEAR1}
    merged = patch.apply_stack(model, loras, "merge").model
    base = forward(model)
    assert error(effect(forward(applied.model), base), effect(forward(merged), base)) < 1e-4
    alone = patch.apply_stack(model, [StackedLora("a", 1.0, steps[3:])], "side path")
    assert alone.taken == "merge" and "depends on the weight" in alone.reason


def test_a_lora_is_kept_by_what_its_neighbours_leave_of_it(patch, tmp_path):
    """A DoRA on one of its weights takes that weight off the side path."""
    model, side_paths = load(), patch.SidePathCache()
    (lora,) = stack_of(model, tmp_path, TRAINERS[:1])
    dora = Dora(LowRank(r(3 * H, 4), r(4, H), 1.0), r(3 * H, 1).abs() + 1)
    both = [lora, StackedLora("dora", 1.0, ((QKV, Step(0, 3 * H, 1.0, dora)),))]
    for stack in (both, [lora]):
        found = beside(model, stack, side_paths=side_paths)
        want = patch.apply_stack(model, stack, "merge").model
        base = forward(model)
        assert error(effect(forward(found), base), effect(forward(want), base)) < 1e-4


@pytest.mark.parametrize("right", [(r(48, 16),), (r(48, 2), r(2, 16))])
def test_a_kronecker_product_beside_the_weight(patch, right):
    model = load()
    step = Step(0, 3 * H, 2.0, Kronecker((r(16, 16),), right, 0.5))
    loras = [StackedLora("k", 0.7, ((QKV, step),))]
    x = r(2, 5, H, std=1.0)
    found = layer_effect(beside(model, loras), model, x)
    assert error(found, true_effect(loras, x)) < 1e-4

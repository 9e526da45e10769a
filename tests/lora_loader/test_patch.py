"""Stacks on a real ModelPatcher: exact, one patch and one pass a weight, gone without a trace."""

import copy
import math
import pickle

import pytest
import torch
from tiny_stacks import QKV, SCALES, TRAINERS, H, adapter_of, load, r, stack_of
from torch.utils._python_dispatch import TorchDispatchMode

from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.dora import Dora
from flux2_lora_edit.lora_loader.adapters.ia3 import ChannelScale
from flux2_lora_edit.lora_loader.adapters.loha import Hadamard
from flux2_lora_edit.lora_loader.adapters.lokr import Kronecker
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.adapters.oft import BlockRotation
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step, fuse

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def steps_of_three(dtype=torch.bfloat16, out=3 * H, into=H):
    """Three whole LoRAs, or one split and two whole, of ranks 16, 32 and 64."""
    ranks = ((16, 0.7), (32, 1.0), (64, 0.31))
    return [
        Step(0, out, scale, LowRank(r(out, n, seed=n).to(dtype), r(n, into, seed=n).to(dtype), 1.0))
        for n, scale in ranks
    ]


def fused(steps):
    """What a MODEL stores for a weight that one LoRA has these steps for."""
    return adapter_of(fuse([StackedLora("a", 1.0, tuple(("w", step) for step in steps))])["w"])


def run(adapter, weight, strength=1.0, function=lambda a: a, **how):
    return adapter.calculate_weight(weight, "w", strength, 1.0, None, function, **how)


def truth(steps, weight):
    total = weight.double()
    for step in steps:
        effect = step.effect
        change = effect.up.double() @ effect.down.double() * effect.scale * step.scale
        total[step.start : step.start + step.rows] += change
    return total


class Counter(TorchDispatchMode):
    """Operations that touch a tensor as large as a row slice of the weight, and their bytes."""

    def __init__(self, least):
        super().__init__()
        self.least, self.ops, self.bytes = least, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if name in ("view", "slice", "detach", "expand", "narrow", "alias"):
            return result
        large = [
            t for t in (*args, result) if isinstance(t, torch.Tensor) and t.numel() >= self.least
        ]
        if large:
            self.ops.append(name)
            self.bytes += sum(t.numel() * t.element_size() for t in large)
        return result


@pytest.mark.parametrize(("split", "ops"), [(False, 1), (True, 3)])
def test_one_pass_a_row_slice(split, ops):
    """Stock: 9 operations and 36 bytes a parameter for three bf16 LoRAs, 27 split ones.

    Counted as on a GPU, without one: on a tensor that has a shape and no device.
    """
    steps = steps_of_three()
    if split:
        steps += [
            Step(n * H, H, 1.0, LowRank(r(H, 8).bfloat16(), r(8, H).bfloat16(), 1.0))
            for n in range(3)
        ]
    adapter = fused(steps)
    weight = torch.empty(3 * H, H, dtype=torch.bfloat16, device="meta")
    with Counter(weight.numel() // ops) as counted:
        run(adapter, weight)
    assert counted.ops == ["addmm_"] * ops
    # In-place: the weight is read and written, 4 bytes a parameter of bf16.
    assert counted.bytes == 4 * weight.numel()


def rms(tensor):
    return tensor.pow(2).mean().sqrt().item()


def test_the_noise_is_one_rounding():
    """bf16: against the exact sum, no more than the sum's own rounding (stock: 1.73 times)."""
    steps = steps_of_three(out=9 * H)
    weight = r(9 * H, H, std=1 / 16).bfloat16()
    exact = truth(steps, weight)
    ideal = rms(exact.bfloat16().double() - exact)
    ours = rms(run(fused(steps), weight.clone()).double() - exact)
    assert ours <= 1.02 * ideal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_any_type_of_weight(dtype):
    steps, weight = steps_of_three(), r(3 * H, H, std=1.0).to(dtype)
    exact = truth(steps, weight)
    result = run(fused(steps), weight)
    assert result.dtype == dtype and result is weight
    limit = max(2 * torch.finfo(dtype).eps, 1e-6)
    assert ((result.double() - exact).norm() / exact.norm()).item() < limit


def test_a_float8_weight_is_computed_in_float32():
    steps, weight = steps_of_three(), r(3 * H, H, std=1.0).to(torch.float8_e4m3fn)
    expected = truth(steps, weight.float()).float().to(torch.float8_e4m3fn).float()
    assert (run(fused(steps), weight).float() == expected).float().mean() > 0.999


def test_a_weight_that_is_not_contiguous():
    steps = [Step(0, H, 1.0, Kronecker((r(16, 16),), (r(16, 16),), 1.0))]
    weight = r(H, H, std=1.0).t()
    expected = weight + steps[0].effect.dense()
    torch.testing.assert_close(run(fused(steps), weight), expected)


def test_strength_scales_everything():
    steps = steps_of_three() + [Step(0, 3 * H, 0.5, Dense(r(3 * H, H), 1.0))]
    weight = r(3 * H, H, std=1.0)
    full = run(fused(steps), weight.clone()) - weight
    half = run(fused(steps), weight.clone(), 0.5) - weight
    torch.testing.assert_close(half, full / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "effect",
    [
        Dora(LowRank(r(H, 4), r(4, H), 1.0), r(H, 1).abs() + 1),
        BlockRotation(r(32, 8, 8), None, 0.0),
        ChannelScale(r(1, H)),
    ],
)
def test_a_transform_at_a_scale_is_between_base_and_trained(effect):
    weight = r(H, H, std=1.0)
    changed = run(fused([Step(0, H, 0.25, effect)]), weight.clone())
    torch.testing.assert_close(changed, weight + 0.25 * (effect.trained(weight) - weight))


def test_a_patch_function_gets_the_change_alone():
    """As of another pack, or of the host's row swap."""
    steps, weight = steps_of_three(dtype=torch.float32), r(3 * H, H, std=1.0)
    change = (truth(steps, weight) - weight.double()).float()
    result = run(fused(steps), weight.clone(), 0.5, lambda delta: delta.flip(0) * 2)
    torch.testing.assert_close(result, weight + change.flip(0), rtol=1e-3, atol=1e-4)


EFFECTS = [
    LowRank(r(H, 4), r(4, H), 0.5, 2.0),
    Dense(r(H, H), 1.0),
    Kronecker((r(16, 4), r(4, 16)), (r(16, 16),), 1.0),
    Hadamard(r(H, 2), r(2, H), r(H, 2), r(2, H), 1.0),
    Dora(LowRank(r(H, 4), r(4, H), 1.0), r(H, 1)),
    BlockRotation(r(32, 8, 8), None, 0.0),
    BlockRotation(r(32, 8, 8), r(H, 1), 0.5).rolled(),
]


@pytest.mark.parametrize("effect", EFFECTS)
def test_packed_steps_survive_the_hosts_prefetch(effect):
    """The host rebuilds an adapter from moved copies of its tensors, wherever they are nested."""
    import comfy.lora

    if not hasattr(comfy.lora, "prefetch_prepared_value"):
        pytest.skip("this ComfyUI does not prefetch patches")
    adapter = adapter_of([Step(0, H, 0.5, effect)])
    counter = [0]
    comfy.lora.prefetch_prepared_value(adapter, counter, None, None, False)
    buffer = torch.empty(counter[0], dtype=torch.uint8)
    moved = comfy.lora.prefetch_prepared_value(adapter, [0], buffer, None, True)
    assert type(moved) is type(adapter)
    weight = r(H, H, std=1.0)
    torch.testing.assert_close(run(moved, weight.clone()), run(adapter, weight.clone()))


@pytest.mark.parametrize("effect", EFFECTS)
def test_packed_steps_survive_copies(effect):
    """As of a MODEL's patches, into another process too."""
    adapter, weight = adapter_of([Step(0, H, 0.5, effect)]), r(H, H, std=1.0)
    want = run(adapter, weight.clone())
    assert torch.equal(run(copy.deepcopy(adapter), weight.clone()), want)
    sent = pickle.loads(pickle.dumps(adapter))  # noqa: S301  (its own bytes)
    assert torch.equal(run(sent, weight.clone()), want)


@pytest.mark.parametrize("variant", ["dev", "klein-9b"])
def test_three_trainers_on_a_real_model(patch, tmp_path, variant):
    model = load(variant)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    applied = patch.apply_stack(model, stack_of(model, tmp_path), "merge")
    # 4 modules a stream and 2 a single block: one patch a weight, whatever the stack.
    assert {len(patches) for patches in applied.model.patches.values()} == {1}
    assert len(applied.model.patches) == 10 and applied.taken == "merge"
    assert model.patches == {}

    ai, diffusers, kohya = (make(double=1, single=1).weights for make in TRAINERS)
    change = SCALES[0] * product(
        ai, "diffusion_model.double_blocks.0.img_attn.qkv", "lora_A", "lora_B"
    )
    name = "transformer.transformer_blocks.0.attn.to_{}"
    split = [product(diffusers, name.format(part), "lora_A", "lora_B") for part in "qkv"]
    change += SCALES[1] * 0.5 * torch.cat(split)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    change += SCALES[2] * 0.5 * product(kohya, name, "lora_down", "lora_up")

    import comfy.model_management

    applied.model.patch_model(comfy.model_management.get_torch_device())
    found = dict(applied.model.model.state_dict())
    torch.testing.assert_close(found[QKV].float(), (before[QKV].double() + change).float())
    applied.model.unpatch_model(comfy.model_management.unet_offload_device())
    after = model.model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def product(weights, name, down, up):
    return weights[f"{name}.{up}.weight"].double() @ weights[f"{name}.{down}.weight"].double()


def test_two_stacks_in_a_row_and_another_packs_patch(patch, tmp_path):
    model = load()
    loras = stack_of(model, tmp_path, TRAINERS[:1])
    once = patch.apply_stack(model, loras, "merge").model
    twice = patch.apply_stack(once, loras, "merge").model
    twice.add_patches({QKV: ("diff", (torch.ones(3 * H, H),))}, 0.5)
    base = model.model.state_dict()[QKV].clone()
    change = once.patch_weight_to_device(QKV, return_weight=True) - base
    both = twice.patch_weight_to_device(QKV, return_weight=True) - base
    torch.testing.assert_close(both, 2 * change + 0.5, rtol=1e-4, atol=1e-5)


def test_a_hosts_hook_at_half_strength(patch, tmp_path):
    """LoRA scheduling by conditioning hooks hands the adapter a strength of its own."""
    model = load()
    loras = stack_of(model, tmp_path, TRAINERS[:1])
    adapter = patch.apply_stack(model, loras, "merge").model.patches[QKV][0][1]
    base = model.model.state_dict()[QKV].clone()
    half = model.clone()
    half.add_patches({QKV: adapter}, 0.5)
    full = model.clone()
    full.add_patches({QKV: adapter}, 1.0)
    got = half.patch_weight_to_device(QKV, return_weight=True) - base
    want = full.patch_weight_to_device(QKV, return_weight=True) - base
    torch.testing.assert_close(got, want / 2, rtol=1e-4, atol=1e-6)


def test_the_low_vram_way_patches_at_each_forward(patch, tmp_path):
    """Weights that stay off the device are patched as they are cast, in the model's own type."""
    import comfy.model_patcher

    model = load(dtype=torch.bfloat16)
    loras = stack_of(model, tmp_path, scales=(1.0, 1.0, 1.0))
    clone = patch.apply_stack(model, loras, "merge").model
    weight = model.model.state_dict()[QKV].clone()
    lowvram = comfy.model_patcher.LowVramPatch(QKV, clone.patches)
    merged = clone.patch_weight_to_device(QKV, return_weight=True)
    found = lowvram(weight.clone())
    assert found.dtype == torch.bfloat16
    assert (found.float() - merged.float()).norm() < 2**-7 * merged.float().norm()
    assert (found.float() - weight.float()).norm() > 0.1 * weight.float().norm()


def test_an_empty_stack_is_the_model_itself(patch):
    model = load()
    applied = patch.apply_stack(model, [], "auto")
    assert applied.model is model and applied.taken == "none"


def test_modes(patch, tmp_path):
    model = load()
    loras = stack_of(model, tmp_path, TRAINERS[:1])
    assert patch.apply_stack(model, loras, "auto").reason
    with pytest.raises(patch.PatchError, match="choose one of auto, merge, side path"):
        patch.apply_stack(model, loras, "magic")


def test_a_weight_that_takes_no_patch(patch):
    gone = "diffusion_model.gone.weight"
    loras = [StackedLora("three", 1.0, tuple((gone, step) for step in steps_of_three()))]
    with pytest.raises(patch.PatchError, match="takes no patch for 1 of its weights"):
        patch.apply_stack(load(), loras, "merge")


def test_every_weight_of_the_model_is_seen(patch):
    model = load()
    shapes = patch.weight_shapes(model)
    known = {k for k in model.model.state_dict() if k.startswith("diffusion_model.")}
    assert set(shapes) == known
    assert math.prod(shapes[QKV]) == 3 * H * H

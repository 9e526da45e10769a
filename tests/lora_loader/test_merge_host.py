"""The merge through everything the host does with a MODEL: offload, clone, save, extract, hook."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_stacks import LINEAR1, QKV, TRAINERS, inputs, load, stack_of, weights_of

from host import tiny_loras, tiny_quantised

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def merged(patch, model, folder, makes=TRAINERS):
    """``model`` with LoRAs of these trainers merged, at three scales."""
    return patch.apply_stack(model, stack_of(model, folder, makes), "merge").model


def weight_of(model, key=QKV):
    """The weight that the host would load."""
    return model.patch_weight_to_device(key, return_weight=True).clone()


@torch.inference_mode()
def step(model):
    """One step of the model as it lies: loaded or not, as the test has left it."""
    args, kwargs = inputs(model)
    return model.model.apply_model(*args, **kwargs).clone()


def test_offloaded_layers_give_the_same_picture(patch, tmp_path):
    model = load()
    clone = merged(patch, model, tmp_path)
    base = step(model)
    clone.patch_model(CPU)
    whole = step(clone)
    clone.unpatch_model(CPU)
    # A budget of one byte: every layer stays off the device and is patched at each forward.
    clone.patch_model(CPU, lowvram_model_memory=1)
    module = clone.model.get_submodule(QKV.removesuffix(".weight"))
    assert [type(f).__name__ for f in module.weight_function] == ["LowVramPatch"]
    torch.testing.assert_close(step(clone), whole, rtol=1e-4, atol=1e-5)
    clone.unpatch_model(CPU)
    assert (whole - base).norm() > 0.02 * base.norm()
    assert torch.equal(step(model), base)


def test_a_patch_that_the_host_has_prefetched(patch, tmp_path):
    """Into one buffer, as it does on a stream of its own."""
    import comfy.model_patcher

    model = load(dtype=torch.bfloat16)
    clone = merged(patch, model, tmp_path)
    lowvram = comfy.model_patcher.LowVramPatch(QKV, clone.patches)
    if not hasattr(lowvram, "prepare"):
        pytest.skip("this ComfyUI does not prefetch patches")
    weight = model.model.state_dict()[QKV]
    expected = lowvram(weight.clone())
    buffer = torch.zeros(lowvram.memory_required(), dtype=torch.uint8)
    lowvram.prepare(buffer, None)
    assert buffer.any() and torch.equal(lowvram(weight.clone()), expected)
    buffer.zero_()
    assert torch.equal(lowvram(weight.clone()), weight), "the prefetched factors were not used"
    lowvram.clear_prepared()
    assert torch.equal(lowvram(weight.clone()), expected)


def test_a_clone_for_another_sampling_is_not_merged_again(patch, tmp_path):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    clone = merged(patch, load(), tmp_path)
    (other,) = ModelSamplingFlux().patch(clone, 1.15, 0.5, 1024, 1024)
    # The host compares these to see whether loaded weights may stay.
    assert other.patches_uuid == clone.patches_uuid
    assert torch.equal(weight_of(other), weight_of(clone))


@pytest.mark.parametrize("offloaded", [False, True])
def test_a_saved_model_holds_the_merged_weights(patch, tmp_path, offloaded):
    import comfy.sd
    import comfy.utils

    clone = merged(patch, load(), tmp_path)
    expected = {key: weight_of(clone, key) for key in clone.patches}
    path = tmp_path / "saved.safetensors"
    if offloaded:
        # What the host writes for layers that are not loaded: patched one by one as it goes.
        state = clone.state_dict_for_saving()
        comfy.utils.save_torch_file(state, str(path))
    else:
        comfy.sd.save_checkpoint(str(path), clone)
    saved = comfy.utils.load_torch_file(str(path))
    assert len(expected) == 10
    for key, weight in expected.items():
        name = key.removeprefix("diffusion_model.")
        (found,) = (t for k, t in saved.items() if k.endswith(name))
        torch.testing.assert_close(found.float(), weight, rtol=1e-5, atol=1e-6)
    clone.detach()


def test_the_stack_extracted_as_a_lora(patch, tmp_path):
    """ModelMergeSubtract and Extract LoRA: the difference is the stack, and nothing else."""
    from comfy_extras.nodes_lora_extract import LORAType, calc_lora_model
    from comfy_extras.nodes_model_merging import ModelSubtract

    model = load()
    clone = merged(patch, model, tmp_path)
    change = weight_of(clone) - model.model.state_dict()[QKV]
    (difference,) = ModelSubtract().merge(clone, model, 1.0)
    prefix = "diffusion_model."
    made = calc_lora_model(difference, 8, prefix, prefix, {}, LORAType.FULL_DIFF)
    found = made[QKV.replace(".weight", ".diff")].float()
    torch.testing.assert_close(found, change, rtol=2e-3, atol=1e-4)
    untouched = made["diffusion_model.img_in.diff"]
    assert not untouched.any()
    difference.detach()


def hooked(model, weights, strength):
    """A MODEL with ``weights`` as a hook of conditioning, and the group to apply."""
    import comfy.hooks

    hook = comfy.hooks.WeightHook(strength_model=strength)
    hook.weights, hook.need_weight_init = weights, False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    clone = model.clone()
    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
    clone.register_all_hook_patches(group, target)
    return clone, group


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hooked_lora_on_top_and_off_again(patch, tmp_path, dtype):
    """LoRA scheduling: conditioning that brings a LoRA of its own, on a model with the stack."""
    clone = merged(patch, load(dtype=dtype), tmp_path)
    clone.patch_model(CPU)
    before = clone.model.state_dict()[QKV].clone()
    other = merged(patch, load(dtype=dtype), tmp_path, (tiny_loras.kohya,)).patches[QKV][0][1]
    on, group = hooked(clone, {QKV: other}, 0.5)
    on.patch_hooks(group)
    found = on.model.state_dict()[QKV].clone()
    made = tiny_loras.kohya(double=1, single=1).weights
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    # Its alpha is half its rank; the hook's strength halves it again.
    change = made[f"{name}.lora_up.weight"] @ made[f"{name}.lora_down.weight"] * 0.5 * 0.5
    limit = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found.float(), before.float() + change, rtol=limit, atol=limit / 16)
    assert (found.float() - before.float()).norm() > 0.8 * change.norm()
    on.patch_hooks(None)
    assert torch.equal(on.model.state_dict()[QKV], before)
    clone.unpatch_model(CPU)


def test_the_copy_for_another_gpu(patch, tmp_path):
    import comfy.sd

    path = tmp_path / "model.safetensors"
    save_file(weights_of(), path)
    model = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})
    if not hasattr(model, "deepclone_multigpu"):
        pytest.skip("this ComfyUI copies no model for another GPU")
    clone = merged(patch, model, tmp_path)
    copy = clone.deepclone_multigpu(new_load_device=CPU)
    assert copy.model is not clone.model
    assert torch.equal(weight_of(copy), weight_of(clone))
    assert torch.equal(copy.model.state_dict()[QKV], model.model.state_dict()[QKV])


@pytest.mark.parametrize("form", tiny_quantised.FORMATS)
def test_a_quantised_model_is_merged_as_well_as_its_format_allows(patch, tmp_path, form):
    import comfy.model_management

    if not tiny_quantised.known(form):
        pytest.skip(f"this ComfyUI has no {form}")
    model = load(form=form)
    clone = merged(patch, model, tmp_path, (tiny_loras.ai_toolkit,))
    module = model.model.get_submodule(LINEAR1.removesuffix(".weight"))
    before = module.weight.dequantize().float()
    comfy.model_management.load_models_gpu([clone])
    after = module.weight.dequantize().float()
    made = tiny_loras.ai_toolkit(double=1, single=1).weights
    name = LINEAR1.removesuffix(".weight")
    change = made[f"{name}.lora_B.weight"] @ made[f"{name}.lora_A.weight"]
    coarse = {"float8_e4m3fn": 0.06, "nvfp4": 0.25, "int8_tensorwise": 0.03}[form]
    assert (after - before - change).norm() < coarse * (before + change).norm()
    assert (after - before).norm() > 0.5 * change.norm()
    clone.detach()

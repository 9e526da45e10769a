"""The merge through everything the host does with a MODEL: offload, clone, save, extract, hook."""

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.adapters import ChannelScale, Dense, Hadamard, Kronecker, LowRank
from flux2_lora_edit.lora_loader.fuse import Step
from flux2_lora_edit.lora_loader.read_stack import read_stack
from flux2_lora_edit.lora_loader.reading.files import LoraFiles
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny, tiny_loras, tiny_quantised

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

H = 256
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "diffusion_model.single_blocks.0.linear1.weight"
TRAINERS = (tiny_loras.ai_toolkit, tiny_loras.diffusers, tiny_loras.kohya)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def stock_form(model):
    from flux2_lora_edit.lora_loader.patch.stock_form import stock_form

    return stock_form(model)


def weights_of(dtype=torch.float32):
    return tiny.transformer("dev", dtype=dtype, double=1, single=1)


def load(dtype=torch.float32, form=None):
    import comfy.sd

    weights = tiny_quantised.quantised(weights_of(), form) if form else weights_of()
    options = {} if form else {"dtype": dtype}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options=options)


def merged(patch, model, folder, makes=TRAINERS):
    """``model`` with LoRAs of these trainers merged, at three scales."""
    entries = []
    for number, make in enumerate(makes):
        made = make(double=1, single=1)
        path = folder / f"{make.__name__}.safetensors"
        save_file({k: v.contiguous() for k, v in made.weights.items()}, path, made.metadata)
        scale = (1.0, 0.5, -0.25)[number]
        entries.append(LoraEntry(path.name, scale, scale))
    where = {"locate": lambda entry: folder / entry.name, "files": LoraFiles()}
    parts = read_stack(entries, patch.weight_shapes(model), **where).loras
    return patch.apply_parts(model, parts, "merge").model


def weight_of(model, key=QKV):
    """The weight that the host would load."""
    return model.patch_weight_to_device(key, return_weight=True).clone()


@torch.inference_mode()
def forward(model):
    g = torch.Generator().manual_seed(0)
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    text, x = torch.randn(1, 8, columns, generator=g), torch.randn(1, 128, 4, 4, generator=g)
    extra = {"guidance": torch.full((1,), 2.5)}
    return model.model.apply_model(x, torch.full((1,), 0.6), c_crossattn=text, **extra).clone()


def test_offloaded_layers_give_the_same_picture(patch, tmp_path):
    model = load()
    clone = merged(patch, model, tmp_path)
    base = forward(model)
    clone.patch_model(CPU)
    whole = forward(clone)
    clone.unpatch_model(CPU)
    # A budget of one byte: every layer stays off the device and is patched at each forward.
    clone.patch_model(CPU, lowvram_model_memory=1)
    module = clone.model.get_submodule(QKV.removesuffix(".weight"))
    assert [type(f).__name__ for f in module.weight_function] == ["LowVramPatch"]
    torch.testing.assert_close(forward(clone), whole, rtol=1e-4, atol=1e-5)
    clone.unpatch_model(CPU)
    assert (whole - base).norm() > 0.02 * base.norm()
    assert torch.equal(forward(model), base)


def test_a_patch_that_the_host_has_prefetched(patch, tmp_path):
    """Into one buffer, as it does on a stream of its own."""
    import comfy.model_patcher

    model = load(torch.bfloat16)
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
    clone = merged(patch, load(dtype), tmp_path)
    clone.patch_model(CPU)
    before = clone.model.state_dict()[QKV].clone()
    other = merged(patch, load(dtype), tmp_path, (tiny_loras.kohya,)).patches[QKV][0][1]
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


def r(*shape, seed=0, std=0.05):
    g = torch.Generator().manual_seed(seed + sum(n * 7**i for i, n in enumerate(shape)))
    return torch.randn(*shape, generator=g) * std


def test_the_hosts_own_patches_on_request(patch, tmp_path):
    """For packs that look into them: the same weights, by nothing of this pack."""
    from comfy.weight_adapter import LoRAAdapter

    clone = merged(patch, load(), tmp_path)
    stock = stock_form(clone)
    assert clone.patches[QKV][0][1].name == "flux2_lora_stack"
    kinds = {type(entry[1]) for patches in stock.patches.values() for entry in patches}
    assert kinds == {LoRAAdapter}
    assert [entry[3] for entry in stock.patches[QKV]] == [(0, n * H, H) for n in range(3)]
    for key in clone.patches:
        torch.testing.assert_close(
            weight_of(stock, key), weight_of(clone, key), rtol=1e-5, atol=1e-6
        )


EFFECTS = [
    LowRank(r(H, 4), r(4, H), 0.3, 2.0),
    Dense(r(H, H), 0.5),
    Kronecker((r(16, 4), r(4, 16)), (r(16, 16),), 2.0),
    Hadamard(r(H, 2), r(2, H), r(H, 2), r(2, H), 1.5),
]


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_every_additive_kind_as_the_hosts_own(patch, effect):
    import comfy.lora

    adapter = patch.FusedAdapter(set(), patch.pack((Step(H, H, 0.7, effect),)))
    weight = r(3 * H, H, std=1.0)
    ours = comfy.lora.calculate_weight([(0.5, adapter, 1.0, None, None)], weight.clone(), "w")
    (one,) = adapter.as_stock()
    entry = (0.5 * one.strength, one.patch, 1.0, one.offset, None)
    stock = comfy.lora.calculate_weight([entry], weight.clone(), "w")
    torch.testing.assert_close(stock, ours, rtol=1e-5, atol=1e-6)
    assert (ours - weight)[H : 2 * H].norm() > 0


def test_what_the_host_has_no_patch_for_is_refused(patch):
    step = Step(0, H, 1.0, ChannelScale(r(H, 1)))
    adapter = patch.FusedAdapter(set(), patch.pack((step,)))
    with pytest.raises(patch.PatchError, match="ChannelScale depends on the weight"):
        adapter.as_stock()


def test_the_hosts_own_patches_keep_their_place_among_others(patch, tmp_path):
    clone = merged(patch, load(), tmp_path)
    ours = clone.patches[QKV][0][1]
    clone.add_patches({QKV: ("diff", (torch.ones(3 * H, H),))}, 0.5)
    clone.add_patches({QKV: ours}, 0.25)
    stock = stock_form(clone)
    assert [entry[0] for entry in stock.patches[QKV]] == [1.0, 1.0, 1.0, 0.5, 0.25, 0.25, 0.25]
    torch.testing.assert_close(weight_of(stock), weight_of(clone), rtol=1e-5, atol=1e-6)
    clone.add_patches({QKV: ours}, 1.0, 0.5)
    with pytest.raises(patch.PatchError, match="a change of its own"):
        stock_form(clone)

"""The side path on a real ModelPatcher: the merge's own results, with no weight touched."""

import gc
import os
import weakref

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.adapters import Dense, Dora, Kronecker, LowRank
from flux2_lora_edit.lora_loader.fuse import Step
from flux2_lora_edit.lora_loader.history import History
from flux2_lora_edit.lora_loader.parts import Part
from flux2_lora_edit.lora_loader.read_stack import read_stack
from flux2_lora_edit.lora_loader.reading.files import LoraFiles
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny, tiny_loras, tiny_quantised

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

H = 256
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "diffusion_model.single_blocks.0.linear1.weight"
TRAINERS = (tiny_loras.ai_toolkit, tiny_loras.diffusers, tiny_loras.kohya)
SCALES = (1.0, 0.5, -0.25)


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def load(variant="dev", dtype=torch.float32, form=None):
    import comfy.sd

    weights = tiny.transformer(variant, dtype=torch.float32, double=1, single=1)
    if form:
        if not tiny_quantised.known(form):
            pytest.skip(f"this ComfyUI has no {form}")
        weights = tiny_quantised.quantised(weights, form)
    options = {} if form else {"dtype": dtype}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options=options)


def r(*shape, seed=0, std=0.05):
    g = torch.Generator().manual_seed(seed + sum(n * 7**i for i, n in enumerate(shape)))
    return torch.randn(*shape, generator=g) * std


def parts_of(model, patch, folder, scales=SCALES):
    """The parts of three LoRAs of three trainers: whole rows, split rows and flattened names."""
    entries = []
    for number, make in enumerate(TRAINERS):
        made = make(double=1, single=1)
        path = folder / f"{number}.safetensors"
        if not path.exists():
            save_file({k: v.contiguous() for k, v in made.weights.items()}, path, made.metadata)
        entries.append(LoraEntry(path.name, scales[number], scales[number]))
    shapes = patch.weight_shapes(model)
    where = {"locate": lambda entry: folder / entry.name, "files": LoraFiles()}
    return read_stack(entries, shapes, **where).loras


def inputs(model, batch=1, references=0, dtype=torch.float32):
    """Noise, sigma, text and reference latents for the host's apply_model."""
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    extra = {"guidance": torch.full((batch,), 2.5)}
    if references:
        # As the host's samplers hand them over: one conditioning for each batch item.
        extra["ref_latents"] = [r(batch, 128, 2, 3, seed=n, std=1.0) for n in range(references)]
        extra["ref_latents_method"] = "index"
    x, text = r(batch, 128, 4, 4, std=1.0), r(batch, 8, columns, std=1.0)
    return (x, torch.full((batch,), 0.6)), {"c_crossattn": text, **extra}


@torch.inference_mode()
def forward(model, batch=1, references=0):
    """One step of the model as the host's samplers take it: loaded, with its wrappers."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    model.pre_run()
    args, kwargs = inputs(model, batch, references)
    options = {"wrappers": model.wrappers}
    return model.model.apply_model(*args, transformer_options=options, **kwargs).clone()


def beside(patch, model, parts, **how):
    applied = patch.apply_parts(model, parts, "side path", **how)
    assert applied.taken == "side path"
    return applied.model


def effect(changed, base):
    return (changed - base).double()


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("variant", ["dev", "klein-9b"])
@pytest.mark.parametrize(("batch", "references"), [(1, 0), (1, 2), (2, 1)])
def test_it_equals_the_merge(patch, tmp_path, variant, batch, references):
    model = load(variant)
    parts = parts_of(model, patch, tmp_path)
    run = {"batch": batch, "references": references}
    base = forward(model, **run)
    merged = forward(patch.apply_parts(model, parts, "merge").model, **run)
    side = forward(beside(patch, model, parts), **run)
    assert effect(merged, base).norm() > 0.02 * base.norm()
    assert error(effect(side, base), effect(merged, base)) < 2e-5
    assert torch.equal(forward(model, **run), base), "something stayed behind"


def scaled(parts, factor):
    return [Part(part.identity, part.scale * factor, part.steps) for part in parts]


def module(model, key=QKV):
    return model.model.get_submodule(key.removesuffix(".weight"))


@torch.no_grad()
def layer_effect(model, base, x, key=QKV):
    """What a MODEL adds to one module's output for ``x``, by what its module returns."""
    import comfy.model_management

    outputs = []
    for patcher in (model, base):
        comfy.model_management.load_models_gpu([patcher, *patcher.get_nested_additional_models()])
        wrappers = patcher.wrappers.get("apply_model", {}).get("flux2_lora_edit", [])

        def call(x, left=wrappers):
            if not left:
                return module(patcher, key)(x).clone()  # noqa: B023
            return left[0](Executor(patcher.model, lambda x: call(x, left[1:])), x)  # noqa: B023

        outputs.append(call(x))
    return effect(*outputs)


class Executor:
    """As the host's: what it wraps, and the object that this belongs to."""

    def __init__(self, class_obj, call):
        self.class_obj, self.call = class_obj, call

    def __call__(self, *args):
        return self.call(*args)


def true_effect(parts, x, key=QKV):
    """fp64: each part's dense change of the weight, times its scale, on ``x``."""
    total = 0
    for part in parts:
        for name, step in part.steps:
            if name == key:
                change = step.effect.dense().double() * (step.scale * part.scale)
                after = WIDTHS[key] - step.start - step.rows
                change = torch.nn.functional.pad(change, (0, 0, step.start, after))
                total = total + x.double() @ change.T
    return total


WIDTHS = {QKV: 3 * H, LINEAR1: 9 * H}


@pytest.mark.parametrize("key", [QKV, LINEAR1])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 3e-3)]
)
def test_its_effect_is_the_true_one(patch, tmp_path, dtype, limit, key):
    """Against fp64; the limits are what rounding y to the type costs a change of this size."""
    model = load(dtype=dtype)
    parts = parts_of(model, patch, tmp_path)
    x = r(7, H, std=1.0).to(dtype)
    want = true_effect(parts, x, key)
    side = layer_effect(beside(patch, model, parts), model, x, key)
    merged = layer_effect(patch.apply_parts(model, parts, "merge").model, model, x, key)
    assert error(side, want) < limit
    # Never worse than the merge by more than the second rounding of y.
    assert error(side, want) < 2 * error(merged, want) + 1e-6


@pytest.mark.parametrize(("form", "times"), [("float8_e4m3fn", 5), ("nvfp4", 10),
                                             ("int8_tensorwise", 3)])  # fmt: skip
def test_quantised_weights_keep_the_whole_effect(patch, tmp_path, form, times):
    """Merged, the effect drowns in requantisation; beside the weight it is exact."""
    model = load(form=form)
    parts = scaled(parts_of(model, patch, tmp_path), 0.1)
    x = r(64, H, std=1.0).bfloat16()
    want = true_effect(parts, x)
    side = error(layer_effect(beside(patch, model, parts), model, x), want)
    merged_model = patch.apply_parts(model, parts, "merge").model
    merged = error(layer_effect(merged_model, model, x), want)
    assert side < 0.1
    assert merged > times * side, f"merged {merged:.3f}, beside {side:.3f}"


def test_auto_takes_it_on_quantised_weights(patch, tmp_path):
    model = load(form="nvfp4")
    applied = patch.apply_parts(model, parts_of(model, patch, tmp_path), "auto")
    assert applied.taken == "side path"
    assert "the weights are nvfp4" in applied.reason


def test_a_moved_slider_touches_no_weight(patch, tmp_path, monkeypatch):
    import comfy.model_patcher

    model = load()
    parts, stacks = parts_of(model, patch, tmp_path), patch.SideStacks()
    first = beside(patch, model, parts, stacks=stacks)
    one = forward(first)
    weights = {k: (t.data_ptr(), t._version) for k, t in first.model.state_dict().items()}
    (side,) = first.get_additional_models_with_key("flux2_lora_edit")
    factors = [(p.data_ptr(), p._version) for p in side.model.parameters()]

    def never(*_, **__):
        raise AssertionError("a weight was patched")

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", never)
    second = beside(patch, model, scaled(parts, 0.5), stacks=stacks)
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


def test_it_stacks_with_itself(patch, tmp_path):
    model = load()
    parts = parts_of(model, patch, tmp_path)
    twice = beside(patch, beside(patch, model, parts), parts)
    double = beside(patch, model, scaled(parts, 2.0))
    assert len(twice.get_nested_additional_models()) == 2, "the host must load both"
    base = forward(model)
    assert error(effect(forward(twice), base), effect(forward(double), base)) < 1e-4
    assert torch.equal(forward(model), base)


def test_another_packs_patch_on_the_same_weight(patch, tmp_path):
    model = load()
    parts = parts_of(model, patch, tmp_path)
    other = {QKV: ("diff", (r(3 * H, H, seed=5),))}
    want = patch.apply_parts(model, parts, "merge").model
    want.add_patches(other, 0.5)
    before, after = model.clone(), beside(patch, model, parts)
    before.add_patches(other, 0.5)
    after.add_patches(other, 0.5)
    base = forward(model)
    for found in (beside(patch, before, parts), after):
        assert error(effect(forward(found), base), effect(forward(want), base)) < 2e-5


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_hosts_bypass_loader_on_the_same_module(patch, tmp_path, ours_first):
    """It replaces ``forward`` on the instance, for as long as the model is loaded."""
    import comfy.sd

    model = load()
    parts = parts_of(model, patch, tmp_path)
    theirs = tiny_loras.ai_toolkit(double=1, single=1).weights

    def bypass(model):
        return comfy.sd.load_bypass_lora_for_models(model, None, dict(theirs), 0.5, 0)[0]

    base = forward(model)
    want = forward(bypass(patch.apply_parts(model, parts, "merge").model))
    both = (
        bypass(beside(patch, model, parts)) if ours_first else beside(patch, bypass(model), parts)
    )
    assert error(effect(forward(both), base), effect(want, base)) < 2e-5


def test_it_leaves_when_the_model_fails(patch, tmp_path, monkeypatch):
    model = load()
    kind = type(module(model))
    side = beside(patch, model, parts_of(model, patch, tmp_path))

    def fail(*_, **__):
        assert type(module(model)) is not kind, "it was not there at all"
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(model.model.diffusion_model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(side)
    assert type(module(model)) is kind
    assert not [name for name in vars(module(model)) if "flux2" in name]


def test_the_class_says_what_it_said(patch, tmp_path, monkeypatch):
    """Code that looks at a module's type finds the host's, by isinstance and by name."""
    model = load()
    kind = type(module(model))
    side = beside(patch, model, parts_of(model, patch, tmp_path))
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
    side = beside(patch, model, parts_of(model, patch, tmp_path))
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
    side = beside(patch, model, parts_of(model, patch, tmp_path))
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

    model, stacks = load(), patch.SideStacks()
    side = beside(patch, model, parts_of(model, patch, tmp_path), stacks=stacks)
    forward(side)
    gone = [weakref.ref(model.model), weakref.ref(module(model))]
    del model, side
    comfy.model_management.cleanup_models()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_side_stacks_are_bounded(patch, tmp_path):
    model, stacks = load(), patch.SideStacks(most=2)
    parts = parts_of(model, patch, tmp_path)
    first = stacks.get(model, parts[:1])
    assert stacks.get(model, scaled(parts[:1], 3.0)) is first
    assert stacks.get(load(), parts[:1]) is first, "another model of the same shapes"
    stacks.get(model, parts[:2])
    stacks.get(model, parts)
    assert stacks.get(model, parts[:1]) is not first
    small = patch.SideStacks(most_bytes=1)
    first = small.get(model, parts[:1])
    assert small.get(model, parts[:1]) is first, "the last one is kept, whatever its size"
    small.get(model, parts[:2])
    assert small.get(model, parts[:1]) is not first


def test_a_copy_for_another_gpu(patch, tmp_path):
    """The host asks the patcher for a fresh one, and the wrapper finds it by the model it runs."""
    model = load()
    parts = parts_of(model, patch, tmp_path)
    side = beside(patch, model, parts)
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
    parts = [Part("a", 0.5, steps)]
    applied = patch.apply_parts(model, parts, "side path")
    assert applied.taken == "side path"
    assert "2 of 2 weights are merged" in applied.reason
    assert set(applied.model.patches) == {QKV, LINEAR1}
    merged = patch.apply_parts(model, parts, "merge").model
    base = forward(model)
    assert error(effect(forward(applied.model), base), effect(forward(merged), base)) < 1e-4
    alone = patch.apply_parts(model, [Part("a", 1.0, steps[3:])], "side path")
    assert alone.taken == "merge" and "depends on the weight" in alone.reason


@pytest.mark.parametrize("right", [(r(48, 16),), (r(48, 2), r(2, 16))])
def test_a_kronecker_product_beside_the_weight(patch, right):
    model = load()
    step = Step(0, 3 * H, 2.0, Kronecker((r(16, 16),), right, 0.5))
    parts = [Part("k", 0.7, ((QKV, step),))]
    x = r(2, 5, H, std=1.0)
    found = layer_effect(beside(patch, model, parts), model, x)
    assert error(found, true_effect(parts, x)) < 1e-4


class Graphs:
    """A torch.compile backend that runs the graphs as they are, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _inputs):
        self.count += 1
        return graph.forward


@pytest.mark.parametrize("compile_first", [True, False])
def test_under_torch_compile_a_scale_is_never_stale(patch, tmp_path, compile_first, monkeypatch):
    """ComfyUI's TorchCompileModel before or after our node: no new graph for a new scale."""
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    import comfy.model_management

    # The host's attention for CPUs compiles again when the free memory has changed.
    def free(device=None, torch_free_too=False):
        return (2**33, 2**33) if torch_free_too else 2**33

    monkeypatch.setattr(comfy.model_management, "get_free_memory", free)
    torch._dynamo.reset()
    graphs, model, stacks = Graphs(), load(), patch.SideStacks()
    # One block: tracing a whole model takes a minute.
    options = {"backend": graphs, "keys": ["diffusion_model.single_blocks.0"]}
    parts = parts_of(model, patch, tmp_path)
    start = model
    if compile_first:
        start = model.clone()
        helpers.set_torch_compile_wrapper(start, **options)
        forward(start)
    base, counts = forward(model), []
    for factor in (1.0, 0.5, 2.0, 1.0):
        found = beside(patch, start, scaled(parts, factor), stacks=stacks)
        if not compile_first:
            helpers.set_torch_compile_wrapper(found, **options)
        plain = forward(beside(patch, model, scaled(parts, factor)))
        assert error(effect(forward(found), base), effect(plain, base)) < 1e-5
        counts.append(graphs.count)
    assert graphs.count and len(set(counts)) == 1, counts
    assert torch.equal(forward(start), base), "compiled code kept the stack"


def test_auto_remembers_what_a_model_had(patch, tmp_path):
    model, history = load(), History()
    parts = parts_of(model, patch, tmp_path)

    def taken(parts, on=model):
        return patch.apply_parts(on, parts, "auto", history=history).taken

    assert taken(parts) == "merge"
    assert taken(scaled(parts, 0.5)) == "side path", "the slider moved"
    assert taken(parts) == "merge", "a setting keeps its way"
    assert taken(scaled(parts, 0.5), on=load()) == "merge", "another model has a story of its own"
    second = patch.apply_parts(model, parts, "merge").model
    assert taken(scaled(parts, 2.0), on=second) == "merge", "a second stack on top is no change"


def test_the_same_file_changed_on_disk_is_another_setting(patch, tmp_path):
    model = load()
    first = parts_of(model, patch, tmp_path)
    path = tmp_path / "0.safetensors"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    again = parts_of(model, patch, tmp_path)
    assert first[0].identity != again[0].identity
    assert first[1].identity == again[1].identity


def test_a_module_that_is_gone(patch, tmp_path):
    model = load()
    side = beside(patch, model, parts_of(model, patch, tmp_path))
    kind = type(module(model))
    side.add_object_patch("diffusion_model.single_blocks.0.linear1", None)
    with pytest.raises(patch.PatchError, match="no module diffusion_model.single_blocks.0.linear1"):
        forward(side)
    assert type(module(model)) is kind, "half a stack was left behind"

"""LoRAs with a schedule or a region however the model is stored, moved and compiled; and at what
cost: nothing waits for the device, and nothing grows."""

import gc

import pytest
import torch
from modified_runs import (
    FADE,
    LEFT,
    TOP,
    by_picture,
    by_step,
    by_token,
    check,
    lora,
    noise,
    recording,
    small,
)
from tiny_stacks import QKV, Graphs, error, load, r, steady_memory
from tiny_stacks import module as module_of
from torch.utils._python_dispatch import TorchDispatchMode

from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step
from flux2_lora_edit.lora_loader.modifiers.region import Region
from flux2_lora_edit.lora_loader.modifiers.schedule import CLOCKS, Schedule
from flux2_lora_edit.lora_loader.modifiers.text import ModifierError

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

KEY = "flux2_lora_edit"
PICTURES = (1.0, -0.5)
BY_PICTURE = Schedule(((0.0, 1.0),), pictures=PICTURES)


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


def three(model):
    """A fading LoRA by picture, one as it is, one in a region; and what they are in a run."""
    loras = [
        lora(model, 10, 0.7, FADE, BY_PICTURE),
        lora(model, 30, -0.4),
        lora(model, 20, 1.2, Region(LEFT, text=0.5, references=0.25)),
    ]
    gains = [
        lambda run, _: by_step(run) * by_picture(run, PICTURES),
        lambda *_: 1.0,
        lambda run, stream: by_token(run, stream, LEFT, 0.5, 0.25),
    ]
    return loras, list(zip(loras, gains, strict=True))


def stepped(model, step, steps=4, batch=2, references=1):
    """One step as a sampler of the host takes it, compiled or not."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    model.pre_run()
    sigmas = torch.linspace(1, 0, steps + 1)
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    options = {"wrappers": model.wrappers, "sample_sigmas": sigmas, "cond_or_uncond": [0]}
    given = {
        "c_crossattn": r(batch, 8, columns, std=1.0),
        "guidance": torch.full((batch,), 2.5),
        "ref_latents": [r(batch, 128, 2, 3, seed=n, std=1.0) for n in range(references)],
    }
    return model.model.apply_model(
        noise(batch), sigmas[step].expand(batch), transformer_options=options, **given
    )


WHOLE = ["diffusion_model"]
BLOCK = ["diffusion_model.single_blocks.0"]


@pytest.mark.parametrize(
    ("keys", "compile_first"), [(WHOLE, True), (WHOLE, False), (BLOCK, True), (BLOCK, False)]
)
def test_compiled_once_for_every_step_schedule_and_mask(patch, keys, compile_first, monkeypatch):
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    steady_memory(monkeypatch)
    torch._dynamo.reset()
    graphs, model, side_paths = Graphs(), small(), patch.SidePathCache()
    options = {"backend": graphs, "keys": keys}
    start = model.clone()
    if compile_first:
        helpers.set_torch_compile_wrapper(start, **options)
    other = Schedule(((0.0, -0.5), (1.0, 2.0)), "ease in", pictures=(0.25, 2.0))
    changes = [(FADE, Region(LEFT)), (other, Region(LEFT)), (FADE, Region(TOP, 0.5, 0.0))]
    counts, before = [], {}
    for schedule, region in changes * 2:
        own = Schedule(schedule.pairs, schedule.between, pictures=schedule.pictures or PICTURES)
        loras = [lora(model, 10, 0.7, own), lora(model, 20, 1.2, region)]
        found = patch.apply_stack(start, loras, "auto", side_paths=side_paths).model
        if not compile_first:
            helpers.set_torch_compile_wrapper(found, **options)
        plain = patch.apply_stack(model, loras, "auto").model
        for step in (0, 3):
            with torch.inference_mode():
                want = stepped(plain, step)
                assert error(stepped(found, step), want) < 2e-6
            assert step not in before or error(before[step], want) > 0.01, "nothing has changed"
            before[step] = want
            counts.append(graphs.count)
    assert counts[0] and len(set(counts)) == 1, counts


@pytest.mark.parametrize("form", ["float8_e4m3fn", "nvfp4", "int8_tensorwise"])
def test_quantised_weights(patch, form):
    """In bfloat16, whose rounding is of another order than a wrong row, step or token."""
    model = load(form=form)
    loras, truth = three(model)
    runs = recording(patch.apply_stack(model, loras, "auto").model, batch=2, references=1, steps=2)
    check(model, runs, truth, limit=0.03)
    wrong = [(one, lambda *_: 1.0) for one in loras]
    with pytest.raises(AssertionError):
        check(model, runs, wrong, limit=0.06)


class Bytes(torch.Tensor):
    """Of another shape than what it stands for, as the tensors of ComfyUI-GGUF."""

    true_shape = None

    @property
    def shape(self):
        return self.true_shape if self.true_shape is not None else super().shape


def packed(model):
    """The Linears of the blocks as bytes that their forward unpacks."""
    for name, module in model.model.named_modules():
        if "blocks" not in name or not hasattr(module, "in_features"):
            continue
        weight = module.weight.detach()
        factor = weight.abs().amax(1, keepdim=True) / 127
        values = torch.nn.Parameter(
            (weight / factor).round().to(torch.int8).flatten(), requires_grad=False
        )
        values = values.as_subclass(Bytes)
        values.true_shape = weight.shape

        def forward(x, values=values, factor=factor, shape=weight.shape):
            unpacked = values.as_subclass(torch.Tensor).view(shape).to(x.dtype) * factor
            return torch.nn.functional.linear(x, unpacked)

        del module.weight
        module.weight, module.forward = values, forward
    return model


def test_packed_weights(patch):
    model = packed(small())
    loras, truth = three(model)
    runs = recording(patch.apply_stack(model, loras, "auto").model, batch=2, references=1, steps=2)
    check(model, runs, truth)


def test_offloaded_weights_and_factors(patch, monkeypatch):
    """The host casts every weight as it is needed, and adds what is merged to it there."""
    import comfy.model_patcher
    import comfy.ops

    model = small()
    real = comfy.model_patcher.ModelPatcher.load
    monkeypatch.setattr(
        comfy.model_patcher.ModelPatcher,
        "load",
        lambda self, device_to=None, lowvram_model_memory=0, force_patch_weights=False,
        full_load=False: real(self, device_to, 1),
    )  # fmt: skip
    loras, truth = three(model)
    dense = Step(0, 384, 1.0, Dense(r(384, 128, std=0.05), 1.0))
    merged = StackedLora("dense", 1.0, ((QKV, dense),), "dense.safetensors")
    side = patch.apply_stack(model, [*loras, merged], "auto")
    assert "1 of" in side.reason and "merged" in side.reason
    (factors,) = side.model.get_additional_models_with_key(KEY)
    cast, host = [], comfy.ops.cast_bias_weight

    def counted(module, *args, **kwargs):
        cast.append(module)
        return host(module, *args, **kwargs)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counted)
    for layer in factors.model.layers:
        # Another type stands for another device, of which there is none here.
        moved = torch.nn.Parameter(layer.factors.weight.double(), requires_grad=False)
        layer.factors.weight = moved
    runs = recording(side.model, batch=2, references=1, steps=2)
    assert {layer.factors for layer in factors.model.layers} <= set(cast)
    assert module_of(model, QKV).weight_function, "the host has not offloaded the weights"
    check(model, runs, [*truth, (merged, lambda *_: 1.0)])


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the processor wait for a GPU: a number read from a tensor, a shape that
    depends on values, and a tensor made of Python's numbers, which is copied there."""

    waits = frozenset(
        ("_local_scalar_dense", "is_nonzero", "item", "nonzero", "masked_select", "equal",
         "lift_fresh", "unique_consecutive", "_unique2", "bincount", "repeat_interleave")
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        self.seen.add(name)
        if name in self.waits or (name == "index" and any(_is_bool(one) for one in args[1])):
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


def _is_bool(index):
    return index is not None and index.dtype == torch.bool


@pytest.mark.parametrize("clock", CLOCKS)
@torch.inference_mode()
def test_nothing_waits_for_the_device(patch, clock, monkeypatch):
    model = small()
    schedule = Schedule(FADE.pairs, "ease in", clock, PICTURES)
    loras = [lora(model, 10, 0.7, schedule, Region(LEFT, text=0.5)), lora(model, 20, -0.4, FADE)]
    side = patch.apply_stack(model, loras, "auto").model
    first = stepped(side, 0)

    def never(self, *_, **__):
        raise AssertionError("a tensor is read by the processor")

    guard = NoWaiting()
    with monkeypatch.context() as patched, guard:
        for name in ("tolist", "cpu", "numpy", "item"):
            patched.setattr(torch.Tensor, name, never)
        found = [stepped(side, step) for step in (1, 2, 3)]
    assert {"index_select", "addmm_", "copy_"} <= guard.seen, "the guard has not seen the side path"
    assert error(found[-1], first) > 0.1
    for reads in (lambda t: t.item(), bool, lambda t: torch.tensor([1.0]), torch.nonzero):
        with pytest.raises(AssertionError), NoWaiting():
            reads(torch.ones(1))


@torch.inference_mode()
def test_nothing_grows(patch):
    """Over the steps, and over pictures of ever other sizes."""
    model = small()
    loras, _ = three(model)
    side = patch.apply_stack(model, loras, "auto").model
    path = side.get_additional_models_with_key(KEY)[0].model

    def kept():
        gc.collect()
        tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
        layers = [(len(one.gains), len(one.parts), len(one.tokens)) for one in path.layers]
        return tensors, layers, len(path._gains), len(path._tokens), len(path._kept[1])

    for step in range(4):
        stepped(side, step)
    before = kept()
    places = [one.data_ptr() for one in (*path._gains.values(), *path._tokens.values())]
    for step in (0, 1, 2, 3) * 5:
        stepped(side, step)
    assert kept() == before
    assert places == [one.data_ptr() for one in (*path._gains.values(), *path._tokens.values())]
    for references in range(1, 20):
        stepped(side, 0, references=references)
    assert len(path._kept[1]) <= 64
    for step in range(4):
        stepped(side, step)
    assert kept()[1:4] == before[1:4]


@pytest.mark.parametrize("places", [[*range(24), 0, 1, 2], [*range(20)]], ids=["more", "fewer"])
def test_tokens_of_another_node_are_refused(patch, places):
    """Nothing tells where they lie."""
    model = small()
    side = patch.apply_stack(model, [lora(model, 10, 0.7, Region(LEFT))], "auto").model

    def others(given):
        given["img"] = given["img"][:, places]
        return given

    side.set_model_post_input_patch(others)
    with pytest.raises(ModifierError, match="Another node adds tokens of its own"):
        recording(side)

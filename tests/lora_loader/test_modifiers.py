"""A scale by step, picture and token on a real ModelPatcher, against sums that spell it out.

The oracle is a hook on every adapted module that adds, in fp64, each LoRA's whole change times a
multiplier written down here for each row and token. Other truths come from the host: merged models
of one step or picture, and its own hooks.
"""

from dataclasses import replace

import pytest
import torch
from tiny_stacks import (
    QKV,
    TRAINERS,
    H,
    beside,
    direct,
    effect,
    error,
    inputs,
    load,
    r,
    stack_of,
)

from flux2_lora_edit.lora_loader.adapters.base import Rolled
from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.dora import Dora
from flux2_lora_edit.lora_loader.adapters.glora import GeneralizedLora
from flux2_lora_edit.lora_loader.adapters.ia3 import ChannelScale
from flux2_lora_edit.lora_loader.adapters.loha import Hadamard
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.adapters.oft import BlockRotation
from flux2_lora_edit.lora_loader.beside import NotBesideError, build
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step
from flux2_lora_edit.lora_loader.modifiers.region import Region
from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule
from flux2_lora_edit.lora_loader.modifiers.text import ModifierError

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

TEXT, CELLS, REFERENCE = 8, 16, 6
"""Tokens of the text, the output (4 x 4) and each reference (2 x 3) of ``tiny_stacks.inputs``."""
SIGMAS = torch.tensor([1.0, 0.9, 0.6, 0.2, 0.0])
MASK = torch.zeros(1, 32, 32)
MASK[:, 8:, :12] = 1  # of the cells the last three rows; columns 0 and half of 1
MASK_CELLS = torch.tensor([[0, 0, 0, 0], *[[1, 0.5, 0, 0]] * 3]).flatten()


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


@pytest.fixture(scope="module", params=["dev", "klein-9b"])
def model(request, comfy_inprocess):
    return load(request.param)


@torch.inference_mode()
def forward(model, chunks=1, method="index", sigma=0.6, drop=False, **shape):
    """One step as the host's samplers take it, of ``chunks`` halves of a CFG."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    model.pre_run()
    (x, t), given = inputs(model, **shape)
    options = {
        "wrappers": model.wrappers, "sample_sigmas": SIGMAS, "cond_or_uncond": [1, 0][:chunks],
    }  # fmt: skip
    if drop:  # what the host's KV cache does after its first step

        def without_references(given):
            return {**given, "img": given["img"][:, :CELLS]}

        options["patches"] = {"post_input": [without_references]}
    given["ref_latents_method"] = method
    if chunks > 1:  # the same pictures with other words
        x, t = x.repeat(chunks, 1, 1, 1), t.repeat(chunks)
        given["c_crossattn"] = r(len(x), TEXT, given["c_crossattn"].shape[2], std=1.0)
        given["guidance"] = given["guidance"].repeat(chunks)
        if "ref_latents" in given:
            given["ref_latents"] = [one.repeat(chunks, 1, 1, 1) for one in given["ref_latents"]]
    t = torch.full_like(t, sigma)
    return model.model.apply_model(x, t, transformer_options=options, **given).clone()


def modified(loras, *modifiers):
    """The LoRAs, each with its own tuple of modifiers."""
    pairs = zip(loras, modifiers, strict=True)
    return [replace(lora, name=f"L{n}", modifiers=by) for n, (lora, by) in enumerate(pairs, 1)]


def kind_of(name):
    """Which tokens a module of FLUX.2 sees, from the model's own source."""
    for words, kind in (
        (("img_in", "img_attn", "img_mlp", "final_layer.linear"), "image"),
        (("txt_in", "txt_attn", "txt_mlp"), "text"), (("single_blocks",), "joint"),
    ):  # fmt: skip
        if any(word in name for word in words):
            return kind
    return "none"


class Spelled:
    """The dense sum, beside every adapted module for as long as it is entered."""

    def __init__(self, model, loras, multiplier):
        self.model, self.multiplier, self.hooks, self.seen = model, multiplier, [], set()
        self.loras = loras

    def __enter__(self):
        keys = sorted({key for lora in self.loras for key, _ in lora.steps})
        for key in keys:
            place = self.model.model.get_submodule(key.removesuffix(".weight"))
            self.hooks.append(place.register_forward_hook(self.hook(key)))
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def hook(self, key):
        kind = kind_of(key)

        def add(module, args, output):
            x, total = args[0].double(), output.double()
            for number, lora in enumerate(self.loras):
                for name, step in lora.steps:
                    if name != key:
                        continue
                    change = x @ step.effect.dense().double().T * (step.scale * lora.scale)
                    rows = slice(step.start, step.start + step.rows)
                    for row in range(x.shape[0]):
                        if x.dim() == 2:
                            total[row, rows] += change[row] * self.multiplier(number, row, kind, 0)
                            continue
                        for token in range(x.shape[1]):
                            by = self.multiplier(number, row, kind, token)
                            total[row, token, rows] += change[row, token] * by
            self.seen.add(kind)
            return total.to(output.dtype)

        return add


def token_kind(kind, token):
    """("text" | "output" | "reference" | "none", index among the output's cells)."""
    if kind in ("text", "none"):
        return kind, 0
    place = token - TEXT if kind == "joint" else token
    if place < 0:
        return "text", 0
    return ("output", place) if place < CELLS else ("reference", 0)


def everywhere(model, seed):
    """A LoRA on every weight that multiplies: also those that see no tokens, as fal's trainer's."""
    from flux2_lora_edit.lora_loader.patch import weight_shapes

    steps = []
    for number, (key, shape) in enumerate(sorted(weight_shapes(model).items())):
        if len(shape) == 2:
            up, down = (r(*one, seed=seed + number) for one in ((shape[0], 2), (2, shape[1])))
            steps.append((key, Step(0, shape[0], 1.0, LowRank(up, down, 1.0))))
    return StackedLora(("everywhere", seed), 0.8, tuple(steps))


@pytest.mark.parametrize(
    ("variant", "references", "method"),
    [
        *(("dev", references, "index") for references in (0, 1, 3)),
        *(("klein-9b", references, "index") for references in (0, 1, 3)),
        # The host has a second timestep for no batch of dev.
        *(("klein-9b", 2, method) for method in ("index_timestep_zero", "kv cache")),
    ],
)
def test_every_token_has_its_own_multiplier(tmp_path, variant, references, method):
    """Two pictures in two halves: text, output, references, and the layers without tokens."""
    model = load(variant)
    loras = [everywhere(model, 1), everywhere(model, 2), *stack_of(model, tmp_path, TRAINERS[:1])]
    pictures = (0.5, -2.0)
    fade = Schedule(((0.0, 1.0), (1.0, 0.0)), pictures=pictures)
    stack = modified(loras, (Region(MASK, text=0.25, references=0.75),), (fade,), ())
    shares = {"text": 0.25, "none": 0.25, "reference": 0.75}

    def multiplier(number, row, kind, token):
        if number == 0:
            what, place = token_kind(kind, token)
            return MASK_CELLS[place].item() if what == "output" else shares[what]
        # Sigma 0.6 is step 2 of 4; rows are picture 1, picture 2, and both again.
        return 0.5 * pictures[row % 2] if number == 1 else 1.0

    run = {"batch": 2, "references": references, "chunks": 2}
    run["method"] = "index" if method == "index" else "index_timestep_zero"
    run["drop"] = method == "kv cache"
    base = forward(model, **run)
    with Spelled(model, loras, multiplier) as spelled:
        want = forward(model, **run)
    assert spelled.seen == {"image", "text", "joint", "none"}
    found = forward(beside(model, stack), **run)
    assert error(effect(found, base), effect(want, base)) < 1e-5
    assert error(found, want) < 1e-6
    assert torch.equal(forward(model, **run), base)


def test_each_step_is_the_model_merged_for_it(patch, model, tmp_path):
    loras = stack_of(model, tmp_path)
    schedules = [
        Schedule(((0.0, 1.0), (0.5, -1.0), (1.0, 2.0))),
        Schedule(((0.0, 0.5), (1.0, 2.0)), "ease in out"),
        Schedule(((0.0, 1.0), (0.5, 0.0)), "hold"),
    ]
    by_step = [(1.0, 0.5, 1), (0.0, 0.734375, 1), (-1.0, 1.25, 0), (0.5, 1.765625, 0)]
    found = beside(model, modified(loras, *((one,) for one in schedules)))
    for sigma, multipliers in zip(SIGMAS, by_step, strict=False):
        run = {"sigma": float(sigma), "references": 1}
        pairs = zip(loras, multipliers, strict=True)
        scaled = [replace(lora, scale=lora.scale * by) for lora, by in pairs]
        want = forward(patch.apply_stack(model, scaled, "merge").model, **run)
        base = forward(model, **run)
        assert error(forward(found, **run), want) < 3e-6
        assert error(effect(forward(found, **run), base), effect(want, base)) < 1e-4


def test_each_picture_is_a_merged_run_of_its_own(patch, model, tmp_path):
    """Three LoRAs, CFG, two references, in one batch of three."""
    loras = stack_of(model, tmp_path)
    pictures = [(0.0, 1.0, -1.5), (2.0, 0.5, 1.0), (1.0, 0.0, 0.25)]
    schedules = [(Schedule(((0.0, 1.0),), pictures=one),) for one in pictures]
    run = {"batch": 3, "references": 2, "chunks": 2}
    found = forward(beside(model, modified(loras, *schedules)), **run)
    for picture in range(3):
        scaled = [
            replace(lora, scale=lora.scale * by[picture])
            for lora, by in zip(loras, pictures, strict=True)
        ]
        want = forward(patch.apply_stack(model, scaled, "merge").model, **run)
        for row in (picture, picture + 3):
            assert error(found[row], want[row]) < 3e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_full_mask_is_none_and_an_empty_one_the_base(dtype):
    """Bit for bit."""
    model = load("klein-9b", dtype)
    lora = everywhere(model, 1)
    run = {"batch": 2, "references": 2, "chunks": 2}
    plain = forward(beside(model, [lora]), **run)
    assert error(plain, base := forward(model, **run)) > 0.01
    full, empty = Region(torch.ones(1, 40, 24)), Region(torch.zeros(2, 40, 24), 0.0, 0.0)
    assert torch.equal(forward(beside(model, modified([lora], (full,))), **run), plain)
    assert torch.equal(forward(beside(model, modified([lora], (empty,))), **run), base)


def test_a_mask_and_its_complement_are_the_whole(model, tmp_path):
    """The same file twice, also where the mask cuts through a cell."""
    (lora,) = stack_of(model, tmp_path, TRAINERS[:1])
    run = {"batch": 2, "references": 1}
    split = modified([lora, lora], (Region(MASK, 0.3, 0.9),), (Region(1 - MASK, 0.7, 0.1),))
    assert error(forward(beside(model, split), **run), forward(beside(model, [lora]), **run)) < 1e-6


def test_a_mask_for_each_picture(model):
    """A picture of a batch is as it is alone with its mask."""
    lora = everywhere(model, 1)
    masks = torch.cat([MASK, 1 - MASK])
    run = {"references": 1, "chunks": 2}
    both = forward(beside(model, modified([lora], (Region(masks),))), batch=2, **run)
    for picture in range(2):
        one = Region(masks[picture : picture + 1])
        whole = forward(beside(model, modified([lora], (one,))), batch=2, **run)
        assert error(both[picture], whole[picture]) < 1e-6
        assert error(both[picture + 2], whole[picture + 2]) < 1e-6
        assert error(both[1 - picture], whole[1 - picture]) > 1e-3


def test_bfloat16_costs_one_rounding():
    """The multiplier of a token is not rounded by itself, which would be 0.3 % too much for all."""
    effect_ = LowRank(r(64, 8), r(8, H), 1.0)
    layout, factors = build([(0, Step(0, 64, 1.0, effect_))], torch.bfloat16)
    x, gains = r(2, 50, H, std=1.0).bfloat16(), torch.full((2, 50, 8), 0.7012)
    y = layout.add_to(torch.zeros(2, 50, 64).bfloat16(), x, factors, gains).double()
    up, down = (one.bfloat16().double() for one in (effect_.up, effect_.down))
    want = x.double() @ down.T @ up.T * 0.7012
    assert error(y, want) < 4e-3
    assert abs(float((y * want).sum() / (want * want).sum()) - 1) < 3e-4


@torch.no_grad()
def sampled(model, positive, steps, references=1):
    """All steps of the host's own sampler, as its SamplerCustomAdvanced has it."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import CFGGuider

    guider = CFGGuider.execute(model, positive, positive, 1.0).args[0]
    sigmas = torch.linspace(1, 0, steps + 1)
    at = model.model.model_sampling.percent_to_sigma(0.35)
    sigmas[(sigmas > at).sum()] = at  # a step that begins where a keyframe does
    return guider.sample(
        r(1, 128, 4, 4, std=1.0), torch.zeros(1, 128, 4, 4), comfy.samplers.sampler_object("euler"),
        sigmas, seed=1,
    )  # fmt: skip


def test_core_percent_and_hold_is_the_hosts_own_hooks(tmp_path):
    """28 steps, two references, negative values, a keyframe for each interval of sigmas."""
    import comfy.hooks

    model = load("klein-9b")
    made = TRAINERS[0](double=1, single=1)
    (lora,) = stack_of(model, tmp_path, TRAINERS[:1], (1.0,))
    values = [(0.0, 0.5), (0.1, -1.0), (0.2, 2.0), (0.35, 0.0), (0.5, 1.5), (0.8, -0.5)]
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    references = [r(1, 128, 2, 3, seed=n, std=1.0) for n in range(2)]
    known = {"reference_latents": references, "pooled_output": r(1, 8)}  # which 0.18 asks for
    words = [[r(1, TEXT, columns, std=1.0), known]]
    hook = comfy.hooks.create_hook_lora(dict(made.weights), 1.0, 0.0)
    frames = comfy.hooks.HookKeyframeGroup()
    for start, strength in values:
        frames.add(comfy.hooks.HookKeyframe(strength, start, guarantee_steps=0))
    hook.set_keyframes_on_hooks(frames)
    hooked = comfy.hooks.set_hooks_for_conditioning(words, hook)
    want = sampled(model, hooked, 28)
    schedule = Schedule(tuple(values), "hold", "core percent")
    found = sampled(beside(model, modified([lora], (schedule,))), words, 28)
    base = sampled(model, words, 28)
    assert error(want, base) > 1e-3
    assert error(found, want) < 1e-6
    late = Schedule(tuple(values[:-1]), "hold", "core percent")
    assert error(sampled(beside(model, modified([lora], (late,))), words, 28), want) > 1e-6


def test_between_two_moments_core_percent_follows_sigma(model):
    """In steps of a thousandth, by the host's own percent of sampling."""
    percent_to_sigma = model.model.model_sampling.percent_to_sigma
    schedule = Schedule(((0.0, 0.0), (1.0, 1.0)), clock="core percent")
    lora = everywhere(model, 1)
    for percent in (0.1305, 0.5005, 0.9):
        sigma = percent_to_sigma(percent)
        found = forward(beside(model, modified([lora], (schedule,))), sigma=sigma)
        scaled = replace(lora, scale=lora.scale * (percent // 0.001) * 0.001)
        want = forward(beside(model, [scaled]), sigma=sigma)
        assert error(found, want) < 3e-4


@pytest.mark.parametrize(
    ("by", "run", "match"),
    [
        (
            Schedule(((0, 1),), pictures=(1, 2, 3)),
            {"batch": 2},
            "pictures has 3 multipl.*2 pic",
        ),
        (Region(torch.ones(3, 8, 8)), {"batch": 2}, "L1: its region has 3 masks, .* 2 pictures"),
    ],
)
def test_what_the_batch_has_no_use_for(model, by, run, match):
    with pytest.raises(ModifierError, match=match):
        forward(beside(model, modified([everywhere(model, 1)], (by,))), **run)


def test_a_sampler_that_tells_no_steps(model, monkeypatch):
    fade = Schedule(((0.0, 1.0), (1.0, 0.0)))
    monkeypatch.setitem(globals(), "SIGMAS", None)
    with pytest.raises(ModifierError, match="L1 has a schedule by steps.*core percent"):
        forward(beside(model, modified([everywhere(model, 1)], (fade,))))


FADE, HERE = Schedule(((0.0, 1.0), (1.0, 0.0))), Region(MASK)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dora(LowRank(r(3 * H, 4), r(4, H), 1.0), r(3 * H, 1).abs() + 1), "is DoRA on"),
        (lambda: BlockRotation(r(3 * H // 8, 8, 8), None, 0.0), "is OFT on"),
        (lambda: GeneralizedLora(r(H, 2), r(2, H), r(3 * H, 2), r(2, H), 1.0), "is GLoRA on"),
        (lambda: ChannelScale(r(3 * H, 1)), "is IA3 on"),
        (lambda: Dense(r(3 * H, H), 1.0), "is a change of the whole weight on"),
        (
            lambda: Hadamard(r(3 * H, 17), r(17, H), r(3 * H, 17), r(17, H), 1.0),
            "is LoHa of a rank",
        ),
        (lambda: Rolled(ChannelScale(r(3 * H, 1))), "is IA3 on"),
    ],
)
@pytest.mark.parametrize(("by", "what"), [(FADE, "a schedule"), (HERE, "a region")])
def test_what_cannot_be_beside_is_refused_by_name(patch, model, make, words, by, what):
    lora = StackedLora("x", 1.0, ((QKV, Step(0, 3 * H, 1.0, make())),))
    (one,) = modified([lora], (by,))
    with pytest.raises(NotBesideError, match=rf"L1 has {what}, and {words}.*img_attn\.qkv"):
        patch.apply_stack(model, [one], "auto")
    patch.apply_stack(model, [lora], "auto")


def test_before_a_dora_it_is_refused_and_behind_it_exact(patch, tmp_path):
    model = load("klein-9b")
    (lora,) = stack_of(model, tmp_path, TRAINERS[:1])
    dora = Dora(LowRank(r(3 * H, 4), r(4, H), 1.0), r(3 * H, 1).abs() + 1)
    depends = StackedLora("dora", 1.0, ((QKV, Step(0, 3 * H, 1.0, dora)),), "ink")
    (half,) = modified([lora], (Schedule(((0.0, 0.5),)),))
    with pytest.raises(NotBesideError, match="L1 has a schedule and stands before ink.*behind ink"):
        patch.apply_stack(model, [half, depends], "auto")
    found = patch.apply_stack(model, [depends, half], "auto").model
    plain = [depends, replace(lora, scale=lora.scale / 2)]
    want = forward(patch.apply_stack(model, plain, "merge").model)
    base = forward(model)
    assert error(effect(forward(found), base), effect(want, base)) < 1e-4


@pytest.mark.parametrize(("mode", "taker"), [("merge", ""), ("auto", "ModelSave (node 3)")])
def test_what_puts_it_into_the_weights_is_refused(patch, model, mode, taker):
    lora = everywhere(model, 1)
    with pytest.raises(patch.PatchError, match=f"L1 has a schedule.*{taker[:9] or 'mode merge'}"):
        patch.apply_stack(model, modified([lora], (FADE,)), mode, weights_taken_by=taker)
    assert patch.apply_stack(model, modified([lora], (FADE,)), "auto").taken == "side path"


def test_who_runs_the_model_by_himself_is_told(patch, model):
    found = beside(model, modified([everywhere(model, 1)], (FADE,)))
    with pytest.raises(patch.PatchError, match="has a schedule or a region.*by itself"):
        direct(found)


def test_a_loha_is_the_plain_lora_it_equals(patch):
    model = load("klein-9b")
    effect_ = Hadamard(r(3 * H, 4), r(4, H), r(3 * H, 3), r(3, H), 200.0)
    lora = StackedLora("h", 1.0, ((QKV, Step(0, 3 * H, 1.0, effect_)),))
    found = beside(model, [lora])
    assert not found.patches, "nothing is merged"
    dense = replace(lora, steps=((QKV, Step(0, 3 * H, 1.0, Dense(effect_.dense(), 1.0))),))
    base, want = forward(model), forward(patch.apply_stack(model, [dense], "merge").model)
    assert error(effect(forward(found), base), effect(want, base)) < 1e-4


def test_a_loha_of_unlike_factors_in_float16():
    """Their products are evened out, or float16 would hold one of them no more."""
    pair = r(64, 4, std=1e-4), r(4, H, std=40.0)
    effect_ = Hadamard(*pair, r(64, 3, std=1e-4), r(3, H, std=60.0), 1.0)
    layout, factors = build([(0, Step(0, 64, 1.0, effect_))], torch.float16)
    x = r(20, H, std=1.0).half()
    y = layout.add_to(torch.zeros(20, 64), x, factors, torch.ones(12))
    assert error(y.double(), x.double() @ effect_.dense().double().T) < 5e-3

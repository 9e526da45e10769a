"""LoRAs with a schedule or a region in the host's own sampling: each run against a dense truth."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from modified_runs import (
    CELLS,
    FADE,
    LEFT,
    TOP,
    again,
    by_picture,
    by_step,
    by_token,
    check,
    lora,
    noise,
    recorded,
    recording,
    sample,
    small,
    text_of,
)
from tiny_stacks import effect, error, r

from flux2_lora_edit.lora_loader.modifiers.region import Region
from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule
from flux2_lora_edit.lora_loader.modifiers.text import ModifierError

KEY = "flux2_lora_edit"
MUCH = 2**40
pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(scope="module")
def patch(comfy_inprocess):
    from flux2_lora_edit.lora_loader import patch

    return patch


@pytest.fixture(scope="module")
def model(comfy_inprocess):
    return small()


def memory(monkeypatch, free):
    """So much that the host runs both halves of CFG in one chunk, or so little that it does not."""
    import comfy.model_patcher

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: free)


@pytest.mark.parametrize(("references", "free"), [(0, MUCH), (1, 0), (2, MUCH), (3, 0)])
def test_cfg_batches_and_references(patch, model, monkeypatch, references, free):
    memory(monkeypatch, free)
    pictures = (1.0, -0.5)
    masks = torch.cat([LEFT, TOP])
    loras = [
        lora(model, 10, 0.7, FADE, Schedule(((0.0, 1.0),), pictures=pictures)),
        lora(model, 30, -0.4),
        lora(model, 20, 1.2, Region(masks, text=0.5, references=0.25)),
    ]
    side = patch.apply_stack(model, loras, "auto").model
    runs = recording(side, cfg=3.0, batch=2, references=references)
    assert {tuple(run.halves) for run in runs} == ({(1, 0)} if free else {(0,), (1,)})
    gains = [
        lambda run, _: by_step(run) * by_picture(run, pictures),
        lambda *_: 1.0,
        lambda run, stream: by_token(run, stream, masks, 0.5, 0.25),
    ]
    check(model, runs, list(zip(loras, gains, strict=True)))


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "euler_ancestral"])
def test_samplers_with_more_than_a_forward_a_step(patch, model, sampler):
    """The second forward of a step is at another sigma: the next step's, or one between."""
    one = lora(model, 10, 1.0, FADE)
    runs = recording(patch.apply_stack(model, [one], "auto").model, sampler=sampler, steps=4)
    assert len(runs) == (4 if sampler == "euler_ancestral" else 7)
    assert {run.step for run in runs} == {0, 1, 2, 3}
    check(model, runs, [(one, lambda run, _: by_step(run))])


# With guidance, the host's own timestep zero takes one row.
@pytest.mark.parametrize(("variant", "pictures"), [("dev", (0.5,)), ("klein-9b", (1.0, 0.5))])
def test_flux_kv_cache_over_the_steps(patch, variant, pictures):
    """The first forward has the references' tokens and twice the rows of the timestep, later ones
    neither; the references' keys stay those of the first step's scale."""
    nodes = pytest.importorskip("comfy_extras.nodes_flux")
    cached = nodes.FluxKVCache.execute(small(variant)).result[0]
    loras = [
        lora(cached, 10, 0.7, FADE, Schedule(((0.0, 1.0),), pictures=pictures)),
        lora(cached, 20, 1.2, Region(LEFT, text=0.5, references=0.25)),
    ]
    runs = recording(
        patch.apply_stack(cached, loras, "auto").model, batch=len(pictures), references=2
    )
    assert len(runs) == 3
    gains = [
        lambda run, _: by_step(run) * by_picture(run, pictures),
        lambda run, stream: by_token(run, stream, LEFT, 0.5, 0.25),
    ]
    _forget(runs)
    plain = [again(cached, run) for run in runs]
    _forget(runs)
    found = [again(cached, run, list(zip(loras, gains, strict=True))) for run in runs]
    for run, want, base in zip(runs, found, plain, strict=True):
        assert effect(want, base).norm() > 0.05 * base.norm()
        assert error(run.out, want) < 2e-6, f"step {run.step}"


def _forget(runs):
    """What the KV cache keeps: one object in the MODEL's patches."""
    for one in runs[0].options["patches"]["attn1_patch"]:
        one.cleanup()


def test_flux_kv_cache_against_the_merged_model_of_each_step(patch):
    nodes = pytest.importorskip("comfy_extras.nodes_flux")
    cached = nodes.FluxKVCache.execute(small("klein-9b")).result[0]
    one = lora(cached, 10, 0.7, FADE)
    runs = recording(patch.apply_stack(cached, [one], "auto").model, references=1)
    _forget(runs)
    for run in runs:
        step = replace(one, scale=0.7 * by_step(run), modifiers=())
        assert error(run.out, again(patch.apply_stack(cached, [step], "merge").model, run)) < 3e-6


def test_a_hook_of_the_host_on_the_same_model(patch, model):
    """Its LoRA is in the weights, patched anew at each of its keyframes; ours is beside them."""
    import comfy.hooks
    import comfy.utils

    theirs, ours = lora(model, 30, 1.0), lora(model, 10, 0.7, FADE, Region(LEFT, text=0.5))
    file = {}
    for key, step in theirs.steps:
        name = key.removesuffix(".weight")
        file[f"{name}.lora_up.weight"] = step.effect.up
        file[f"{name}.lora_down.weight"] = step.effect.down
    hooks = comfy.hooks.create_hook_lora(file, 1.0, 0.0)
    frames, strengths = comfy.hooks.HookKeyframeGroup(), (0.3, 1.0, -0.5)
    sigmas = torch.linspace(1, 0, 4) ** 0.6
    for strength, sigma in zip(strengths, sigmas, strict=False):
        percents = torch.linspace(0, 1, 1001)
        at = min(percents.tolist(), key=lambda p: abs(float(sigma) - sigma_of(model, p) + 1e-3))
        frames.add(comfy.hooks.HookKeyframe(strength, at if len(frames.keyframes) else 0.0, 0))
    hooks.set_keyframes_on_hooks(frames)
    side = patch.apply_stack(model, [ours], "auto").model
    given = comfy.hooks.set_hooks_for_conditioning(text_of(model, 1), hooks)
    runs = recording(side, positive=given, sigmas=sigmas)
    assert len(runs) == 3
    check(
        model,
        runs,
        [
            (theirs, lambda run, _: strengths[run.step]),
            (ours, lambda run, s: by_step(run) * by_token(run, s, LEFT, 0.5, 1.0)),
        ],
        limit=1e-5,
    )


def sigma_of(model, percent):
    return float(model.model.model_sampling.percent_to_sigma(percent))


@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
def test_steps_that_a_cache_skips_shift_nothing(patch, model, node):
    caches = pytest.importorskip("comfy_extras.nodes_easycache")
    one = lora(model, 10, 0.7, FADE, Region(LEFT, text=0.5))
    side = patch.apply_stack(model, [one], "auto").model
    cached = getattr(caches, node).execute(side, 3.0, 0.15, 0.93, False).result[0]
    runs = [run for run in recording(cached, steps=8) if run.ran]
    steps = [run.step for run in runs]
    assert steps[0] == 0 and steps[-1] == 7, steps
    assert any(later > former + 1 for former, later in pairwise(steps)), f"none skipped: {steps}"
    check(model, runs, [(one, lambda run, s: by_step(run) * by_token(run, s, LEFT, 0.5, 1.0))])


def test_two_stacks_with_different_schedules(patch, model):
    """Three LoRAs and two more in a second Apply, each with a schedule or region of its own."""
    rising = Schedule(((0.0, -1.0), (1.0, 1.0)))
    first = [lora(model, n, 0.3 * n) for n in (1, 2)] + [lora(model, 3, 0.9, FADE)]
    second = [lora(model, 4, -0.6, rising), lora(model, 5, 0.5, Region(TOP, text=0.0))]
    side = patch.apply_stack(patch.apply_stack(model, first, "side path").model, second, "auto")
    gains = [
        lambda *_: 1.0,
        lambda *_: 1.0,
        lambda run, _: by_step(run),
        lambda run, _: -by_step(run),
        lambda run, stream: by_token(run, stream, TOP, 0.0, 1.0),
    ]
    runs = recording(side.model, batch=2, references=1, cfg=2.0)
    check(model, runs, list(zip(first + second, gains, strict=True)))


@pytest.mark.parametrize("mode", ["side path", "merge"])
def test_five_loras_in_two_stacks_are_one_dense_sum(patch, model, mode):
    loras = [lora(model, n, 0.3 * n - 1.0) for n in (1, 2, 3, 4, 5)]
    side = patch.apply_stack(patch.apply_stack(model, loras[:3], mode).model, loras[3:], mode)
    runs = recording(side.model, batch=2, references=1, cfg=2.0, steps=2)
    check(model, runs, [(one, lambda *_: 1.0) for one in loras], limit=1e-5)


def test_parallel_branches_of_one_side_path(patch, model):
    """The same files with other schedules: one side path is kept for both, and each run of either
    is its own, whoever ran before."""
    side_paths = patch.SidePathCache()
    modifiers = ((FADE,), (Schedule(((0.0, -0.5), (1.0, 2.0))), Region(LEFT)), (), (Region(TOP),))
    gains = (
        lambda run, _: by_step(run),
        lambda run, s: (2.5 * run.step / 3 - 0.5) * by_token(run, s, LEFT, 1.0, 1.0),
        lambda *_: 1.0,
        lambda run, s: by_token(run, s, TOP, 1.0, 1.0),
    )
    loras = [lora(model, 10, 0.7, *own) for own in modifiers]
    branches = [
        patch.apply_stack(model, [one], "side path", side_paths=side_paths).model for one in loras
    ]
    (shared,) = {one.get_additional_models_with_key(KEY)[0].model for one in branches}
    clones, runs = zip(*map(recorded, branches), strict=True)
    shape = noise().shape
    for step in (0, 2, 1, 0):
        sigmas = torch.linspace(1, 0, 4)
        for clone in (*clones, clones[0]):
            run_at(clone, sigmas, step, {KEY: tuple(shape)})
    assert [len(own) for own in runs] == [8, 4, 4, 4]
    for own, one, gain in zip(runs, loras, gains, strict=True):
        check(model, own, [(one, gain)])
    assert len(shared._gains) == 1, "a tensor for each device, whatever the branches"


@torch.inference_mode()
def run_at(clone, sigmas, step, options):
    """One step as a sampler of the host takes it, without the others."""
    import comfy.model_management

    every = [clone, *clone.get_nested_additional_models()]
    comfy.model_management.load_models_gpu(every)
    clone.pre_run()
    options = {**options, "sample_sigmas": sigmas, "wrappers": clone.wrappers}
    options["cond_or_uncond"] = [0]
    text = r(1, 8, 768, std=1.0)
    return clone.model.apply_model(
        noise(), sigmas[step : step + 1], c_crossattn=text, guidance=torch.tensor([2.5]),
        transformer_options=options,
    )  # fmt: skip


def test_an_area_is_refused_and_a_mask_is_not(patch, model):
    import node_helpers

    one = lora(model, 10, 0.7, Region(LEFT))
    side = patch.apply_stack(model, [one, lora(model, 20, 0.5, FADE)], "auto").model
    area = text_of(model, 1, area=(2, 4, 0, 0), strength=1.0)
    with pytest.raises(ModifierError, match=r"10\.safetensors has a region.*an area conditioning"):
        sample(side, positive=area + text_of(model, 3))
    mask = node_helpers.conditioning_set_values(
        text_of(model, 1), {"mask": TOP, "set_area_to_bounds": False, "mask_strength": 1.0}
    )
    runs = recording(side, positive=mask + text_of(model, 3), batch=2)
    assert {tuple(run.halves) for run in runs} <= {(0, 0), (0,)}
    gains = [lambda run, s: by_token(run, s, LEFT, 1.0, 1.0), lambda run, _: by_step(run)]
    loras = [one, lora(model, 20, 0.5)]
    check(model, runs, list(zip(loras, gains, strict=True)))
    # A schedule alone has no use for where the area lies.
    scheduled = patch.apply_stack(model, [lora(model, 20, 0.5, FADE)], "auto").model
    runs = recording(scheduled, positive=area + text_of(model, 3))
    check(model, runs, [(lora(model, 20, 0.5), lambda run, _: by_step(run))])


def test_a_tiled_sampler_is_refused(patch, model):
    """As the packs that show the model a tile at a time, by the host's model function wrapper."""

    def tiles(apply, given):
        halves = given["input"].chunk(2, dim=-1)
        return torch.cat([apply(one, given["timestep"], **given["c"]) for one in halves], -1)

    one, scheduled = lora(model, 10, 0.7, Region(LEFT)), lora(model, 20, 0.5, FADE)
    side = patch.apply_stack(model, [one], "auto").model
    side.set_model_unet_function_wrapper(tiles)
    with pytest.raises(ModifierError, match=r"10\.safetensors has a region.*a tiled sampler"):
        sample(side)
    side = patch.apply_stack(model, [scheduled], "auto").model
    side.set_model_unet_function_wrapper(tiles)
    runs = recording(side)
    check(model, runs, [(scheduled, lambda run, _: by_step(run))])


@pytest.mark.parametrize("way", ["two positives", "DualCFGGuider"])
def test_three_conditionings_in_one_chunk(patch, model, monkeypatch, way):
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler

    memory(monkeypatch, MUCH)
    pictures, masks = (1.0, -0.5), torch.cat([LEFT, TOP])
    loras = [
        lora(model, 10, 0.7, Schedule(FADE.pairs, pictures=pictures)),
        lora(model, 20, 1.2, Region(masks, text=0.5)),
    ]
    clone, runs = recorded(patch.apply_stack(model, loras, "auto").model)
    one, two, three = (text_of(model, seed) for seed in (1, 2, 3))
    if way == "DualCFGGuider":
        guider = nodes_custom_sampler.Guider_DualCFG(clone)
        guider.set_conds(one, two, three)
        guider.set_cfg(3.0, 2.0)
    else:
        guider = comfy.samplers.CFGGuider(clone)
        guider.set_conds(one + two, three)
        guider.set_cfg(3.0)
    guider.sample(
        noise(2), torch.zeros(2, 128, *CELLS), comfy.samplers.sampler_object("euler"),
        torch.linspace(1, 0, 3), disable_pbar=True, seed=0,
    )  # fmt: skip
    assert [len(run.halves) for run in runs] == [3, 3]
    gains = [
        lambda run, _: by_step(run) * by_picture(run, pictures),
        lambda run, stream: by_token(run, stream, masks, 0.5, 1.0),
    ]
    check(model, runs, list(zip(loras, gains, strict=True)))

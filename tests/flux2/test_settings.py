"""Presets, schedules from outside, and what is said of settings that are another model's."""

import math
import re

import pytest
import torch

from flux2_lora_edit.flux2.settings import (
    AS_SET,
    PRESETS,
    TURBO,
    InputError,
    Preset,
    advise,
    check_sigmas,
    describe_steps,
    distillation,
    model_file,
    settle,
)

DISTILLED, BASE = "flux-2-klein-4b.safetensors", "flux-2-klein-base-4b.safetensors"
OTHER = "my klein finetune.safetensors"
TURBO_FILE = "Flux_2-Turbo-LoRA_comfyui.safetensors"


def test_as_set_is_as_set():
    assert settle(AS_SET, True, False, 3, 0.5) == (True, 3, 0.5, ())
    assert settle(AS_SET, False, True, 100, 20) == (False, 100, 20, ())


@pytest.mark.parametrize(
    ("preset", "embeds", "numbers"),
    [
        ("dev", True, (28, 4.0)),
        ("klein distilled", False, (4, 1.0)),
        ("klein base", False, (50, 4.0)),
        (TURBO, True, (8, 2.5)),
    ],
)
def test_a_preset_sets_steps_and_guidance(preset, embeds, numbers):
    chosen = settle(preset, embeds, True, 17, 3.3)
    assert (chosen.steps, chosen.guidance) == numbers
    assert len(chosen.sigmas) == (8 if preset == TURBO else 0)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_the_other_model_is_refused_by_both_names(preset):
    embeds = not PRESETS[preset].embeds
    ours = "dev" if embeds else "klein"
    with pytest.raises(InputError, match=f"^preset is {preset} and model is FLUX.2 {ours}") as said:
        settle(preset, embeds, True, 28, 2.5)
    fitting = "dev or dev with Turbo LoRA" if embeds else "klein distilled or klein base"
    assert f"Set preset to {fitting}, or load FLUX.2" in str(said.value)


def test_what_else_no_preset_takes():
    with pytest.raises(InputError, match="^preset is klein base.*needs negative"):
        settle("klein base", False, False, 28, 2.5)
    with pytest.raises(InputError, match="^preset is 'fast'; choose as set, dev, klein distilled"):
        settle("fast", True, False, 28, 2.5)
    assert settle("klein distilled", False, False, 28, 2.5).guidance == 1


@pytest.mark.parametrize("values", [[1, 0.5, 0], [1.0, 0.7], [0.6, 0.3, 0.3, 0.0], [1.0, 0.0003]])
def test_a_schedule_is_taken_as_it_is(values):
    sigmas = torch.tensor(values)
    assert check_sigmas(sigmas) is sigmas


@pytest.mark.parametrize(
    ("sigmas", "words"),
    [
        (torch.tensor([1.0]), "has the shape 1; it takes one row of 2 values or more"),
        (torch.tensor([]), "has the shape 0;"),
        (torch.tensor([[1.0, 0.0]]), "has the shape 1x2;"),
        (torch.tensor(1.0), "has the shape ;"),
        ([1.0, 0.0], "is no tensor"),
        (torch.tensor([1.0, float("nan"), 0.0]), "has NaN or infinite values"),
        (torch.tensor([float("inf"), 0.0]), "has NaN or infinite values"),
        (torch.tensor([0.0, 0.5, 1.0]), "runs from 0 to 1, 3 values"),
        (torch.tensor([1.0, 0.2, 0.5, 0.0]), "runs from 1 to 0, 4 values"),
        (torch.tensor([14.6146, 1.2, 0.0]), "runs from 14.6146 to 0, 3 values"),
        (torch.tensor([1.0, 0.0, -0.1]), "runs from 1 to -0.1"),
    ],
)
def test_what_is_no_schedule_is_refused(sigmas, words):
    with pytest.raises(InputError, match=f"^sigmas {words}") as said:
        check_sigmas(sigmas)
    assert "NaN" in words or "Flux2Scheduler" in str(said.value)


def test_the_words_say_whose_steps_they_are():
    plain, turbo = Preset(True, 4, 1.0), PRESETS[TURBO]
    assert describe_steps(1, AS_SET, plain, False) == "1 step"
    assert describe_steps(28, AS_SET, plain, False) == "28 steps"
    assert describe_steps(4, "klein distilled", plain, False) == "preset klein distilled: 4 steps"
    own = f"preset {TURBO}: 8 steps of its own schedule"
    assert describe_steps(8, TURBO, turbo, False) == own
    assert describe_steps(4, TURBO, turbo, False).endswith("4 steps, the last of its own 8")
    by_hand = "5 steps of sigmas, in place of steps and denoise"
    assert describe_steps(5, AS_SET, plain, True) == by_hand
    assert describe_steps(5, TURBO, turbo, True) == f"preset {TURBO}: {by_hand}"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (DISTILLED, "distilled"),
        ("flux-2-klein-9b.safetensors", "distilled"),
        ("flux-2-klein-9b-fp8.safetensors", "distilled"),
        ("flux-2-klein-9b-kv.safetensors", "distilled"),
        ("flux-2-klein-9b-kv-fp8.safetensors", "distilled"),
        ("flux-2-klein-4b-nvfp4.safetensors", "distilled"),
        ("flux-2-klein-4b-fp8mixed.safetensors", "distilled"),
        ("FLUX.2-klein-9B-Q4_K_M.gguf", "distilled"),
        ("flux-2-klein-4b-UD-IQ3_XXS.gguf", "distilled"),
        ("flux2_klein_4b_bf16.safetensors", "distilled"),
        ("flux-2-klein-9b_fp8_e4m3fn_scaled.safetensors", "distilled"),
        ("mine-klein-9b-distilled-v2.safetensors", "distilled"),
        (BASE, "base"),
        ("flux-2-klein-base-9b-fp8.safetensors", "base"),
        ("FLUX.2-klein-base-9B-Q8_0.gguf", "base"),
        ("klein_base_mine.safetensors", "base"),
        # Nobody knows which klein these were made of.
        ("Flux2-Klein-9B-True-V1.safetensors", ""),
        ("flux-2-klein-9b-undistilled.safetensors", ""),
        ("flux-2-klein-9b-de-distilled.safetensors", ""),
        ("flux-2-klein-base-4b-distilled.safetensors", ""),
        ("flux-2-klein-base-4b-turbo.safetensors", ""),
        ("klein-basement.safetensors", ""),
        (OTHER, ""),
        ("flux2-klein-tiny.safetensors", ""),
        ("flux2-dev.safetensors", ""),
        ("base.safetensors", ""),
        ("", ""),
    ],
)
def test_a_name_tells_which_klein_or_nothing(file, kind):
    assert distillation(file) == kind


def test_the_models_file_is_no_loras():
    texts = [("lora_name", "klein-base-ink.safetensors"), ("lora_1", "ink.safetensors")]
    loader = [("unet_name", f"klein\\{DISTILLED}"), ("weight_dtype", "fp8_e4m3fn_fast")]
    assert model_file(texts) == ""
    assert model_file(texts + loader) == DISTILLED
    assert model_file([*loader, ("ckpt_name", f"sub/{DISTILLED}")]) == DISTILLED
    assert model_file([*loader, ("unet_name", BASE)]) == ""  # a switch between both


def said(preset=None, *, steps, guidance=1.0, denoise=1.0, cfg=False, nag=False, file="",
         loras=(), bare=None, embeds=False):  # fmt: skip
    chosen = PRESETS[preset] if preset else Preset(embeds, steps, guidance)
    bare = not loras if bare is None else bare
    return advise(chosen, steps, denoise, cfg, nag, file=file, texts=[file, *loras], bare=bare)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (dict(steps=28, file=DISTILLED), "set steps to 4, or preset to klein distilled"),
        (dict(steps=4, guidance=4.0, cfg=True, file=DISTILLED), "set guidance to 1, or"),
        (dict(steps=28, guidance=4.0, cfg=True, file=DISTILLED),
         f"^{DISTILLED} is klein distilled: set steps to 4 and guidance to 1, or preset to klein"),
        (dict(steps=20, denoise=0.5, file=DISTILLED), "set steps to 4"),
        (dict(steps=28, file="mine-klein-distilled.gguf"), "^mine-klein-distilled.gguf is klein"),
        (dict(steps=math.nan, guidance=5.0, cfg=True, file=DISTILLED), "distilled: set guidance"),
        (dict(steps=28, guidance=4.0, file=BASE), "set guidance to 4 with a negative, or preset"),
        (dict(steps=28, guidance=1.0, cfg=True, file=BASE), "set guidance to 4 with a negative"),
        (dict(steps=4, guidance=4.0, cfg=True, file=BASE), "set steps to 20 or more, or preset to"),
        (dict(preset="klein distilled", steps=4, file=BASE), "klein base: set steps to 20 or more"),
        (dict(steps=4, embeds=True), "dev takes more steps than 4: set steps to 28, or add"),
        (dict(steps=8, embeds=True, file="flux2-dev.safetensors"), "dev takes more steps than 8"),
        (dict(steps=4, embeds=True, loras=["ink.safetensors"]), "dev takes more steps than 4"),
        (dict(steps=4, embeds=True, loras=["hyperreal-calcmap.safetensors"]), "dev takes more"),
        (dict(preset=TURBO, steps=8), "no LoRA is on the model: add the Turbo LoRA"),
    ],
    ids=lambda case: case if isinstance(case, str) else None,
)  # fmt: skip
def test_settings_of_another_model_are_said_in_a_line(case, words):
    line = said(**case)
    assert re.search(words, line), line
    assert "\n" not in line


@pytest.mark.parametrize(
    "case",
    [
        dict(steps=4, file=DISTILLED),
        dict(steps=8, file=DISTILLED),
        dict(steps=4, denoise=0.1, file=DISTILLED),
        dict(steps=4, guidance=2.5, file=DISTILLED),  # no negative: no CFG, and no harm
        dict(steps=4, guidance=1.0, cfg=True, nag=True, file=DISTILLED),
        dict(steps=math.nan, file=DISTILLED),  # a schedule of one's own
        dict(steps=28, guidance=4.0, cfg=True, file=OTHER),
        dict(steps=4, file=OTHER),
        dict(steps=28, guidance=4.0, cfg=True),
        dict(steps=20, guidance=4.0, cfg=True, file=BASE),
        dict(steps=5, denoise=0.2, guidance=4.0, cfg=True, file=BASE),
        dict(steps=20, guidance=1.0, cfg=True, nag=True, file=BASE),
        dict(steps=4, file=BASE, loras=["klein-lightning-4steps.safetensors"]),
        dict(preset="klein base", steps=50, cfg=True, file=BASE),
        dict(preset="klein distilled", steps=4, file=DISTILLED),
        dict(steps=28, embeds=True),
        dict(steps=10, embeds=True),
        dict(steps=5, denoise=0.2, embeds=True),
        dict(steps=math.nan, embeds=True),
        dict(steps=8, embeds=True, loras=[TURBO_FILE]),
        dict(steps=8, embeds=True, loras=["owner/FLUX.2-dev-Turbo"]),
        dict(steps=4, embeds=True, loras=["gmflux2_k8_piid_4step.safetensors"]),
        dict(steps=8, embeds=True, loras=["renamed.safetensors"]),
        dict(steps=6, embeds=True, loras=["Hyper-FLUX2-dev.safetensors", "ink.safetensors"]),
        dict(steps=4, embeds=True, loras=["flux2_LCM_v1.safetensors"]),
        dict(steps=8, embeds=True, file="flux2-dev-turbo-fp8mixed.safetensors"),
        dict(preset="dev", steps=28),
        dict(preset=TURBO, steps=8, loras=[TURBO_FILE]),
        dict(preset=TURBO, steps=8, loras=["renamed.safetensors"]),
        dict(preset=TURBO, steps=8, file="flux2-dev-turbo-fp8mixed.safetensors"),
        dict(preset=TURBO, steps=2, denoise=0.25, loras=[TURBO_FILE]),
    ],
    ids=str,
)
def test_no_false_alarm(case):
    assert said(**case) == ""


def test_a_graph_that_is_not_known_may_hold_a_turbo_lora():
    chosen = Preset(True, 4, 2.5)
    assert advise(chosen, 4, 1.0, False, False, file="", texts=[], bare=False) == ""
    assert advise(chosen, 4, 1.0, False, False, file="", texts=[], bare=True)
    assert advise(PRESETS[TURBO], 8, 1.0, False, False, file="", texts=[], bare=False) == ""

"""How guidance acts on dev and klein, in all combinations, and what cannot be sampled."""

import pytest
import torch

from flux2_lora_edit.flux2.sampling import (
    InputError,
    check_conditioning,
    check_latent,
    check_ranges,
    plan_guidance,
)


@pytest.mark.parametrize(
    ("embeds", "guidance", "negative", "cfg", "words"),
    [
        (True, 2.5, False, False, "embedded guidance 2.5"),
        (True, 2.5, True, False, "negative does nothing on dev"),
        (False, 2.5, False, False, "guidance does nothing on klein without a negative"),
        (False, 1.0, True, False, "negative does nothing at guidance 1"),
        (False, 0.0, True, False, "negative does nothing at guidance 0"),
        (False, 4.0, True, True, "CFG 4, two forwards a step"),
    ],
)
def test_guidance(embeds, guidance, negative, cfg, words):
    runs, text = plan_guidance(embeds, guidance, negative)
    assert runs == cfg
    assert words in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 20.1])
def test_numbers_that_a_link_could_bring(value):
    with pytest.raises(InputError, match="^guidance is .*0 to 20"):
        check_ranges(guidance=value)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (torch.zeros(1, 16, 8, 8), "shape 1x16x8x8; FLUX.2 takes 128 channels at 1/16"),
        (torch.zeros(1, 128, 1, 8, 8), "shape 1x128x1x8x8"),
        (torch.full((1, 128, 4, 4), float("inf")), "NaN or infinite"),
    ],
)
def test_latents_of_another_kind(samples, words):
    check_latent(torch.zeros(1, 128, 4, 4))
    with pytest.raises(InputError, match=f"^latent_image has .*{words}"):
        check_latent(samples)


@pytest.mark.parametrize(
    ("conditioning", "words"),
    [
        ([], "negative is empty"),
        ([(torch.zeros(1, 8, 7680), {})], "negative comes from .*Qwen3 4B.* needs Mistral 3"),
        ([(torch.zeros(1, 8, 7), {})], "another text encoder: width 7;"),
        (
            [(torch.zeros(1, 8, 15360), {"reference_latents": [torch.zeros(1, 16, 4, 4)]})],
            "negative: reference latent 1 has 16 channels",
        ),
    ],
)
def test_conditionings_of_another_kind(conditioning, words):
    check_conditioning("negative", [(torch.zeros(1, 8, 15360), {})], 15360)
    with pytest.raises(InputError, match=words):
        check_conditioning("negative", conditioning, 15360)

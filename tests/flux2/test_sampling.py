"""How guidance acts on dev and klein, in all combinations, and what cannot be sampled."""

import pytest
import torch

from flux2_lora_edit.flux2.sampling import (
    InputError,
    check_conditioning,
    check_latent,
    check_ranges,
    forward_flops,
    plan_guidance,
    references_cost,
    unused_guidance,
)


@pytest.mark.parametrize(
    ("embeds", "guidance", "negative", "cfg", "words"),
    [
        (True, 2.5, False, False, "embedded guidance 2.5"),
        (True, 2.5, True, False, "negative does nothing on dev"),
        (False, 2.5, False, False, "guidance does nothing on klein without a negative"),
        (False, 1.0, True, True, "no CFG: negative does nothing at guidance 1; above 1"),
        (False, 0.0, True, True, "CFG 0, two forwards a step; below 1 it leads to the negative"),
        (False, 4.0, True, True, "CFG 4, two forwards a step"),
    ],
)
def test_guidance(embeds, guidance, negative, cfg, words):
    takes, text = plan_guidance(embeds, guidance, negative)
    assert takes == cfg
    assert words in text


def test_guidance_where_a_node_on_the_model_wants_the_negative():
    assert plan_guidance(False, 1.0, True, both=True) == (
        True, "no CFG: the negative is for what is patched into the model, such as NAG"
    )  # fmt: skip
    for other in ((False, 1.0, False), (False, 4.0, True), (True, 2.5, True)):
        assert plan_guidance(*other, both=True) == plan_guidance(*other)


@pytest.mark.parametrize(
    ("brought", "used", "words"),
    [
        ([{}], 2.5, ""),
        ([{"guidance": 2.5}], 2.5, ""),
        ([{"guidance": 4.0}, {"guidance": 4.0}, {}], 2.5, "brings (4) does nothing"),
        ([{"guidance": None}], 2.5, "brings (off) does nothing"),
        ([{"guidance": 3.5}], None, "brings (3.5) does nothing"),
        ([{"guidance": None}], None, ""),
    ],
)
def test_a_guidance_that_the_text_brings(brought, used, words):
    said = unused_guidance([(torch.zeros(1), extras) for extras in brought], used)
    assert words in said and bool(said) == bool(words)


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
    assert check_latent(torch.zeros(1, 128, 4, 4), torch.zeros(1, 128, 4, 4), None) == ""
    with pytest.raises(InputError, match=f"^latent_image has .*{words}"):
        check_latent(samples, samples, None)


def test_a_latent_that_the_host_has_made_fit():
    ours, given = torch.zeros(1, 128, 4, 4), torch.zeros(1, 16, 8, 8)
    assert check_latent(ours, given, 8) == "; latent_image was an empty one of 16 channels"
    assert "does not say its scale: 16 px a cell" in check_latent(ours, given, None)
    with pytest.raises(InputError, match="the shape 1x16x1x8x8;"):
        check_latent(torch.zeros(1, 128, 1, 4, 4), given.unsqueeze(2), 8)


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


def test_what_references_cost():
    """By hand: klein 4B, 512 of text and 4096 of output, with 4096 more."""
    width, bare, more = 3072, 512 + 4096, 4096
    cost = [n * (26 * width**2 + 4 * width * n) for n in (bare, bare + more)]
    assert [forward_flops(n, width) for n in (bare, bare + more)] == cost
    said = references_cost(torch.zeros(1, 77, 7680), more, 1024)
    assert said == (
        f"in all 4096 tokens: a step at 1024x1024 costs {cost[1] / cost[0]:.1f} times one without "
        "on klein 4B"
    )
    long = references_cost(torch.zeros(1, 4096, 7680), more, 1024)
    assert long != said, "a long text is more of the whole"
    assert "on dev" in references_cost(torch.zeros(1, 8, 15360), more, 1024)
    assert references_cost(torch.zeros(1, 8, 768), more, 1024) == "in all 4096 tokens"

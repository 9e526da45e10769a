"""How guidance acts on dev and klein, in all combinations."""

import importlib

import pytest


@pytest.fixture(scope="module")
def sampler(comfy_inprocess):
    return importlib.import_module("flux2_lora_edit.nodes.sampler")


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
def test_guidance(sampler, embeds, guidance, negative, cfg, words):
    plan = sampler.plan_guidance(sampler.ModelTraits(embeds, 768), guidance, negative)
    assert plan.cfg == cfg
    assert words in plan.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 20.1])
def test_numbers_that_a_link_could_bring(sampler, value):
    with pytest.raises(sampler.SamplerInputError, match="^guidance is .*0 to 20"):
        sampler.check_number("guidance", value, 0, 20)

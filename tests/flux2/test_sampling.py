"""How guidance acts on dev and klein, in all combinations."""

import pytest

from flux2_lora_edit.flux2.sampling import SamplerInputError, check_ranges, plan_guidance


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
    with pytest.raises(SamplerInputError, match="^guidance is .*0 to 20"):
        check_ranges(guidance=value)

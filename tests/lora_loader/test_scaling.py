"""Where alpha comes from when no tensor says it."""

import json
import math

import pytest

from flux2_lora_edit.lora_loader.reading.scaling import (
    header_settings,
    json_table,
    peft_settings,
)

STEM = "transformer.transformer_blocks.0.attn.to_q"


def from_header(**adapter):
    return header_settings({"lora_adapter_metadata": json.dumps(adapter)})


def prefixed(prefix, **adapter):
    return from_header(**{f"{prefix}.{key}": value for key, value in adapter.items()})


def test_diffusers_prefix_and_simpletuners_none():
    assert prefixed("transformer", lora_alpha=4, r=16).scale("LORA", STEM, 16) == 0.25
    assert from_header(lora_alpha=4, r=16).scale("LORA", STEM, 16) == 0.25


def test_the_tensors_rank_counts_not_the_settings():
    assert from_header(lora_alpha=4, r=16).scale("LORA", STEM, 8) == 0.5


def test_rslora():
    assert from_header(lora_alpha=4, r=16, use_rslora=True).scale("LORA", STEM, 16) == 1.0
    assert math.isclose(
        from_header(lora_alpha=4, r=8, use_rslora=True).scale("LORA", STEM, 8), 4 / 8**0.5
    )


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [
        ("to_q", True),
        ("attn.to_q", True),
        ("transformer_blocks.0.attn.to_q", True),
        (r"transformer_blocks\.\d+\.attn\.to_q", True),
        (".*attn.to_q", True),
        ("^transformer_blocks.0.attn.to_q", True),
        ("o_q", False),
        ("to_k", False),
        ("^attn.to_q", False),
        ("transformer_blocks", False),
    ],
)
def test_alpha_pattern(pattern, hits):
    settings = from_header(lora_alpha=4, r=8, alpha_pattern={pattern: 16})
    assert settings.scale("LORA", STEM, 8) == (2.0 if hits else 0.5)


def test_a_pattern_made_to_hang_is_not_tried():
    settings = from_header(lora_alpha=4, r=8, alpha_pattern={"(a+)+$": 16, "(.*)*x": 16, "(": 16})
    assert settings.scale("LORA", "a" * 4000, 8) == 0.5


@pytest.mark.parametrize(
    "pattern",
    ["a?" * 40 + "a" * 40, "(a|aa)" * 30 + "x", ".*.*.*x", r"(a)\2", "(?P<x>a)(?P=x)", "a{2,}b+c?"],
)
def test_an_expression_whose_cost_grows_with_its_input_is_not_kept(pattern):
    """40 optional letters are 2^40 ways; three wildcards the cube of a name's length."""
    settings = from_header(lora_alpha=4, r=8, alpha_pattern={pattern: 16, "to_q": 2})
    assert list(settings.alpha_pattern) == ["to_q"]


def test_expressions_are_few_and_meet_no_long_name():
    many = {f"to_q{n}.*": 16 for n in range(50)} | {f"block_{n}.to_q": 2 for n in range(3000)}
    settings = from_header(lora_alpha=4, r=8, alpha_pattern=many)
    assert len(settings.alpha_pattern) == 3020
    settings = from_header(lora_alpha=4, r=8, alpha_pattern={".*to_q": 16})
    assert settings.scale("LORA", "a." + "b" * 50 + ".to_q", 8) == 2.0
    assert settings.scale("LORA", "a." + "b" * 500 + ".to_q", 8) == 0.5
    assert settings.scale("LORA", "." * 100 + "to_q", 8) == 0.5


def test_a_setting_that_is_nested_deeper_than_python_follows():
    deep = "LORA"
    for _ in range(20_000):
        deep = [deep]
    table = dict.fromkeys(("peft_type", "r", "use_rslora", "alpha_pattern", "rank_pattern"), deep)
    assert peft_settings({**table, "alpha": 4, "lora_alpha": 4}).scale("LORA", STEM, 8) == 1.0
    assert peft_settings({**table, "alpha": deep, "lora_alpha": deep}) is None


def test_half_a_surrogate_pair_can_be_shown_nowhere():
    assert json_table('{"trigger_word": "\\ud83d\\ude00"}') == {"trigger_word": "\U0001f600"}
    assert json_table('{"trigger_word": "\\ud83d"}') == {}


def test_a_text_encoders_settings_are_not_the_transformers():
    assert prefixed("text_encoder", lora_alpha=4, r=16) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", "[" * 100_000, '{"lora_alpha": "4"}', '{"lora_alpha": NaN}']
)
def test_nothing_to_be_had(text):
    assert header_settings({"lora_adapter_metadata": text}) is None
    assert peft_settings(json_table(text)) is None


def test_raw_peft_configs_name_the_type():
    lora = peft_settings({"peft_type": "LORA", "lora_alpha": 4, "r": 8})
    loha = peft_settings({"peft_type": "LOHA", "alpha": 4, "r": 8})
    lokr = peft_settings({"peft_type": "LOKR", "alpha": 4, "r": 8, "rank_pattern": {"to_q": 2}})
    assert (lora.peft_type, loha.peft_type, lokr.peft_type) == ("LORA", "LOHA", "LOKR")
    assert loha.scale("LOHA", STEM, 8) == 0.5
    assert lokr.scale("LOKR", STEM, None) == 2.0 and lokr.scale("LOKR", "x.to_k", None) == 0.5
    assert loha.scale("LORA", STEM, 8) == lora.scale(None, STEM, 8) == 1.0

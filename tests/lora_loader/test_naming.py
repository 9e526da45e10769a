"""Keys of every exporter, of none, and of any text whatever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux2_lora_edit.lora_loader.reading.layout import Layout
from flux2_lora_edit.lora_loader.reading.naming import KeyParts, split_key, words
from host.tiny import transformer_shapes

SHAPES = {
    f"diffusion_model.{name.replace('_norm.scale', '_norm.weight')}": shape
    for name, shape in transformer_shapes("dev").items()
}
LAYOUT = Layout(SHAPES)
STEM = "diffusion_model.double_blocks.0.img_attn.qkv"


@pytest.mark.parametrize(
    ("ending", "part", "adapter"),
    [
        (".lora_A.weight", "down", ""),
        (".lora_B.weight", "up", ""),
        (".lora_A.default.weight", "down", "default"),
        (".lora_A.ink_v2.weight", "down", "ink_v2"),
        (".lora_A.b1.weight", "down", "b1"),
        (".lora_A", "down", ""),
        (".lora_B.bias", "up_bias", ""),
        (".lora_down.weight", "down", ""),
        (".lora_up.weight", "up", ""),
        (".lora_mid.weight", "mid", ""),
        ("_lora.down.weight", "down", ""),
        (".lora.up.weight", "up", ""),
        (".lora_linear_layer.up.weight", "up", ""),
        (".alpha", "alpha", ""),
        (".dora_scale", "dora_scale", ""),
        (".magnitude", "magnitude", ""),
        (".lora_magnitude_vector", "magnitude", ""),
        (".lora_magnitude_vector.weight", "magnitude", ""),
        (".lora_magnitude_vector.default.weight", "magnitude", "default"),
        (".hada_w1_a", "hada_w1_a", ""),
        (".hada_w2_b", "hada_w2_b", ""),
        (".lokr_w1", "lokr_w1", ""),
        (".lokr_w2_a", "lokr_w2_a", ""),
        (".oft_R.weight", "oft_r", ""),
        (".oft_R.scaled_oft", "scaled_oft", ""),
        (".oft_blocks", "oft_blocks", ""),
        (".rescale", "rescale", ""),
        (".a1.weight", "glora_a1", ""),
        (".b2.weight", "glora_b2", ""),
        (".on_input", "on_input", ""),
        (".weight", "weight", ""),
        (".diff", "diff", ""),
        (".diff_b", "diff_b", ""),
        (".w_norm", "diff", ""),
    ],
)
def test_parts(ending, part, adapter):
    reading = split_key(STEM + ending)[0]
    assert reading == KeyParts(STEM, part, adapter)


def test_the_last_part_counts_not_one_in_the_prefix():
    assert split_key(f"my_lora_a.net.{STEM}.lora_B.weight")[0] == KeyParts(
        f"my_lora_a.net.{STEM}", "up", ""
    )


def test_a_part_behind_a_prefix_that_reads_as_one():
    """Two readings; the one whose stem is a module of the model counts."""
    readings = split_key(f"my_lora_a.net.{STEM}.lokr_w1")
    assert KeyParts(f"my_lora_a.net.{STEM}", "lokr_w1", "") in readings
    assert [LAYOUT.resolve(reading.stem) is not None for reading in readings] == [False, True]


@pytest.mark.parametrize("key", ["", "x", "lora_A", "....", "diffusion_model", "a" * 2000])
def test_no_part(key):
    assert split_key(key) == []


def test_words_ignore_separators_and_case():
    assert words("lora_unet__final_layer.adaLN-Modulation/1") == (
        "lora", "unet", "final", "layer", "adaln", "modulation", "1",
    )  # fmt: skip


@settings(max_examples=2500, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_split_or_not(key):
    for reading in split_key(key):
        assert key.startswith(reading.stem) and reading.stem
        LAYOUT.resolve(reading.stem)


PIECE = st.sampled_from(
    "lora A B down up weight alpha default single double transformer blocks 0 1 7 99 img_attn qkv "
    "attn to_q to_out proj_out diff magnitude vector lokr_w1 x".split()
)


@settings(max_examples=2500, deadline=None)
@given(st.lists(PIECE, max_size=14), st.sampled_from([".", "_", "/", "-", "", "__"]))
def test_any_words_resolve_into_the_model_or_not_at_all(pieces, separator):
    for reading in split_key(separator.join(pieces)):
        found = LAYOUT.resolve(reading.stem)
        if found is not None:
            target = found.target
            assert target.start + target.rows <= SHAPES[target.key][0]
            assert words(reading.stem)[: len(found.prefix)] == found.prefix

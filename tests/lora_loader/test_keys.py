"""Keys of every exporter, of none, and of any text whatever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux2_lora_edit.lora_loader.adapters import ALGORITHMS
from flux2_lora_edit.lora_loader.reading import facts
from flux2_lora_edit.lora_loader.reading.facts import SplitKey, spellings
from flux2_lora_edit.lora_loader.reading.layout import Layout, words
from host.tiny import transformer_shapes

SHAPES = {
    f"diffusion_model.{name.replace('_norm.scale', '_norm.weight')}": shape
    for name, shape in transformer_shapes("dev").items()
}
LAYOUT = Layout(SHAPES)
SPELLINGS = spellings(ALGORITHMS)
STEM = "diffusion_model.double_blocks.0.img_attn.qkv"


def split_key(key):
    return facts.split_key(key, *SPELLINGS)


@pytest.mark.parametrize(
    ("ending", "role", "adapter"),
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
def test_roles(ending, role, adapter):
    assert split_key(STEM + ending) == SplitKey(STEM, role, adapter)


def test_the_last_role_counts_not_one_in_the_prefix():
    assert split_key(f"my_lora_a.net.{STEM}.lora_B.weight") == SplitKey(
        f"my_lora_a.net.{STEM}", "up", ""
    )


@pytest.mark.parametrize("ending", ["lokr_w1", "alpha", "oft_R.weight", "a1.weight"])
@pytest.mark.parametrize("stem", [f"my_lora_a.net.{STEM}", f"my_lora_a/{STEM}"])
def test_a_role_behind_a_prefix_that_reads_as_one(stem, ending):
    """PEFT's adapter names hold no dot, so the prefix is no adapter."""
    split = split_key(f"{stem}.{ending}")
    assert (split.stem, split.adapter) == (stem, "")
    assert LAYOUT.resolve(split.stem) is not None


def test_a_flattened_key_behind_a_prefix_that_reads_as_a_role():
    split = split_key("my_lora_a_net_double_blocks_0_img_attn_qkv_lokr_w1")
    assert split == SplitKey("my_lora_a_net_double_blocks_0_img_attn_qkv", "lokr_w1", "")


@pytest.mark.parametrize("key", ["", "x", "lora_A", "....", "diffusion_model", "a" * 2000])
def test_no_role(key):
    assert split_key(key) is None


def test_words_ignore_separators_and_case():
    assert words("lora_unet__final_layer.adaLN-Modulation/1") == (
        "lora", "unet", "final", "layer", "adaln", "modulation", "1",
    )  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_split_or_not(key):
    split = split_key(key)
    if split is not None:
        assert key.startswith(split.stem) and split.stem
        LAYOUT.resolve(split.stem)


PIECE = st.sampled_from(
    "lora A B down up weight alpha default single double transformer blocks 0 1 7 99 img_attn qkv "
    "attn to_q to_out proj_out diff magnitude vector lokr_w1 x".split()
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECE, max_size=14), st.sampled_from([".", "_", "/", "-", "", "__"]))
def test_any_words_resolve_into_the_model_or_not_at_all(pieces, separator):
    split = split_key(separator.join(pieces))
    found = LAYOUT.resolve(split.stem) if split is not None else None
    if found is not None:
        target = found.target
        assert target.start + target.rows <= SHAPES[target.key][0]
        assert words(split.stem)[: len(found.prefix)] == found.prefix

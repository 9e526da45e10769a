"""Names onto the loaded model's weights: every naming, any prefix, and nothing by mistake."""

import pytest

from flux2_lora_edit.lora_loader.reading.layout import Layout, Target
from host.tiny import transformer_shapes

H = 256


def layout(variant="dev", **sizes):
    shapes = transformer_shapes(variant, **sizes)
    return Layout({f"diffusion_model.{name}": shape for name, shape in shapes.items()})


QKV = "diffusion_model.double_blocks.1.img_attn.qkv.weight"
NAMINGS = [
    ("{p}double_blocks.1.img_attn.qkv", Target(QKV, 0, 3 * H, H)),
    ("{p}double_blocks.1.img_attn_qkv", Target(QKV, 0, 3 * H, H)),
    ("{p}double_blocks_1_img_attn_qkv", Target(QKV, 0, 3 * H, H)),
    ("{p}transformer_blocks.1.attn.to_q", Target(QKV, 0, H, H)),
    ("{p}transformer_blocks.1.attn.to_k", Target(QKV, H, H, H)),
    ("{p}transformer_blocks_1_attn_to_v", Target(QKV, 2 * H, H, H)),
    (
        "{p}transformer_blocks.1.attn.add_v_proj",
        Target(QKV.replace("img", "txt"), 2 * H, H, H),
    ),
    (
        "{p}single_transformer_blocks.2.attn.to_out",
        Target("diffusion_model.single_blocks.2.linear2.weight", 0, H, 4 * H),
    ),
    (
        "{p}norm_out.linear",
        Target("diffusion_model.final_layer.adaLN_modulation.1.weight", 0, 2 * H, H, swapped=True),
    ),
    (
        "{p}final_layer.adaLN_modulation.1",
        Target("diffusion_model.final_layer.adaLN_modulation.1.weight", 0, 2 * H, H),
    ),
    (
        "{p}double_stream_modulation_img.linear",
        Target("diffusion_model.double_stream_modulation_img.lin.weight", 0, 6 * H, H),
    ),
    (
        "{p}time_guidance_embed.guidance_embedder.linear_2",
        Target("diffusion_model.guidance_in.out_layer.weight", 0, H, H),
    ),
    ("{p}proj_out", Target("diffusion_model.final_layer.linear.weight", 0, 128, H)),
    (
        "{p}transformer_blocks.0.attn.norm_added_k",
        Target("diffusion_model.double_blocks.0.txt_attn.norm.key_norm.scale", 0, 128, None),
    ),
    (
        "{p}single_blocks.1.norm.query_norm.scale",
        Target("diffusion_model.single_blocks.1.norm.query_norm.scale", 0, 128, None),
    ),
]
PREFIXES = [
    "", "diffusion_model.", "transformer.", "base_model.model.", "transformer.base_model.model.",
    "pipe.dit.", "unet.", "lycoris_", "lora_unet_", "lora_transformer_", "zebra.", "my-model/",
    "a.b.c_", "base_model.model.module.",
]  # fmt: skip


@pytest.mark.parametrize(("stem", "target"), NAMINGS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_naming_under_any_prefix(stem, target, prefix):
    assert layout().resolve(stem.format(p=prefix)).target == target


def test_every_weight_of_the_model_has_both_names():
    found = layout()
    for key in found.shapes:
        assert found.resolve(key.rsplit(".", 1)[0]).target.key == key


@pytest.mark.parametrize(
    "stem",
    [
        "single_transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.1.proj_out",
        "lora_unet_single_transformer_blocks_1_proj_out",
        "transformer.single_transformer_blocks.1.proj_mlp",
        "double_blocks.0.img_mod.lin",
        "double_blocks.2.img_attn.qkv",
        "single_blocks.3.linear1",
        "text_encoder.layers.3.img_in",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "controlnet.double_blocks.0.img_attn.qkv",
        "xdouble_blocks.0.img_attn.qkv",
        "double_blocks.0.img_attn.qkv.more",
        "img",
        "",
        "." * 500,
        "a." * 300 + "img_in",
    ],
)
def test_what_is_not_this_model(stem):
    assert layout().resolve(stem) is None


def test_guidance_is_devs_alone():
    assert layout("klein-9b").resolve("guidance_in.in_layer") is None


def test_the_model_decides_the_depth():
    assert layout(double=5).resolve("double_blocks.4.img_mlp.0").target.rows == 6 * H

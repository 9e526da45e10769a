"""Rows of the smaller producers, of namings nobody has listed, and of files and stacks combined."""

import torch

from . import maths, others
from .base import diffusers_norm
from .kind import Kind, flat, plain
from .trainers import BF16


def smaller() -> list[Kind]:
    kohya = {"names": maths.DOWN_UP}
    return [
        Kind("DiffSynth", "DiffSynth-Studio", others.diffsynth("")),
        Kind("DiffSynth, pipe.dit.", "DiffSynth-Studio", others.diffsynth("pipe.dit.")),
        Kind("mflux mixture", "mflux", others.mflux),
        Kind("bare BFL names", "flux-2-swift-mlx", others.named("bfl", "", "all")),
        Kind("bare diffusers names", "any", others.named("diffusers", "", "all")),
        Kind("transformer. + BFL names", "any", others.named("bfl", "transformer.", "all")),
        Kind("ComfyUI LoraSave standard", "ComfyUI", others.comfy_extract),
        Kind("ComfyUI LoraSave full_diff", "ComfyUI", others.comfy_extract_full),
        *(
            Kind(f"ComfyUI TrainLora {name}", "ComfyUI", others.comfy_train(name))
            for name in ("LoRA", "LoHa", "LoKr", "OFT")
        ),
        Kind(
            "norms .diff, BFL",
            "ComfyUI, hand-made",
            others.norm_diffs(plain, "diffusion_model.", "diff"),
        ),
        Kind(
            "norms .scale.diff, BFL",
            "hand-made",
            others.norm_diffs(plain, "diffusion_model.", "scale.diff"),
        ),
        Kind(
            "norms w_norm, lycoris_",
            "LyCORIS",
            others.norm_diffs(others.lycoris_norm, "lycoris_", "w_norm"),
        ),
        Kind(
            "norms w_norm beside LoRA",
            "LyCORIS",
            others.with_norms("transformer.", diffusers_norm, "w_norm"),
        ),
        Kind("prefix of ours, BFL names", "invented", others.named("bfl", "studio7.net.", "all")),
        Kind(
            "prefix of ours, diffusers names",
            "invented",
            others.named("diffusers", "my_adapter.unet.", "all"),
        ),
        Kind(
            "prefix of ours, flat BFL",
            "invented",
            others.named("bfl", "zebra_", "all", flat, **kohya),
        ),
        Kind(
            "prefix of ours, flat diffusers",
            "invented",
            others.named("diffusers", "zebra_net_", "all", flat, **kohya),
        ),
        Kind(
            "adapter name of ours",
            "invented",
            others.named(
                "diffusers", "transformer.", names=("lora_A.ink_v2.weight", "lora_B.ink_v2.weight")
            ),
        ),
        Kind(
            "module.-wrapped model",
            "invented",
            others.named("bfl", "base_model.model.module.", "all"),
        ),
    ]


def combinations() -> list[Kind]:
    return [
        Kind("two namings of one module", "hand-made", others.two_namings),
        Kind("LoRA and .diff on one module", "hand-made", others.lora_and_diff),
        Kind("same LoRA in two slots", "stack", others.same_twice),
        Kind("three LoRAs at three scales", "stack", others.three_scaled),
        Kind("DoRA, then LoRA", "stack", others.dora_stack(True)),
        Kind("LoRA, then DoRA", "stack", others.dora_stack(False)),
        Kind("alpha int64", "odd tensors", others.alpha_as(torch.int64, ())),
        Kind("alpha of shape [1]", "odd tensors", others.alpha_as(BF16, (1,))),
        Kind("conv-shaped factors", "odd tensors", others.odd(others.conv_shaped)),
        Kind("fp8 e4m3 factors", "odd tensors", others.eight_bit(torch.float8_e4m3fn)),
        Kind("fp8 e5m2 factors", "odd tensors", others.eight_bit(torch.float8_e5m2)),
        Kind(
            "rank above the width", "odd tensors", others.named("bfl", "diffusion_model.", rank=300)
        ),
        Kind(
            "lora_B.bias beside a LoRA",
            "PEFT lora_bias",
            others.with_strangers({"diffusion_model.single_blocks.0.linear1.lora_B.bias": (2304,)}),
            "unsupported",
            ("diffusion_model.single_blocks.0.linear1",),
        ),
        Kind(
            "text-encoder keys beside a LoRA",
            "kohya-like",
            others.with_strangers(
                {
                    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 64),
                    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (64, 4),
                }
            ),
            "unsupported",
            ("lora_te1_text_model_encoder_layers_0_mlp_fc1",),
        ),
        Kind(
            "diff_b where the model has no bias",
            "ComfyUI LoraSave",
            others.with_strangers({"diffusion_model.img_in.diff_b": (256,)}),
            "unsupported",
            ("diffusion_model.img_in",),
        ),
    ]

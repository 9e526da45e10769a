"""Rows whose producer is a library: diffusers, PEFT, and LyCORIS as SimpleTuner drives it."""

from . import others, trainers
from .kind import Kind
from .libraries import WHOLE_MODEL, dreambooth, raw_peft, simpletuner_lycoris
from .trainers import FP16, FP32

EXACT_FP32 = 1e-5


def diffusers() -> list[Kind]:
    who = "diffusers dreambooth"
    patterns = {
        "rank_pattern": {"to_q": 4, "transformer_blocks.1.attn.to_out.0": 16},
        "alpha_pattern": {"to_k": 2, "single_transformer_blocks.0.attn.to_qkv_mlp_proj": 32},
    }
    return [
        Kind("dreambooth, alpha = rank", who, dreambooth(r=4, lora_alpha=4)),
        Kind("dreambooth, rank 16 alpha 4 (README)", who, dreambooth(r=16, lora_alpha=4)),
        Kind("dreambooth, fp16", who, dreambooth(FP16, r=16, lora_alpha=8)),
        Kind(
            "dreambooth, fp32 upcast before saving",
            who,
            dreambooth(FP32, r=8, lora_alpha=4),
            tolerance=EXACT_FP32,
        ),
        Kind("dreambooth, patterns", who, dreambooth(r=8, lora_alpha=4, **patterns)),
        Kind("dreambooth, rsLoRA", who, dreambooth(r=16, lora_alpha=4, use_rslora=True)),
        Kind(
            "dreambooth, rsLoRA with patterns",
            who,
            dreambooth(r=8, lora_alpha=4, use_rslora=True, **patterns),
        ),
        Kind("dreambooth, DoRA", who, dreambooth(r=8, lora_alpha=4, use_dora=True)),
        Kind(
            "dreambooth, every Linear",
            who,
            dreambooth(select="all", targets=["all"], r=8, lora_alpha=4),
        ),
        Kind(
            "dreambooth, every Linear, DoRA",
            who,
            dreambooth(select="all", targets=["all"], r=8, lora_alpha=8, use_dora=True),
        ),
        Kind("diffusers, no metadata", who, dreambooth(metadata=False, r=8, lora_alpha=8)),
        Kind(
            "alpha tensor beside metadata",
            "any converter",
            others.alpha_tensor_beside_metadata,
        ),
    ]


def peft() -> list[Kind]:
    who = "PEFT save_pretrained"
    rows = [
        Kind("PEFT, diffusers names", who, raw_peft("diffusers", r=16, lora_alpha=8)),
        Kind("PEFT, BFL names", who, raw_peft("bfl", r=16, lora_alpha=8)),
        Kind(
            "PEFT, BFL names, no config beside",
            who,
            raw_peft("bfl", sibling=False, r=8, lora_alpha=8),
        ),
        Kind(
            "PEFT, BFL names, every Linear", who, raw_peft("bfl", select="all", r=8, lora_alpha=4)
        ),
        Kind(
            "PEFT, BFL names, fp32",
            who,
            raw_peft("bfl", FP32, r=8, lora_alpha=4),
            tolerance=EXACT_FP32,
        ),
        Kind(
            "PEFT, rsLoRA and patterns",
            who,
            raw_peft(
                "bfl",
                r=16,
                lora_alpha=4,
                use_rslora=True,
                rank_pattern={"img_attn.qkv": 4},
                alpha_pattern={"linear1": 32},
            ),
        ),
        Kind(
            "PEFT, DoRA, diffusers names",
            who,
            raw_peft("diffusers", select="all", r=8, lora_alpha=4, use_dora=True),
        ),
        Kind(
            "PEFT, DoRA, BFL names",
            who,
            raw_peft("bfl", select="all", r=8, lora_alpha=4, use_dora=True),
        ),
    ]
    for name, config in {
        "LoHa": {"r": 8, "alpha": 4},
        "LoKr": {"r": 4, "alpha": 2},
        "LoKr full factors": {"r": 16, "alpha": 8},
        "OFT": {"oft_block_size": 16, "r": 0},
        "IA3": {"feedforward_modules": []},
    }.items():
        made = raw_peft(
            "diffusers", select="all", config_class=f"{name.split()[0]}Config", **config
        )
        rows.append(Kind(f"PEFT, {name}", who, made))
    lokr = raw_peft("bfl", config_class="LoKrConfig", r=4, alpha=2, rank_pattern={"linear1": 8})
    rows.append(Kind("PEFT, LoKr, BFL names, rank pattern", who, lokr))
    return rows


def simpletuner() -> list[Kind]:
    who = "SimpleTuner"
    peft = {"select": "blocks", "targets": ["all"]}
    era = trainers.simpletuner_comfyui
    rows = [
        Kind("SimpleTuner PEFT, default targets", who, dreambooth(r=16, lora_alpha=16)),
        Kind("SimpleTuner PEFT, all, --lora_alpha", who, dreambooth(r=16, lora_alpha=8, **peft)),
        Kind("SimpleTuner PEFT, DoRA", who, dreambooth(r=8, lora_alpha=8, use_dora=True, **peft)),
        Kind("SimpleTuner comfyui to 2025-12-16", who, era("diffusion_model.")),
        Kind("SimpleTuner comfyui to 2026-01-16", who, era("transformer.")),
        Kind(
            "SimpleTuner comfyui to 2026-01-20 (lossy, as written)", who, trainers.simpletuner_lossy
        ),
        Kind("SimpleTuner T-LoRA", who, trainers.tlora, "refused", says="T-LoRA|q_layer"),
    ]
    algorithms: dict[str, tuple[str, dict[str, object]]] = {
        "LoKr full": (
            "lokr",
            {"linear_dim": 10000, "linear_alpha": 1, "factor": 4, "full_matrix": True},
        ),
        "LoKr low-rank": ("lokr", {"linear_dim": 4, "linear_alpha": 2, "factor": 4}),
        "LoKr low-rank both": (
            "lokr",
            {"linear_dim": 2, "linear_alpha": 1, "decompose_both": True},
        ),
        "LoKr DoRA out": ("lokr", {"linear_dim": 4, "factor": 4, "dora_wd": True}),
        "LoKr DoRA in": (
            "lokr",
            {"linear_dim": 4, "factor": 4, "dora_wd": True, "wd_on_output": False},
        ),
        "LoCon": ("locon", {}),
        "LoCon rsLoRA": ("locon", {"per_module": {"rs_lora": True}}),
        "LoCon DoRA out": ("locon", {"dora_wd": True}),
        "LoCon DoRA in": ("locon", {"dora_wd": True, "wd_on_output": False}),
        "LoHa": ("loha", {}),
        "LoHa DoRA out": ("loha", {"dora_wd": True}),
        "LoHa DoRA in": ("loha", {"dora_wd": True, "wd_on_output": False}),
        "full": ("full", {}),
        "diag-OFT": ("diag-oft", {}),
        "diag-OFT rescaled": ("diag-oft", {"rescaled": True}),
        "diag-OFT constrained": ("diag-oft", {"constraint": 2**-10}),
        "BOFT": ("boft", {"linear_dim": 32}),
        "BOFT rescaled": ("boft", {"linear_dim": 32, "rescaled": True}),
        "GLoRA": ("glora", {}),
        "IA3 out": ("ia3", {}),
        "IA3 in": ("ia3", {"per_module": {"train_on_input": True}}),
    }
    for name, (algo, config) in algorithms.items():
        made = simpletuner_lycoris(algo, target=WHOLE_MODEL, **config)
        rows.append(Kind(f"SimpleTuner LyCORIS {name}", who, made))
    for name in ("LoKr full", "LoCon"):
        algo, config = algorithms[name]
        made = simpletuner_lycoris(algo, **config)
        rows.append(Kind(f"SimpleTuner LyCORIS {name}, blocks", who, made))
    fp32 = simpletuner_lycoris("loha", FP32)
    rows.append(Kind("SimpleTuner LyCORIS LoHa fp32", who, fp32, tolerance=EXACT_FP32))
    return rows

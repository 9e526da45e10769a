"""Rows of the trainers that write their files themselves: fal, ai-toolkit, musubi, OneTrainer."""

from . import maths, others, trainers
from .kind import Kind
from .trainers import BF16, FP32, ai_toolkit, ai_toolkit_lokr, musubi, onetrainer, options

EXACT_FP32 = 1e-5


def fal() -> list[Kind]:
    return [
        Kind("fal klein trainer", "fal", others.fal_klein),
        Kind("fal dev trainer", "fal", others.fal_dev("base_model.model.")),
        Kind("fal Multi-Angles v2", "fal", others.fal_dev("diffusion_model.")),
        Kind("fal Turbo, diffusers names", "fal", others.fal_dev("transformer.", "diffusers")),
        Kind("fal Turbo, mixed file", "fal", others.turbo_mixed),
    ]


def ai_toolkit_rows() -> list[Kind]:
    who = "ai-toolkit"
    dora = trainers.with_magnitude(maths.lora, "out", "magnitude", vector=True)
    fullrank = options(maths.full, name="lora_A.weight")
    return [
        Kind("ai-toolkit LoRA fp16", who, ai_toolkit(maths.lora)),
        Kind("ai-toolkit LoRA bf16", who, ai_toolkit(maths.lora, BF16)),
        Kind("ai-toolkit LoRA, transformer_only false", who, ai_toolkit(maths.lora, select="all")),
        Kind("ai-toolkit LoKr full, alpha 1e10 bf16", who, ai_toolkit(ai_toolkit_lokr(), BF16)),
        Kind("ai-toolkit LoKr full, alpha inf fp16", who, ai_toolkit(ai_toolkit_lokr())),
        Kind("ai-toolkit LoKr low-rank", who, ai_toolkit(ai_toolkit_lokr(rank=4))),
        Kind(
            "ai-toolkit LoKr low-rank both",
            who,
            ai_toolkit(ai_toolkit_lokr(factor=16, rank=4, both=True)),
        ),
        Kind("ai-toolkit LoKr, every Linear", who, ai_toolkit(ai_toolkit_lokr(), select="all")),
        Kind("ai-toolkit LoKr old, full", who, ai_toolkit(ai_toolkit_lokr(), old=True)),
        Kind(
            "ai-toolkit LoKr old, low-rank",
            who,
            ai_toolkit(ai_toolkit_lokr(rank=4), BF16, old=True),
        ),
        Kind("ai-toolkit DoRA", who, ai_toolkit(dora)),
        Kind("ai-toolkit DoRA, transformer_only false", who, ai_toolkit(dora, BF16, "all")),
        Kind("ai-toolkit full_if_contains", who, trainers.ai_toolkit_full_if_contains),
        Kind("ai-toolkit fullrank", who, ai_toolkit(fullrank)),
    ]


def musubi_rows() -> list[Kind]:
    who = "musubi-tuner"
    lora = options(maths.lora, alpha=1.0, names=maths.DOWN_UP)
    loha, lokr = options(maths.loha, alpha=1.0), options(maths.lokr, rank=4, alpha=1.0)
    full = options(maths.lokr, alpha=8.0)
    convert = trainers.musubi_converted
    return [
        Kind("musubi LoRA", who, musubi(lora, "lora_flux_2")),
        Kind("musubi LoHa", who, musubi(loha, "loha")),
        Kind("musubi LoKr", who, musubi(lokr, "lokr")),
        Kind("musubi LoKr full", who, musubi(full, "lokr")),
        Kind("musubi converted LoRA", who, trainers.musubi_converted_lora),
        Kind("musubi converted LoHa", who, convert(loha, "loha")),
        Kind("musubi converted LoKr", who, convert(lokr, "lokr")),
        Kind("musubi converted LoKr full", who, convert(full, "lokr")),
    ]


def onetrainer_rows() -> list[Kind]:
    who = "OneTrainer"
    rows = []
    for form in ("legacy", "diffusers", "kohya", "original", "comfy"):
        for family in ("lora", "loha", "lokr"):
            rows.append(Kind(f"OneTrainer {form} {family}", who, onetrainer(form, family)))
        for family in ("lora", "dora_in", "dora_out", "oft"):
            name = f"OneTrainer {form} {family}, preset full"
            rows.append(Kind(name, who, onetrainer(form, family, "all")))
    for family in (
        "lokr_both",
        "lokr_full",
        "lokr_dora_in",
        "lokr_dora_out",
        "oft_scaled",
        "oft_shared",
    ):
        rows.append(Kind(f"OneTrainer legacy {family}", who, onetrainer("legacy", family, "all")))
    for family in ("loha", "lokr"):
        # Fused formats would write norm_out's rows unswapped (chunk_swap knows LoRA only).
        name = f"OneTrainer legacy {family}, preset full"
        rows.append(Kind(name, who, onetrainer("legacy", family, "all")))
    one = onetrainer("legacy", "lokr_factor_1", "all")
    rows.append(Kind("OneTrainer legacy lokr, factor 1, preset full", who, one))
    rows.append(Kind("OneTrainer comfy oft_scaled", who, onetrainer("comfy", "oft_scaled")))
    rows.append(
        Kind(
            "OneTrainer legacy lora, fp32",
            who,
            onetrainer("legacy", "lora", dtype=FP32),
            tolerance=EXACT_FP32,
        )
    )
    return rows

"""LoRAs made for another model: FLUX.1 as its trainers write it, and the other FLUX.2 sizes."""

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

WIDTHS = {"klein 4B": 3072, "klein 9B": 4096, "dev": 6144}


def other_size(size: str) -> Tensors:
    """An ai-toolkit LoRA of rank 1 for a real FLUX.2 size: enough of it to be told by."""
    h, tensors = WIDTHS[size], {}
    shapes = {
        "double_blocks.0.img_attn.qkv": (3 * h, h),
        "double_blocks.0.img_mlp.0": (6 * h, h),
        "single_blocks.0.linear1": (9 * h, h),
        "single_blocks.0.linear2": (h, 4 * h),
    }
    for name, (out, width) in shapes.items():
        tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.zeros(1, width).half()
        tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.zeros(out, 1).half()
    return tensors


def flux1(form: str) -> tuple[Tensors, dict[str, str]]:
    """FLUX.1 (H = 3072, as klein 4B) in the shapes its trainers write; rank 1, fp16."""
    h = 3072
    attention = {"img_attn.qkv": (3 * h, h), "img_attn.proj": (h, h)}
    attention |= {name.replace("img", "txt"): shape for name, shape in attention.items()}
    modules: dict[str, tuple[int, int]] = {}
    metadata: dict[str, str] = {}
    if form in ("kohya", "block count"):
        double = range(19) if form == "block count" else range(2)
        modules = {f"double_blocks.{i}.{n}": s for i in double for n, s in attention.items()}
    if form == "kohya":
        modules |= {
            "double_blocks.0.img_mod.lin": (6 * h, h),
            "double_blocks.0.img_mlp.0": (4 * h, h),
        }
        modules |= {"single_blocks.0.linear1": (7 * h, h), "single_blocks.0.linear2": (h, 5 * h)}
        modules |= {"single_blocks.0.modulation.lin": (3 * h, h)}
    if form == "mlp shapes":
        modules = {f"double_blocks.{i}.img_mlp.0": (4 * h, h) for i in range(2)}
        modules |= {f"double_blocks.{i}.img_mlp.2": (h, 4 * h) for i in range(2)}
    if form == "single shapes":
        modules = {"single_blocks.0.linear1": (7 * h, h), "single_blocks.0.linear2": (h, 5 * h)}
    if form in ("modelspec", "base model version"):
        modules = {f"double_blocks.{i}.{n}": s for i in range(5) for n, s in attention.items()}
        modelspec = {"modelspec.architecture": "flux-1-dev/lora"}
        metadata = modelspec if form == "modelspec" else {"ss_base_model_version": "flux1"}
    flat = {f"lora_unet_{n.replace('.', '_')}": s for n, s in modules.items()}
    names = ("lora_down.weight", "lora_up.weight")
    if form.startswith("diffusers"):
        names, flat = ("lora_A.weight", "lora_B.weight"), _flux1_diffusers(form, h)
    tensors = {}
    for stem, (out, width) in flat.items():
        tensors[f"{stem}.{names[0]}"] = torch.zeros(1, width).half()
        tensors[f"{stem}.{names[1]}"] = torch.zeros(out, 1).half()
    return tensors, metadata


def _flux1_diffusers(form: str, h: int) -> dict[str, tuple[int, int]]:
    double = {f"attn.{n}": (h, h) for n in ("to_q", "to_k", "to_v", "add_q_proj", "to_out.0")}
    single = {f"attn.{n}": (h, h) for n in ("to_q", "to_k", "to_v")}
    if form == "diffusers":
        double |= {"norm1.linear": (6 * h, h), "ff.net.0.proj": (4 * h, h), "ff.net.2": (h, 4 * h)}
        single |= {"norm.linear": (3 * h, h), "proj_mlp": (4 * h, h), "proj_out": (h, 5 * h)}
    modules = {f"transformer.transformer_blocks.0.{n}": s for n, s in double.items()}
    return modules | {f"transformer.single_transformer_blocks.0.{n}": s for n, s in single.items()}


FLUX1_FORMS = (
    "kohya", "block count", "mlp shapes", "single shapes", "modelspec", "base model version",
    "diffusers", "diffusers attention",
)  # fmt: skip

"""Two LoRAs for the toy, one in each of two trainers' formats: mosaic and duotone.

Both are low-rank changes that do what their name says to the picture that is meant: mosaic where it
is copied from the reference, duotone at the end, so that both together make a duotone mosaic.
"""

import json

import torch

from host.tiny import Weights

from . import edits
from .stream import DOUBLE, HEAD, HIDDEN, MEANT, MLP, SINGLE, balance


def duotone() -> tuple[Weights, dict[str, str]]:
    """Light becomes gold and dark blue; as ai-toolkit writes it: weights and header metadata."""
    edit = edits.DUOTONE
    change = torch.zeros(HIDDEN, HIDDEN + MLP)
    change[MEANT, :HEAD] = edit.change
    change[MEANT, HEAD] = edit.offset
    down, up = _factors(balance(change))
    name = "diffusion_model.single_blocks.0.linear2"
    weights = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    metadata = {"format": "pt", "name": "toy-duotone", "version": "1.0"}
    metadata["software"] = json.dumps({"name": "ai-toolkit", "version": "0.7.0"})
    return weights, metadata | {"ss_output_name": "toy-duotone"}


def mosaic() -> tuple[str, Weights]:
    """One colour to 8x8 pixels: diffusers' name of the layer, its ``lora_A`` and ``lora_B``."""
    change = torch.zeros(HIDDEN, HIDDEN)
    change[MEANT, :HEAD] = edits.mosaic().change
    down, up = _factors(balance(change))
    return "transformer_blocks.1.attn.to_out.0", {"lora_A": down, "lora_B": up}


def write_mosaic(folder: str) -> None:
    """Let PEFT itself write the mosaic for diffusers' class, as a training script ends.

    Needs diffusers and peft; not a part of setting up: its file is in the repository.
    """
    from diffusers import Flux2Transformer2DModel
    from peft import LoraConfig, get_peft_model

    layer, factors = mosaic()
    rank = len(factors["lora_A"])
    transformer = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        attention_head_dim=HEAD,
        num_attention_heads=HIDDEN // HEAD,
        joint_attention_dim=768,
    )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[layer])
    model = get_peft_model(transformer, config)
    for name, parameter in model.named_parameters():
        for part, factor in factors.items():
            if f".{part}." in name:
                parameter.data.copy_(factor)
    model.save_pretrained(folder)


def _factors(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up of the rank that ``change`` has."""
    left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    rank = int((values > values[0] * 1e-6).sum())
    root = values[:rank].sqrt()
    down, up = root[:, None] * right[:rank], left[:, :rank] * root
    return down.float().contiguous(), up.float().contiguous()

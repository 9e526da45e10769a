"""LoRA files as three trainers write them, for a FLUX.2 model of any width.

Key names, where each keeps its alpha, and metadata: ai-toolkit, diffusers' DreamBooth scripts and
musubi-tuner (kohya's naming), as their own sources write them.
"""

import json
from typing import NamedTuple

import torch

from .tiny import Random, Weights


class Lora(NamedTuple):
    """Tensors and header metadata of one file."""

    weights: Weights
    metadata: dict[str, str]


def block_modules(hidden: int, double: int, single: int) -> dict[str, tuple[int, int]]:
    """BFL module -> (out, in) of every Linear inside the blocks: what trainers adapt by default."""
    h = hidden
    modules: dict[str, tuple[int, int]] = {}
    for block in range(double):
        for stream in ("img", "txt"):
            prefix = f"double_blocks.{block}.{stream}"
            modules |= {f"{prefix}_attn.qkv": (3 * h, h), f"{prefix}_attn.proj": (h, h)}
            modules |= {f"{prefix}_mlp.0": (6 * h, h), f"{prefix}_mlp.2": (h, 3 * h)}
    for block in range(single):
        modules[f"single_blocks.{block}.linear1"] = (9 * h, h)
        modules[f"single_blocks.{block}.linear2"] = (h, 4 * h)
    return modules


def diffusers_modules(hidden: int, double: int, single: int) -> dict[str, tuple[int, int]]:
    """The same Linears under diffusers' names: query, key and value apart."""
    h = hidden
    modules: dict[str, tuple[int, int]] = {}
    for block in range(double):
        prefix = f"transformer_blocks.{block}"
        modules |= {f"{prefix}.attn.to_{part}": (h, h) for part in ("q", "k", "v", "out.0")}
        modules |= {f"{prefix}.attn.add_{part}_proj": (h, h) for part in ("q", "k", "v")}
        modules[f"{prefix}.attn.to_add_out"] = (h, h)
        for mlp in ("ff", "ff_context"):
            modules[f"{prefix}.{mlp}.linear_in"] = (6 * h, h)
            modules[f"{prefix}.{mlp}.linear_out"] = (h, 3 * h)
    for block in range(single):
        modules[f"single_transformer_blocks.{block}.attn.to_qkv_mlp_proj"] = (9 * h, h)
        modules[f"single_transformer_blocks.{block}.attn.to_out"] = (h, 4 * h)
    return modules


def ai_toolkit(
    hidden: int = 256,
    double: int = 2,
    single: int = 3,
    rank: int = 8,
    seed: int = 1,
    base: str = "flux2",
) -> Lora:
    """ai-toolkit: ``diffusion_model.`` and BFL's dotted names; its alpha is always the rank.

    ``base`` is what its header names as the base: flux2, flux2_klein_4b or flux2_klein_9b.
    """
    modules = block_modules(hidden, double, single)
    names = {name: f"diffusion_model.{name}" for name in modules}
    weights = _factors(modules, names, ("lora_A", "lora_B"), rank, seed)
    software = json.dumps({"name": "ai-toolkit", "version": "0.7.0"})
    metadata = {"format": "pt", "name": "tiny", "version": "1.0", "software": software}
    return Lora(weights, metadata | {"ss_base_model_version": base, "ss_output_name": "tiny"})


def diffusers(
    hidden: int = 256,
    double: int = 2,
    single: int = 3,
    rank: int = 8,
    alpha: float = 4.0,
    seed: int = 2,
) -> Lora:
    """diffusers: ``transformer.``, its own module names, alpha in the header and nowhere else."""
    modules = diffusers_modules(hidden, double, single)
    names = {name: f"transformer.{name}" for name in modules}
    weights = _factors(modules, names, ("lora_A", "lora_B"), rank, seed)
    adapter = {"transformer.r": rank, "transformer.lora_alpha": alpha}
    adapter |= {"transformer.use_rslora": False, "transformer.use_dora": False}
    return Lora(weights, {"format": "pt", "lora_adapter_metadata": json.dumps(adapter)})


def kohya(
    hidden: int = 256,
    double: int = 2,
    single: int = 3,
    rank: int = 8,
    alpha: float = 4.0,
    seed: int = 3,
) -> Lora:
    """musubi-tuner: ``lora_unet_``, BFL's names with underscores, an ``.alpha`` tensor a module."""
    modules = block_modules(hidden, double, single)
    names = {name: "lora_unet_" + name.replace(".", "_") for name in modules}
    weights = _factors(modules, names, ("lora_down", "lora_up"), rank, seed)
    weights |= {f"{name}.alpha": torch.tensor(alpha) for name in names.values()}
    metadata = {"ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    metadata |= {"ss_network_module": "networks.lora_flux_2", "ss_base_model_version": "flux_2_dev"}
    return Lora(weights, metadata)


def flux1(rank: int = 2, seed: int = 4) -> Lora:
    """A LoRA of FLUX.1 (width 3072, per-block modulation): never to be applied to FLUX.2."""
    modules = {
        "double_blocks.0.img_attn.qkv": (9216, 3072),
        "double_blocks.0.img_mod.lin": (18432, 3072),
        "single_blocks.37.linear1": (21504, 3072),
    }
    names = {name: "lora_unet_" + name.replace(".", "_") for name in modules}
    weights = _factors(modules, names, ("lora_down", "lora_up"), rank, seed)
    weights |= {f"{name}.alpha": torch.tensor(float(rank)) for name in names.values()}
    return Lora(weights, {"ss_base_model_version": "flux1"})


def _factors(
    modules: dict[str, tuple[int, int]],
    names: dict[str, str],
    parts: tuple[str, str],
    rank: int,
    seed: int,
) -> Weights:
    """Down [rank, in] and up [out, rank] factors whose product is about as large as the weight."""
    random = Random(seed, torch.float32)
    weights: Weights = {}
    for module, (out, into) in modules.items():
        down, up = (f"{names[module]}.{part}.weight" for part in parts)
        weights[down] = random.normal(down, (rank, into))
        weights[up] = random.normal(up, (out, rank))
    return weights

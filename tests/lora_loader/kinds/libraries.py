"""Kinds whose producer is installable: the library itself trains nothing, writes the file, and
gives the truth by running its own forward pass on the identity matrix.

diffusers (`Flux2Transformer2DModel`, `save_lora_weights`), PEFT, LyCORIS.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from .base import CONTEXT, DOUBLE_BLOCKS, HEAD, HIDDEN, SINGLE_BLOCKS, Base, Site, Truth
from .kind import Built, LoraFile, one, read_saved
from .maths import STRENGTH

DREAMBOOTH = ["to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj"] + [
    f"single_transformer_blocks.{block}.attn.to_out" for block in range(SINGLE_BLOCKS)
]
"""Default targets of diffusers' train_dreambooth_lora_flux2*.py."""


def transformer(base: Base) -> nn.Module:
    """diffusers' own model with these weights, converted by diffusers' own converter."""
    from diffusers import Flux2Transformer2DModel
    from diffusers.loaders.single_file_utils import (
        convert_flux2_transformer_checkpoint_to_diffusers,
    )

    with torch.device("meta"):
        model = Flux2Transformer2DModel(
            in_channels=128,
            num_layers=DOUBLE_BLOCKS,
            num_single_layers=SINGLE_BLOCKS,
            attention_head_dim=HEAD,
            num_attention_heads=HIDDEN // HEAD,
            joint_attention_dim=CONTEXT,
            guidance_embeds=base.geometry == "dev",
        )
    converted = convert_flux2_transformer_checkpoint_to_diffusers(base.checkpoint())
    model.load_state_dict(converted, assign=True)
    return model.requires_grad_(False).eval()


def bfl_tree(sites: list[Site], base: Base) -> nn.Module:
    """A tree of Linears under BFL names, for tools that wrap the original model."""
    root = nn.Module()
    for site in sites:
        *parents, leaf = site.name.split(".")
        node = root
        for name in parents:
            if not hasattr(node, name):
                node.add_module(name, nn.Module())
            node = node.get_submodule(name)
        weight = site.weight(base).float()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        node.add_module(leaf, linear)
    return root


def forward_truth(base: Base, model: nn.Module, sites: list[Site]) -> Truth:
    """The dense change that the wrapped modules' own forward makes."""
    truth = Truth(base)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for site in sites:
            module = modules[site.name]
            if type(module) is nn.Linear and "forward" not in vars(module):
                continue  # neither replaced (PEFT) nor given another forward (LyCORIS)
            weight = site.weight(base)
            truth.add(site, module(torch.eye(weight.shape[1])).T.double() - weight)
    return truth


_STD: dict[str, Callable[[Tensor], float]] = {
    # factors named by what ends up beside the input keep unit norm; their partners the strength
    "lora_A": lambda t: t.shape[1] ** -0.5,
    "lora_B": lambda t: STRENGTH * t.shape[1] ** -0.5,
    "lora_down": lambda t: t.shape[1] ** -0.5,
    "lora_up": lambda t: STRENGTH * t.shape[1] ** -0.5,
    "hada_w1_a": lambda t: (STRENGTH / t.shape[1]) ** 0.5,
    "hada_w2_a": lambda t: (STRENGTH / t.shape[1]) ** 0.5,
    "hada_w1_b": lambda t: t.shape[1] ** -0.25,
    "hada_w2_b": lambda t: t.shape[1] ** -0.25,
    "lokr_w1": lambda t: STRENGTH,
    "lokr_w1_a": lambda t: STRENGTH,
    "lokr_w1_b": lambda t: t.shape[0] ** -0.5,
    "lokr_w2": lambda t: t.shape[1] ** -0.5 / 4,
    "lokr_w2_a": lambda t: t.shape[1] ** -0.5,
    "lokr_w2_b": lambda t: t.shape[1] ** -0.5 / 4,
    "oft_blocks": lambda t: 0.05,
    "oft_R": lambda t: 0.05,
    "a1": lambda t: STRENGTH * t.shape[1] ** -0.5,
    "b1": lambda t: STRENGTH * t.shape[1] ** -0.5,
    "a2": lambda t: t.shape[1] ** -0.5,
    "b2": lambda t: t.shape[1] ** -0.5,
    "weight": lambda t: STRENGTH if t.dim() == 1 else STRENGTH * t.shape[1] ** -0.5,
    "ia3_l": lambda t: STRENGTH,
}
_MULTIPLIED = ("dora_scale", "lora_magnitude_vector", "rescale")


def randomise(named: list[tuple[str, nn.Parameter]], g: Generator, dtype: torch.dtype) -> None:
    """Stand in for training: draw every adapter parameter, exactly representable in ``dtype``."""
    for name, parameter in named:
        noise = torch.randn(parameter.shape, generator=g)
        known = [part for part in name.split(".") if part in _STD or part in _MULTIPLIED]
        part = known[0] if len(known) == 1 or known[-1] == "weight" else known[-1]
        if part in _MULTIPLIED:
            drawn = parameter.data * (1 + 0.2 * noise)
        else:
            drawn = (part == "ia3_l") + noise * _STD[part](parameter)
        parameter.data = drawn.to(dtype).float()


def _adapter_parameters(model: nn.Module, marks: tuple[str, ...]) -> list:
    return [(n, p) for n, p in model.named_parameters() if any(m in n for m in marks)]


PEFT_MARKS = ("lora_", "hada_", "lokr_", "oft_", "ia3_")


def dreambooth(
    dtype: torch.dtype = torch.bfloat16,
    select: str = "blocks",
    targets: list[str] | None = None,
    metadata: bool = True,
    **config: object,
) -> Callable[[Base, Generator], Built]:
    """diffusers' dreambooth scripts: add_adapter, then the pipeline's save_lora_weights."""

    def make(base: Base, g: Generator) -> Built:
        from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
        from diffusers.training_utils import _collate_lora_metadata
        from peft import LoraConfig, get_peft_model_state_dict

        model = transformer(base)
        sites = base.diffusers(select)
        names = targets or DREAMBOOTH
        if names == ["all"]:
            names = [site.name for site in sites]
        model.add_adapter(LoraConfig(target_modules=names, init_lora_weights="gaussian", **config))
        randomise(_adapter_parameters(model, PEFT_MARKS), g, dtype)
        state = {k: v.to(dtype) for k, v in get_peft_model_state_dict(model).items()}
        with tempfile.TemporaryDirectory() as folder:
            described = _collate_lora_metadata({"transformer": model}) if metadata else {}
            Flux2LoraLoaderMixin.save_lora_weights(
                folder, transformer_lora_layers=state, **described
            )
            file = read_saved(Path(folder), dtype)
        return one(file, forward_truth(base, model, sites))

    return make


def raw_peft(
    naming: str,
    dtype: torch.dtype = torch.bfloat16,
    select: str = "blocks",
    sibling: bool = True,
    config_class: str = "LoraConfig",
    **config: object,
) -> Callable[[Base, Generator], Built]:
    """``get_peft_model`` round a model of either naming, then ``save_pretrained``."""

    def make(base: Base, g: Generator) -> Built:
        import peft

        sites = base.bfl(select) if naming == "bfl" else base.diffusers(select)
        model = bfl_tree(sites, base) if naming == "bfl" else transformer(base)
        wanted = {"target_modules": [site.name for site in sites], **config}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(model, getattr(peft, config_class)(**wanted)).eval()
            randomise(_adapter_parameters(wrapped, PEFT_MARKS), g, dtype)
            with tempfile.TemporaryDirectory() as folder:
                wrapped.save_pretrained(folder)
                file = read_saved(Path(folder), dtype)
        truth = forward_truth(base, wrapped.base_model.model, sites)
        return one(file if sibling else LoraFile(file.tensors, file.metadata), truth)

    return make


FLUX2_BLOCKS = ["Flux2Attention", "Flux2FeedForward", "Flux2ParallelSelfAttention"]
WHOLE_MODEL = ["Flux2Transformer2DModel"]


def simpletuner_lycoris(
    algo: str,
    dtype: torch.dtype = torch.bfloat16,
    target: list[str] = FLUX2_BLOCKS,
    per_module: dict[str, object] | None = None,
    **config: object,
) -> Callable[[Base, Generator], Built]:
    """SimpleTuner ``lora_type=lycoris``: create_lycoris on diffusers' model, save_weights.

    ``per_module`` are settings that only a preset's ``module_algo_map`` reaches.
    """

    def make(base: Base, g: Generator) -> Built:
        import lycoris

        logging.getLogger("LyCORIS").setLevel(logging.ERROR)

        model = transformer(base)
        preset = {"target_module": target, "target_name": [], "exclude_name": []}
        preset |= {"module_algo_map": dict.fromkeys(target, per_module) if per_module else {}}
        lycoris.LycorisNetwork.apply_preset({**preset, "name_algo_map": {}})
        settings = {"algo": algo, "multiplier": 1.0, "linear_dim": 8, "linear_alpha": 4, **config}
        network = lycoris.create_lycoris(model, warn_on_unmatched=False, **settings)
        randomise([(n, p) for lora in network.loras for n, p in lora.named_parameters()], g, dtype)
        network.apply_to()
        network.eval()
        described = {"lycoris_config": json.dumps({**settings, "apply_preset": preset})}
        with tempfile.TemporaryDirectory() as folder:
            network.save_weights(str(Path(folder) / "lora.safetensors"), dtype, described)
            file = read_saved(Path(folder), dtype)
        return one(file, forward_truth(base, model, base.diffusers("all")))

    return make

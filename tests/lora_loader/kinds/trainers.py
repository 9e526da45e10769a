"""Kinds made by trainers whose code is no library: their key names, dtypes, alphas and metadata.

Each trainer's source is named where its habits are stated; the maths is in ``maths``.
"""

import json
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from . import maths
from .base import Base, Truth
from .kind import Built, LoraFile, Maker, Naming, assemble, flat, merged, one, plain, single

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
Make = Callable[[Base, Generator], Built]


def with_magnitude(make: Maker, axis: str, name: str, vector: bool = False) -> Maker:
    """DoRA round another adapter; ``vector`` stores [out] instead of [out, 1] or [1, in]."""

    def decomposed(w: Tensor, g: Generator, dtype: torch.dtype) -> tuple[maths.Parts, Tensor]:
        parts, delta = make(w, g, dtype)
        m = maths.magnitude(w, g, dtype, axis)
        return parts | {name: m.flatten() if vector else m}, maths.decompose(w, delta, m, axis)

    return decomposed


def options(make: Callable, **fixed: object) -> Maker:
    return lambda w, g, dtype: make(w, g, dtype, **fixed)


# ai-toolkit: toolkit/lora_special.py, toolkit/models/{lokr,DoRA}.py, network_mixins.get_state_dict
def ai_toolkit_metadata(base: Base) -> dict[str, str]:
    version = "flux2" if base.geometry == "dev" else "flux2_klein_9b"
    return {
        "format": "pt",
        "name": "ink",
        "software": json.dumps({"name": "ai-toolkit"}),
        "training_info": json.dumps({"step": 2000, "epoch": 20}),
        "ss_base_model_version": version,
        "ss_output_name": "ink",
    }


def ai_toolkit(
    make: Maker, dtype: torch.dtype = FP16, select: str = "blocks", old: bool = False
) -> Make:
    def build(base: Base, g: Generator) -> Built:
        naming, prefix = (flat, "lycoris_") if old else (plain, "diffusion_model.")
        sites = base.bfl(select)
        return assemble(base, g, sites, make, naming, prefix, dtype, ai_toolkit_metadata(base))

    return build


def ai_toolkit_lokr(alpha: float | None = None, **factors: object) -> Maker:
    """Full factors: the config's 9999999999 as the file's dtype holds it (inf in fp16)."""

    def make(w: Tensor, g: Generator, dtype: torch.dtype) -> tuple[maths.Parts, Tensor]:
        parts, delta = maths.lokr(w, g, dtype, **factors)
        rank = factors.get("rank")
        parts["alpha"] = torch.tensor(9999999999.0 if rank is None else float(rank)).to(dtype)
        return parts, delta

    return make


def ai_toolkit_full_if_contains(base: Base, g: Generator) -> Built:
    """LoRA everywhere, the whole change for ``single_blocks.1``."""
    whole = [site for site in base.bfl() if "single_blocks.1" in site.name]
    rest = [site for site in base.bfl() if "single_blocks.1" not in site.name]
    metadata = ai_toolkit_metadata(base)
    prefix = "diffusion_model."
    return merged(
        assemble(base, g, rest, maths.lora, plain, prefix, FP16, metadata),
        assemble(base, g, whole, maths.full, plain, prefix, FP16),
    )


# musubi-tuner: networks/{lora_flux_2,loha,lokr}.py (default network_alpha 1), convert_lora.py
def musubi_metadata(base: Base, module: str) -> dict[str, str]:
    dev = base.geometry == "dev"
    return {
        "ss_network_module": f"networks.{module}",
        "ss_network_dim": "8",
        "ss_network_alpha": "1.0",
        "ss_base_model_version": "flux_2_dev" if dev else "flux_2_klein_9b",
        "modelspec.architecture": "Flux.2-dev" if dev else "Flux.2-klein-9b",
        "modelspec.title": "ink",
    }


def musubi(make: Maker, module: str, dtype: torch.dtype = BF16) -> Make:
    def build(base: Base, g: Generator) -> Built:
        metadata = musubi_metadata(base, module)
        return assemble(base, g, base.bfl(), make, flat, "lora_unet_", dtype, metadata)

    return build


def musubi_converted_name(name: str) -> str:
    """convert_lora.py turns every "_" into "." and then repairs what it knows of."""
    return name.replace("img_attn.", "img_attn_").replace("txt_attn.", "txt_attn_")


def musubi_converted_lora(base: Base, g: Generator) -> Built:
    """``--target other``: sqrt(alpha / rank) folded into both factors, in the file's dtype."""

    def make(w: Tensor, g: Generator, dtype: torch.dtype) -> tuple[maths.Parts, Tensor]:
        parts, _ = maths.lora(w, g, dtype)
        scale = torch.tensor(1 / 8, dtype=dtype).sqrt()
        down, up = (part * scale for part in parts.values())
        return dict(zip(maths.AB, (down, up), strict=True)), up.double() @ down.double()

    metadata = musubi_metadata(base, "lora_flux_2")
    prefix = "diffusion_model."
    return assemble(base, g, base.bfl(), make, musubi_converted_name, prefix, BF16, metadata)


def musubi_converted(make: Maker, module: str) -> Make:
    def build(base: Base, g: Generator) -> Built:
        metadata = musubi_metadata(base, module)
        prefix = "diffusion_model."
        return assemble(base, g, base.bfl(), make, musubi_converted_name, prefix, BF16, metadata)

    return build


# OneTrainer: modules/module/LoRAModule.py, modelSaver/mixin/LoRASaverMixin.py, convert_lora_util.py
ONETRAINER_METADATA = {
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "Flux.2/lora",
    "modelspec.title": "ink",
    "ot_branch": "master",
    "ot_revision": "0123abc",
    "ot_config": "{}",
}
_FORMATS: dict[str, tuple[str, Naming, str, tuple[str, str]]] = {
    # format: sites, naming, prefix, factor names. Fused formats train q, k and v as one module.
    "legacy": ("diffusers", plain, "transformer.", maths.DOWN_UP),
    "diffusers": ("diffusers", plain, "transformer.", maths.AB),
    "kohya": ("bfl", flat, "lora_unet_", maths.DOWN_UP),
    "original": ("bfl", plain, "", maths.AB),
    "comfy": ("bfl", plain, "diffusion_model.", maths.AB),
}


def onetrainer(form: str, family: str, select: str = "blocks", dtype: torch.dtype = BF16) -> Make:
    """``family``: lora, dora_in, dora_out, loha, or one of ``_onetrainer_maker``'s others."""

    def build(base: Base, g: Generator) -> Built:
        view, naming, prefix, names = _FORMATS[form]
        sites = base.diffusers(select) if view == "diffusers" else base.bfl(select)
        make = _onetrainer_maker(family, form, names)
        return assemble(base, g, sites, make, naming, prefix, dtype, ONETRAINER_METADATA)

    return build


def _onetrainer_maker(family: str, form: str, names: tuple[str, str]) -> Maker:
    diffusers = form == "diffusers"
    lora: Maker = options(maths.lora, alpha=1.0, names=names)
    if diffusers:
        lora = _folded_lora
    if family == "lora":
        return lora
    if family == "dora_out" and diffusers:
        return with_magnitude(lora, "out", "lora_magnitude_vector.weight", vector=True)
    if family in ("dora_in", "dora_out"):
        return with_magnitude(lora, family[5:], "dora_scale")
    if family.startswith("lokr_dora_"):
        return with_magnitude(options(maths.lokr, rank=4, alpha=1.0), family[10:], "dora_scale")
    return {
        "loha": options(maths.loha, alpha=1.0),
        "lokr": options(maths.lokr, rank=4, alpha=1.0),
        "lokr_both": options(maths.lokr, factor=16, rank=4, both=True, alpha=1.0),
        "lokr_factor_1": options(maths.lokr, factor=1, rank=4, alpha=1.0),
        "lokr_full": options(maths.lokr, alpha=1.0),
        "oft": maths.oft_input,
        "oft_scaled": options(maths.oft_input, scaled=True),
        "oft_shared": options(maths.oft_input, share=True),
    }[family]


def _folded_lora(w: Tensor, g: Generator, dtype: torch.dtype) -> tuple[maths.Parts, Tensor]:
    """DIFFUSERS_LORA: alpha / rank goes into lora_B, after the cast."""
    parts, _ = maths.lora(w, g, dtype)
    down, up = parts.values()
    up = up * (torch.tensor(1.0, dtype=dtype) / up.shape[1])
    return dict(zip(maths.AB, (down, up), strict=True)), up.double() @ down.double()


# SimpleTuner: helpers/training/lora_format.py, helpers/models/flux2/pipeline.py (three eras)
def simpletuner_comfyui(prefix: str) -> Make:
    """Until 2026-01-16: diffusers names under ``prefix``, and an fp32 alpha for each module."""

    def make(w: Tensor, g: Generator, dtype: torch.dtype) -> tuple[maths.Parts, Tensor]:
        parts, delta = maths.lora(w, g, dtype, alpha=4.0)
        return parts | {"alpha": torch.tensor(4.0)}, delta

    def build(base: Base, g: Generator) -> Built:
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({"lora_alpha": 4, "r": 8})}
        return assemble(base, g, base.diffusers(), make, plain, prefix, BF16, metadata)

    return build


def simpletuner_lossy(base: Base, g: Generator) -> Built:
    """2026-01-16 to -20: to_q's lora_A stands in for k and v. What was trained is lost; what is
    written is a plain fused LoRA, and the truth here is that file's, not the training's."""
    fused = simpletuner_comfyui("")
    diffusers = single(fused(base, g)).tensors
    tensors: dict[str, Tensor] = {}
    truth = Truth(base)
    for site in base.bfl():
        names = [s.name for s in base.diffusers() if s.key == site.key]
        down = diffusers[f"{names[0]}.lora_A.weight"]
        up = torch.cat([diffusers[f"{name}.lora_B.weight"] for name in names])
        stem = f"diffusion_model.{site.name}"
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        tensors[f"{stem}.alpha"] = torch.tensor(4.0)
        truth.add(site, 0.5 * (up.double() @ down.double()))
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({"lora_alpha": 4, "r": 8})}
    return one(LoraFile(tensors, metadata), truth)


def tlora(base: Base, g: Generator) -> Built:
    """SimpleTuner's T-LoRA (lycoris/modules/tlora.py): its ranks are masked by timestep, so it is
    no one change of a weight. Two modules are enough to be refused by."""
    tensors: dict[str, Tensor] = {}
    for site in base.diffusers()[:2]:
        out, width = site.weight(base).shape
        stem = f"lycoris_{flat(site.name)}"
        for mark in ("", "base_"):
            layer = ("base_q", "base_p") if mark else ("q_layer.weight", "p_layer.weight")
            tensors[f"{stem}.{layer[0]}"] = torch.randn(8, width, generator=g)
            tensors[f"{stem}.{layer[1]}"] = torch.randn(out, 8, generator=g)
            tensors[f"{stem}.{mark or ''}lambda{'' if mark else '_layer'}"] = torch.ones(1, 8)
        tensors[f"{stem}.alpha"] = torch.tensor(4.0)
    return one(LoraFile(tensors, {"lycoris_config": '{"algo": "tlora"}'}), Truth(base))

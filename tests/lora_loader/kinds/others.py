"""Published files, converters, ComfyUI's own nodes, and namings that nobody has listed yet."""

import json
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from . import maths
from .base import PREFIX, Base, Site, Truth, diffusers_norm, norm_names
from .kind import Built, LoraFile, Naming, assemble, flat, merged, one, plain, single
from .libraries import randomise
from .trainers import BF16, FP16, FP32, Make, options, with_magnitude


def named(
    view: str, prefix: str, select: str = "blocks", naming: Naming = plain, **config: object
) -> Make:
    """A plain LoRA without alpha under any prefix and naming."""
    dtype = config.pop("dtype", BF16)

    def build(base: Base, g: Generator) -> Built:
        sites = base.bfl(select) if view == "bfl" else base.diffusers(select)
        return assemble(base, g, sites, options(maths.lora, **config), naming, prefix, dtype)

    return build


def _pick(sites: list[Site], unwanted: str) -> list[Site]:
    return [site for site in sites if unwanted not in site.name]


def fal_klein(base: Base, g: Generator) -> Built:
    """88 modules on klein 4B: all of the blocks, and every global but the final modulation."""
    sites = base.bfl() + _pick(base.bfl("globals"), "adaLN")
    return assemble(base, g, sites, maths.lora, plain, "base_model.model.", BF16)


def fal_dev(prefix: str, view: str = "bfl") -> Make:
    """Attention, singles and ten globals with guidance_in (fal's dev trainer, Turbo)."""

    def build(base: Base, g: Generator) -> Built:
        sites = base.bfl if view == "bfl" else base.diffusers
        unwanted = "adaLN" if view == "bfl" else "norm_out"
        chosen = sites("attention") + _pick(sites("globals"), unwanted)
        return assemble(base, g, chosen, maths.lora, plain, prefix, BF16)

    return build


def turbo_mixed(base: Base, g: Generator) -> Built:
    """fal's "comfyui" Turbo file: BFL names, but q, k and v still as diffusers names."""
    split = [s for s in base.diffusers() if ".attn." in s.name and s.rows is not None]
    rest = [s for s in base.bfl("attention") if ".qkv" not in s.name] + base.bfl("globals")
    return merged(
        assemble(base, g, rest, maths.lora, plain, "diffusion_model.", BF16),
        assemble(base, g, split, maths.lora, plain, "transformer.", BF16),
    )


def mflux(base: Base, g: Generator) -> Built:
    """ONE file: PEFT names for attention and singles, kohya names for the MLPs."""
    attention = base.bfl("attention")
    mlps = [site for site in base.bfl() if "_mlp" in site.name]
    kohya = options(maths.lora, names=maths.DOWN_UP)
    return merged(
        assemble(base, g, attention, maths.lora, plain, "base_model.model.", BF16),
        assemble(base, g, mlps, kohya, flat, "lora_unet_", BF16),
    )


def diffsynth(prefix: str) -> Make:
    """DiffSynth-Studio: PEFT's adapter name stays in the key, alpha is always the rank."""
    names = ("lora_A.default.weight", "lora_B.default.weight")
    return named("diffusers", prefix, names=names)


# ComfyUI: comfy_extras/nodes_lora_extract.py, nodes_train.py
def comfy_extract(base: Base, g: Generator) -> Built:
    """LoraSave: factors without alpha, norms as ``.diff``."""
    extract = options(maths.lora, names=maths.DOWN_UP)
    return merged(
        assemble(base, g, base.bfl("all"), extract, plain, PREFIX, FP16),
        norm_diffs(plain, PREFIX, "diff", FP16)(base, g),
    )


def comfy_extract_full(base: Base, g: Generator) -> Built:
    return merged(
        assemble(base, g, base.bfl("all"), maths.full, plain, PREFIX, FP16),
        norm_diffs(plain, PREFIX, "diff", FP16)(base, g),
    )


def comfy_train(algorithm: str) -> Make:
    """TrainLoraNode: ComfyUI's own adapter classes are producer and truth (needs ComfyUI)."""

    def build(base: Base, g: Generator) -> Built:
        from comfy.weight_adapter import adapter_maps

        tensors: dict[str, Tensor] = {}
        truth = Truth(base)
        for site in base.bfl("all"):
            weight = site.weight(base).float()
            trained = adapter_maps[algorithm].create_train(weight, rank=8, alpha=1.0)
            own = [(n, p) for n, p in trained.named_parameters() if n != "alpha"]
            with torch.no_grad():
                randomise(own, g, BF16)
                for name, value in trained.named_parameters():
                    tensors[f"{PREFIX}{site.name}.{name}"] = value.detach().to(BF16)
                truth.add(site, trained(weight).double() - weight.double())
        norms = norm_diffs(plain, PREFIX, "diff", BF16)(base, g)
        return merged(one(LoraFile(tensors), truth), norms)

    return build


def norm_diffs(naming: Naming, prefix: str, part: str, dtype: torch.dtype = BF16) -> Make:
    """Changes of the query and key norms; ``naming`` gets BFL names."""

    def build(base: Base, g: Generator) -> Built:
        sites = [Site(name, f"{PREFIX}{name}.weight") for name in norm_names()]
        make = options(maths.full, name=part)
        return assemble(base, g, sites, make, naming, prefix, dtype)

    return build


def with_norms(prefix: str, naming: Naming, part: str) -> Make:
    def build(base: Base, g: Generator) -> Built:
        lora = assemble(base, g, base.diffusers(), maths.lora, plain, "transformer.", BF16)
        return merged(lora, norm_diffs(naming, prefix, part)(base, g))

    return build


def lycoris_norm(name: str) -> str:
    return flat(diffusers_norm(name))


# Two ways to name one module, and stacks
def two_namings(base: Base, g: Generator) -> Built:
    """Both parts are meant: the change is their sum (or the file is refused)."""
    kohya = options(maths.lora, names=maths.DOWN_UP)
    return merged(
        assemble(base, g, base.bfl(), maths.lora, plain, "diffusion_model.", BF16),
        assemble(base, g, base.diffusers(), kohya, plain, "transformer.", BF16),
    )


def lora_and_diff(base: Base, g: Generator) -> Built:
    return merged(
        assemble(base, g, base.bfl(), maths.lora, plain, "diffusion_model.", BF16),
        assemble(base, g, base.bfl(), maths.full, plain, "diffusion_model.", BF16),
    )


def same_twice(base: Base, g: Generator) -> Built:
    built = named("bfl", "diffusion_model.")(base, g)
    truth = Truth(base)
    truth.include(built.truth, 0.5 + 1.25)
    return Built([(single(built), 0.5), (single(built), 1.25)], truth)


def three_scaled(base: Base, g: Generator) -> Built:
    """A plain, a kohya and a diffusers file of three ranks at three scales: sums of each."""
    kohya = {"names": maths.DOWN_UP, "rank": 16, "alpha": 1.0}
    parts = [
        (named("bfl", "diffusion_model.", "all")(base, g), 0.25),
        (named("bfl", "lora_unet_", naming=flat, **kohya)(base, g), 4.0),
        (named("diffusers", "transformer.", "all", rank=3)(base, g), 1.5),
    ]
    truth = Truth(base)
    for built, scale in parts:
        truth.include(built.truth, scale)
    return Built([(single(built), scale) for built, scale in parts], truth)


def dora_stack(first_is_dora: bool) -> Make:
    """A DoRA and a LoRA: the second meets the weights that the first left (order matters)."""

    def build(base: Base, g: Generator) -> Built:
        lora = named("bfl", "diffusion_model.")

        def dora(model: Base, g: Generator) -> Built:
            make = with_magnitude(maths.lora, "out", "dora_scale")
            return assemble(model, g, model.bfl(), make, plain, "diffusion_model.", BF16)

        first, second = (dora, lora) if first_is_dora else (lora, dora)
        one_ = first(base, g)
        two = second(base.plus(one_.truth), g)
        truth = Truth(base)
        truth.include(one_.truth)
        truth.include(two.truth)
        return Built([(single(one_), 1.0), (single(two), 1.0)], truth)

    return build


def odd(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], **config: object) -> Make:
    """A plain ai-toolkit-like file with its tensors changed in a way that means the same."""

    def build(base: Base, g: Generator) -> Built:
        built = named("bfl", "diffusion_model.", **config)(base, g)
        return one(LoraFile(change(dict(single(built).tensors))), built.truth)

    return build


def alpha_as(dtype: torch.dtype, shape: tuple[int, ...]) -> Make:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        alphas = {k: v.to(dtype).reshape(shape) for k, v in tensors.items() if k.endswith("alpha")}
        return tensors | alphas

    return odd(change, alpha=4.0)


def conv_shaped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value[:, :, None, None] for key, value in tensors.items()}


def eight_bit(dtype: torch.dtype) -> Make:
    return named("bfl", "diffusion_model.", dtype=dtype)


def alpha_tensor_beside_metadata(base: Base, g: Generator) -> Built:
    """Both are there: the tensor wins, it is nearer to what was trained."""
    built = named("diffusers", "transformer.", alpha=4.0)(base, g)
    described = {"transformer.lora_alpha": 16, "transformer.r": 8}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(described)}
    return one(LoraFile(single(built).tensors, metadata), built.truth)


def with_strangers(strangers: dict[str, tuple[int, ...]]) -> Make:
    """A good LoRA with parts that FLUX.2 has no place for."""

    def build(base: Base, g: Generator) -> Built:
        built = named("bfl", "diffusion_model.", dtype=FP32)(base, g)
        extra = {k: torch.randn(shape, generator=g) for k, shape in strangers.items()}
        return one(LoraFile(dict(single(built).tensors) | extra), built.truth)

    return build

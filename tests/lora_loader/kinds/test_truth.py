"""The truth itself, tested: our formulas against PEFT and LyCORIS, our names and rows against
diffusers' converter, and whole files against diffusers' own LoRA loader."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kinds import libraries, maths  # noqa: E402
from kinds.base import Base, diffusers_norm, norm_names  # noqa: E402
from kinds.measure import errors  # noqa: E402
from kinds.table import all_kinds  # noqa: E402
from kinds.threads import one_thread  # noqa: E402, F401

BASES = {geometry: Base(geometry) for geometry in ("dev", "klein")}
FP32 = torch.float32


def release(package: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version(package).split(".")[:2])


def relative(got: torch.Tensor, true: torch.Tensor) -> float:
    return ((got.double() - true).norm() / true.norm()).item()


@pytest.mark.parametrize("geometry", BASES)
def test_sites_are_the_modules_of_diffusers_own_model(geometry):
    base = BASES[geometry]
    model = libraries.transformer(base)
    sites = base.diffusers("all")
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {site.name for site in sites} == linears
    for site in sites:
        assert torch.equal(model.get_submodule(site.name).weight.double(), site.weight(base))
    state = model.state_dict()
    for name in norm_names():
        assert torch.equal(
            state[f"{diffusers_norm(name)}.weight"], base.weights[f"diffusion_model.{name}.weight"]
        )


def lycoris_module(kind: type, weight: torch.Tensor, parts: maths.Parts, **settings) -> nn.Module:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.float()
    module = kind("x", linear, **settings)
    missing, unexpected = module.load_state_dict(parts, strict=False)
    assert not unexpected and set(missing) <= {"scalar"}, (missing, unexpected)
    module.apply_to()
    return linear


def change(linear: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return linear(torch.eye(weight.shape[1])).T.double() - weight


W = torch.randn(96, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 8


@pytest.mark.parametrize("axis", [None, "out", "in"])
@pytest.mark.parametrize("family", ["lora", "loha", "lokr", "lokr_both"])
def test_formulas_are_lycoris_own(family, axis):
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    g = torch.Generator().manual_seed(2)
    settings = {"lora_dim": 2, "alpha": 3.0, "weight_decompose": axis is not None}
    settings["wd_on_out"] = axis != "in"
    if family == "lora":
        kind, made = LoConModule, maths.lora(W, g, FP32, 2, 3.0, names=maths.DOWN_UP)
    elif family == "loha":
        kind, made = LohaModule, maths.loha(W, g, FP32, 2, 3.0)
    else:
        both = family == "lokr_both"
        kind, made = LokrModule, maths.lokr(W, g, FP32, 8, 2, both, 3.0)
        settings |= {"factor": 8, "decompose_both": both}
    parts, delta = made
    if axis is not None:
        m = maths.magnitude(W, g, FP32, axis)
        parts, delta = parts | {"dora_scale": m}, maths.decompose(W, delta, m, axis)
    assert relative(change(lycoris_module(kind, W, parts, **settings), W), delta) < 3e-6


@pytest.mark.parametrize("share", [False, True])
def test_input_rotation_is_peft_oft(share):
    from peft import OFTConfig, get_peft_model

    tree = nn.Sequential(nn.Linear(64, 96, bias=False))
    tree[0].weight.data = W.float()
    config = OFTConfig(target_modules=["0"], r=0, oft_block_size=16, block_share=share)
    model = get_peft_model(tree, config)
    parts, delta = maths.oft_input(W, torch.Generator().manual_seed(3), FP32, 16, share=share)
    layer = model.base_model.model[0]
    layer.oft_R["default"].weight.data = parts["oft_R.weight"]
    assert relative(change(layer.eval(), W), delta) < 3e-6


def test_scaled_rotation_is_the_plain_one_of_smaller_values():
    g = torch.Generator().manual_seed(4)
    parts, scaled = maths.oft_input(W, g, FP32, 16, scaled=True)
    g = torch.Generator().manual_seed(4)
    plain, delta = maths.oft_input(W, g, FP32, 16)
    ratio = parts["oft_R.weight"] / plain["oft_R.weight"]
    assert torch.allclose(ratio, torch.tensor(2 * 15**0.5))
    assert relative(scaled, delta) < 1e-6


def test_decomposing_by_the_weights_own_norm_gives_the_papers_change():
    parts, delta = maths.lora(W, torch.Generator().manual_seed(5), FP32)
    for axis, dim in (("out", 1), ("in", 0)):
        m = maths.magnitude(W, torch.Generator().manual_seed(6), torch.float64, axis)
        moved = W + maths.decompose(W, delta, m, axis)
        assert torch.allclose(moved.norm(dim=dim, keepdim=True), m)


# ai-toolkit's LoKr of a fused qkv is not here: diffusers reads it only into a model whose
# projections are fused, which has no to_q, to_k and to_v to compare.
READ_BY_DIFFUSERS = [
    "dreambooth, rank 16 alpha 4 (README)",
    "dreambooth, patterns",
    "dreambooth, rsLoRA with patterns",
    "dreambooth, DoRA",
    "dreambooth, every Linear",
    "PEFT, BFL names, no config beside",
    "ai-toolkit LoRA bf16",
    "musubi LoRA",
    "SimpleTuner LyCORIS LoKr full, blocks",
    "OneTrainer diffusers lora, preset full",
    "OneTrainer diffusers dora_out, preset full",
]


@pytest.mark.parametrize("geometry", BASES)
@pytest.mark.parametrize("name", READ_BY_DIFFUSERS)
def test_diffusers_own_loader_makes_the_same_change(name, geometry, tmp_path):
    from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin

    (kind,) = [kind for kind in all_kinds() if kind.name == name]
    if "SimpleTuner LyCORIS" in name and release("diffusers") < (0, 42):
        pytest.skip("diffusers reads SimpleTuner's LoKr from 0.42 on, which has left Python 3.10")
    base = BASES[geometry]
    built = kind.build(base)
    path = built.slots[0][0].write(tmp_path)
    model = libraries.transformer(base)
    state, metadata = Flux2LoraLoaderMixin.lora_state_dict(
        str(path.parent), weight_name=path.name, return_lora_metadata=True
    )
    Flux2LoraLoaderMixin.load_lora_into_transformer(state, model, metadata=metadata)
    model.float()
    truth = libraries.forward_truth(base, model, base.diffusers("all"))
    worst = max(errors(dict(truth), built.truth).values())
    assert worst < 1e-5

"""Tiny FLUX.2 models with stacks of LoRAs on them, for the tests of both ways onto a MODEL."""

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.fuse import StackedLora
from flux2_lora_edit.lora_loader.read_stack import LoraFiles, read_stack
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny, tiny_loras, tiny_quantised

H = 256
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "diffusion_model.single_blocks.0.linear1.weight"
TRAINERS = (tiny_loras.ai_toolkit, tiny_loras.diffusers, tiny_loras.kohya)
SCALES = (1.0, 0.5, -0.25)


def r(*shape, seed=0, std=0.05):
    g = torch.Generator().manual_seed(seed + sum(n * 7**i for i, n in enumerate(shape)))
    return torch.randn(*shape, generator=g) * std


def weights_of(variant="dev"):
    return tiny.transformer(variant, dtype=torch.float32, double=1, single=1)


def load(variant="dev", dtype=torch.float32, form=None):
    """A MODEL by the host's own loader; ``form`` quantises it."""
    import comfy.sd

    weights = weights_of(variant)
    if form:
        if not tiny_quantised.known(form):
            pytest.skip(f"this ComfyUI has no {form}")
        weights = tiny_quantised.quantised(weights, form)
    options = {} if form else {"dtype": dtype}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options=options)


def stack_of(model, folder, makes=TRAINERS, scales=SCALES):
    """LoRAs of these trainers, by default of three: whole rows, split rows and flattened names."""
    from flux2_lora_edit.lora_loader.patch import weight_shapes

    entries = []
    for make, scale in zip(makes, scales, strict=False):
        made = make(double=1, single=1)
        path = folder / f"{make.__name__}.safetensors"
        if not path.exists():
            save_file({k: v.contiguous() for k, v in made.weights.items()}, path, made.metadata)
        entries.append(LoraEntry(path.name, scale, scale))
    where = {"locate": lambda entry: folder / entry.name, "files": LoraFiles()}
    return read_stack(entries, weight_shapes(model), **where).loras


def scaled(loras, factor):
    return [StackedLora(lora.identity, lora.scale * factor, lora.steps) for lora in loras]


def adapter_of(steps):
    """What a MODEL stores for a weight with these steps."""
    from flux2_lora_edit.lora_loader.patch.merge import FusedAdapter, pack

    return FusedAdapter(set(), pack(tuple(steps)))


def beside(model, loras, **how):
    """A MODEL with the LoRAs beside its weights."""
    from flux2_lora_edit.lora_loader.patch import apply_stack

    applied = apply_stack(model, loras, "side path", **how)
    assert applied.taken == "side path"
    return applied.model


def module(model, key=QKV):
    return model.model.get_submodule(key.removesuffix(".weight"))


def inputs(model, batch=1, references=0):
    """Noise, sigma, text and reference latents for the host's apply_model."""
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    extra = {"guidance": torch.full((batch,), 2.5)}
    if references:
        # As the host's samplers hand them over: one conditioning for each batch item.
        extra["ref_latents"] = [r(batch, 128, 2, 3, seed=n, std=1.0) for n in range(references)]
        extra["ref_latents_method"] = "index"
    x, text = r(batch, 128, 4, 4, std=1.0), r(batch, 8, columns, std=1.0)
    return (x, torch.full((batch,), 0.6)), {"c_crossattn": text, **extra}


@torch.inference_mode()
def forward(model, batch=1, references=0):
    """One step of the model as the host's samplers take it: loaded, with its wrappers."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    model.pre_run()
    args, kwargs = inputs(model, batch, references)
    options = {"wrappers": model.wrappers}
    return model.model.apply_model(*args, transformer_options=options, **kwargs).clone()


@torch.inference_mode()
def direct(model, references=0):
    """The diffusion model as a sampler runs it that does so by itself: no wrapper, no options."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    (x, sigma), given = inputs(model, references=references)
    dtype = model.model.get_dtype_inference()
    context = given.pop("c_crossattn").to(dtype)
    return model.model.diffusion_model.forward(x.to(dtype), sigma, context, **given).clone()


def effect(changed, base):
    return (changed - base).double()


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


class Graphs:
    """A torch.compile backend that runs the graphs as they are, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _inputs):
        self.count += 1
        return graph.forward


def steady_memory(monkeypatch):
    """No change of the free memory, at which the host's attention for CPUs compiles again."""
    import comfy.model_management

    def free(device=None, torch_free_too=False):
        return (2**33, 2**33) if torch_free_too else 2**33

    monkeypatch.setattr(comfy.model_management, "get_free_memory", free)

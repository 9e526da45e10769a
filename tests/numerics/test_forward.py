"""A whole forward, with references and a LoRA, against diffusers and PEFT.

Neither side's code is ours: ComfyUI runs the model that our loader patched, diffusers runs the same
tiny weights with the same LoRA file loaded through PEFT. Both in float32.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from host.tiny import transformer

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

HEAD_DIM, CONTEXT = 128, 64
GRID = (4, 6)
REFERENCES = ((3, 4), (5, 2))


def diffusers_model(weights: dict, variant: str):
    from diffusers import Flux2Transformer2DModel
    from diffusers.loaders.single_file_utils import (
        convert_flux2_transformer_checkpoint_to_diffusers,
    )

    hidden = weights["img_in.weight"].shape[0]
    model = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=hidden // HEAD_DIM,
        joint_attention_dim=CONTEXT,
        guidance_embeds=variant == "dev",
    )
    model.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(dict(weights)))
    return model.eval()


def write_lora(path, model, rank=4, alpha=2.0) -> None:
    """A diffusers dreambooth file: PEFT's names, alpha in the metadata only."""
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    targets = ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out", "linear_in")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(targets):
            down = torch.randn(rank, module.in_features, generator=generator) / rank
            up = torch.randn(module.out_features, rank, generator=generator) / rank
            tensors[f"transformer.{name}.lora_A.weight"] = down
            tensors[f"transformer.{name}.lora_B.weight"] = up
    config = {"transformer.r": rank, "transformer.lora_alpha": alpha}
    save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": json.dumps(config)})


def diffusers_forward(model, noise, text, timestep, guidance, references):
    """One forward; references follow the noise, at t = 10, 20, ... as in the authors' code."""

    def tokens(latent):
        return latent.flatten(2).transpose(1, 2)

    def ids(height, width, t):
        axes = (torch.tensor([t]), torch.arange(height), torch.arange(width), torch.tensor([0]))
        return torch.cartesian_prod(*axes)

    pictures = [noise, *references]
    img_ids = [ids(*p.shape[2:], 10 * index) for index, p in enumerate(pictures)]
    zero = torch.tensor([0])
    out = model(
        hidden_states=torch.cat([tokens(p) for p in pictures], dim=1),
        encoder_hidden_states=text,
        timestep=timestep,
        img_ids=torch.cat(img_ids)[None],
        txt_ids=torch.cartesian_prod(zero, zero, zero, torch.arange(text.shape[1]))[None],
        guidance=guidance,
        return_dict=False,
    )[0]
    count = noise.shape[2] * noise.shape[3]
    return out[:, :count].transpose(1, 2).reshape(noise.shape)


def comfy_forward(patcher, noise, text, timestep, guidance, references):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher.model.diffusion_model(
        noise,
        timestep,
        text,
        guidance=guidance,
        ref_latents=references or None,
        ref_latents_method="index",
    )


def with_our_loader(patcher, path, scale):
    from flux2_lora_edit.lora_loader.patch import apply_stack, weight_shapes
    from flux2_lora_edit.lora_loader.read_stack import LoraFiles, read_stack
    from flux2_lora_edit.lora_loader.sources.source import InstalledSource
    from flux2_lora_edit.lora_loader.stack import LoraEntry

    entry = LoraEntry(path.name, scale, scale, InstalledSource(path.name))
    stack = read_stack([entry], weight_shapes(patcher), locate=lambda _: path, files=LoraFiles())
    return apply_stack(patcher, stack.loras, "auto").model


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("variant", ["dev", "klein-4b"])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("with_lora", [False, True], ids=["plain", "lora"])
@torch.no_grad()
def test_forward_equals_diffusers_and_peft(variant, count, with_lora, tmp_path):
    import comfy.sd

    weights = transformer(variant, hidden=256, context=CONTEXT, dtype=torch.float32)
    patcher = comfy.sd.load_diffusion_model_state_dict(
        dict(weights), model_options={"dtype": torch.float32}
    )
    oracle = diffusers_model(weights, variant)
    if with_lora:
        path = tmp_path / "style.safetensors"
        write_lora(path, oracle)
        tensors = load_file(path)
        modules = sorted({key[len("transformer.") :].split(".lora_")[0] for key in tensors})
        settings = {"r": 4, "lora_alpha": 2.0, "target_modules": modules}
        config = {f"transformer.{name}": value for name, value in settings.items()}
        oracle.load_lora_adapter(tensors, prefix="transformer", metadata=config)
        oracle.set_adapters(["default_0"], weights=[0.75])
        patcher = with_our_loader(patcher, path, 0.75)

    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 128, *GRID, generator=generator)
    text = torch.randn(1, 7, CONTEXT, generator=generator)
    references = [torch.randn(1, 128, *g, generator=generator) for g in REFERENCES[:count]]
    timestep, guidance = torch.tensor([0.6]), torch.tensor([2.5])
    theirs = diffusers_forward(oracle, noise, text, timestep, guidance, references)
    ours = comfy_forward(patcher, noise, text, timestep, guidance, references)
    assert relative_error(ours, theirs) < 1e-5
    if count == 2:
        # The check can fail: a dropped or a swapped reference is far outside the tolerance.
        for wrong in (references[:1], references[::-1]):
            other = comfy_forward(patcher, noise, text, timestep, guidance, wrong)
            assert relative_error(other, theirs) > 1e-3

"""What Edit Conditioning says of cost and trigger words, in a real ComfyUI process."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

RELEASED = {
    "dev": dict(width=6144, text=15360, double=8, single=48, guidance=True),
    "klein 9B": dict(width=4096, text=12288, double=8, single=24, guidance=False),
    "klein 4B": dict(width=3072, text=7680, double=5, single=20, guidance=False),
}


def network(width, text, double, single, guidance):
    """The host's own transformer without its weights: on the meta device."""
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    return Flux(
        in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=text, hidden_size=width,
        mlp_ratio=3.0, num_heads=width // 128, depth=double, depth_single_blocks=single,
        axes_dim=[32, 32, 32, 32], theta=2000, patch_size=1, qkv_bias=False,
        guidance_embed=guidance, txt_ids_dims=[3], global_modulation=True, mlp_silu_act=True,
        ops_bias=False, ref_index_scale=10.0, device="meta", dtype=torch.float32,
        operations=comfy.ops.disable_weight_init, image_model="flux2",
    )  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_the_cost_is_what_the_hosts_model_computes(name, monkeypatch):
    """Its floating point operations, counted by torch at 512x512 with and without references."""
    import comfy.ldm.flux.math
    from comfy.ldm.modules.attention import attention_pytorch
    from torch.utils.flop_counter import FlopCounterMode

    from flux2_lora_edit.flux2.sampling import forward_flops

    # The host's other ways ask the device how much memory is free.
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    sizes = RELEASED[name]
    model = network(**sizes)
    counted = []
    for references in ([], [torch.empty(1, 128, 32, 48, device="meta")]):
        inputs = [torch.empty(1, 128, 32, 32, device="meta"), torch.empty(1, device="meta")]
        context = torch.empty(1, 512, sizes["text"], device="meta")
        guidance = torch.empty(1, device="meta") if sizes["guidance"] else None
        with FlopCounterMode(display=False) as counter:
            model(*inputs, context, guidance=guidance, ref_latents=references or None)
        counted.append(counter.get_total_flops())
    blocks = sizes["double"] + sizes["single"]
    expected = [forward_flops(512 + n, sizes["width"], blocks) for n in (1024, 1024 + 1536)]
    assert counted == pytest.approx(expected, rel=0.01)
    assert counted[1] / counted[0] == pytest.approx(expected[1] / expected[0], rel=0.005)

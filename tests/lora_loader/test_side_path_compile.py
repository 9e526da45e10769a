"""The side path under torch.compile."""

import pytest
import torch
from tiny_stacks import (
    Graphs,
    beside,
    direct,
    effect,
    error,
    forward,
    load,
    scaled,
    stack_of,
    steady_memory,
)

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


# One block: tracing a whole model takes a minute. And the very modules that the stack adapts.
BLOCK = ["diffusion_model.single_blocks.0"]
LEAVES = [f"{BLOCK[0]}.linear1", "diffusion_model.double_blocks.0.img_attn.qkv"]


@pytest.mark.parametrize("keys", [BLOCK, LEAVES], ids=["block", "leaves"])
@pytest.mark.parametrize("compile_first", [True, False])
def test_under_torch_compile_a_scale_is_never_stale(tmp_path, compile_first, keys, monkeypatch):
    """ComfyUI's TorchCompileModel before or after our node: no new graph for a new scale."""
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    from flux2_lora_edit.lora_loader.patch import SidePathCache

    steady_memory(monkeypatch)
    torch._dynamo.reset()
    graphs, model, side_paths = Graphs(), load(), SidePathCache()
    options = {"backend": graphs, "keys": keys}
    loras = stack_of(model, tmp_path)
    start = model
    if compile_first:
        start = model.clone()
        helpers.set_torch_compile_wrapper(start, **options)
        forward(start)
    base, counts = forward(model), []
    for factor in (1.0, 0.5, 2.0, 1.0):
        found = beside(start, scaled(loras, factor), side_paths=side_paths)
        if not compile_first:
            helpers.set_torch_compile_wrapper(found, **options)
        plain = forward(beside(model, scaled(loras, factor)))
        assert error(effect(forward(found), base), effect(plain, base)) < 1e-5
        counts.append(graphs.count)
    # A module that is compiled by itself is so twice: by its class alone, and while ours is loaded.
    assert graphs.count and len(set(counts[keys is LEAVES :])) == 1, counts
    assert torch.equal(forward(start), base), "compiled code kept the stack"


def test_a_compiled_block_in_a_sampler_that_runs_the_model_by_itself(tmp_path, monkeypatch):
    """Compiled in its place: there the layers look for what is loaded, outside of the graphs."""
    from flux2_lora_edit.lora_loader.patch import SidePathCache, apply_stack

    steady_memory(monkeypatch)
    torch._dynamo.reset()
    model, graphs, side_paths = load(), Graphs(), SidePathCache()
    loras, base = stack_of(model, tmp_path), direct(model)
    wants = [
        direct(apply_stack(model, scaled(loras, factor), "merge").model) for factor in (1.0, 0.5)
    ]
    blocks = model.model.diffusion_model.single_blocks
    blocks[0] = torch.compile(blocks[0], backend=graphs)
    counts = []
    for want, factor in zip(wants * 3, (1.0, 0.5) * 3, strict=True):
        found = direct(beside(model, scaled(loras, factor), side_paths=side_paths))
        assert error(effect(found, base), effect(want, base)) < 1e-4
        counts.append(graphs.count)
    assert counts[0] and len(set(counts)) == 1, counts
    assert error(direct(model), base) < 1e-4

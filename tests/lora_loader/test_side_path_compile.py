"""The side path under torch.compile."""

import pytest
import torch
from tiny_stacks import beside, effect, error, forward, load, scaled, stack_of

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


class Graphs:
    """A torch.compile backend that runs the graphs as they are, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _inputs):
        self.count += 1
        return graph.forward


@pytest.mark.parametrize("compile_first", [True, False])
def test_under_torch_compile_a_scale_is_never_stale(tmp_path, compile_first, monkeypatch):
    """ComfyUI's TorchCompileModel before or after our node: no new graph for a new scale."""
    helpers = pytest.importorskip("comfy_api.torch_helpers")
    import comfy.model_management

    from flux2_lora_edit.lora_loader.patch import SidePathCache

    # The host's attention for CPUs compiles again when the free memory has changed.
    def free(device=None, torch_free_too=False):
        return (2**33, 2**33) if torch_free_too else 2**33

    monkeypatch.setattr(comfy.model_management, "get_free_memory", free)
    torch._dynamo.reset()
    graphs, model, side_paths = Graphs(), load(), SidePathCache()
    # One block: tracing a whole model takes a minute.
    options = {"backend": graphs, "keys": ["diffusion_model.single_blocks.0"]}
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
    assert graphs.count and len(set(counts)) == 1, counts
    assert torch.equal(forward(start), base), "compiled code kept the stack"

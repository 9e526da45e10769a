"""What the sampler asks of a MODEL, in a real ComfyUI process."""

import pytest
import torch

from host import tiny

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(params=["dev", "klein-4b"])
def model(request):
    import comfy.sd

    weights = tiny.transformer(request.param, double=1, single=1)
    return comfy.sd.load_diffusion_model_state_dict(weights)


def test_a_model_that_was_compiled_in_place_is_still_flux2(model) -> None:
    from flux2_lora_edit.nodes.sampler import model_traits

    before = model_traits(model)
    # As some packs do it; torch hides the module's names behind "_orig_mod".
    model.model.diffusion_model = torch.compile(model.model.diffusion_model, backend="eager")
    assert any("_orig_mod" in name for name, _ in model.model.named_modules())
    assert model_traits(model) == before


def test_where_the_host_says_nothing_the_weights_do(model, monkeypatch) -> None:
    from flux2_lora_edit.nodes.sampler import model_traits

    before = model_traits(model)
    monkeypatch.setattr(model.model.model_config, "unet_config", {})
    assert model_traits(model) == before

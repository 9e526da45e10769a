"""What the sampler asks of a MODEL, in a real ComfyUI process."""

from types import SimpleNamespace

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


def test_a_loader_that_the_host_remembers_nothing_of_is_asked_itself():
    """As city96's GGUF: the MODEL knows no file, the prompt does; no LoRA's name is a model's."""
    import comfy.sd
    from comfy_execution.graph import DynamicPrompt

    from flux2_lora_edit.flux2.settings import Preset
    from flux2_lora_edit.nodes.sampler import advice

    weights = tiny.transformer("klein-4b", double=1, single=1)
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    name = "flux-2-klein-4b-Q4_K_M.gguf"
    prompt = {
        "1": {"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": f"FLUX2\\{name}"}},
        "2": {"class_type": "LoraLoaderModelOnly",
              "inputs": {"model": ["1", 0], "lora_name": "klein-base-ink.safetensors"}},
        "3": {"class_type": "Flux2EditSampler", "inputs": {"model": ["2", 0]}},
    }  # fmt: skip
    hidden = SimpleNamespace(unique_id="3", dynprompt=DynamicPrompt(prompt))
    said = advice(hidden, model, Preset(False, 28, 1.0), 28, 1.0, False, False)
    assert said.startswith(f"\nSettings: {name} is klein distilled: set steps to 4")
    hidden.dynprompt = None
    assert advice(hidden, model, Preset(False, 28, 1.0), 28, 1.0, False, False) == ""


@pytest.mark.parametrize(
    ("guidance", "negative", "nag", "forwards"),
    [
        (1.0, False, False, 1),
        (1.0, True, False, 1),  # the host saves the second itself
        (4.0, True, False, 2),
        (1.0, True, True, 2),
        (1.0, False, True, 1),
    ],
)
def test_the_host_alone_saves_forwards(comfy_inprocess, guidance, negative, nag, forwards):
    """Pictures through the model in a step of klein; the host puts two into one call."""
    import comfy.sd
    from comfy_extras.nodes_nag import NAGuidance

    from flux2_lora_edit.nodes.sampler import Flux2EditSampler

    weights = tiny.transformer("klein-4b", double=1, single=1)
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    if nag:
        (model,) = NAGuidance.execute(model, 5.0, 0.5, 1.5)
    network, counted = model.model.diffusion_model, []
    forward = network.forward

    def count(x, *args, **kwargs):
        counted.append(x.shape[0])
        return forward(x, *args, **kwargs)

    network.forward = count
    width = network.txt_in.in_features
    texts = [[[torch.rand(1, 8, width), {"pooled_output": torch.zeros(1, 8)}]] for _ in range(2)]
    Flux2EditSampler.hidden = SimpleNamespace(unique_id=None, dynprompt=None)
    Flux2EditSampler.execute(
        model, texts[0], {"samples": torch.zeros(1, 128, 4, 4)}, steps=3, guidance=guidance,
        negative=texts[1] if negative else None,
    )  # fmt: skip
    assert sum(counted) == 3 * forwards

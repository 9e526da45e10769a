"""A readable no before sampling: what is wrong, in which slot and file, for what, on what."""

import re
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kinds import bad_files, wrong_base  # noqa: E402
from kinds.bad_files import Bad  # noqa: E402
from kinds.base import Base, Truth  # noqa: E402
from kinds.kind import single  # noqa: E402
from kinds.measure import apply_ours, changes, errors, load_model, plan_ours  # noqa: E402
from kinds.others import named  # noqa: E402
from kinds.threads import one_thread  # noqa: E402, F401

FILE = "ink v2.safetensors"
MODEL = r"FLUX\.2.*(width 256|256)"


@pytest.fixture(scope="module")
def dev(comfy_inprocess):
    base = Base("dev")
    return base, load_model(base)


@pytest.fixture(scope="module")
def real_models(comfy_inprocess):
    """The three released geometries in full, on torch's meta device: shapes without weights."""
    import comfy.sd

    from host.tiny import transformer_shapes

    sizes = {
        "klein 4B": ("klein-4b", 3072, 7680, 5, 20),
        "klein 9B": ("klein-9b", 4096, 12288, 8, 24),
        "dev": ("dev", 6144, 15360, 8, 48),
    }
    models = {}
    for name, size in sizes.items():
        with torch.device("meta"):
            shapes = transformer_shapes(*size).items()
            weights = {key: torch.empty(shape, dtype=torch.bfloat16) for key, shape in shapes}
            models[name] = comfy.sd.load_diffusion_model_state_dict(weights)
    return models


def refusal(model, path: Path, scale: float = 1.0, **how: str) -> str:
    """The error's text; fails when there is none or it is not one of the pack's own."""
    with pytest.raises(ValueError) as caught:
        plan_ours(model, [(path, scale)], **how)
    module = type(caught.value).__module__
    assert module.split(".")[0] == "flux2_lora_edit", f"a raw {type(caught.value).__name__}"
    text = str(caught.value)
    assert "LoRA slot 1" in text and path.name in text, text
    assert len(text) < 1500 and "Traceback" not in text, "nobody reads this"
    return text


def steps(ours) -> list:
    """Everything that is to be done to the model's weights."""
    return [step for lora in ours.stack.loras for step in lora.steps]


def warned(model, path: Path) -> str:
    """With on_mismatch=warn a file of which nothing fits is an error, or changes nothing and says
    so: never a silent success."""
    try:
        ours = plan_ours(model, [(path, 1.0)], on_mismatch="warn")
    except ValueError as error:
        assert type(error).__module__.split(".")[0] == "flux2_lora_edit"
        return str(error)
    assert not steps(ours), "something of it was applied"
    return "\n".join(ours.stack.warnings)


def says(text: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, text), f"nothing like {pattern!r} in: {text}"


def by_name(rows: list[Bad]):
    return pytest.mark.parametrize("bad", rows, ids=[bad.name for bad in rows])


@by_name(bad_files.DAMAGED)
def test_damaged(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    begun = time.monotonic()
    says(refusal(model, tmp_path / FILE), *bad.says)
    assert time.monotonic() - begun < 5, "a refusal must be quick"


@by_name(bad_files.MISFITS)
def test_misfit(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    says(refusal(model, tmp_path / FILE), *bad.says, MODEL)


@by_name(bad_files.NOT_FINITE)
def test_not_finite(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    says(refusal(model, tmp_path / FILE), *bad.says)


@by_name(bad_files.NO_MATCH)
def test_nothing_matches(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    says(refusal(model, tmp_path / FILE), *bad.says)
    says(warned(model, tmp_path / FILE), *bad.says)


@by_name(bad_files.MISFITS)
def test_warn_applies_what_fits_and_names_the_rest(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    ours = apply_ours(model, [(tmp_path / FILE, 1.0)], on_mismatch="warn")
    whole = named("bfl", "diffusion_model.")(base, torch.Generator().manual_seed(5))
    truth = Truth(base)
    truth.include(whole.truth)
    key = f"{bad_files.STEM}.weight"
    del truth[key]
    assert max(errors(changes(ours.model, base), truth).values()) < 1e-3
    assert bad_files.STEM in ours.words
    (lora,) = ours.stack.reports
    assert lora.matched == lora.total - 1


@by_name(bad_files.NOT_FINITE)
def test_warn_never_lets_a_nan_into_the_model(bad, dev, tmp_path):
    base, model = dev
    bad.write(tmp_path / FILE, base)
    ours = apply_ours(model, [(tmp_path / FILE, 1.0)], on_mismatch="warn")
    for key, delta in changes(ours.model, base).items():
        assert delta.isfinite().all(), key
    assert bad_files.STEM in ours.words


@pytest.mark.parametrize("form", wrong_base.FLUX1_FORMS)
@pytest.mark.parametrize("size", wrong_base.WIDTHS)
def test_flux1(form, size, real_models, tmp_path):
    tensors, metadata = wrong_base.flux1(form)
    save_file(tensors, tmp_path / FILE, metadata or None)
    text = refusal(real_models[size], tmp_path / FILE)
    says(text, r"FLUX\.1", rf"FLUX\.2 {size}")
    if size == "klein 4B":
        says(text, "3072")


def test_flux1_is_refused_with_warn_too(real_models, tmp_path):
    """Its attention fits klein 4B by chance; merging it would be damage, not a best effort."""
    tensors, metadata = wrong_base.flux1("block count")
    save_file(tensors, tmp_path / FILE, metadata or None)
    try:
        ours = plan_ours(real_models["klein 4B"], [(tmp_path / FILE, 1.0)], on_mismatch="warn")
    except ValueError as error:
        says(str(error), r"FLUX\.1")
    else:
        says("\n".join(ours.stack.warnings), r"FLUX\.1")


@pytest.mark.parametrize("trained", wrong_base.WIDTHS)
@pytest.mark.parametrize("loaded", wrong_base.WIDTHS)
def test_another_size(trained, loaded, real_models, tmp_path):
    save_file(wrong_base.other_size(trained), tmp_path / FILE)
    if trained == loaded:
        ours = plan_ours(real_models[loaded], [(tmp_path / FILE, 1.0)])
        assert not ours.stack.warnings
        return
    text = refusal(real_models[loaded], tmp_path / FILE)
    says(text, trained, str(wrong_base.WIDTHS[trained]), loaded, str(wrong_base.WIDTHS[loaded]))
    says(warned(real_models[loaded], tmp_path / FILE), trained)


@pytest.mark.parametrize(
    ("metadata", "loaded"),
    [
        ({"ss_base_model_version": "flux2_klein_9b"}, "klein 9B"),
        ({"ss_base_model_version": "flux_2_klein_9b"}, "klein 9B"),
        ({"modelspec.architecture": "Flux.2-klein-9b"}, "klein 9B"),
        ({"ss_base_model_version": "flux2"}, "dev"),
        ({"modelspec.architecture": "Flux.2/lora"}, "klein 4B"),
        ({"modelspec.architecture": "Flux.2-dev"}, "dev"),
    ],
)
def test_honest_metadata_is_no_reason_to_refuse(metadata, loaded, real_models, tmp_path):
    save_file(wrong_base.other_size(loaded), tmp_path / FILE, metadata)
    assert not plan_ours(real_models[loaded], [(tmp_path / FILE, 1.0)]).stack.warnings


@pytest.mark.parametrize("model_file", ["flux-2-klein-4b.safetensors", "FLUX.2-klein-base-4B.gguf"])
def test_a_lora_of_the_undistilled_base_is_applied_with_a_warning(
    model_file, real_models, tmp_path
):
    """klein base and klein distilled have the same shapes: only names tell them apart."""
    metadata = {"ss_base_model_version": "black-forest-labs/FLUX.2-klein-base-4B"}
    save_file(wrong_base.other_size("klein 4B"), tmp_path / FILE, metadata)
    ours = plan_ours(real_models["klein 4B"], [(tmp_path / FILE, 1.0)], model_file=model_file)
    assert steps(ours), "a warning, not a refusal"
    warnings = "\n".join(ours.stack.warnings)
    if "base" in model_file:
        assert not warnings
    else:
        says(warnings, "klein base", "distilled", model_file)


def test_the_slot_that_is_wrong_is_the_one_named(dev, tmp_path):
    base, model = dev
    good = single(named("bfl", "diffusion_model.")(base, torch.Generator().manual_seed(5)))
    first = good.write(tmp_path / "good")
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(ValueError, match="LoRA slot 2"):
        plan_ours(model, [(first, 1.0), (tmp_path / FILE, 1.0)])


def test_a_file_of_scale_zero_is_not_even_opened(dev, tmp_path):
    _, model = dev
    assert not steps(plan_ours(model, [(tmp_path / "absent.safetensors", 0.0)]))


def test_a_bad_config_beside_a_good_file_is_no_crash(dev, tmp_path):
    base, model = dev
    file = single(named("bfl", "base_model.model.")(base, torch.Generator().manual_seed(5)))
    for number, text in enumerate(
        ("", "{", "[]", "null", '{"lora_alpha": "x", "r": null}', "{" * 5000, '{"r": 1e999}')
    ):
        folder = tmp_path / str(number)
        path = file.write(folder)
        (folder / "adapter_config.json").write_text(text)
        assert steps(plan_ours(model, [(path, 1.0)]))

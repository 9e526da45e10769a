"""Every kind of FLUX.2 LoRA file changes every weight as its producer's own maths does.

In this process: a tiny model through ComfyUI's own loader, files as producers write them, weights
as ComfyUI's patcher makes them, merged and beside the weights; ``tests/host/test_lora_kinds.py``
does it through the node.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kinds.base import Base  # noqa: E402
from kinds.kind import Kind  # noqa: E402
from kinds.measure import (  # noqa: E402
    applied,
    apply_ours,
    changes,
    changes_beside,
    errors,
    listed_fits,
    load_model,
    write,
)
from kinds.table import all_kinds  # noqa: E402
from kinds.threads import one_thread  # noqa: E402, F401
from tiny_stacks import effect, error, forward  # noqa: E402

GEOMETRIES = ("dev", "klein")
KINDS = {kind.name: kind for kind in all_kinds()}


def named_by(expect: str) -> list[str]:
    return [name for name, kind in KINDS.items() if kind.expect == expect]


@pytest.fixture(scope="module", params=GEOMETRIES)
def geometry(request, comfy_inprocess):
    """(weights, MODEL) of one geometry, loaded once."""
    base = Base(request.param)
    return base, load_model(base)


def check(changed: dict[str, torch.Tensor], truth: dict[str, torch.Tensor], kind: Kind) -> None:
    found = errors(changed, truth)
    wrong = {key: error for key, error in found.items() if error > kind.tolerance}
    shown = ", ".join(f"{key} {error:.1e}" for key, error in sorted(wrong.items())[:3])
    assert not wrong, f"{len(wrong)} of {len(found)} weights are wrong: {shown}"


@pytest.mark.parametrize("name", named_by("exact"))
def test_exact(name, geometry, tmp_path):
    base, model = geometry
    built = KINDS[name].build(base)
    files = write(built, tmp_path)
    ours = apply_ours(model, files)
    check(changes(ours.model, base), built.truth, KINDS[name])
    assert all(listed_fits(base, path) for path, _ in files), "the picker says otherwise"
    beside = applied(model, ours.stack, "side path").model
    check(changes_beside(beside, base), built.truth, KINDS[name])
    assert not model.patches and not model.wrappers, "the incoming MODEL was changed"
    for lora in ours.stack.reports:
        assert lora.matched == lora.total, f"{lora.matched} of {lora.total}: {ours.words}"


@pytest.mark.parametrize("name", named_by("unsupported"))
def test_unsupported_parts_are_named_and_the_rest_is_exact(name, geometry, tmp_path):
    base, model = geometry
    kind = KINDS[name]
    built = kind.build(base)
    ours = apply_ours(model, write(built, tmp_path), on_mismatch="warn")
    check(changes(ours.model, base), built.truth, kind)
    for key in kind.unsupported:
        assert key in ours.words


@pytest.mark.parametrize("name", named_by("refused"))
def test_what_no_weight_change_can_be_is_refused(name, geometry, tmp_path):
    base, model = geometry
    kind = KINDS[name]
    files = write(kind.build(base), tmp_path)
    with pytest.raises(ValueError, match=kind.says) as caught:
        apply_ours(model, files)
    assert "LoRA slot 1" in str(caught.value)
    assert not all(listed_fits(base, path) for path, _ in files), "the picker says otherwise"


@pytest.mark.parametrize("name", ["dreambooth, every Linear", "ai-toolkit DoRA", "PEFT, OFT"])
def test_a_second_apply_leaves_the_first(name, geometry, tmp_path):
    """Clones share the base weights; nothing of a run may stay in them."""
    base, model = geometry
    kind = KINDS[name]
    built = kind.build(base)
    files = write(built, tmp_path)
    first, second = (apply_ours(model, files).model for _ in range(2))
    check(changes(second, base), built.truth, kind)
    check(changes(first, base), built.truth, kind)
    for key, weight in model.model_state_dict().items():
        if key in base.weights:
            assert torch.equal(weight, base.weights[key])


@pytest.mark.parametrize("first", ["merge", "side path"])
@pytest.mark.parametrize("second", ["merge", "side path"])
def test_five_loras_by_two_applies_in_series_are_their_dense_sum(first, second, geometry, tmp_path):
    """More than the three of one stack, by all that the host's forward shows of them."""
    base, model = geometry
    stacks = (
        ("ai-toolkit LoRA fp16", "dreambooth, every Linear", "musubi LoHa"),
        ("ai-toolkit LoKr low-rank", "musubi LoRA"),
    )
    truth: dict[str, torch.Tensor] = {}
    series = model
    for names, mode in zip(stacks, (first, second), strict=True):
        files = []
        for name in names:
            built = KINDS[name].build(base)
            files += write(built, tmp_path / name.replace(" ", "-"))
            for key, delta in built.truth.items():
                truth[key] = truth.get(key, 0) + delta
        series = apply_ours(series, files, mode).model
    dense = model.clone()
    taken = dense.add_patches({key: ("diff", (delta.float(),)) for key, delta in truth.items()})
    assert len(taken) == len(truth)
    plain = forward(model)
    found = error(effect(forward(series), plain), effect(forward(dense), plain))
    # With which the host takes the patches out of the weights that the other tests share.
    assert torch.equal(forward(model), plain)
    assert found < 1e-5


@pytest.mark.parametrize("scale", [0.05, 0.5, 4.0, -1.0])
@pytest.mark.parametrize(
    "name",
    [
        "ai-toolkit LoRA fp16",
        "musubi LoHa",
        "ai-toolkit LoKr low-rank",
        "ai-toolkit DoRA",
        "OneTrainer legacy oft, preset full",
    ],
)
def test_scale_multiplies_the_change(name, scale, geometry, tmp_path):
    """For DoRA and OFT too, as ComfyUI's own strength: from the base (0) to the training (1)."""
    base, model = geometry
    kind = KINDS[name]
    built = kind.build(base)
    ((path, _),) = write(built, tmp_path)
    truth = {key: scale * delta for key, delta in built.truth.items()}
    check(changes(apply_ours(model, [(path, scale)]).model, base), truth, kind)

"""Each adapter against its formula written out; half swaps; shapes; scales; NaN."""

import math

import pytest
import torch

from flux2_lora_edit.lora_loader.adapters import read_adapter, recognise
from flux2_lora_edit.lora_loader.adapters.base import (
    Additive,
    Given,
    NotFinite,
    Unfit,
    Unpaired,
    Unsupported,
)
from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.dora import Dora
from flux2_lora_edit.lora_loader.adapters.glora import GeneralizedLora
from flux2_lora_edit.lora_loader.adapters.ia3 import ChannelScale
from flux2_lora_edit.lora_loader.adapters.loha import Hadamard
from flux2_lora_edit.lora_loader.adapters.lokr import Kronecker
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.adapters.oft import BlockRotation, InputRotation

OUT, IN = 16, 12


def r(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + sum(n * 7**i for i, n in enumerate(shape)))
    return torch.randn(*shape, generator=g) * 0.3


ADDITIVE = [
    LowRank(r(OUT, 3), r(3, IN), 0.5),
    Dense(r(OUT, IN), 1.0),
    Kronecker((r(4, 3),), (r(4, 4),), 0.7),
    Kronecker((r(1, 3),), (r(16, 4),), 0.7),
    Kronecker((r(4, 2), r(2, 3)), (r(4, 2), r(2, 4)), 0.7),
    Hadamard(r(OUT, 2), r(2, IN), r(OUT, 2, seed=1), r(2, IN, seed=1), 0.5),
]
TRANSFORMS = [
    Dora(ADDITIVE[0], r(OUT, 1).abs() + 1),
    Dora(ADDITIVE[2], r(1, IN).abs() + 1),
    BlockRotation(r(4, 4, 4), None, 0.0),
    BlockRotation(r(1, 16, 16), r(OUT, 1) + 1, 1.0),
    BlockRotation(r(2, 4, 4, 4), r(OUT, 1) + 1, 0.0),
    InputRotation(r(3, 6), 1.0),
    InputRotation(r(1, 6), 2.0),
    GeneralizedLora(r(IN, 2), r(2, IN), r(OUT, 2), r(2, IN), 0.5),
    ChannelScale(r(OUT, 1)),
    ChannelScale(r(1, IN)),
]
W = r(OUT, IN, seed=5)


@pytest.mark.parametrize("adapter", ADDITIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adding_is_adding_the_dense_change(adapter, dtype):
    weight = W.to(dtype)
    expected = weight.float() + 0.8 * adapter.dense()
    adapter.add_to(weight, 0.8)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(weight.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("adapter", ADDITIVE)
def test_rolled_swaps_the_row_halves(adapter):
    torch.testing.assert_close(adapter.rolled().dense(), torch.roll(adapter.dense(), OUT // 2, 0))


@pytest.mark.parametrize("adapter", TRANSFORMS)
def test_rolled_transforms_the_swapped_weight(adapter):
    swapped = torch.roll(W, OUT // 2, 0)
    expected = torch.roll(adapter.trained(W), OUT // 2, 0)
    torch.testing.assert_close(adapter.rolled().trained(swapped), expected)


def test_a_gain_keeps_small_factors_in_float16():
    up, down = r(OUT, 2) * 1e-6, r(2, IN) * 1e3
    weight = torch.zeros(OUT, IN, dtype=torch.float16)
    LowRank(up, down, 1.0, gain=2.0**15).add_to(weight, 1.0)
    torch.testing.assert_close(weight.float(), up @ down, rtol=2e-3, atol=1e-6)


def test_dora_is_the_papers():
    moved = W + ADDITIVE[0].dense()
    for magnitude, axis in ((r(OUT, 1).abs(), 1), (r(1, IN).abs(), 0)):
        expected = magnitude * moved / moved.pow(2).sum(axis, keepdim=True).sqrt()
        torch.testing.assert_close(Dora(ADDITIVE[0], magnitude).trained(W), expected)


def test_rotations_keep_lengths():
    turned = BlockRotation(r(4, 4, 4), None, 0.0).trained(W)
    torch.testing.assert_close(turned.norm(dim=0), W.norm(dim=0))
    assert (turned - W).norm() > 0.1


def test_a_constraint_bounds_the_rotation():
    free = BlockRotation(r(4, 4, 4), None, 0.0).trained(W)
    bound = BlockRotation(r(4, 4, 4), None, 0.01).trained(W)
    assert (bound - W).norm() < 0.1 * (free - W).norm()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"down": (4, IN), "up": (OUT, 4)}, ("LoRA", OUT, IN, 4)),
        ({"down": (4, IN, 1, 1), "up": (OUT, 4, 1, 1)}, ("LoRA", OUT, IN, 4)),
        ({"down": (4, IN), "up": (OUT, 3), "mid": (3, 4)}, ("LoRA", OUT, IN, 4)),
        ({"down": (OUT, IN)}, ("full-rank LoRA", OUT, IN, None)),
        ({"diff": (OUT, IN)}, ("full difference", OUT, IN, None)),
        ({"lokr_w1": (4, 3), "lokr_w2": (4, 4)}, ("LoKr", 16, 12, None)),
        (
            {"lokr_w1": (4, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)},
            ("LoKr", 16, 12, 2),
        ),
        ({"oft_r": (3, 6)}, ("OFTv2", None, 12, None)),
        ({"oft_blocks": (4, 4, 4)}, ("OFT", 16, None, 4)),
        ({"oft_blocks": (2, 4, 4, 4)}, ("BOFT", 16, None, 4)),
    ],
)
def test_geometry(shapes, expected):
    algorithm, geometry = recognise(shapes)
    algorithm.check(geometry, (OUT, IN))
    assert (algorithm.name, *geometry) == expected


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"down": (4, IN)}, Unpaired),
        ({"up": (OUT, 4)}, Unpaired),
        ({"alpha": ()}, Unpaired),
        ({"magnitude": (OUT,)}, Unpaired),
        ({"hada_w1_a": (OUT, 2), "hada_w1_b": (2, IN)}, Unpaired),
        ({"lokr_w1": (4, 3)}, Unpaired),
        ({"lokr_w1": (4, 3), "lokr_w2_a": (4, 2)}, Unpaired),
        ({"down": (4, IN), "up": (OUT, 3)}, Unfit),
        ({"down": (0, IN), "up": (OUT, 0)}, Unfit),
        ({"down": (4,), "up": (OUT, 4)}, Unfit),
        ({"oft_r": (3, 7)}, Unfit),
        ({"oft_blocks": (4, 4, 3)}, Unfit),
        ({"down": (4, IN), "up": (OUT, 4), "set_weight": (1,)}, Unsupported),
        ({"hada_t1": (2, 2, 3, 3)}, Unsupported),
        ({"tlora_q": (2, IN), "alpha": ()}, Unsupported),
    ],
)
def test_no_adapter(shapes, error):
    with pytest.raises(error):
        algorithm, geometry = recognise(shapes)
        algorithm.check(geometry, (OUT, IN))


def read(tensors, shape=(OUT, IN), stem="x"):
    algorithm, geometry = recognise({role: tuple(t.shape) for role, t in tensors.items()})
    algorithm.check(geometry, shape)
    peaks = {role: t.abs().max().item() if t.numel() else 0.0 for role, t in tensors.items()}
    return read_adapter(algorithm, geometry.rank, Given(tensors, peaks, *shape, 1.0, stem))


LORA = {"down": r(4, IN), "up": r(OUT, 4)}


@pytest.mark.parametrize(
    "alpha", [torch.tensor(2.0), torch.tensor([2.0]), torch.tensor(2), torch.tensor(2).bfloat16()]
)
def test_alpha_over_rank(alpha):
    assert read(LORA | {"alpha": alpha}).scale == 0.5
    assert read(LORA).scale == 1.0


def test_oft_vectors_of_a_convolution_are_the_same_vectors():
    flat, deep = (read({"oft_r": r(3, 6).reshape(3, 6, *more)}).effect for more in ((), (1, 1)))
    assert torch.equal(flat.trained(W), deep.trained(W))


@pytest.mark.parametrize("more", [(0,), (2,), (1, 3)])
def test_a_magnitude_of_more_than_a_row_or_a_column_is_refused(more):
    for shape in ((OUT, 1), (1, IN)):
        with pytest.raises(Unfit, match="dora_scale"):
            read(LORA | {"dora_scale": torch.ones(*shape, *more)})
        assert isinstance(read(LORA | {"dora_scale": torch.ones(*shape, 1, 1)}).effect, Dora)


def test_a_complex_alpha_is_no_number():
    with pytest.raises(Unfit, match="alpha"):
        read(LORA | {"alpha": torch.tensor(2 + 1j)})


@pytest.mark.parametrize("alpha", [math.inf, 1e10, 3.0])
def test_full_lokr_ignores_alpha(alpha):
    lokr = {"lokr_w1": r(4, 3), "lokr_w2": r(4, 4), "alpha": torch.tensor(alpha)}
    assert read(lokr).scale == 1.0


@pytest.mark.parametrize(
    "parts",
    [
        LORA | {"alpha": torch.tensor(math.nan)},
        LORA | {"alpha": torch.tensor(math.inf)},
        LORA | {"up": torch.full((OUT, 4), math.nan)},
        LORA | {"magnitude": torch.full((OUT,), math.inf)},
        {"down": torch.full((4, IN), 1e30), "up": torch.full((OUT, 4), 1e30)},
    ],
)
def test_not_finite(parts):
    with pytest.raises(NotFinite):
        read(parts)


@pytest.mark.parametrize(
    "parts",
    [
        LORA | {"alpha": torch.ones(2)},
        LORA | {"magnitude": r(OUT + 1)},
        LORA | {"dora_scale": r(OUT + 1, 1)},
        LORA | {"up": torch.ones(OUT, 4, dtype=torch.int8)},
        {"oft_r": r(2, 6)},
        {"on_input": torch.tensor(0), "weight": r(IN)},
    ],
)
def test_unfit(parts):
    with pytest.raises(Unfit):
        read(parts)


@pytest.mark.parametrize(
    ("parts", "shape"),
    [
        ({"magnitude": r(OUT)}, (OUT, 1)),
        ({"dora_scale": r(OUT, 1)}, (OUT, 1)),
        ({"dora_scale": r(1, IN)}, (1, IN)),
        ({"dora_scale": r(IN)}, (1, IN)),
    ],
)
def test_the_axis_of_a_dora_magnitude(parts, shape):
    adapter = read(LORA | parts)
    assert adapter.name == "DoRA" and adapter.effect.magnitude.shape == shape


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (LORA, "DoRA"),
        ({"down": r(OUT, IN)}, "full-rank LoRA with DoRA"),
        ({"diff": r(OUT, IN)}, "full difference with DoRA"),
        ({"lokr_w1": r(4, 3), "lokr_w2": r(4, 4)}, "LoKr with DoRA"),
    ],
)
def test_the_name_of_what_has_a_magnitude(tensors, name):
    assert read(tensors | {"magnitude": r(OUT)}).name == name


def test_a_vector_of_a_square_weight_has_no_axis():
    square = {"down": r(4, OUT), "up": r(OUT, 4), "dora_scale": r(OUT)}
    with pytest.raises(Unfit, match="dora_scale"):
        read(square, (OUT, OUT))


def test_oft_constraints_of_lycoris_and_of_comfyui():
    parts = {"oft_blocks": r(4, 4, 4), "alpha": torch.tensor(0.25)}
    assert read(parts, stem="lycoris_x").effect.limit == 0.25 * OUT
    assert read(parts, stem="diffusion_model.x").effect.limit == 0.25


def test_every_additive_kind_is_covered():
    ours = [kind for kind in Additive.__subclasses__() if "lora_loader.adapters" in kind.__module__]
    assert {type(adapter) for adapter in ADDITIVE} == set(ours)

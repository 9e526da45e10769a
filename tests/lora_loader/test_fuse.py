"""Many adapters on one weight -> few passes over it, and the same sum."""

import pytest
import torch

from flux2_lora_edit.lora_loader.adapters.difference import Dense
from flux2_lora_edit.lora_loader.adapters.ia3 import ChannelScale
from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step, fuse

OUT, IN = 12, 8


def low_rank(rows, rank, scale=1.0, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed * 100 + rank + rows)
    up = torch.randn(rows, rank, generator=g).to(dtype)
    return LowRank(up, torch.randn(rank, IN, generator=g).to(dtype), scale)


def dense(steps):
    total = torch.zeros(OUT, IN)
    for step in steps:
        total[step.start : step.start + step.rows] += step.scale * step.effect.dense()
    return total


def split(third, rank, scale=1.0, seed=0):
    return Step(third * 4, 4, scale, low_rank(4, rank, seed=seed))


def fused(*steps):
    """The one weight's steps of a stack of LoRAs with one step each."""
    loras = [StackedLora(number, 1.0, (("w", step),)) for number, step in enumerate(steps)]
    return fuse(loras).get("w", ())


def test_plain_loras_become_one_step_with_the_same_sum():
    steps = [Step(0, OUT, scale, low_rank(OUT, rank, 0.3)) for rank, scale in ((2, 0.7), (3, -1))]
    found = fused(*steps)
    assert len(found) == 1 and found[0].effect.up.shape == (OUT, 5)
    torch.testing.assert_close(dense(found), dense(steps))


def test_split_and_whole_loras_share_three_row_slices():
    steps = [split(third, 2, 0.5) for third in range(3)] + [Step(0, OUT, 2.0, low_rank(OUT, 3))]
    found = fused(*steps)
    assert [(step.start, step.rows) for step in found] == [(0, 4), (4, 4), (8, 4)]
    torch.testing.assert_close(dense(found), dense(steps))


def test_rows_that_only_one_adapts_are_not_touched_by_the_other():
    steps = [split(1, 2), split(1, 3, seed=1)]
    found = fused(*steps)
    assert [(step.start, step.rows) for step in found] == [(4, 4)]
    torch.testing.assert_close(dense(found), dense(steps))


def test_scale_zero_vanishes():
    step = ("w", Step(0, OUT, 0.0, low_rank(OUT, 2)))
    other = ("w", Step(0, OUT, 1.0, low_rank(OUT, 2)))
    assert fuse([StackedLora("a", 1.0, (step,)), StackedLora("b", 0.0, (other,))]) == {}


def test_a_loras_scale_is_its_steps_too():
    step = Step(0, OUT, 0.5, low_rank(OUT, 2))
    (found,) = fuse([StackedLora("a", 0.5, (("w", step),))])["w"]
    assert found.effect.scale * found.scale == 0.25


def test_a_lone_lora_is_not_copied():
    effect = low_rank(OUT, 2)
    found = fused(Step(0, OUT, 0.5, effect))
    assert found[0].effect.down is effect.down
    assert found[0].effect.up.untyped_storage().data_ptr() == effect.up.untyped_storage().data_ptr()
    assert found[0].effect.scale * found[0].scale == 0.5


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_scales_fold_without_loss(scale):
    """bf16 factors: a power of two stays bf16, another scale is kept in float32."""
    steps = [Step(0, OUT, scale, low_rank(OUT, 2, dtype=torch.bfloat16, seed=s)) for s in (0, 1)]
    found = fused(*steps)
    down = found[0].effect.down
    assert down.dtype == (torch.float32 if scale == 0.3 else torch.bfloat16)
    assert found[0].effect.up.dtype == torch.bfloat16
    torch.testing.assert_close(dense(found), dense(steps), rtol=1e-6, atol=1e-6)


def test_mixed_types_meet_in_float32():
    steps = [
        Step(0, OUT, 1.0, low_rank(OUT, 2, dtype=dtype)) for dtype in (torch.bfloat16, torch.half)
    ]
    found = fused(*steps)
    assert found[0].effect.up.dtype == torch.float32
    torch.testing.assert_close(dense(found), dense(steps))


def test_what_depends_on_the_weight_keeps_its_place():
    scale = Step(0, OUT, 1.0, ChannelScale(torch.ones(OUT, 1)))
    before, after = Step(0, OUT, 1.0, low_rank(OUT, 2)), Step(0, OUT, 1.0, low_rank(OUT, 3))
    full = Step(0, OUT, 1.0, Dense(torch.ones(OUT, IN), 1.0))
    found = fused(before, full, scale, after)
    kinds = [type(step.effect).__name__ for step in found]
    assert kinds == ["LowRank", "Dense", "ChannelScale", "LowRank"]
    assert found[0].effect.up.shape[1] == 2 and found[3].effect.up.shape[1] == 3

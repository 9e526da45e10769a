"""A tint is undone to a part of a level, and colours that are right are left alone."""

import numpy as np
import pytest
from photos import jpeg, photo

from flux2_lora_edit.flux2.region.colour import Tint, find_tint

EVERYWHERE = np.ones((400, 592), bool)


def scene(name="coffee"):
    return photo(name)[:400, :592]


@pytest.mark.parametrize(
    ("gain", "offset"),
    [
        ((1.06, 1.06, 1.06), (0.02, 0.02, 0.02)),
        ((0.94, 1.0, 1.06), (0.03, 0.0, -0.02)),
        ((1.0, 1.0, 0.9), (0.0, 0.0, 0.05)),
        ((0.85, 0.85, 0.85), (-0.05, 0.05, 0.0)),
    ],
)
def test_a_known_tint_is_undone(gain, offset):
    crop = scene()
    edit = (crop * np.float32(gain) + np.float32(offset)).clip(0, 1)
    tint = find_tint(crop, edit, EVERYWHERE)
    back, whole = tint.undo(edit), (edit > 0.004) & (edit < 0.996)
    assert tint.refused == "" and tint.changes
    assert np.abs(back - crop)[whole].max() < 0.002


def test_what_has_changed_is_an_outlier():
    crop = scene()
    edit = crop * 1.06 + 0.02
    edit[100:300, 100:300] = (0.9, 0.1, 0.2)  # nobody said so
    tint = find_tint(crop, jpeg(edit, 90), EVERYWHERE)
    assert np.abs(tint.undo(crop * 1.06 + 0.02) - crop)[crop < 0.9].max() < 0.01


def test_colours_that_are_right_are_left_alone():
    crop = scene()
    assert find_tint(crop, crop, EVERYWHERE) == Tint()
    assert find_tint(crop, jpeg(crop, 60), EVERYWHERE) == Tint()
    soft = crop * 0.6 + 0.2
    noisy = soft + np.random.default_rng(0).normal(0, 0.04, crop.shape).astype(np.float32)
    assert find_tint(soft, noisy, EVERYWHERE) == Tint()
    assert not Tint().changes


def test_one_channel_alone():
    crop = scene()
    edit = crop.copy()
    edit[..., 2] = crop[..., 2] * 0.9 + 0.04
    tint = find_tint(crop, edit, EVERYWHERE)
    assert tint.gain[:2] == (1, 1) and tint.offset[:2] == (0, 0)
    assert tint.gain[2] == pytest.approx(1 / 0.9, abs=2e-3)
    assert tint.offset[2] == pytest.approx(-0.04 / 0.9, abs=2e-3)


def test_only_what_was_to_stay_counts():
    crop = scene()
    edit, usable = crop * 0.9, EVERYWHERE.copy()
    edit[:200], usable[:200] = crop[:200] * 1.1 + 0.05, False
    assert find_tint(crop, edit, usable).gain[1] == pytest.approx(1 / 0.9, abs=2e-3)


def test_a_single_colour_tells_an_offset_and_no_gain():
    crop = np.full((400, 592, 3), 0.4, np.float32)
    tint = find_tint(crop, crop + 0.03, EVERYWHERE)
    assert tint.gain == (1, 1, 1)
    assert tint.offset == pytest.approx((-0.03,) * 3, abs=1e-4)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda crop: crop * 0.75, "too far off (gain 1.3"),
        (lambda crop: crop * 1.3 - 0.1, "too far off (gain 0.7"),
        (lambda crop: crop * 0.85 + 0.12, "too far off (offset -0.1"),
        (lambda crop: crop * 0.95 - 0.13, "too far off (offset 0.1"),
    ],
)
def test_too_far_off_is_refused(edit, words):
    crop = scene()
    tint = find_tint(crop, edit(crop).clip(0, 1), EVERYWHERE)
    assert tint.refused.startswith(words)
    assert not tint.changes


@pytest.mark.parametrize(("side", "refused"), [(64, ""), (63, "only 4032 pixels were to stay")])
def test_too_few_pixels_are_refused(side, refused):
    crop, usable = scene(), np.zeros((400, 592), bool)
    usable[100 : 116 + side, 100 : 164 + 16] = True  # 8 pixels on each side do not count
    assert find_tint(crop, crop * 0.95, usable).refused.startswith(refused)


def test_what_a_tint_has_made_white_is_out_of_its_reach():
    tint = Tint((0.9, 1.0, 0.9), (0.0, 0.02, 0.05))
    seen = tint.reach(np.float32([[[1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]]]))
    assert seen[0, 0] == pytest.approx([0.9, 1, 0.95])
    assert seen[0, 1] == pytest.approx([0, 0.02, 0.05])
    assert seen[0, 2] == pytest.approx([0.5, 0.5, 0.5])

"""Drift is measured to a tenth of a pixel, and what proves none is refused."""

import re

import numpy as np
import pytest
from photos import drifted, jpeg, photo

from flux2_lora_edit.flux2.region.alignment import Alignment, align

SIZE = (416, 416)


def middle(pixels, width=416, height=416):
    y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[y : y + height, x : x + width]


def changed_edit(name, dx, dy, zoom=1.0):
    """(crop, edit, usable): another middle, and all of it drifted, tinted and softened a little."""
    pixels = photo(name)
    other = pixels.copy()
    height, width = other.shape[:2]
    box = np.s_[height // 2 - 70 : height // 2 + 60, width // 2 - 80 : width // 2 + 70]
    other[box] = other[box][::-1, ::-1] * 0.4 + 0.3
    edit = jpeg(middle(drifted(other, dx, dy, zoom)) * 0.94 + 0.02, 80)
    usable = np.ones(SIZE, bool)
    usable[208 - 70 : 208 + 60, 208 - 80 : 208 + 70] = False
    return middle(pixels), edit, usable


@pytest.mark.parametrize("name", ["astronaut", "camera", "grass", "moon"])
@pytest.mark.parametrize(
    ("dx", "dy", "zoom"),
    [
        (0, 0, 1), (0.5, -0.25, 1), (-3.3, 7.7, 1), (21.6, -14.2, 1), (32, 0, 1), (-32, -31.5, 1),
        (0, 0, 1.03), (0, 0, 0.97), (-4.5, 2.25, 1.015), (11.1, 12.2, 0.985), (1, 1, 1.005),
    ],
)  # fmt: skip
def test_a_known_drift_is_found(name, dx, dy, zoom):
    found = align(*changed_edit(name, dx, dy, zoom))
    assert found.refused == ""
    stretch = abs(found.zoom - zoom) * 208
    assert abs(found.dx - dx) + stretch < 0.1
    assert abs(found.dy - dy) + stretch < 0.1
    assert found.alike > 0.85
    assert found.moves(SIZE) == (max(abs(dx), abs(dy), abs(zoom - 1) * 208) > 0.25)


def test_a_wide_canvas_with_its_own_middle():
    pixels = photo("coffee")
    crop = middle(pixels, 480, 320)
    found = align(
        crop, middle(drifted(pixels, -6.25, 9.5, 1.02), 480, 320), np.ones((320, 480)) > 0
    )
    assert found.refused == ""
    assert (found.dx, found.dy) == pytest.approx((-6.25, 9.5), abs=0.05)
    assert found.zoom == pytest.approx(1.02, abs=2e-4)


@pytest.mark.parametrize(
    ("size", "dx", "dy", "zoom"),
    [((1024, 768), 17.3, -8.6, 0.99), ((1280, 1280), -28, 30, 0.97)],
)
def test_a_large_canvas_is_measured_as_exactly(size, dx, dy, zoom):
    """Its corners move furthest: by 19 pixels more, from a zoom of 3 %."""
    pixels, (width, height) = photo("retina"), size
    crop = middle(pixels, width, height)
    edit = jpeg(middle(drifted(pixels, dx, dy, zoom), width, height), 85)
    found = align(crop, edit, np.ones((height, width), bool))
    assert found.refused == ""
    assert abs(found.dx - dx) + abs(found.zoom - zoom) * width / 2 < 0.1
    assert abs(found.dy - dy) + abs(found.zoom - zoom) * height / 2 < 0.1


def stripes(period):
    x = np.arange(416)
    wave = 0.5 + 0.3 * np.sin(2 * np.pi * x / period)
    return np.repeat((wave[None] * wave[:, None])[..., None], 3, axis=2).astype(np.float32)


@pytest.mark.parametrize(
    ("crop", "edit", "words"),
    [
        ("astronaut", "camera", r"the surroundings no longer match \(0.\d\d\)"),
        ("astronaut", lambda a: a[:, ::-1], "the surroundings no longer match"),
        ("astronaut", lambda a: a[::-1], "the surroundings no longer match"),
        ("grass", lambda a: np.rot90(a).copy(), "the surroundings no longer match"),
        ("astronaut", lambda a: 1 - a, "the surroundings no longer match"),
        (stripes(24), lambda a: np.roll(a, 9, 1), "the surroundings repeat themselves"),
        (
            stripes(52),
            lambda a: np.roll(a, (-14, 19), (0, 1)),
            "the surroundings repeat themselves",
        ),
        (np.full((416, 416, 3), 0.5, np.float32), lambda a: a, "the surroundings are flat"),
    ],
)
def test_what_proves_nothing_is_refused(crop, edit, words):
    crop = middle(photo(crop)) if isinstance(crop, str) else crop
    edit = middle(photo(edit)) if isinstance(edit, str) else edit(crop)
    found = align(crop, edit, np.ones(SIZE, bool))
    assert re.match(words, found.refused)
    assert not found.moves(SIZE)


def test_two_views_of_a_thing_are_not_a_drift():
    import skimage
    from PIL import Image

    folder = f"{skimage.__path__[0]}/data/motorcycle_"
    views = (Image.open(f"{folder}{side}.png").convert("RGB") for side in ("left", "right"))
    left, right = (middle(np.asarray(view).astype(np.float32) / 255) for view in views)
    assert "no longer match" in align(left, right, np.ones(SIZE, bool)).refused


@pytest.mark.parametrize(
    ("dx", "zoom", "words"),
    [(35, 1, "moved by more than 32 px"), (0, 1.045, "zoomed by more than 3%"),
     (0, 0.96, "zoomed by more than 3%")],
)  # fmt: skip
def test_too_far_is_refused(dx, zoom, words):
    pixels = photo("astronaut")
    found = align(middle(pixels), middle(drifted(pixels, dx, 0, zoom)), np.ones(SIZE, bool))
    assert words in found.refused or "no longer match" in found.refused


def test_too_little_to_go_by_is_refused():
    crop, usable = middle(photo("astronaut")), np.zeros(SIZE, bool)
    usable[:36] = True
    assert align(crop, crop, usable).refused == "only 4.6% of it was to stay as it is"


def test_only_what_was_to_stay_counts():
    """The middle, most of it, goes the other way, and is not asked."""
    pixels = photo("astronaut")
    edit, inner = middle(drifted(pixels, 6, 3)), middle(drifted(pixels, -9, -7))
    usable = np.ones(SIZE, bool)
    usable[40:376, 40:376] = False
    edit[40:376, 40:376] = inner[40:376, 40:376]
    found = align(middle(pixels), edit, usable)
    assert (found.dx, found.dy) == pytest.approx((6, 3), abs=0.1)


def test_where_a_box_is_found():
    moved = Alignment(3, -2, 1.5)
    assert moved.found((0, 0, 100, 60), (100, 60)) == (-22, -17, 128, 73)
    inside = moved.inside((100, 60))
    # The first pixel in it: 50 + 1.5 (x - 50) + 3 > 0, so x > 14.67; rows: 30 + 1.5 (y - 30) > 2.
    assert np.flatnonzero(inside[30]).tolist() == list(range(15, 81))
    assert np.flatnonzero(inside[:, 50]).tolist() == list(range(11, 51))


@pytest.mark.parametrize(("dx", "moves"), [(0.2, False), (-0.2, False), (0.3, True), (-0.3, True)])
def test_less_than_a_quarter_pixel_is_left(dx, moves):
    assert Alignment(dx=dx).moves((100, 60)) == moves
    assert Alignment(zoom=1 + dx / 50).moves((100, 60)) == moves
    assert not Alignment(dx=dx, refused="no").moves((100, 60))

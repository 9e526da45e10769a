"""The local examples on any host: every node is there, and each does its edit with the toy."""

import functools
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.client import Client

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from tiny_names import FOLDER, HOLE, with_tiny_models, write_painted  # noqa: E402  (as above)

pytestmark = pytest.mark.host
# By what stands behind the number in the file's name.
LOCAL = {
    path.stem.split(" ", 3)[3]: prompt
    for path in sorted((ROOT / "example_workflows" / "api").glob("*.json"))
    if "Flux2EditRunComfy" not in str(prompt := json.loads(path.read_text("utf-8")))
}


@pytest.fixture(scope="module")
def small_pictures(base):
    """The names that the examples load, small: every token costs time on a CPU."""
    photo = Image.open(base / "input" / "astronaut.png").convert("RGB")
    sizes = {"example.png": (96, 96), "small-1.png": (96, 96)}
    sizes |= {f"{FOLDER}/one.png": (96, 96), f"{FOLDER}/two.png": (144, 96)}
    for name, size in sizes.items():
        path = base / "input" / name
        path.parent.mkdir(exist_ok=True)
        photo.resize(size).save(path)
    write_painted(base / "input")


@pytest.fixture(scope="module")
def saved(server, small_pictures, host_version, full_vae):
    """The pictures that an example saves, as whole numbers; each runs once.

    What comes behind its name changes its prompt.
    """
    old = host_version < (0, 24)
    with Client(server.url) as client:
        known = set(client.get("/object_info"))

        @functools.cache
        def run(stem, *changes):
            kinds = {entry["class_type"] for entry in LOCAL[stem].values()}
            if missing := kinds - known:
                pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
            prompt = with_tiny_models(LOCAL[stem], full_vae if old else "")
            for change in changes:
                change(prompt)
            (save,) = [node for node, entry in prompt.items() if entry["class_type"] == "SaveImage"]
            images = client.run(prompt).check().images(save)
            opened = [Image.open(BytesIO(client.view(image))).convert("RGB") for image in images]
            return [np.asarray(picture, dtype=int) for picture in opened]

        yield run


def inputs_of(prompt, kind):
    (entry,) = [entry for entry in prompt.values() if entry["class_type"] == kind]
    return entry["inputs"]


def without(*slots):
    """Those LoRAs switched off."""

    def change(prompt):
        off = {f"lora_{slot}.enabled": False for slot in slots}
        inputs_of(prompt, "Flux2EditLoraStack").update(off)

    return change


def stopped(prompt):
    """Before the end of the noise: a toy's picture is else what its last step makes of it alone."""
    prompt["stop"] = {"class_type": "ManualSigmas", "inputs": {"sigmas": "1, 0.5, 0.25"}}
    inputs_of(prompt, "Flux2EditSampler")["sigmas"] = ["stop", 0]


@pytest.mark.parametrize("stem", LOCAL)
def test_an_example_runs(stem, saved):
    assert all(np.ptp(picture) for picture in saved(stem))


REGIONS = [stem for stem in LOCAL if "a region" in stem or "Remove" in stem]


@pytest.mark.parametrize("stem", REGIONS)
def test_a_region_changes_and_the_rest_does_not(stem, saved, base):
    """The edit fades out over 16 pixels; further away nothing may be another."""
    (after,) = saved(stem)
    before = np.asarray(Image.open(base / "input" / "small-1.png").convert("RGB"), dtype=int)
    changed = (after != before).any(axis=2)
    left, top, right, bottom = HOLE
    assert changed[top:bottom, left:right].mean() > 0.9
    changed[top - 16 : bottom + 16, left - 16 : right + 16] = False
    assert not changed.any()


def test_outpainting_adds_on_both_sides(saved, base):
    (after,) = saved("Outpaint - flux2-klein")
    before = np.asarray(Image.open(base / "input" / "small-1.png").convert("RGB"), dtype=int)
    assert after.shape == (96, 256 + 96 + 256, 3)
    inner = np.s_[:, 16:-16]
    assert np.array_equal(after[:, 256:-256][inner], before[inner])
    assert after[:, :256].std() > 1 and after[:, -256:].std() > 1


def likeness(picture, base):
    """Correlation with the reference's luma."""
    photo = Image.open(base / "input" / "example.png").convert("L")
    size = picture.shape[1::-1]
    pair = picture.mean(2).ravel(), np.asarray(photo.resize(size), dtype=float).ravel()
    return float(np.corrcoef(*pair)[0, 1])


@pytest.mark.parametrize("stem", [stem for stem in LOCAL if "Edit" in stem and "tiles" not in stem])
def test_an_example_of_an_edit_shows_its_picture(stem, saved, host_version, base):
    if host_version < (0, 24):
        pytest.skip("this ComfyUI has no taef2")
    assert all(likeness(picture, base) > 0.6 for picture in saved(stem))


def test_each_picture_of_a_folder_is_edited_at_its_own_size(saved):
    pictures = saved("Edit a folder of pictures - flux2-klein")
    assert sorted(picture.shape for picture in pictures) == [(96, 96, 3), (96, 144, 3)]


def test_the_second_pass_doubles_the_picture(saved):
    (picture,) = saved("Edit and enlarge, decoded in tiles - flux2-klein")
    assert picture.shape == (192, 192, 3)


def cells_of(grid):
    """Two by two pictures of 96 x 96 pixels, 8 apart, in reading order."""
    assert grid.shape == (96 + 8 + 96, 96 + 8 + 96, 3)
    return [grid[y : y + 96, x : x + 96] for y in (0, 104) for x in (0, 104)]


def apart(one, other):
    return np.abs(one - other).mean()


def test_a_list_of_scales_gives_a_grid_in_reading_order(saved):
    first, *others = cells_of(
        *saved("Compare LoRA scales - flux2-klein")
    )  # the first without the LoRA
    effects = [apart(other, first) for other in others]
    assert 0 < effects[0] < effects[1] < effects[2]


def test_four_scales_in_one_batch_differ_in_nothing_else(saved):
    stem = "Compare LoRA scales in one run - flux2-klein"
    plain = cells_of(*saved(stem, stopped, without(1)))
    assert all(np.array_equal(plain[0], other) for other in plain[1:])  # one noise for all
    cells = cells_of(*saved(stem, stopped))
    assert np.array_equal(cells[0], plain[0])
    half, full, more = (apart(cell, plain[0]) for cell in cells[1:])
    assert 0.35 < half / full < 0.65 and more > 1.15 * full > 1


def test_each_of_two_loras_acts_in_its_own_half(saved, host_version):
    if host_version < (0, 24):
        pytest.skip("this ComfyUI has no taef2, and another VAE mixes the halves")
    stem = "Two LoRAs, two regions - flux2-klein"
    left, right = np.s_[:, :48], np.s_[:, 48:]
    (plain,), (first,), (both,) = (saved(stem, without(1, 2)), saved(stem, without(2)), saved(stem))
    assert apart(first[left], plain[left]) > 100 * apart(first[right], plain[right])
    assert apart(both[right], first[right]) > 100 * apart(both[left], first[left])
    for half in (left, right):
        assert apart(both[half], plain[half]) > 5


def test_a_lora_that_fades_out_has_acted_and_is_gone(saved):
    stem = "Style LoRA that fades out - flux2-klein"

    def throughout(prompt):
        inputs_of(prompt, "Flux2EditLoraSchedule")["schedule"] = "0:1"

    (plain,), (faded,), (full,) = (
        saved(stem, stopped, change) for change in (without(1), lambda _: None, throughout)
    )
    way = full - plain
    share = ((faded - plain) * way).sum() / (way**2).sum()
    assert np.abs(way).mean() > 1 and 0.15 < share < 0.6  # the first step of two
    # At its last step the LoRA is out, and the toy's picture without it.
    (ended,), (never,) = saved(stem), saved(stem, without(1))
    assert apart(ended, never) < 0.02

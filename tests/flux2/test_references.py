"""The pixel rule against PIL used directly, with the authors' figures written out."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from flux2_lora_edit.flux2.references import (
    InputError,
    ReferenceSize,
    gap_notice,
    plan_reference,
    plan_references,
    prepare_reference,
    token_count,
)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with detail at every scale, so that any shift or other filter shows."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)


def by_hand(image: Image.Image, cap: int | None) -> Image.Image:
    """Shrink with LANCZOS to ``cap`` pixels, centre-crop to 16; PIL only."""
    if cap and image.width * image.height > cap:
        factor = math.sqrt(cap / (image.width * image.height))
        image = image.resize(
            (int(image.width * factor), int(image.height * factor)), Image.Resampling.LANCZOS
        )
    width, height = image.width - image.width % 16, image.height - image.height % 16
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@pytest.mark.parametrize(
    ("size", "rule", "several", "cap"),
    [
        ((148, 100), "flux2", False, 2024**2),
        ((1000, 750), "flux2", False, 2024**2),
        ((1000, 750), "flux2", True, 1024**2),
        ((1500, 1100), "flux2", True, 1024**2),
        ((2300, 2100), "flux2", False, 2024**2),
        ((2300, 2100), "flux2", True, 1024**2),
        ((2024, 2024), "flux2", False, 2024**2),
        ((2025, 2024), "flux2", False, 2024**2),
        ((1024, 1025), "1 megapixel each", False, 1024**2),
        ((2300, 2100), "1 megapixel each", False, 1024**2),
        ((2300, 2100), "as is", True, None),
        ((64, 512), "flux2", False, 2024**2),
        ((79, 65), "flux2", True, 1024**2),
    ],
)
def test_prepared_pixels_equal_pil(size, rule, several, cap):
    image = picture(*size)
    plan = plan_reference(*size, ReferenceSize(rule), several)
    prepared = prepare_reference(as_tensor(image), plan)
    expected = by_hand(image, cap)
    assert plan.size == expected.size
    assert torch.equal(prepared, as_tensor(expected))


def test_nothing_is_ever_enlarged():
    for rule in ReferenceSize:
        assert plan_reference(100, 80, rule).size == (96, 80)


@pytest.mark.parametrize("size", [(63, 200), (200, 63), (16, 16)])
def test_too_small_is_refused(size):
    with pytest.raises(InputError, match="at least 64 px"):
        plan_reference(*size)


@pytest.mark.parametrize(
    ("size", "good"), [((512, 64), True), ((513, 64), False), ((64, 513), False)]
)
def test_aspect_ratio_limit(size, good):
    if good:
        plan_reference(*size)
    else:
        with pytest.raises(InputError, match="8:1"):
            plan_reference(*size)


def test_grey_is_repeated_and_alpha_dropped():
    plan = plan_reference(64, 64)
    grey = torch.rand(64, 64, 1)
    assert torch.equal(prepare_reference(grey, plan), grey.expand(64, 64, 3))
    rgba = torch.rand(64, 64, 4)
    assert torch.equal(prepare_reference(rgba, plan), rgba[..., :3])


def test_out_of_range_pixels_are_clamped_not_wrapped():
    image = torch.full((3000, 3000, 3), 1.2)
    image[:, :1500] = -0.2
    prepared = prepare_reference(image, plan_reference(3000, 3000))
    assert prepared.max() == 1 and prepared.min() == 0


def test_tokens_and_words():
    assert token_count(1024, 1024) == 4096
    plan = plan_reference(1000, 750)
    assert token_count(*plan.size) == (992 // 16) * (736 // 16)
    assert plan.describe() == "1000x750 -> cropped to 992x736, 2852 tokens"
    assert plan_reference(1024, 1024).describe() == "1024x1024 -> unchanged, 4096 tokens"
    assert plan_reference(3000, 3000).describe() == (
        "3000x3000 -> shrunk to 2024x2024, cropped to 2016x2016, 15876 tokens"
    )


def test_one_cap_for_one_and_another_for_several():
    picture_1, picture_2 = torch.rand(1, 1300, 1300, 3), torch.rand(1, 64, 64, 1)
    one = plan_references({"image_2": picture_1}, ReferenceSize.FLUX2)
    two = plan_references({"image_1": picture_1, "image_3": picture_2}, ReferenceSize.FLUX2)
    assert one["image_2"].size == (1296, 1296)
    assert two["image_1"].size == (1024, 1024) and list(two) == ["image_1", "image_3"]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (torch.rand(1, 64, 63, 3), "^image_2 is 63x64; .*at least 64 px"),
        (torch.rand(2, 64, 64, 3), "^image_2 carries a batch of 2 images.*image_1 to image_3"),
        (torch.rand(64, 64, 3), "^image_2 is no picture"),
        (torch.full((1, 64, 64, 3), float("nan")), "^image_2 has NaN"),
    ],
)
def test_what_is_no_reference_names_its_input(picture, words):
    with pytest.raises(InputError, match=words):
        plan_references({"image_2": picture}, ReferenceSize.FLUX2)


@pytest.mark.parametrize(
    ("connected", "notice"),
    [
        ([], ""),
        (["image_1", "image_2"], ""),
        (["image_2"], 'image_1 is empty, so image_2 is "image 1" to the model. Connect from'),
        (
            ["image_1", "image_3"],
            'image_2 is empty, so image_3 is "image 2" to the model. Connect from',
        ),
        (["image_1", "image_1", "image_3"], ""),  # a batch of two
        (["image_2", "image_2", "image_3"], 'image_1 is empty, so image_2 is "image 1" to the mo'),
        (["image_3"], 'image_1, image_2 is empty, so image_3 is "image 1" to the model.'),
    ],
)
def test_a_gap_is_said(connected, notice):
    assert gap_notice(connected).startswith(notice)
    assert bool(gap_notice(connected)) == bool(notice)

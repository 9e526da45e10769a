import pytest

from flux2_lora_edit.flux2.image_size import CHOICES, PRESETS, resolve
from flux2_lora_edit.flux2.references import InputError, ReferenceSize, plan_reference, snap


@pytest.mark.parametrize(
    ("choice", "swap", "expected"),
    [
        ("square_hd", False, (1024, 1024)),
        ("square", False, (512, 512)),
        ("portrait_4_3", False, (768, 1024)),
        ("portrait_16_9", False, (576, 1024)),
        ("landscape_4_3", False, (1024, 768)),
        ("landscape_16_9", False, (1024, 576)),
        ("portrait_16_9", True, (1024, 576)),
        ("landscape_4_3", True, (768, 1024)),
    ],
)
def test_presets_are_the_hosted_apis(choice, swap, expected):
    size = resolve(choice, 999, 999, swap, None)
    assert (size.width, size.height) == expected


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (512, 2048, (512, 2048)),
        (527, 513, (512, 512)),
        (1000, 750, (992, 736)),
        (2047, 1023, (2032, 1008)),
        (64, 77, (64, 64)),
        (5712, 704, (5712, 704)),
    ],
)
def test_custom_is_cut_down_to_sixteen(width, height, expected):
    size = resolve("custom", width, height, False, None)
    assert (size.width, size.height) == expected
    assert size.requested == (width, height)


@pytest.mark.parametrize(
    ("width", "height", "name"), [(63, 1024, "width"), (1024, 16385, "height"), (-1, 512, "width")]
)
def test_custom_out_of_range_names_the_input(width, height, name):
    with pytest.raises(InputError, match=rf"^{name} is .*64-16384"):
        resolve("custom", width, height, False, None)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((148, 100), (144, 96)),
        ((1000, 750), (992, 736)),
        ((1024, 1024), (1024, 1024)),
        ((4096, 2048), (2848, 1424)),
        ((3000, 3000), (2016, 2016)),
    ],
)
def test_match_image_keeps_the_references_grid(image, expected):
    size = resolve("match image", 512, 512, False, image)
    assert (size.width, size.height) == expected
    aspect_in, aspect_out = image[0] / image[1], size.width / size.height
    # Cropping at most 15 px a side is all that may change the aspect ratio.
    assert abs(aspect_out / aspect_in - 1) < 16 / min(expected)


@pytest.mark.parametrize(
    ("choice", "image", "megapixels", "expected"),
    [
        ("match image", (4000, 3000), 0, (2336, 1744)),
        ("match image", (4000, 3000), 1, (1168, 880)),
        ("match image", (4000, 3000), 2, (1664, 1248)),
        ("match image", (4000, 3000), 16, (2336, 1744)),
        ("match image", (800, 600), 1, (800, 592)),
        ("match image", (1030, 1030), 1, (1024, 1024)),
        ("match image", (8000, 1000), 0.01, (288, 32)),
        ("square_hd", None, 1, (1024, 1024)),
        ("landscape_16_9", None, 0.25, (1024, 576)),
        ("custom", None, 1, (2048, 1024)),
        ("match image", (1000, 8000), 0.0005, (16, 64)),
    ],
)
def test_megapixels_shrinks_in_shape_and_never_enlarges(choice, image, megapixels, expected):
    size = resolve(choice, 2048, 1024, False, image, megapixels)
    assert (size.width, size.height) == expected
    whole = resolve(choice, 2048, 1024, False, image)
    shrunk = size[1:3] != whole[1:3]
    assert size.requested == whole.requested
    assert (f"at most {megapixels:g} MP" in size.describe()) == shrunk
    assert not shrunk or size.width * size.height <= max(megapixels * 1024**2, 16 * 64)


def test_a_megapixel_is_the_grid_of_a_reference_of_one_megapixel():
    for image in ((4000, 3000), (3024, 4032), (6000, 1000), (1025, 1025)):
        size = resolve("match image", 512, 512, False, image, 1.0)
        assert size[1:3] == plan_reference(*image, ReferenceSize.ONE_MEGAPIXEL).size


@pytest.mark.parametrize("megapixels", [-0.1, 16.1, float("nan"), float("inf")])
def test_megapixels_out_of_range(megapixels):
    with pytest.raises(InputError, match=r"^megapixels is .*; it takes 0 to 16\."):
        resolve("match image", 512, 512, False, (640, 640), megapixels)


@pytest.mark.parametrize("megapixels", [0.0, 0.1])
def test_swap_applies_to_every_choice(megapixels):
    for choice in CHOICES:
        plain = resolve(choice, 640, 960, False, (640, 960), megapixels)
        swapped = resolve(choice, 640, 960, True, (640, 960), megapixels)
        assert plain.requested == swapped.requested[::-1] and plain.limit == swapped.limit
        assert (plain.width, plain.height) == (swapped.height, swapped.width)


def test_match_image_without_an_image_names_it():
    with pytest.raises(InputError, match="image is not connected"):
        resolve("match image", 1024, 1024, False, None)


def test_match_image_with_a_bad_image_names_it():
    with pytest.raises(InputError, match=r"^image is 40x100; .*64 px"):
        resolve("match image", 1024, 1024, False, (40, 100))


def test_an_unused_image_is_said():
    assert (
        "image is connected but not used"
        in resolve("square", 1024, 1024, False, (640, 640)).describe()
    )


def test_unknown_choice_lists_the_known_ones():
    with pytest.raises(InputError, match="square_hd.*match image"):
        resolve("huge", 1024, 1024, False, None)


def test_describe_says_requested_and_effective():
    assert resolve("custom", 1000, 750, False, None).describe() == (
        "992x736 (from 1000x750), 2852 tokens"
    )
    assert resolve("match image", 1, 1, True, (4000, 3000), 1.0).describe() == (
        "880x1168 (from 3000x4000, at most 1 MP), 4015 tokens"
    )
    assert resolve("square", 1, 1, False, None).describe() == "512x512, 1024 tokens"


def test_snap_never_rounds_up():
    for pixels in range(16, 200):
        assert snap(pixels) % 16 == 0 and 0 <= pixels - snap(pixels) < 16


def test_presets_are_multiples_of_sixteen():
    assert all(side % 16 == 0 for size in PRESETS.values() for side in size)

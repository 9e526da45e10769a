"""Where a region lies, how it becomes a canvas, and what of the edit is taken."""

import itertools

import numpy as np
import pytest
import torch

from flux2_lora_edit.flux2.references import InputError, ReferenceSize, plan_reference
from flux2_lora_edit.flux2.region.crop import make_region, noise_mask, resample
from flux2_lora_edit.flux2.region.lattice import MAX_TOKENS, Settings, plan_lattice


def picture(width, height, channels=3, count=1, seed=0):
    return torch.rand(count, height, width, channels, generator=torch.manual_seed(seed))


def painted(width, height, *box):
    """A mask of ``width`` x ``height``, painted in ``box`` (left, top, right, bottom)."""
    mask = torch.zeros(1, height, width)
    left, top, right, bottom = box
    mask[:, top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize(
    ("box", "size", "settings", "expected"),
    [  # expected: left, top, q, across, down
        # One token a 16 pixels: a copy.
        ((0, 0, 1024, 1024), (1024, 1024), Settings(), (0, 0, 16, 64, 64)),
        # A small box is enlarged as far as allowed.
        ((100, 100, 356, 228), (2000, 2000), Settings(), (100, 100, 8, 32, 16)),
        ((100, 100, 356, 228), (2000, 2000), Settings(max_upscale=4), (100, 100, 4, 64, 32)),
        ((100, 100, 356, 228), (2000, 2000), Settings(max_upscale=1), (100, 100, 16, 16, 8)),
        ((100, 100, 356, 228), (2000, 2000), Settings(max_upscale=3), (99, 98, 6, 43, 22)),
        # A large one shrinks to the megapixels: 4000 / 55 = 73 by 55 of them are 4015 tokens.
        ((0, 0, 4000, 3000), (4000, 3000), Settings(), (0, 0, 55, 73, 55)),
        ((0, 0, 4000, 3000), (4000, 3000), Settings(megapixels=0.25), (0, 0, 112, 36, 27)),
        # 960 / 15 squared are 4096 tokens: where that would do, 16 is taken.
        ((0, 0, 960, 960), (960, 960), Settings(), (0, 0, 16, 60, 60)),
        # Whole tokens grow the box evenly, and stay inside of the picture.
        ((101, 100, 352, 227), (2000, 2000), Settings(), (99, 100, 8, 32, 16)),
        ((0, 0, 251, 127), (2000, 2000), Settings(), (0, 0, 8, 32, 16)),
        ((1749, 1873, 2000, 2000), (2000, 2000), Settings(), (1744, 1872, 8, 32, 16)),
        # A picture without whole tokens: they hang over its right and lower edge.
        ((0, 0, 251, 127), (251, 127), Settings(), (0, 0, 8, 32, 16)),
        # At least 64 pixels a side, at most 8:1.
        ((0, 0, 1, 1), (1, 1), Settings(), (0, 0, 8, 4, 4)),
        ((0, 50, 1000, 51), (1000, 101), Settings(), (0, 0, 8, 125, 16)),
    ],
)
def test_the_lattice(box, size, settings, expected):
    assert plan_lattice(box, size, settings) == expected


@pytest.mark.parametrize("megapixels", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("max_upscale", [1.0, 1.5, 2.0, 4.0])
def test_a_canvas_is_one_that_flux2_takes_as_it_is(megapixels, max_upscale):
    settings = Settings(megapixels=megapixels, max_upscale=max_upscale)
    sides = (1, 15, 63, 64, 500, 1023, 1081, 4000)
    for width, height in itertools.product(sides, sides):
        lattice = plan_lattice((0, 0, width, height), (width, height), settings)
        canvas = lattice.canvas
        assert [side % 16 for side in canvas] == [0, 0]
        assert plan_reference(*canvas).size == canvas
        assert lattice.across * lattice.down <= min(4096 * megapixels, MAX_TOKENS)
        assert lattice.q >= 16 / max_upscale and lattice.q != 15
        left, top, right, bottom = lattice.box
        assert (left, top) == (0, 0) and right >= width and bottom >= height
        if megapixels <= 1:  # one of several references too
            assert plan_reference(*canvas, ReferenceSize.FLUX2, True).size == canvas


def test_a_finer_lattice_would_be_too_large():
    for width, height in itertools.product((700, 1500, 2500), (900, 1100, 3100)):
        lattice = plan_lattice((0, 0, width, height), (width, height))
        finer = lattice.q - (2 if lattice.q == 16 else 1)
        assert -(-width // finer) * -(-height // finer) > 4096


def test_alpha_falls_from_the_painted_to_the_feather():
    region = make_region(
        picture(200, 200), painted(200, 200, 90, 90, 110, 110), Settings(feather=3)
    )
    left, top, _, _ = region.inside
    row = region.alpha[0, 100 - top, 84 - left : 91 - left]
    u = torch.tensor([0, 0, 0, 1 / 4, 2 / 4, 3 / 4, 1])
    assert torch.allclose(row, u * u * (3 - 2 * u), atol=1e-6)
    assert row[2] == 0 and row[6] == 1  # exactly
    diagonal = region.alpha[0, 88 - top, 88 - left]  # 2 and 2 away: 2.83 by Euclid
    assert diagonal == pytest.approx(0.2071, abs=1e-4)


def test_grow_and_feather_0_take_the_pixels_and_no_more():
    mask = painted(200, 200, 90, 90, 110, 110)
    region = make_region(picture(200, 200), mask, Settings(feather=0))
    left, top, right, bottom = region.inside
    assert torch.equal(region.alpha, mask[:, top:bottom, left:right])

    grown = make_region(picture(200, 200), mask, Settings(grow=5, feather=0))
    left, top, _, _ = grown.inside
    row = grown.alpha[0, 100 - top, 83 - left : 87 - left]
    assert row.tolist() == [0, 0, 1, 1]
    assert grown.alpha[0, 86 - top, 86 - left] == 0  # 4 and 4 away: 5.66 by Euclid
    assert grown.alpha[0, 86 - top, 87 - left] == 1  # 4 and 3: 5


def test_a_soft_mask_is_kept_where_it_is_more():
    mask = torch.zeros(1, 100, 100)
    mask[0, 40:60, 40:60] = 0.4
    mask[0, 10, 10] = 1 / 255
    region = make_region(picture(100, 100), mask, Settings(feather=8, context=8))
    assert region.inside == (0, 0, 100, 100)
    assert torch.equal(region.alpha, mask)
    mask[0, 50, 50] = 0.5
    region = make_region(picture(100, 100), mask, Settings(feather=8, context=8))
    assert region.alpha[0, 50, 50] == 1
    assert region.alpha[0, 41, 41] == pytest.approx(0.4)
    assert (region.alpha >= mask).all()


def test_the_box_holds_the_feather_and_its_context():
    """The feather reaches 16 pixels from 400..500: 384..516, 132 long, half of it around."""
    image, mask = picture(1000, 900), painted(1000, 900, 400, 400, 500, 440)
    assert make_region(image, mask).lattice == (318, 316, 8, 33, 26)
    tight = make_region(image, mask, Settings(context=1)).lattice
    assert tight.box == (350, 352, 350 + 200, 352 + 136)  # 32 pixels at least
    wide = make_region(image, mask, Settings(context=8))
    assert wide.inside == (0, 0, 992, 900)


def test_a_box_at_the_edge_stays_in_the_picture():
    image = picture(300, 260)
    for box in ((0, 0, 1, 1), (299, 259, 300, 260), (0, 259, 1, 260), (140, 0, 141, 1)):
        region = make_region(image, painted(300, 260, *box), Settings(feather=0))
        left, top, right, bottom = region.lattice.box
        assert 0 <= left < right <= 300 and 0 <= top < bottom <= 260
        assert region.alpha.sum() == 1
        assert region.alpha[0, box[1] - top, box[0] - left] == 1


def test_sixteen_is_a_copy_bit_for_bit():
    image = picture(700, 900).half().float()
    region = make_region(
        image, painted(700, 900, 33, 41, 60, 60), Settings(max_upscale=1, context=1)
    )
    left, top, right, bottom = region.lattice.box
    assert region.lattice.q == 16
    assert torch.equal(region.crop, image[:, top:bottom, left:right])


def test_beyond_the_edges_they_go_on():
    image = picture(37, 53)
    region = make_region(image, None, Settings(max_upscale=1))
    assert region.crop.shape == (1, 64, 64, 3)
    assert torch.equal(region.crop[0, :53, :37], image[0])
    assert torch.equal(region.crop[0, :53, 37:], image[0, :, 36:].expand(53, 27, 3))
    assert torch.equal(region.crop[0, 53:, :37], image[0, 52:].expand(11, 37, 3))


@pytest.mark.parametrize("q", [8, 10, 16, 24, 77])
def test_what_is_in_the_middle_stays_there(q):
    """A soft spot's centre comes out where the lattice says, within a thousandth of a pixel."""
    size = q * 40
    x, y = size * 0.47, size * 0.53
    grid = np.arange(size) + 0.5
    spot = np.exp(-((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * (2.5 * q) ** 2))
    small = resample(np.float32(spot[..., None]), (0, 0, size, size), (640, 640))[..., 0]
    centres = np.arange(640) + 0.5
    assert (small * centres).sum() / small.sum() == pytest.approx(x * 16 / q, abs=1e-3)
    assert (small.T * centres).sum() / small.sum() == pytest.approx(y * 16 / q, abs=1e-3)


def test_a_crop_is_the_same_as_that_of_the_whole_picture():
    """Its borders know what stands beyond them."""
    values = picture(640, 640)[0].numpy()
    whole = resample(values, (0, 0, 640, 640), (320, 320))
    part = resample(values, (128, 64, 384, 448), (128, 192))
    assert np.abs(part - whole[32:224, 64:192]).max() < 1e-5


def test_resampling_beyond_all_edges():
    values = picture(20, 10)[0].numpy()
    assert np.allclose(resample(values, (25, -9, 30, -4.5), (7, 7)), values[0, -1], atol=1e-6)


@pytest.mark.parametrize("q", [4, 8, 13, 16, 31])
def test_the_noise_mask_reaches_the_model_as_it_is(comfy_inprocess, q):
    """Through the host's own reduction; a stroke of one pixel survives."""
    import comfy.utils

    mask = torch.zeros(1, 700, 900)
    for i in range(300):
        mask[0, 100 + i, 200 + i // 3] = 1
    settings = Settings(feather=0, megapixels=4, max_upscale=16 / q if q < 16 else 1)
    region = make_region(picture(900, 700), mask, settings)
    if q > 16:
        lattice = plan_lattice((0, 0, 900, 700), (900, 700))._replace(q=q, across=30, down=23)
        region = type(region)(region.picture, lattice, mask, region.crop, settings)
    lattice = region.lattice
    assert lattice.q == q
    tokens = torch.zeros(lattice.down, lattice.across)
    for y, x in mask[0].nonzero().tolist():
        tokens[(y - lattice.top) // q, (x - lattice.left) // q] = 1
    given = noise_mask(region)
    assert given.shape == (1, lattice.down * 16, lattice.across * 16)
    reduced = comfy.utils.reshape_mask(given, (1, 128, lattice.down, lattice.across))
    assert torch.equal(reduced[0, 0], tokens) and torch.equal(reduced[0, 127], tokens)
    assert 10 < tokens.sum() < tokens.numel() / 4


def test_the_noise_mask_covers_all_that_is_pasted():
    region = make_region(picture(640, 640), painted(640, 640, 200, 210, 301, 333), Settings())
    q = region.lattice.q
    changed = noise_mask(region)[0, ::16, ::16]
    assert (changed.repeat_interleave(q, 0).repeat_interleave(q, 1) >= region.alpha[0]).all()
    assert noise_mask(make_region(picture(640, 640), None)).all()


@pytest.mark.parametrize(("pictures", "masks"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_batches(pictures, masks):
    image = picture(400, 300, count=pictures)
    mask = torch.cat([
        painted(400, 300, 50 * i + 100, 150, 50 * i + 120, 170) for i in range(masks)
    ])  # fmt: skip
    region = make_region(image, mask, Settings(feather=0))
    assert region.count == max(pictures, masks)
    left, top, right, bottom = region.inside
    assert torch.equal(region.alpha, mask[:, top:bottom, left:right])  # the box of them all
    assert len(region.crop) == pictures and len(noise_mask(region)) == masks


def test_one_empty_mask_of_several_is_none_to_change():
    mask = torch.cat([painted(400, 300, 100, 100, 150, 150), torch.zeros(1, 300, 400)])
    region = make_region(picture(400, 300), mask)
    assert region.alpha[0].any() and not region.alpha[1].any()


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (picture(90, 60), torch.zeros(1, 60, 90), "The mask is empty. Paint the part to change"),
        (picture(90, 60), torch.zeros(1, 64, 64), "The mask is empty. Paint the part to change"),
        (picture(90, 60), torch.full((1, 60, 90), torch.nan), "The mask is empty"),
        (picture(90, 60), torch.ones(1, 64, 64), "Mask 64x64, picture 90x60: same size needed."),
        (picture(90, 60), torch.ones(1, 90, 60), "Mask 60x90, picture 90x60: same size needed."),
        (picture(90, 60, count=2), torch.ones(3, 60, 90), "3 masks for 2 pictures."),
        (picture(90, 60), torch.ones(60), r"mask is no mask: its shape is \(60,\)"),
        (picture(90, 60)[0], None, r"image is no picture: its shape is \(60, 90, 3\)"),
        (picture(90, 60, 2), None, r"image is no picture: its shape is \(1, 60, 90, 2\)"),
        (picture(90, 60) / 0, None, "image has NaN or infinite pixels"),
    ],
)
def test_refused(image, mask, words):
    with pytest.raises(InputError, match=words):
        make_region(image, mask)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("context", 0.9, "context is 0.9; it takes 1 to 8."),
        ("context", float("nan"), "context is nan; it takes 1 to 8."),
        ("megapixels", 4.5, "megapixels is 4.5; it takes 0.25 to 4."),
        ("max_upscale", 0.5, "max_upscale is 0.5; it takes 1 to 4."),
        ("grow", -1, "grow is -1; it takes 0 to 256."),
        ("feather", 257, "feather is 257; it takes 0 to 256."),
    ],
)
def test_numbers_out_of_range(name, value, words):
    with pytest.raises(InputError, match=words):
        make_region(picture(90, 60), None, Settings(**{name: value}))


@pytest.mark.parametrize("shape", [(60, 90), (1, 60, 90), (1, 1, 60, 90), (1, 60, 90, 1)])
def test_shapes_of_a_mask(shape):
    mask = painted(90, 60, 10, 10, 20, 20).reshape(shape)
    assert make_region(picture(90, 60), mask, Settings(feather=0)).alpha.sum() == 100


def test_a_grey_picture_and_one_with_alpha():
    mask = painted(90, 60, 10, 10, 20, 20)
    assert make_region(picture(90, 60, 1), mask).picture.shape[-1] == 3
    region = make_region(picture(90, 60, 4), mask)
    assert region.picture.shape[-1] == 4 and region.crop.shape[-1] == 3

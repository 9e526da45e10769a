"""Nothing but what was to change has changed, to the bit; and that has, to the pixel."""

import numpy as np
import pytest
import torch
from photos import drifted, image, jpeg, photo

from flux2_lora_edit.flux2.references import InputError
from flux2_lora_edit.flux2.region.crop import make_region, noise_mask
from flux2_lora_edit.flux2.region.lattice import Settings, plan_lattice
from flux2_lora_edit.flux2.region.paste import Choices, paste

PLAIN = Choices(align=False, colour=False)


def painted(pixels, *box):
    mask = torch.zeros(1, *pixels.shape[-3:-1])
    left, top, right, bottom = box
    mask[:, top:bottom, left:right] = 1
    return mask


def region_of(pixels, q, feather=16, dtype=torch.float32, mask=None):
    """A region with a lattice of ``q``, around a painted place in the middle."""
    height, width = pixels.shape[:2]
    if mask is None:
        mask = painted(pixels, width // 3, height // 3, width // 2, height * 3 // 5)
    settings = Settings(feather=feather, megapixels=4, max_upscale=min(4, max(1, 16 / q)))
    region = make_region(image(pixels).to(dtype), mask, settings)
    if region.lattice.q != q:  # by its megapixels, which have no such steps
        from flux2_lora_edit.flux2.region import crop as module

        cells = (-(-width // q), -(-height // q))
        lattice = plan_lattice((0, 0, width, height), (width, height))
        lattice = lattice._replace(left=0, top=0, q=q, across=cells[0], down=cells[1])
        alpha = torch.zeros(1, height, width)
        left, top, right, bottom = region.inside
        alpha[:, top:bottom, left:right] = region.alpha
        crop = module._canvas(region.picture, lattice)
        region = module.Region(region.picture, lattice, alpha, crop, settings)
    assert region.lattice.q == q
    return region


@pytest.mark.parametrize("q", [4, 8, 10, 16, 24, 77])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("choices", [PLAIN, Choices()], ids=["plain", "auto"])
def test_an_edit_that_changes_nothing_gives_the_picture_back(q, dtype, choices):
    region = region_of(photo("coffee"), q, dtype=dtype)
    assert torch.equal(paste(region, region.crop, choices).image, region.picture)


@pytest.mark.parametrize("q", [8, 16, 24])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_outside_of_the_mask_every_bit_stays(q, channels, dtype):
    pixels = photo("coffee")
    rough = torch.rand(*pixels.shape[:2], 1, generator=torch.manual_seed(1)).numpy()
    pixels = np.concatenate([pixels, rough], axis=2)[..., :channels]
    region = region_of(pixels, q, dtype=dtype)
    edit = torch.rand(region.crop.shape, generator=torch.manual_seed(2))
    edit[:, :20, :30], edit[:, 100:110, 100:140] = torch.nan, torch.inf
    result = paste(region, edit, PLAIN)
    untouched = result.mask == 0
    assert result.image.dtype == dtype and result.image.shape == region.picture.shape
    assert torch.equal(result.image[untouched], region.picture[untouched])
    assert torch.isfinite(result.image).all()
    changed = (result.image != region.picture)[..., :3].any(-1)
    assert changed[result.mask > 0.02].float().mean() > 0.95
    if channels == 4:
        assert torch.equal(result.image[..., 3], region.picture[..., 3])
    # What was pasted is the painted place and its feather, and all of it is a token to change.
    left, top, right, bottom = region.inside
    assert torch.equal(result.mask[:, top:bottom, left:right], region.alpha)
    assert result.mask.sum() == pytest.approx(region.alpha.sum().item())
    assert noise_mask(region).any()


@pytest.mark.parametrize("q", [8, 16])
def test_between_two_painted_places_nothing_of_the_edit_is_looked_at(q):
    """Not even a number that no arithmetic survives: 0 of it is still 0 of it."""
    pixels = photo("coffee")
    both = painted(pixels, 100, 100, 130, 130) + painted(pixels, 260, 260, 290, 290)
    region = region_of(pixels, q, feather=0, mask=both)
    edit = torch.rand(region.crop.shape, generator=torch.manual_seed(9))
    left, top, *_ = region.lattice.box
    x, y = ((side * 16) // q for side in (275 - left, 115 - top))
    edit[:, y : y + 9, x : x + 9] = 3.4e38
    edit[:, y, x] = -3.4e38
    result = paste(region, edit, PLAIN)
    assert torch.equal(result.image[both == 0], region.picture[both == 0])
    assert torch.isfinite(result.image).all()


@pytest.mark.parametrize("box", [(100, 90, 300, 222), (0, 0, 7, 5), (580, 380, 600, 400)])
def test_a_hard_mask_on_a_copy_is_the_hosts_own_composite(comfy_inprocess, box):
    """With the whole edit laid over: ImageCompositeMasked, bit for bit."""
    from comfy_extras.nodes_mask import ImageCompositeMasked

    pixels = photo("coffee")
    mask = painted(pixels, *box)
    region = region_of(pixels, 16, feather=0, mask=mask)
    edit = torch.rand(region.crop.shape, generator=torch.manual_seed(3))
    left, top, right, bottom = region.inside
    ours = paste(region, edit, PLAIN).image
    theirs = ImageCompositeMasked.execute(
        region.picture, edit, left, top, False, mask[:, top:bottom, left:right]
    )[0]
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, region.picture)


def test_an_edge_is_mixed_without_a_lost_level():
    """By old + alpha (new - old), of which an unchanged pixel loses nothing in 8 bit."""
    pixels = np.round(photo("coffee") * 255).astype(np.float32) / 255
    region = region_of(pixels, 16)
    same = paste(region, region.crop, PLAIN).image
    assert torch.equal((same * 255).to(torch.uint8), (region.picture * 255).to(torch.uint8))
    half = (region.alpha > 0.3) & (region.alpha < 0.7)
    left, top, right, bottom = region.inside
    ours = paste(region, region.crop * 0 + 1, PLAIN).image[:, top:bottom, left:right]
    old = region.picture[:, top:bottom, left:right]
    wanted = old + region.alpha[..., None] * (1 - old)
    assert torch.equal(ours[half], wanted[half]) and half.any()


@pytest.mark.parametrize("q", [8, 10, 16, 24])
def test_a_change_arrives_where_it_was_made(q):
    """A bright spot of the canvas: its centre in the picture, to a fiftieth of a pixel."""
    pixels = photo("coffee") * 0.5
    region = region_of(pixels, q, feather=0)
    height, width = region.crop.shape[1:3]
    y, x = np.mgrid[:height, :width] + 0.5
    left, top, *_ = region.lattice.box
    centre = ((240.3 - left) * 16 / q, (190.6 - top) * 16 / q)
    spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (96 / q) ** 2))
    edit = region.crop + 0.4 * torch.from_numpy(spot[None, ..., None]).float()
    change = (paste(region, edit, PLAIN).image - region.picture)[0].sum(-1).double().numpy()
    rows, columns = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
    assert (change * columns).sum() / change.sum() == pytest.approx(240.3, abs=0.02)
    assert (change * rows).sum() / change.sum() == pytest.approx(190.6, abs=0.02)


@pytest.mark.parametrize("q", [8, 16, 24])
def test_drift_and_tint_are_undone(q):
    """The whole canvas drifts and is tinted; the change inside lands on its place, in its own
    colour."""
    pixels = photo("retina")[200:1100, 200:1200]
    region = region_of(pixels, q, feather=8)
    wanted = region.crop[0].numpy().copy()
    known = make_region(region.picture, None, Settings())
    assert known.alpha is None
    place = noise_mask(region)[0].numpy() > 0
    wanted[place] = wanted[place] * 0.6 + 0.2
    edit = drifted(wanted, 6.4, -3.7, 1.01) * 1.06 + 0.02
    ours = paste(region, torch.from_numpy(edit)[None])
    ideal = paste(region, torch.from_numpy(wanted)[None], PLAIN)
    drift = paste(region, torch.from_numpy(edit)[None], PLAIN)
    full = ours.mask > 0.99
    error = (ours.image - ideal.image)[full].abs().mean()
    assert error < 0.004
    assert error < 0.1 * (drift.image - ideal.image)[full].abs().mean()
    assert "Aligned: it had moved by +6.4" in ours.report and "-3.7" in ours.report
    assert "zoomed by +1.0" in ours.report and "Colour matched: 0.94" in ours.report
    untouched = ours.mask == 0
    assert torch.equal(ours.image[untouched], region.picture[untouched])


def test_what_proves_no_drift_is_pasted_as_it_is_and_said():
    region = region_of(photo("coffee"), 16)
    edit = torch.rand(region.crop.shape, generator=torch.manual_seed(4))
    given, plain = paste(region, edit, Choices(colour=False)), paste(region, edit, PLAIN)
    assert "Not aligned: the surroundings no longer match (0.0" in given.report
    assert torch.equal(given.image, plain.image)
    assert "align" not in plain.report.lower() and "In place" not in plain.report


def test_unchanged_detail_stays_where_the_canvas_has_lost_it():
    """Half of what was painted is edited; in the other half the original's detail stays, though
    the canvas has a quarter of its pixels."""
    pixels = photo("gravel")
    region = region_of(pixels, 32, feather=0, mask=painted(pixels, 100, 100, 400, 400))
    edit = region.crop + torch.randn(region.crop.shape, generator=torch.manual_seed(5)) * 0.004
    edit[:, :, :125] = 0.7
    kept = paste(region, edit, PLAIN)
    lost = paste(region, edit, Choices(False, False, keep_detail=False))

    def error(result):
        return (result.image - region.picture)[0, 110:390, 270:390].square().mean().sqrt()

    assert error(kept) < 0.1 * error(lost)
    replaced = kept.image[0, 110:390, 110:230]
    assert (replaced - 0.7).abs().mean() < 0.005  # and none of it where there is something else


def test_any_size_of_the_same_shape():
    pixels = photo("coffee")
    region = region_of(pixels, 16)
    soft = drifted(region.crop[0].numpy(), 0, 0)
    for width, height in ((2, 2), (1, 2), (3, 4)):
        from flux2_lora_edit.flux2.region.crop import resample

        size = [side * width // height for side in region.lattice.canvas]
        full = (0, 0, *region.lattice.canvas)
        edit = torch.from_numpy(resample(soft, full, tuple(size)))[None]
        result = paste(region, edit, Choices(colour=False))
        assert (result.image - region.picture).abs().mean() < 2e-3
        assert "In place" in result.report


@pytest.mark.parametrize(("width", "height"), [(-2, 0), (0, 2), (0, -16), (16, 0)])
def test_another_shape_is_refused(width, height):
    region = region_of(photo("coffee"), 16)
    wide, high = region.lattice.canvas
    edit = torch.zeros(1, high + height, wide + width, 3)
    words = f"Edited picture {wide + width}x{high + height}, expected {wide}x{high} or the same"
    with pytest.raises(InputError, match=words):
        paste(region, edit)


def test_a_pixel_of_rounding_is_the_same_shape():
    region = region_of(photo("coffee"), 16)
    wide, high = region.lattice.canvas
    scaled = torch.zeros(1, round(high * 0.731), round(wide * 0.731), 3)
    assert paste(region, scaled, PLAIN).image.shape == region.picture.shape


@pytest.mark.parametrize(
    ("pictures", "masks", "edits", "gives"),
    [(1, 1, 1, 1), (1, 1, 4, 4), (1, 3, 3, 3), (1, 3, 1, 3), (3, 1, 3, 3), (3, 3, 3, 3),
     (3, 1, 1, 3)],
)  # fmt: skip
def test_batches(pictures, masks, edits, gives):
    """Each edit by its own mask into its own picture."""
    image = torch.rand(pictures, 120, 160, 3, generator=torch.manual_seed(6))
    mask = torch.zeros(masks, 120, 160)
    for one in range(masks):
        mask[one, 40:60, 40 + 20 * one : 60 + 20 * one] = 1
    region = make_region(image, mask, Settings(feather=0, max_upscale=1))
    wide, high = region.lattice.canvas
    edit = torch.stack([torch.full((high, wide, 3), 0.1 * (one + 1)) for one in range(edits)])
    result = paste(region, edit, PLAIN)
    assert result.image.shape == (gives, 120, 160, 3) and result.mask.shape == (gives, 120, 160)
    for one in range(gives):
        source, given = image[min(one, pictures - 1)], mask[min(one, masks - 1)] > 0
        assert torch.equal(result.image[one][~given], source[~given])
        assert (result.image[one][given] == 0.1 * (min(one, edits - 1) + 1)).all()
        assert torch.equal(result.mask[one] > 0, given)


@pytest.mark.parametrize(("pictures", "masks", "edits"), [(1, 3, 2), (3, 1, 2), (2, 2, 3)])
def test_counts_that_do_not_match(pictures, masks, edits):
    region = make_region(torch.rand(pictures, 90, 90, 3), torch.ones(masks, 90, 90))
    edit = region.crop[:1].expand(edits, -1, -1, -1)
    words = f"{edits} edited pictures for {max(pictures, masks)} regions"
    with pytest.raises(InputError, match=words):
        paste(region, edit)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_grey_edit_and_one_with_alpha(channels):
    region = region_of(photo("coffee"), 16)
    edit = torch.rand(*region.crop.shape[:3], channels, generator=torch.manual_seed(7))
    as_rgb = edit[..., :3] if channels == 4 else edit.repeat(1, 1, 1, 3)
    assert torch.equal(paste(region, edit).image, paste(region, as_rgb).image)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 200), (333, 1), (37, 53), (1031, 17)])
def test_odd_pictures(width, height):
    pixels = torch.rand(1, height, width, 3, generator=torch.manual_seed(8))
    mask = torch.zeros(1, height, width)
    mask[:, height // 2, width // 2] = 1
    for given in (mask, torch.ones_like(mask), None):
        region = make_region(pixels, given)
        assert torch.equal(paste(region, region.crop).image, pixels)
        bright = paste(region, region.crop * 0 + 1, PLAIN).image
        if given is not None:
            assert (bright[0, height // 2, width // 2] > 0.9).all()


def test_what_is_no_number_in_the_edit_leaves_the_original():
    region = region_of(photo("coffee"), 16, feather=0)
    edit = torch.ones_like(region.crop)
    left, top, *_ = region.lattice.box
    edit[0, 200 - top, 250 - left, 1] = torch.nan
    result = paste(region, edit, PLAIN)
    assert "1 pixels of the edit are no numbers" in result.report
    assert torch.equal(result.image[0, 200, 250], region.picture[0, 200, 250])
    assert (result.image[0, 200, 251] == 1).all()


def whole_edit(pixels, box, max_upscale=1.0, drift=(0, 0, 1), gain=1.0, offset=0.0, quality=None):
    """(region, edit, what is wanted): another object in ``box`` of the canvas, and all of it
    drifted and tinted."""
    region = make_region(image(pixels), None, Settings(max_upscale=max_upscale))
    wanted = region.crop[0].numpy().copy()
    left, top, right, bottom = box
    wanted[top:bottom, left:right] = 0.9 - 0.5 * wanted[top:bottom, left:right][::-1]
    edit = drifted(wanted, *drift) * gain + offset
    edit = jpeg(edit, quality) if quality else edit
    return region, torch.from_numpy(edit.clip(0, 1))[None], wanted


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"quality": 75},
        {"drift": (5.3, -3.4, 1.01)},
        {"drift": (-12, 9.5, 0.985), "gain": 1.06, "offset": 0.02, "quality": 85},
        {"max_upscale": 1.5, "gain": 0.92, "offset": 0.04, "quality": 90},
    ],
    ids=["alone", "jpeg", "drift", "all", "larger"],
)
@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee"])
def test_of_a_whole_picture_only_the_change_is_taken(name, kind):
    pixels = photo(name)
    region, edit, wanted = whole_edit(pixels, (160, 176, 272, 304), **kind)
    result = paste(region, edit)
    q = region.lattice.q / 16
    near = [round(side * q) for side in (160 - 60, 176 - 60, 272 + 60, 304 + 60)]
    outside = torch.ones(result.mask.shape, dtype=torch.bool)
    outside[:, near[1] : near[3], near[0] : near[2]] = False
    assert torch.equal(result.image[outside], region.picture[outside])
    inside = np.s_[:, round(190 * q) : round(290 * q), round(174 * q) : round(258 * q)]
    assert (result.mask[inside] > 0.99).all()
    assert result.image[inside].mean() == pytest.approx(wanted[190:290, 174:258].mean(), abs=0.01)
    assert "by differences over 0.0" in result.report
    assert ("Aligned" in result.report) == ("drift" in kind)


def test_a_whole_picture_that_is_only_redrawn_stays():
    region, edit, _ = whole_edit(photo("coffee"), (0, 0, 0, 0), gain=1.05, offset=0.01, quality=70)
    result = paste(region, edit)
    assert torch.equal(result.image, region.picture)
    assert "Changed: 0.0% of the picture" in result.report
    assert not result.mask.any()


@pytest.mark.parametrize(("side", "taken"), [(2, False), (8, True)])
def test_a_speck_is_no_change(side, taken):
    region = make_region(image(photo("camera")), None, Settings(max_upscale=1))
    edit, spot = region.crop.clone(), np.s_[:, 300 : 300 + side, 300 : 300 + side]
    edit[spot] = (region.crop[spot] < 0.5).float()
    result = paste(region, edit)
    assert (result.mask[spot] > 0.99).all() == taken
    assert torch.equal(result.image, region.picture) != taken


def test_a_whole_picture_that_is_all_another_is_taken():
    region = make_region(image(photo("astronaut")), None, Settings(max_upscale=1))
    result = paste(region, image(photo("camera")))
    assert (result.mask > 0).float().mean() > 0.9
    assert "Not aligned" in result.report
    taken = result.mask == 1
    assert torch.allclose(result.image[taken], image(photo("camera"))[taken], atol=1e-6)


def test_grow_and_feather_count_for_what_is_found():
    region, edit, _ = whole_edit(photo("astronaut"), (160, 176, 272, 304))
    found = {}
    for grow, feather in ((0, 0), (20, 0), (0, 20)):
        settings = region.settings._replace(grow=grow, feather=feather)
        changed = type(region)(region.picture, region.lattice, None, region.crop, settings)
        found[grow, feather] = paste(changed, edit, PLAIN).mask[0]
    assert set(found[0, 0].unique().tolist()) == {0, 1}
    extra = (found[20, 0] > 0)[240].sum() - (found[0, 0] > 0)[240].sum()
    assert extra == 40
    assert ((found[0, 20] > 0)[240].sum() - (found[0, 0] > 0)[240].sum()) in (38, 40, 42)

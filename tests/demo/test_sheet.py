"""What the demo leaves behind: the sheet, the photographs it ships, the folder that git ignores."""

import io
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from host import models
from host.commands import demo
from host.demo import sheet

ROOT = Path(__file__).resolve().parents[2]
COLOURS = ("#c0392b", "#27ae60", "#2980b9", "#8e44ad", "#f39c12", "#16a085", "#7f8c8d")


def drawn(count: int, **lines: str) -> Image.Image:
    """A sheet of ``count`` pictures of one colour each, in ``COLOURS``'s order."""
    pictures = [Image.new("RGB", (64, 48), colour) for colour in COLOURS[:count]]
    return sheet.draw([sheet.Cell(one, f"picture {n}") for n, one in enumerate(pictures)], **lines)


def area(picture: Image.Image, colour: str) -> tuple[int, int, int, int]:
    """Where ``colour`` is, as left, top, right, bottom."""
    difference = ImageChops.difference(picture, Image.new("RGB", picture.size, colour))
    red, green, blue = (band.point(lambda value: 255 * (value == 0)) for band in difference.split())
    return ImageChops.darker(ImageChops.darker(red, green), blue).getbbox()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (4, 2), (6, 3), (7, 4)])
def test_every_picture_is_on_it_once_in_even_rows(count, columns):
    picture = drawn(count)
    assert picture.width == sheet.WIDTH
    boxes = [area(picture, colour) for colour in COLOURS[:count]]
    assert len({(right - left, low - top) for left, top, right, low in boxes}) == 1
    assert len({box[0] for box in boxes}) == columns
    for number, (left, top, right, low) in enumerate(boxes):
        row = boxes[number // columns * columns]
        assert (top, low) == (row[1], row[3])
        assert (low - top) == pytest.approx((right - left) * 48 / 64, abs=1)
        if number % columns:
            assert left - boxes[number - 1][2] == sheet.GUTTER


def test_labels_stand_below_and_are_legible_at_half_the_width():
    picture = drawn(6, heading="a heading", footing="a footing")
    left, _, right, low = area(picture, COLOURS[3])
    below = picture.crop((left, low, right, low + 24 + sheet.TITLE)).convert("L")
    assert below.getextrema()[0] < 60, "no dark letters"
    letters = below.point(lambda value: 255 * (value < 128)).getbbox()
    assert (letters[3] - letters[1]) / 2 >= 10, "less than 10 pixels high at 900 wide"
    assert picture.height > drawn(6).height
    assert area(picture, COLOURS[0])[1] >= sheet.MARGIN + sheet.HEADING, "the heading is covered"


def test_a_long_name_ends_in_its_own_cell():
    pictures = [Image.new("RGB", (64, 64), colour) for colour in COLOURS[:6]]
    names = ["long_" * 30 if number == 3 else "" for number in range(6)]
    both = zip(pictures, names, strict=True)
    picture = sheet.draw([sheet.Cell(one, name) for one, name in both])
    _, _, right, low = area(picture, COLOURS[3])
    gutter = picture.crop((right, low, right + sheet.GUTTER, low + 60)).convert("L")
    assert gutter.getextrema() == (255, 255)


def test_even_noise_stays_under_400_kb(tmp_path):
    noise = Image.effect_noise((512, 512), 90).convert("RGB")
    picture = sheet.draw([sheet.Cell(noise, "noise")] * 6)
    sheet.save(picture, tmp_path / "demo.jpg")
    assert 0 < (tmp_path / "demo.jpg").stat().st_size < 400_000
    assert Image.open(tmp_path / "demo.jpg").width >= 900


def test_the_shipped_photographs_are_scikit_images_pixel_for_pixel(tmp_path):
    data = pytest.importorskip("skimage").data_dir
    models.copy_photos(tmp_path)
    for name, size in models.PHOTOS.items():
        ours, theirs = Image.open(tmp_path / name), Image.open(Path(data) / name)
        assert ours.size == theirs.size == size
        assert ours.mode == theirs.mode and ours.tobytes() == theirs.tobytes()
        again = io.BytesIO()
        ours.save(again, "PNG")
        assert b"exif" not in again.getvalue().lower(), "a camera's metadata came along"


def test_the_shipped_photographs_are_small_and_say_whose_they_are():
    folder = ROOT / "scripts/host/photos"
    said = (folder / "SOURCES.md").read_text("utf-8")
    files = sorted(folder.glob("*.webp"))
    assert {file.stem for file in files} == {Path(name).stem for name in models.PHOTOS}
    assert all(f"`{file.name}`" in said for file in files)
    assert sum((folder / name).stat().st_size for name in ("astronaut.webp", "chelsea.webp")) < 7e5


def test_what_it_writes_by_default_is_ignored_by_git(tmp_path):
    inside = demo.parse([]).output / "demo.jpg"
    asked = subprocess.run(["git", "check-ignore", str(inside)], cwd=ROOT, capture_output=True)
    if asked.returncode == 128:
        pytest.skip("not a git checkout")
    assert asked.returncode == 0, f"git would see {inside}"
    assert demo.parse(["--output", str(tmp_path)]).output == tmp_path


def test_the_folder_is_named_and_one_that_cannot_be_made_is_explained(tmp_path, capsys):
    assert demo._output(tmp_path / "pictures").is_dir()
    assert str(tmp_path / "pictures") in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match="--output DIR"):
        demo._output(tmp_path / "file" / "pictures")

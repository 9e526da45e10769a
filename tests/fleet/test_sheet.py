"""The contact sheets: which picture stands where, what is said of it, and what a sheet may cost."""

import itertools
import weakref
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from flux2_lora_edit.fleet import sheet
from flux2_lora_edit.fleet.sheet import Tile, draw_sheets
from host import lettering

SCALE, SEED, PROMPT = "LoRA Stack.lora_1.scale", "seed", "FLUX.2 Edit Conditioning.prompt"
COLOURS = [
    (red, green, blue) for red in (30, 130, 230) for green in (60, 200) for blue in (20, 120, 220)
]
SIZE = (320, 240)


@pytest.fixture
def picture(tmp_path):
    """Writes the picture of one colour, by its number, and returns its path."""

    def write(number: int, size: tuple[int, int] = SIZE) -> Path:
        path = tmp_path / f"picture {number}.png"
        Image.new("RGB", size, COLOURS[number]).save(path)
        return path

    return write


def area(drawn: Image.Image, number: int) -> tuple[int, int, int, int] | None:
    """Where colour ``number`` is, as left, top, right, bottom; JPEG keeps it nearly."""
    difference = ImageChops.difference(drawn, Image.new("RGB", drawn.size, COLOURS[number]))
    near = [band.point(lambda value: 255 * (value < 12)) for band in difference.split()]
    return ImageChops.darker(ImageChops.darker(*near[:2]), near[2]).getbbox()


def places(drawn: Image.Image, numbers) -> list[list[int]]:
    """The colours as they stand, row after row."""
    boxes = sorted((area(drawn, one)[1], area(drawn, one)[0], one) for one in numbers)
    rows, low = [], -1000
    for top, left, number in boxes:
        if top - low > 20:  # JPEG moves an edge by a pixel
            rows.append([])
            low = top
        rows[-1].append((left, number))
    return [[number for _, number in sorted(row)] for row in rows]


def words(drawn: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Whether something dark is written in ``box``."""
    return drawn.crop(box).convert("L").getextrema()[0] < 140


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def grid(picture, *outer: dict[str, str]) -> list[Tile]:
    """Three scales x two seeds, for each of ``outer``: colours in order, seeds turning fastest."""
    both = itertools.product(outer or ({},), ("0", "0.5", "1"), ("7", "8"))
    return [
        Tile(f"row {n}", picture(n), {**labels, SCALE: scale, SEED: seed})
        for n, (labels, scale, seed) in enumerate(both)
    ]


def test_the_last_axis_runs_along_and_the_one_before_it_down(picture, tmp_path):
    tiles = grid(picture)
    (path,) = draw_sheets(tiles, [SCALE, SEED], tmp_path / "out")
    assert path == tmp_path / "out" / "sheet.jpg"
    assert places(opened(path), range(6)) == [[0, 1], [2, 3], [4, 5]]
    (path,) = draw_sheets(tiles, [SEED, SCALE], tmp_path / "out")
    assert places(opened(path), range(6)) == [[0, 2, 4], [1, 3, 5]]
    assert [file.name for file in path.parent.iterdir()] == ["sheet.jpg"], "something was left"


def test_values_stand_above_and_beside_once(picture, tmp_path):
    drawn = opened(*draw_sheets(grid(picture), [SCALE, SEED], tmp_path))
    first, last = area(drawn, 0), area(drawn, 5)
    assert not words(drawn, (0, 0, first[0] - 20, first[1])), "there is no heading"
    for number in (0, 1):
        left, top, right, _ = area(drawn, number)
        assert words(drawn, (left, 0, right, top))
    for number in (0, 2, 4):
        left, top, _, low = area(drawn, number)
        assert words(drawn, (0, top, left, low))
    assert not words(drawn, (first[0], first[3] + 2, last[2], area(drawn, 2)[1] - 2))
    assert not words(drawn, (0, last[3] + 2, *drawn.size))


def said(monkeypatch) -> list[dict]:
    """What is given to the drawing, sheet by sheet."""
    seen = []

    def draw(cells, columns, measures, **texts):
        seen.append(texts)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(sheet.sheet, "draw", draw)
    return seen


def test_a_value_is_said_with_the_shortest_name_that_is_its_own(monkeypatch, tmp_path):
    seen = said(monkeypatch)
    draw_sheets([Tile("a", None, {SCALE: "0.5", SEED: "7"})], [SCALE, SEED], tmp_path)
    assert seen[0]["sides"] == ["scale 0.5"] and seen[0]["tops"] == ["seed 7"]
    other = "LoRA Stack.lora_2.scale"
    draw_sheets([Tile("a", None, {SCALE: "0.5", other: "1"})], [SCALE, other], tmp_path)
    assert seen[1]["sides"] == ["lora_1.scale 0.5"] and seen[1]["tops"] == ["lora_2.scale 1"]


def test_what_else_differs_makes_a_sheet_of_its_own(picture, monkeypatch, tmp_path):
    constant = {"steps": "4"}
    outer = [{PROMPT: "a red/../bicycle", **constant}, {PROMPT: "A Cat?", **constant}]
    tiles = grid(picture, *outer)
    first, second = draw_sheets(tiles, [SCALE, SEED], tmp_path)
    assert places(opened(first), range(6)) == [[0, 1], [2, 3], [4, 5]]
    assert places(opened(second), range(6, 12)) == [[6, 7], [8, 9], [10, 11]]
    assert area(opened(second), 0) is None
    assert first.name == "sheet_prompt-a-red-..-bicycle.jpg" and first.parent == tmp_path
    assert second.name == "sheet_prompt-A-Cat.jpg"
    seen = said(monkeypatch)
    draw_sheets(tiles, [SCALE, SEED], tmp_path)
    assert [one["heading"] for one in seen] == [["prompt a red/../bicycle"], ["prompt A Cat?"]]


def test_a_third_axis_and_a_left_out_value_are_groups_too(monkeypatch, tmp_path):
    seen = said(monkeypatch)
    rows = [{"steps": "4"}, {"steps": "8"}, {}]
    tiles = [Tile("x", None, {**row, SCALE: "1", SEED: "1"}) for row in rows]
    draw_sheets(tiles, ["steps", SCALE, SEED], tmp_path)
    heads = [one["heading"] for one in seen]
    assert heads == [["steps 4"], ["steps 8"], ["steps as in the graph"]]


def test_names_that_are_one_to_a_file_system_are_numbered(tmp_path):
    prompts = ["cat", "CAT", "cat!", "漫" * 200, "漫" * 300, "ca\u0301t"]
    tiles = [Tile(one, None, {PROMPT: one, SCALE: "1", SEED: "1"}) for one in prompts]
    names = [path.name for path in draw_sheets(tiles, [SCALE, SEED], tmp_path)]
    assert names[:3] == ["sheet_prompt-cat.jpg", "sheet_prompt-CAT_2.jpg", "sheet_prompt-cat_3.jpg"]
    assert len({name.casefold() for name in names}) == len(prompts)
    assert max(len(name.encode()) for name in names) < 200
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_one_axis_runs_along_and_the_tables_rows_go_down(picture, monkeypatch, tmp_path):
    tiles = grid(picture)
    (path,) = draw_sheets(tiles, [SCALE], tmp_path)
    assert places(opened(path), range(6)) == [[0, 2, 4], [1, 3, 5]]
    seen = said(monkeypatch)
    draw_sheets(tiles, [SCALE], tmp_path)
    assert seen[0]["sides"] == ["seed 7", "seed 8"]
    draw_sheets([tile for tile in tiles if tile.labels[SEED] == "7"], [SCALE], tmp_path)
    assert seen[1]["sides"] == () and seen[1]["tops"] == ["scale 0", "scale 0.5", "scale 1"]


def test_several_pictures_of_a_row_are_several_sheets(picture, tmp_path):
    tiles = [
        Tile(str(seed), picture(2 * seed + copy), {SCALE: "1", SEED: str(seed)})
        for seed in range(2)
        for copy in range(2)
    ]
    tiles.append(Tile("2", None, {SCALE: "1", SEED: "2"}, "failed"))
    first, second = draw_sheets(tiles, [SCALE, SEED], tmp_path)
    assert places(opened(first), (0, 2)) == [[0, 2]]
    assert places(opened(second), (1, 3)) == [[1, 3]]
    assert (first.name, second.name) == ("sheet_picture-1.jpg", "sheet_picture-2.jpg")
    for path, before in ((first, 2), (second, 3)):
        _, top, right, low = area(opened(path), before)
        assert words(opened(path), (right + 20, top, opened(path).width, low)), "not said on both"


def test_where_no_picture_is_there_is_an_empty_cell_and_the_word_for_it(picture, tmp_path):
    tiles = grid(picture)
    broken = tmp_path / "broken.png"
    broken.write_bytes(tiles[1].picture.read_bytes()[:60])
    tiles[1] = tiles[1]._replace(picture=broken)
    tiles[2] = tiles[2]._replace(picture=None, word="failed")
    tiles[3] = tiles[3]._replace(picture=tmp_path / "gone.png")
    del tiles[5]
    drawn = opened(*draw_sheets(tiles, [SCALE, SEED], tmp_path))
    assert places(drawn, (0, 4)) == [[0], [4]]
    left, top, right, low = area(drawn, 0)
    _, third, _, bottom = area(drawn, 4)
    for box in [(right + 20, top, drawn.width, low), (left, low + 20, right, third - 20)]:
        assert words(drawn, box), "nothing says why the cell is empty"
    assert not words(drawn, (right + 20, third, drawn.width, bottom)), "nobody said why"
    red, green, blue = drawn.getpixel((right + 60, third + 20))
    assert 230 < red <= green <= blue < 250, "the empty cell is not to be seen"


def test_without_grids_the_pictures_stand_in_the_tables_order(picture, tmp_path):
    tiles = [Tile(f"row {n}", picture(n), {PROMPT: f"{n}", "same": "1"}) for n in range(12)]
    (path,) = draw_sheets(tiles, [], tmp_path)
    assert path.name == "sheet.jpg"
    drawn = opened(path)
    assert list(itertools.chain(*places(drawn, range(12)))) == list(range(12))
    for number in range(12):
        left, _, right, low = area(drawn, number)
        assert words(drawn, (left, low + 2, right, low + 30)), "its id is missing"


def test_below_a_picture_stand_its_id_and_what_differs(monkeypatch, tmp_path):
    seen = []

    def draw(cells, columns, measures, **texts):
        seen.extend(cells)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(sheet.sheet, "draw", draw)
    rows = [{PROMPT: "a\ncat", "same": "1"}, {PROMPT: "a dog", "same": "1", SEED: "3"}]
    draw_sheets([Tile(str(n), None, row) for n, row in enumerate(rows)], [], tmp_path)
    assert [(cell.title, cell.subtitle) for cell in seen] == [
        ("0", "prompt: a cat"),
        ("1", "prompt: a dog\nseed: 3"),
    ]


def test_many_pictures_are_pages_that_sort_as_the_table_does(tmp_path):
    tiles = [Tile(str(number), None, {}) for number in range(10 * sheet.PAGE + 1)]
    names = [path.name for path in draw_sheets(tiles, [], tmp_path)]
    assert len(names) == 11 and names[0] == "sheet_01.jpg" and names == sorted(names)


@pytest.mark.parametrize(("rows", "columns"), [(40, 40), (60, 2), (2, 60)])
def test_a_sheet_of_very_many_cells_stays_bounded(picture, monkeypatch, tmp_path, rows, columns):
    monkeypatch.setattr(sheet, "SIDE", 1200)
    tiles = [
        Tile(f"{row} {column}", None, {SCALE: str(row), SEED: str(column)})
        for row in range(rows)
        for column in range(columns)
    ]
    tiles[0] = tiles[0]._replace(picture=picture(0))
    tiles[-1] = tiles[-1]._replace(picture=picture(1, (2000, 3000)))
    drawn = opened(*draw_sheets(tiles, [SCALE, SEED], tmp_path))
    assert 600 < max(drawn.size) <= 1300
    left, top, right, low = area(drawn, 0)
    assert left < 120 and top < 120
    left, top, right, low = area(drawn, 1)
    assert drawn.width - right < 60 and drawn.height - low < 60
    assert (right - left) / (low - top) == pytest.approx(2 / 3, rel=0.2), "not shown whole"


def test_a_very_long_axis_goes_on_on_a_further_sheet(monkeypatch, tmp_path):
    seen = said(monkeypatch)
    monkeypatch.setattr(sheet, "MOST_VALUES", 3)
    tiles = [Tile(str(n), None, {SCALE: "1", SEED: str(n)}) for n in range(7)]
    assert len(draw_sheets(tiles, [SCALE, SEED], tmp_path)) == 3
    assert [value for one in seen for value in one["tops"]] == [f"seed {n}" for n in range(7)]


def test_one_picture_at_a_time_is_held(picture, monkeypatch, tmp_path):
    held, most, read = [], [], Image.open

    def opening(path):
        most.append(sum(one() is not None for one in held))
        found = read(path)
        held.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Image, "open", opening)
    draw_sheets(grid(picture), [SCALE, SEED], tmp_path)
    assert len(most) >= 6 and max(most) <= 1


def test_a_picture_is_shown_whole_and_what_is_transparent_is_the_ground(tmp_path):
    wide, clear = tmp_path / "wide.png", tmp_path / "clear.png"
    Image.new("RGB", (400, 100), COLOURS[0]).save(wide)
    Image.new("RGBA", (100, 100), (*COLOURS[1], 0)).save(clear)
    tiles = [Tile(str(n), one, {SEED: str(n)}) for n, one in enumerate((wide, clear, clear))]
    drawn = opened(*draw_sheets(tiles, [SEED], tmp_path))
    left, top, right, low = area(drawn, 0)
    assert (right - left) / (low - top) == pytest.approx(4, rel=0.1), "its sides are cut off"
    assert area(drawn, 1) is None
    assert min(drawn.getpixel((drawn.width // 2, (top + low) // 2))) > 240


def test_no_text_stops_it_whatever_its_script_and_length(picture, tmp_path):
    odd = ["日本語の値", "قيمة", "\ud800\x00\x07", "‮evil", "🚲", "é" * 5000, "", "a\tb\nc" * 900]
    tiles = [Tile(one * 3, picture(0), {one: one, PROMPT: one, SEED: "1"}) for one in odd]
    assert draw_sheets(tiles, [], tmp_path)
    assert len(draw_sheets(tiles, [PROMPT, SEED], tmp_path)) == len(odd)
    assert draw_sheets(tiles, [PROMPT], tmp_path)
    assert {path.parent for path in tmp_path.rglob("*.jpg")} == {tmp_path}


def test_nothing_is_left_of_a_sheet_that_cannot_be_written(picture, monkeypatch, tmp_path):
    (path,) = draw_sheets(grid(picture), [SCALE, SEED], tmp_path / "out")
    before = path.read_bytes()

    def full(self, target, *_, **__):
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        draw_sheets([Tile("a", None, {SCALE: "1", SEED: "1"})], [SCALE, SEED], tmp_path / "out")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [(path.name, before)]


def test_nothing_done_is_no_sheet(tmp_path):
    assert draw_sheets([], [SEED], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["naïve café", "Жираф", "日本語", "café 日本語 Ж", "a cat"])
def test_letters_of_any_script_are_drawn_where_a_font_has_them(text):
    fonts = [name for name in lettering._names() if name]
    if not all(any(lettering._has(name, one) for name in fonts) for one in text if one != " "):
        pytest.skip("no font of this machine has them")
    drawn = [(name, piece) for name, piece in lettering._pieces(text, 20)]
    assert "".join(piece for _, piece in drawn) == text
    box = lettering._font("", 20).getmask("\uffff")
    for font, piece in drawn:
        for letter in piece.replace(" ", ""):
            mask = font.getmask(letter)
            assert (mask.size, bytes(mask)) != (box.size, bytes(box)), f"{letter} is a box"


@pytest.mark.parametrize("text", ["a red bicycle in the rain " * 40, "日本語" * 200, "w" * 4000])
def test_a_long_text_is_broken_and_cut_within_its_width(text):
    lines = lettering.wrap(text, 300, 20, 3)
    assert len(lines) == 3 and lines[-1].endswith("...")
    assert all(0 < lettering.length(line, 20) <= 300 for line in lines)
    assert lines[0].split() == text[: len(lines[0])].split()
    assert lettering.wrap("short", 300, 20, 3) == ["short"]


def test_what_is_not_printable_is_not_written():
    assert lettering.plain("a\x00b\u202ec\ud800 \t\n d\u3000") == "abc d"

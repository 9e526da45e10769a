"""Rows from tables, folders and grids; what is wrong is said by line, and all of it."""

import importlib.util
import json
import sys

import pytest

from flux2_lora_edit.fleet.rows.table import Refused, Row, cross, read_folder, read_table


def written(tmp_path, content, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(function, *arguments):
    with pytest.raises(Refused) as caught:
        function(*arguments)
    assert caught.value.problems
    assert str(caught.value) == "\n".join(caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('id,prompt,seed\na,"x, y",1\nb,z,\n', id="commas"),
        pytest.param('\ufeffid,prompt,seed\r\na,"x, y",1\r\nb,z,\r\n', id="BOM and Windows lines"),
        pytest.param("id;prompt;seed\na;x, y;1\nb;z;\n", id="semicolons"),
        pytest.param("id\tprompt\tseed\na\tx, y\t1\nb\tz\n", id="tabs, a short row"),
        pytest.param('\n id , prompt,seed \n,,\n\na,"x, y",1\nb,z,""\n', id="blanks"),
        pytest.param('id,prompt,seed,\na,"x, y",1,\nb,z,,\n', id="each line ends in a comma"),
        pytest.param('id,prompt,seed\ra,"x, y",1\rb,z,\r', id="lines of old Macs"),
    ],
)
def test_csv(tmp_path, content):
    rows = read_table(written(tmp_path, content))
    assert rows == [Row("a", {"prompt": "x, y", "seed": "1"}), Row("b", {"prompt": "z"})]


def test_a_cell_keeps_its_lines_and_quotes(tmp_path):
    rows = read_table(written(tmp_path, 'prompt\n"a ""heron""\nat dusk "\nTürme 水\n'))
    assert rows == [
        Row("00001", {"prompt": 'a "heron"\nat dusk '}),
        Row("00002", {"prompt": "Türme 水"}),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b,a,b\n1,2,3,4\n", ["The header (line 1) names a column twice: a, b"]),
        ("a,,b\n1,2,3\n", ["(line 1) has no name for column 2"]),
        ('a\n"x\ny"\n1,2\n1\n3,4,5\n', ["2 rows", "header (1)", "line 4 (2)", "line 6 (3)"]),
        ('a,b\n1,2\n"open,3\n4,5\n', ["begins in line 3"]),
        (b"a\nx\n\xff\n", ["Line 3 is not UTF-8"]),
        ("a,b\n", ["no rows"]),
        ("", ["no rows"]),
        ("id,a\nx,1\n,2\n,3\n", ["2 rows have no id", "line 3, line 4"]),
    ],
)
def test_csv_that_is_wrong(tmp_path, content, said):
    text = refusal(read_table, written(tmp_path, content))
    assert [part for part in said if part not in text] == [], text


def test_rows_without_ids_are_numbered_as_wide_as_needed(tmp_path):
    few = read_table(written(tmp_path, "a\n" + "x\n" * 12))
    assert [row.id for row in few][::11] == ["00001", "00012"]
    many = read_table(written(tmp_path, "a\n" + "x\n" * 100_000))
    assert [many[0].id, many[-1].id] == ["000001", "100000"]


@pytest.mark.parametrize("name", ["a", "a.b", "A_1-2", "-x", "console", "0", "x" * 100])
def test_ids_that_are_safe(tmp_path, name):
    assert read_table(written(tmp_path, f"id,a\n{name},1\n"))[0].id == name


@pytest.mark.parametrize(
    "name",
    ["../a", "a/b", "a\\b", ".a", "..", "a.", "a b", "a:b", "ä", "x" * 101, "CON", "nul.png",
     "com1", "LPT9.x", "a*", "a\nb"],
)  # fmt: skip
def test_ids_that_are_no_safe_file_names(tmp_path, name):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": name, "a": 1}))
    assert "1 id is no safe file name" in refusal(read_table, path)


def test_all_ids_that_are_wrong_are_counted_and_the_first_are_named(tmp_path):
    lines = "".join(f"{number}/,1\n" for number in range(10)) + "b,1\nB,1\nb,1\n"
    text = refusal(read_table, written(tmp_path, "id,a\n" + lines))
    assert "10 ids are no safe file name: '0/' (line 2), '1/' (line 3), '2/' (line 4) and 7" in text
    assert "2 ids are there already: 'B' (line 13, first in line 12), 'b' (line 14" in text


def test_json_lines_keep_their_types(tmp_path):
    content = '\ufeff{"id": 7, "seed": 1, " on ": true, "x": null, "y": ""}\n\n{"id":"b","s":0.5}\n'
    rows = read_table(written(tmp_path, content, "rows.JSONL"))
    assert rows == [Row("7", {"seed": 1, "on": True}), Row("b", {"s": 0.5})]
    assert rows[0].values["on"] is True


def test_json_lines_that_are_wrong(tmp_path):
    content = '{"a": 1}\n[1]\n{"a": \n{"a": 1, "a ": 2}\n' + "[" * 100_000 + "\n"
    text = refusal(read_table, written(tmp_path, content, "rows.jsonl"))
    assert "4 lines are no JSON object" in text
    assert "line 2 (a list), line 3 (" in text
    assert "line 4 (a column comes twice) and 1 more" in text


def test_other_files(tmp_path):
    assert ".csv, .jsonl or .parquet" in refusal(read_table, written(tmp_path, "", "rows.xlsx"))
    assert "cannot be read" in refusal(read_table, tmp_path / "none.csv")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(read_table, written(tmp_path, "", "rows.parquet"))


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="needs pyarrow")
def test_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"id": ["a", "b"], "seed": [1, None], " s ": [0.5, 1]}), path)
    assert read_table(path) == [Row("a", {"seed": 1, "s": 0.5}), Row("b", {"s": 1.0})]
    assert "no Parquet file" in refusal(read_table, written(tmp_path, "PAR1", "bad.parquet"))


def test_a_folder(tmp_path):
    for name in ("10.png", "2.JPG", "cat.webp", "cat.tif", "ä b.bmp", "note.txt", "._2.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub.png").mkdir()
    rows = read_folder(tmp_path, "image 1.image")
    names = ["2.JPG", "10.png", "cat.tif", "cat.webp", "ä b.bmp"]
    assert [row.values for row in rows] == [{"image 1.image": str(tmp_path / n)} for n in names]
    ids = [row.id for row in rows]
    assert ids[:2] == ["2", "10"]
    assert [name[:4] for name in ids[2:]] == ["cat-", "cat-", "a_b-"]
    assert len({name.lower() for name in ids}) == 5
    (tmp_path / "1.png").write_bytes(b"")
    assert [row.id for row in read_folder(tmp_path, "x")][1:] == ids


def test_a_folder_without_pictures(tmp_path):
    assert "no picture" in refusal(read_folder, tmp_path, "x")
    assert "cannot be read" in refusal(read_folder, tmp_path / "none", "x")


def test_a_grid_crosses_rows():
    rows = [Row("cat", {"image": "cat.png"}), Row("dog", {"image": "dog.png"})]
    found = cross(rows, ["LoRA Stack.lora_1.scale=0, 0.5", "seed=1,2"])
    assert [row.id for row in found[:5]] == [
        "cat-scale0-seed1", "cat-scale0-seed2", "cat-scale0.5-seed1", "cat-scale0.5-seed2",
        "dog-scale0-seed1",
    ]  # fmt: skip
    assert found[2].values == {"image": "cat.png", "LoRA Stack.lora_1.scale": "0.5", "seed": "1"}
    assert len(found) == 8
    assert cross(rows, []) == rows


@pytest.mark.parametrize(
    ("grids", "ids"),
    [
        (["seed=1,2"], ["seed1", "seed2"]),
        (['prompt="a red, old car",a heron at dusk'], ["prompt1", "prompt2"]),
        (["lora_1.file=ckpt-*.safetensors", "s=-1,1"], ["s-1", "s1"]),
        (["lora_1.file=ckpt-*.safetensors", "unet_name=*"], ["file"]),
        (["a=x,X"], ["a1", "a2"]),
        # Two ways to the same text.
        (["a=1,1-b2", "b=2-b3,3"],
         ["00001", "00002", "00003", "00004"]),
    ],
)  # fmt: skip
def test_a_grid_alone(grids, ids):
    found = cross([], grids)
    assert [row.id for row in found] == ids
    assert cross([], grids) == found


def test_a_long_row_id_stays_a_safe_one():
    rows = [Row("x" * 99 + end, {}) for end in "ab"]
    found = [row.id for row in cross(rows, ["seed=" + ",".join(map(str, range(20)))])]
    assert len({*found}) == 40
    assert {len(name) for name in found} == {100}


def test_grids_that_are_wrong():
    grids = ["seed", "=1", "a=", "b=1,,2", "c=1,1", "d=1", "d=2", "image=x", 'e="open']
    text = refusal(cross, [Row("cat", {"image": "cat.png"})], grids)
    for grid in ("'seed'", "'=1'", "'a='", "'b=1,,2'", "'e=\"open'"):
        assert f"{grid} is no grid" in text
    assert "names '1' twice" in text
    assert "'d=2' sets a column that another grid sets" in text
    assert "'image=x' sets a column that the table sets" in text

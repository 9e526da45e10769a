"""Header reading: what is sound, what is refused with words, and nothing but LoraFileError."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.reading.file import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    LoraFileError,
    parse_header,
    read_header,
)


def packed(table, data=b"", length=None):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(2,), start=0, dtype="F16", end=None):
    size = {"F16": 2, "F32": 4}.get(dtype, 1)
    count = 1
    for n in shape:
        count *= n
    return {
        "dtype": dtype,
        "shape": list(shape),
        "data_offsets": [start, start + count * size if end is None else end],
    }


def test_a_sound_file(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.zeros(2, 3, dtype=torch.bfloat16), "alpha": torch.tensor(4.0)}
    save_file(tensors, path, metadata={"k": "v"})
    header = read_header(path)
    assert header.metadata == {"k": "v"} and header.size == path.stat().st_size
    assert header.tensors["x"].shape == (2, 3) and header.tensors["x"].dtype == "BF16"
    assert header.tensors["alpha"].shape == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"abc", "not a .safetensors file"),
        (b"<!DOCTYPE html><html><body>log in</body></html>" * 9, "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" * 3, "git-lfs pointer"),
        (b"PK\x03\x04" + bytes(200), "is a pickle"),
        (b"\x80\x02}q\x00" + bytes(200), "is a pickle"),
        (b"GGUF" + bytes(200), "GGUF"),
        (b'{"error": "Unauthorized"}' * 10, "JSON text"),
        (struct.pack("<Q", 2**40) + b"{}" * 100, "not a .safetensors file"),
        (struct.pack("<Q", 2**63 + 5) + b"{}" * 100, "not a .safetensors file"),
        (packed({"a": entry()}, b"\0\0"), "cut short"),
        (packed({"a": entry()}, b"\0" * 4)[:40], "cut short"),
        (packed({"a": entry()}, b"\0" * 9), "5 bytes behind its last tensor"),
        (packed({"a": entry(), "b": entry(start=2)}, b"\0" * 6), "overlap"),
        (packed({"a": entry(start=4)}, b"\0" * 8), "leave gaps"),
        (packed({"a": entry(end=40)}, b"\0" * 40), "damaged at the tensor 'a'"),
        (packed({"a": entry(dtype="F17")}, b"\0" * 4), "unknown type F17"),
        (packed({"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 2]}}), "damaged at"),
        (packed({"a": {"dtype": "F16", "shape": [2**40, 2**40], "data_offsets": [0, 2]}}), "damag"),
        (packed({"a": [1]}), "damaged at"),
        (packed(b"[1, 2]"), "not a table"),
        (packed(b'{"a": 1'), "no readable JSON"),
        (packed(b"\xff\xfe{}"), "no readable JSON"),
        (packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "no readable JSON"),
        (packed(b'{"a": {}, "a": {}}'), "no readable JSON"),
        (
            packed(b'{"\\ud800": {"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', b"00"),
            "no read",
        ),
        (packed(b'{"__metadata__": {"title": "\\ud800"}}'), "no readable JSON"),
    ],
)
def test_refused(tmp_path, content, words):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoraFileError, match=words):
        read_header(path)


def test_a_type_that_is_nested_deeper_than_python_follows(monkeypatch):
    """Newer Pythons read thousands of levels of JSON, and cannot write them."""
    deep = []
    for _ in range(20_000):
        deep = [deep]
    monkeypatch.setattr(json, "loads", lambda *text, **how: {"a": entry() | {"dtype": deep}})
    with pytest.raises(LoraFileError, match="unknown type"):
        parse_header(b"{}", 4)


def test_a_header_bomb_that_the_file_could_hold(tmp_path):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b" " * 64)
        file.truncate(MAX_HEADER_BYTES * 2)
    with pytest.raises(LoraFileError, match="made to do harm"):
        read_header(path)


def test_a_million_tensors():
    table = {f"{i}": {} for i in range(MAX_TENSORS + 1)}
    with pytest.raises(LoraFileError, match=f"{MAX_TENSORS + 1} tensors"):
        parse_header(json.dumps(table).encode(), 0)


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(LoraFileError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(LoraFileError, match="cannot be read"):
        read_header(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "BF16", "I64", "F4", "X", 3]) | JSON,
        "shape": st.lists(st.integers(-1, 2**63), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(-1, 2**63), min_size=1, max_size=3) | JSON,
    }
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.text(max_size=12), ENTRY | JSON, max_size=4), st.integers(0, 2**40))
def test_any_table_is_read_or_refused(table, data_bytes):
    try:
        tensors, metadata = parse_header(json.dumps(table).encode("utf-8", "replace"), data_bytes)
    except LoraFileError:
        return
    assert sum(info.end - info.start for info in tensors.values()) == data_bytes
    assert all(isinstance(value, str) for value in metadata.values())


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)
    except LoraFileError as error:
        assert str(error)

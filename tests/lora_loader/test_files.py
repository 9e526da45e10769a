"""Files read once, read anew when they change, and let go of."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.read_stack import LoraFiles
from flux2_lora_edit.lora_loader.reading.file import LoraFileError


def write(path, value=1.0, **more):
    save_file({"x": torch.full((4,), value), **more}, path)
    return path


def test_a_file_is_read_once(tmp_path):
    files, path = LoraFiles(), write(tmp_path / "a.safetensors")
    first = files.open(path)
    tensor = first.read(["x"])["x"]
    assert files.open(path) is first and files.open(path).read(["x"])["x"] is tensor


def test_a_changed_file_is_read_anew(tmp_path):
    files, path = LoraFiles(), write(tmp_path / "a.safetensors")
    files.open(path).read(["x"])
    write(path, 2.0)
    os.utime(path, ns=(1, 1))
    again = files.open(path)
    assert again.read(["x"])["x"][0] == 2.0


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    """The tensors are copies: a mapped file would change, or crash, when it is written over."""
    path = write(tmp_path / "a.safetensors")
    file = LoraFiles().open(path)
    tensor = file.read(["x"])["x"]
    with open(path, "r+b") as raw:
        raw.seek(-4, 2)
        raw.write(b"\xff\xff\xff\xff")
    assert tensor.tolist() == [1.0] * 4 == file.read(["x"])["x"].tolist()


def test_at_most_so_many(tmp_path):
    files = LoraFiles(most=2)
    opened = [files.open(write(tmp_path / f"{n}.safetensors")) for n in range(3)]
    files.trim()
    assert files.open(tmp_path / "2.safetensors") is opened[2]
    assert files.open(tmp_path / "0.safetensors") is not opened[0]


def test_at_most_so_large(tmp_path):
    files = LoraFiles(most_bytes=20)
    opened = []
    for n in range(2):
        opened.append(files.open(write(tmp_path / f"{n}.safetensors")))
        opened[n].read(["x"])
    files.trim()
    assert files.open(tmp_path / "1.safetensors") is opened[1]
    assert files.open(tmp_path / "0.safetensors") is not opened[0]


def test_float8_and_float64_are_widened(tmp_path):
    eight, double = torch.ones(2).to(torch.float8_e4m3fn), torch.ones(2).double()
    file = LoraFiles().open(write(tmp_path / "a.safetensors", y=eight, z=double))
    tensors = file.read(["y", "z"])
    assert tensors["y"].dtype == torch.bfloat16 and tensors["z"].dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_peak_shows_what_is_not_finite(tmp_path, value):
    file = LoraFiles().open(write(tmp_path / "a.safetensors", y=torch.tensor([1.0, value])))
    file.read(["x", "y"])
    assert not torch.isfinite(torch.tensor(file.peaks["y"])) and file.peaks["x"] == 1.0


def test_a_file_that_went_away(tmp_path):
    path = write(tmp_path / "a.safetensors")
    file = LoraFiles().open(path)
    path.unlink()
    with pytest.raises(LoraFileError, match="cannot be read"):
        file.read(["x"])
    with pytest.raises(LoraFileError, match="cannot be read"):
        LoraFiles().open(path)


def test_what_the_parser_says_of_a_strangers_file_is_cut(tmp_path):
    """It quotes the file, which may hold megabytes of anything."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"__metadata__": "a" * 100_000, "x": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(LoraFileError, match="Delete it and fetch it again") as caught:
        LoraFiles().open(path).read(["x"])
    assert len(str(caught.value)) < 400

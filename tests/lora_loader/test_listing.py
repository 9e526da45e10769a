"""The picker's list against the loader itself: what it calls fitting, Apply applies; what it marks
wrong, Apply refuses. Here damaged files and other bases; ``test_exactness.py`` has every kind of
file that there is a producer for."""

import json
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))

import paper_models  # noqa: E402
from kinds import bad_files, wrong_base  # noqa: E402
from kinds.base import Base  # noqa: E402

from flux2_lora_edit.lora_loader.catalogue import Catalogue, installed_files  # noqa: E402
from flux2_lora_edit.lora_loader.read_stack import (  # noqa: E402
    LoraFiles,
    LoraStackError,
    read_stack,
)
from flux2_lora_edit.lora_loader.reading.file import read_header  # noqa: E402
from flux2_lora_edit.lora_loader.reading.listing import HeaderReader, read_model  # noqa: E402
from flux2_lora_edit.lora_loader.stack import LoraEntry  # noqa: E402

SIZES = {"dev": "dev", "klein 9B": "klein-9b", "klein 4B": "klein-4b"}
READ_TO_TELL = {"alpha of two elements", "DoRA of another length", "IA3 of another length"}
"""Faults that show when the tensors are read, as NaN does."""


def refusal(shapes, path: Path) -> str:
    """Why Apply refuses the file for a model of these shapes; or ""."""
    entries = [LoraEntry(path.name, 1.0, 1.0, None, "LoRA slot 1")]
    try:
        read_stack(entries, shapes, locate=lambda _: path, files=LoraFiles())
    except LoraStackError as error:
        return str(error)
    return ""


def a_catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(lambda: tmp_path / "kept.json")


def listed(tmp_path: Path, path: Path, model):
    files = installed_files([path.name], [path.parent])
    (row,) = a_catalogue(tmp_path).rows(files, model)
    return row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny model of the table: its weights, and its file as the picker reads it."""
    base, path = Base("dev"), tmp_path_factory.mktemp("tiny") / "model.safetensors"
    save_file({key: value.contiguous() for key, value in base.checkpoint().items()}, path)
    return base, {key: tuple(value.shape) for key, value in base.weights.items()}, read_model(path)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The three released models by their headers alone."""
    folder = tmp_path_factory.mktemp("released")
    paths = {n: paper_models.transformer(folder / f"{n}.safetensors", s) for n, s in SIZES.items()}
    headers = {name: read_header(path).tensors for name, path in paths.items()}
    shapes = {n: {key: info.shape for key, info in one.items()} for n, one in headers.items()}
    return {name: (shapes[name], read_model(path)) for name, path in paths.items()}


def test_every_bad_file(tiny, tmp_path):
    base, shapes, model = tiny
    wrong = []
    rows = [*bad_files.DAMAGED, *bad_files.MISFITS, *bad_files.NO_MATCH]
    for number, bad in enumerate(rows):
        path = tmp_path / str(number) / "ink.safetensors"
        path.parent.mkdir()
        bad.write(path, base)
        row, refused = listed(path.parent, path, model), refusal(shapes, path)
        # None is no promise: the base is not known.
        if (row.fits and bad.name not in READ_TO_TELL) or (row.fits is False and not refused):
            wrong.append(f"{bad.name}: {row.fits} ({row.base}), and Apply: {refused[:150]}")
        if bad in bad_files.DAMAGED and row.base not in ("cannot be read", "unknown"):
            wrong.append(f"{bad.name} is listed as {row.base}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("form", wrong_base.FLUX1_FORMS)
def test_flux1(form, released, tmp_path):
    tensors, metadata = wrong_base.flux1(form)
    save_file(tensors, tmp_path / "ink.safetensors", metadata or None)
    for shapes, model in released.values():
        row = listed(tmp_path, tmp_path / "ink.safetensors", model)
        assert (row.base, row.fits) == ("FLUX.1", False)
        assert "FLUX.1" in refusal(shapes, tmp_path / "ink.safetensors")


@pytest.mark.parametrize("size", wrong_base.WIDTHS)
def test_another_size(size, released, tmp_path):
    path = tmp_path / "ink.safetensors"
    save_file(wrong_base.other_size(size), path)
    for name, (shapes, model) in released.items():
        row = listed(tmp_path, path, model)
        assert (row.base, row.fits, row.rank) == (f"FLUX.2 {size}", name == size, 1)
        assert bool(refusal(shapes, path)) is (name != size)
    assert listed(tmp_path, path, None).fits is None


SDXL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
OTHERS = {
    "SDXL": ({f"{SDXL}.lora_down.weight": (4, 2048), f"{SDXL}.lora_up.weight": (640, 4)}, {}),
    "SD 1.5": ({f"{SDXL}.lora_down.weight": (4, 768), f"{SDXL}.lora_up.weight": (640, 4)}, {}),
    "Stable Diffusion": ({"down_blocks.0.attn.to_q.lora_A.weight": (4, 640)}, {}),
    "Qwen-Image": (
        {f"transformer_blocks.{n}.img_mlp.net.0.proj.lora_A.weight": (4, 3072) for n in (0, 59)},
        {},
    ),
    "Wan": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 5120)}, {}),
    "Z-Image": ({"layers.0.attention.to_q.lora_A.weight": (4, 3840)}, {"base_model": "Z-Image"}),
    "unknown": ({"layers.0.attention.to_q.lora_A.weight": (4, 3840)}, {}),
    "FLUX.2 dev": (
        {"double_blocks.0.img_attn.qkv.lora_A.weight": (4, 6144),
         "double_blocks.0.img_attn.qkv.lora_B.weight": (18432, 4)},
        {"ss_base_model_version": "sdxl_base_v1-0"},  # what shapes tell goes before what is said
    ),
}  # fmt: skip


@pytest.mark.parametrize("base", OTHERS)
def test_other_bases_by_their_names(base, released, tmp_path):
    shapes, metadata = OTHERS[base]
    path = paper_models.write(tmp_path / "ink.safetensors", shapes, metadata=metadata)
    for name, (weights, model) in released.items():
        row = listed(tmp_path, path, model)
        assert row.base == base
        assert row.fits is (None if base == "unknown" else base == f"FLUX.2 {name}")
        assert bool(refusal(weights, path)) is (row.fits is not True)


def hostile(folder: Path) -> list[str]:
    """Files that are made to do harm, by their names."""

    def headed(name: str, text: bytes, length: int | None = None) -> None:
        whole = struct.pack("<Q", len(text) if length is None else length) + text
        (folder / name).write_bytes(whole)

    headed("deep.safetensors", b'{"__metadata__":' + b"[" * 100_000)
    headed("deeper.safetensors", b"[" * 100_000)
    headed("digits.safetensors", b'{"__metadata__":{"a":' + b"9" * 5000 + b"}}")
    for name, piece in (("slow", b"_attn2_to_kdown"), ("slower", b"_attn2_to_k.lora_down.weight")):
        headed(f"{name}.safetensors", b'{"a' + piece * 100_000 + b'":{"shape":1}}')
    headed("claims.safetensors", b"{}", 2**63)
    headed("list.safetensors", b"[1]")
    headed("half.safetensors", b'{"__metadata__":{"trigger_word":"\\ud800"}}')
    headed("bytes.safetensors", b'{"__metadata__":{"\xff":"1"}}')
    headed("odd.safetensors", b'{"__metadata__":7}')
    headed("words.safetensors", json.dumps(
        {"__metadata__": {"trigger_word": ",".join(f"<b>{n}</b>" * 99 for n in range(999))}}
    ).encode())  # fmt: skip
    headed("long.safetensors", b'{"__metadata__":{"a":"' + b"x" * 5 * 2**20 + b'"}}')
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.safetensors")
        os.mkfifo(folder / "good.txt")
    (folder / "folder.safetensors").mkdir()
    with suppress(OSError):
        (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
        (folder / "odd.txt").symlink_to(folder / "odd.txt")
    return [path.name for path in folder.iterdir()]


def test_a_hostile_file_costs_the_others_nothing(released, tmp_path):
    folder = tmp_path / "loras"
    paper_models.lora(folder / "good.safetensors", "dev", trigger_word="inkwash")
    names = [*hostile(folder), "gone.safetensors", "\0", "../kept.json"]
    names = [name for name in names if name.endswith((".safetensors", "\0"))]
    rows = a_catalogue(tmp_path).rows(installed_files(names, [folder]), released["dev"][1])
    told = {row.file.name.partition(".")[0]: row for row in rows}
    assert rows[0].file.name == "good.safetensors" and rows[0].fits is True
    assert rows[0].trigger_words == ("inkwash",)
    bad = ("deep", "deeper", "digits", "claims", "list", "half", "bytes", "slow", "slower")
    assert {told[name].base for name in bad} == {"cannot be read"}
    assert told["long"].base == "unknown" and told["long"].fits is None
    assert told["odd"].base == "unknown"
    assert len(told["words"].trigger_words) <= 20
    assert not told.keys() & {"pipe", "folder", "loop", "gone", "\0"}


def test_what_is_known_is_kept_and_read_again_when_it_changes(released, tmp_path, monkeypatch):
    model, folder = released["dev"][1], tmp_path / "loras"
    for number in range(3):
        paper_models.lora(folder / f"{number}.safetensors", "dev", title=f"LoRA {number}")
    read = []

    def counted(self, path, *words, as_it_is=HeaderReader.read):
        read.append(path.name)
        return as_it_is(self, path, *words)

    monkeypatch.setattr(HeaderReader, "read", counted)

    def rows():
        names = [path.name for path in sorted(folder.glob("*.safetensors"))]
        return a_catalogue(tmp_path).rows(installed_files(names, [folder]), model)

    first = rows()
    assert len(read) == 3 and [row.fits for row in first] == [True] * 3
    assert rows() == first and len(read) == 3, "kept on the disk"
    if os.name == "posix":
        assert (tmp_path / "kept.json").stat().st_mode & 0o077 == 0
    paper_models.lora(folder / "1.safetensors", "klein-9b")
    assert [row.base for row in rows()] == ["FLUX.2 dev", "FLUX.2 dev", "FLUX.2 klein 9B"]
    assert read[3:] == ["1.safetensors"]


@pytest.mark.parametrize("kept", [
    b"", b"{", b"[]", b"null", b"\xff", b'{"version": 1}',
    b'{"version": 1, "files": 7, "fits": {}}',
    b'{"version": 1, "files": {"a": [[1, 2], ["b", null, [], "d", [1]]]}, "fits": {}}',
    b'{"version": 1, "files": {"a": [["x"], ["b", null, [], "d", null]]}, "fits": {}}',
    b"[" * 100_000,
])  # fmt: skip
def test_a_damaged_kept_file_is_as_none(kept, released, tmp_path):
    (tmp_path / "kept.json").write_bytes(kept)
    paper_models.lora(tmp_path / "ink.safetensors", "dev")
    row = listed(tmp_path, tmp_path / "ink.safetensors", released["dev"][1])
    assert (row.base, row.fits) == ("FLUX.2 dev", True)
    assert json.loads((tmp_path / "kept.json").read_bytes())["files"], "written anew"


def test_a_kept_file_of_other_types_does_no_harm(released, tmp_path):
    """By hand, with the right outline: every value of the first entry as another type."""
    path = tmp_path / "ink.safetensors"
    paper_models.lora(path, "dev", trigger_word="inkwash")
    right = listed(tmp_path, path, released["dev"][1])
    table = json.loads((tmp_path / "kept.json").read_bytes())
    (name,) = table["files"]
    changed, known = table["files"][name]
    for place in range(len(known)):
        for odd in (7, "x", [7], {"a": 1}, True, 1e400):
            other = [*known[:place], odd, *known[place + 1 :]]
            table["files"][name] = [changed, other]
            (tmp_path / "kept.json").write_text(json.dumps(table))
            row = listed(tmp_path, path, released["dev"][1])
            assert row.fits in (True, None, False) and isinstance(row.base, str)
    for place in range(len(known[-1])):
        for odd in (7, "x", [7], {"a": 1}, None):
            told = [*known[-1][:place], odd, *known[-1][place + 1 :]]
            table["files"][name] = [changed, [*known[:-1], told]]
            (tmp_path / "kept.json").write_text(json.dumps(table))
            row = listed(tmp_path, path, released["dev"][1])
            assert row.fits in (True, None, False) and isinstance(row.base, str)
    assert right.fits is True


@pytest.mark.parametrize("dtype", ["U8", "F8_E4M3"])
def test_a_quantised_model_is_known_by_its_true_width(dtype, tmp_path):
    """nvfp4 files hold two weights a byte: half the columns."""
    from host import tiny

    shapes = tiny.transformer_shapes("klein-4b", *paper_models.SIZES["klein-4b"])
    packed = {
        name: (shape[0], shape[1] // 2) if dtype == "U8" and "blocks" in name else shape
        for name, shape in shapes.items() if len(shape) == 2
    }  # fmt: skip
    path, table, end = tmp_path / "model.safetensors", {}, 0
    for name, shape in packed.items():
        kind = dtype if "blocks" in name else "BF16"
        size = shape[0] * shape[1] * (1 if "blocks" in name else 2)
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    model = read_model(path)
    assert model is not None and model.model.name == "klein 4B"
    paper_models.lora(tmp_path / "ink.safetensors", "klein-4b")
    assert listed(tmp_path, tmp_path / "ink.safetensors", model).fits is True

"""The picker's list against the loader itself: what it calls fitting, Apply applies; what it marks
wrong, Apply refuses. Here damaged files and other bases; ``test_exactness.py`` has every kind of
file that there is a producer for."""

import sys
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
from flux2_lora_edit.lora_loader.reading.listing import read_model  # noqa: E402
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

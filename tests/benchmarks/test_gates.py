"""What the benchmarks count, held: figures that are the same on every machine."""

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("comfy_inprocess")


@pytest.fixture(scope="module")
def module():
    """A benchmark module by its name; they import each other as the commands do."""
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.append(folder)
    yield importlib.import_module
    sys.path.remove(folder)


def test_bytes_and_operations_of_a_merge(module, comfy_inprocess):
    rows = {row.name: (row.stock, row.ours) for row in module("merge_bytes").counts()}
    assert rows == {
        "qkv of split LoRAs: moved": (36, 4),
        "qkv of split LoRAs: operations": (27, 3),
        "linear1: moved": (36, 4),
        "linear1: operations": (9, 1),
    }


def test_patches_stored_on_a_whole_dev(module, comfy_inprocess):
    assert module("merge_bytes").patches() == (576, 160)


def test_noise_of_a_merge(module, comfy_inprocess):
    rows = module("merge_accuracy").measure(True)
    assert len(rows) == 6
    assert all(row.ours <= 1.02 for row in rows), rows
    # A benchmark that finds no noise in stock's three roundings would find none in ours.
    assert all(row.stock > 1.7 for row in rows if "in bf16" in row.name)


@pytest.mark.parametrize(("device", "width", "least"), [("meta", 6144, 1290), ("cpu", 1024, 35)])
def test_temporary_memory_of_a_linear1(module, comfy_inprocess, device, width, least):
    """On a GPU at dev's own width; on a CPU at one whose merge still takes more than a block."""
    peaks = module("memory_peak").counted(width, device)
    assert peaks["stock"] > least * 2**20
    assert peaks["ours"] < 24 * 2**20


def test_quantised_layers_keep_the_effect(module, comfy_inprocess):
    rows = module("quantised_fidelity").measure(True)
    # int8 keeps more of the effect by itself; hosts before it have fp8 and nvfp4.
    assert [row.met for row in rows if not row.name.startswith("int8")] == [True] * 4, rows


def test_what_a_schedule_and_a_region_add_to_a_layer(module, comfy_inprocess):
    """By step and picture nothing; by token two operations on float32 numbers for each token and
    rank, which are a small part of what the layer reads and writes."""
    tokens, ranks = 4608, 112
    layers = {
        how: module("where_when").one_layer(9 * 4096, 4096, tokens, None, how)
        for how in ("unmodified", "pictures", "region", "both")
    }
    plain = layers["unmodified"]
    assert layers["pictures"].ops == plain.ops
    for how in ("region", "both"):
        assert sorted(layers[how].ops) == sorted([*plain.ops, "index_select", "mul"])
        more = layers[how].bytes - plain.bytes
        assert more < 6 * 4 * tokens * ranks < 0.05 * plain.bytes

"""LORA_STACK: ours, other packs', and both together."""

import copy
import pickle

import numpy as np
import pytest
import torch

from flux2_lora_edit.lora_loader.sources.source import HubSource, InstalledSource
from flux2_lora_edit.lora_loader.stack import LoraEntry, StackError, as_entries, combine


def test_an_entry_is_a_plain_triple_to_other_packs():
    entry = LoraEntry("a", 0.5, 1.0, HubSource("o/r"), "LoRA slot 2")
    name, strength_model, strength_clip = entry
    assert (name, strength_model, strength_clip) == ("a", 0.5, 1.0)
    assert isinstance(entry, tuple) and len(entry) == 3 and entry == ("a", 0.5, 1.0)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))],  # noqa: S301
)
def test_a_copied_entry_keeps_its_source(copied):
    entry = copied(LoraEntry("a", 0.5, 1.0, HubSource("o/r"), "LoRA slot 2"))
    assert entry.source == HubSource("o/r") and entry.slot == "LoRA slot 2"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, []),
        ([], []),
        ([("a", 1.0, 1.0), ("b", -0.5, 0)], ["a", "b"]),
        ((["a", 1, 1],), ["a"]),
        ([("None", 1.0, 1.0), (None, 1.0, 1.0), ("", 1, 1), ("a", 0, 0)], []),
        ([("a", 1.0)], ["a"]),
    ],
)
def test_stacks_of_other_packs(value, names):
    assert [entry.name for entry in as_entries(value)] == names


def test_other_packs_entries_are_installed_files():
    (entry,) = as_entries([("sub/a.safetensors", 1, 1)])
    assert entry.source == InstalledSource("sub/a.safetensors")
    assert "Entry 1" in entry.slot


@pytest.mark.parametrize(
    "strength",
    [np.float32(0.5), np.float64(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5)],
    ids=lambda one: type(one).__name__,
)
def test_strengths_of_other_libraries_are_numbers(strength):
    """What slices of arrays and tensors are; downstream they are plain numbers."""
    (entry,) = as_entries([("a", strength, np.int64(2))])
    assert entry == ("a", 0.5, 2) and {type(one) for one in entry[1:]} == {float}
    assert as_entries([("a", np.float32(0), np.int64(0))]) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a.safetensors", "str"),
        ({"a": 1}, "dict"),
        (3, "int"),
        (["a"], "Entry 1"),
        ([("a", 1, 1, 1)], "Entry 1"),
        ([("a", float("nan"), 1)], "nan"),
        ([("a", 1, float("inf"))], "inf"),
        ([("a", "1", 1)], "'1'"),
        ([("a", True, 1)], "True"),
        ([("a", np.float32("nan"), 1)], "nan"),
        ([("a", 1, np.float64("inf"))], "inf"),
        ([("a", np.array([1.0]), 1)], "array"),
        ([("a", np.bool_(True), 1)], "True"),
        ([("a", np.complex64(1), 1)], "1"),
        ([("a", 10**400, 1)], "strength 1000"),
        ([("b", 1, 1), (7, 1, 1)], "Entry 2"),
    ],
)
def test_stacks_refused(value, words):
    with pytest.raises(StackError, match=words):
        as_entries(value)


def test_upstream_comes_first():
    entries = combine([("up", 1, 1)], [LoraEntry("own", 1.0, 1.0)])
    assert [entry.name for entry in entries] == ["up", "own"]


def test_disabled_entries_do_not_count_towards_the_three():
    upstream = [("a", 1, 1), ("b", 0, 0), ("None", 1, 1)]
    own = [LoraEntry("c", 1.0, 1.0), LoraEntry("d", 1.0, 1.0), LoraEntry("e", 0.0, 0.0)]
    assert len(combine(upstream, own)) == 3


def test_a_fourth_is_refused_by_name():
    four = [("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]
    with pytest.raises(StackError, match="4 enabled LoRAs; 3 is the most.*a, b, c, d"):
        combine(four, [LoraEntry("d", 1.0, 1.0)])

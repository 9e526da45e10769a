"""What a file says of itself."""

import json

import pytest
import torch
from safetensors.torch import save_file

from flux2_lora_edit.lora_loader.reading.info import describe_stack, trigger_words
from flux2_lora_edit.lora_loader.sources.source import SourceError
from flux2_lora_edit.lora_loader.stack import LoraEntry
from host import tiny_loras


@pytest.mark.parametrize(
    ("metadata", "sidecar", "words"),
    [
        ({}, "", []),
        ({"trigger_word": "inkstyle"}, "", ["inkstyle"]),
        ({"modelspec.trigger_phrase": "ink, by hand"}, "", ["ink", "by hand"]),
        ({"training_info": json.dumps({"trigger_word": "zed"})}, "", ["zed"]),
        ({"training_info": "{"}, "", []),
        ({}, "a photo\nin ink", ["a photo", "in ink"]),
        (
            {"ss_tag_frequency": json.dumps({"set": {"ink": 9, "cat": 12, "once": 1, "x": "2"}})},
            "",
            ["cat", "ink"],
        ),
        ({"ss_tag_frequency": json.dumps({"a": {"t": 2}}), "trigger_word": "w"}, "", ["w"]),
    ],
)
def test_trigger_words(metadata, sidecar, words):
    assert trigger_words(metadata, sidecar) == words


def test_a_stack_in_words(tmp_path):
    made = tiny_loras.diffusers()
    metadata = made.metadata | {"modelspec.license": "apache-2.0", "trigger_word": "inkstyle"}
    save_file({k: v.contiguous() for k, v in made.weights.items()}, tmp_path / "a", metadata)
    (tmp_path / "a.txt").write_text("beside")
    (tmp_path / "b").write_bytes(b"")
    entries = [LoraEntry("a", 1.0, 1.0), LoraEntry("b", 1.0, 1.0), LoraEntry("c", 1.0, 1.0)]

    def locate(entry):
        if entry.name == "c":
            raise SourceError("not on disk")
        return tmp_path / entry.name

    info, words = describe_stack(entries, locate)
    for line in ("rank: 8", "alpha: 4", "trainer: diffusers", "licence: apache-2.0"):
        assert line in info
    assert "empty (0 bytes)" in info and "not on disk" in info
    assert words == "inkstyle, beside"


def a_file(folder, name="a.safetensors", metadata=None, **beside):
    """A LoRA with files beside it: ``record`` for its note, ``config`` for PEFT's."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    save_file({"x.lora_A.weight": torch.ones(8, 8)}, path, metadata)
    for ending, value in beside.items():
        target = path.with_name("adapter_config.json" if ending == "config" else f"{name}.json")
        target.write_text(json.dumps(value))
    return path


def told(*paths):
    entries = [LoraEntry(str(path), 1.0, 1.0) for path in paths]
    return describe_stack(entries, lambda entry: entry.name)


def test_civitais_trigger_words_are_shown_and_given_once(tmp_path):
    """Its note holds them as the page lists them: several in one, in other case, over lines."""
    note = {"trigger_words": ["INK style, by hand", "heron\r\non water", "", 3, "ink  style"]}
    file = a_file(tmp_path, "a.safetensors", {"trigger_word": "inkstyle"}, record=note)
    other = a_file(tmp_path, "b.safetensors", {"trigger_word": "Heron"})
    info, words = told(file, other)
    assert words == "inkstyle, INK style, by hand, heron, on water"
    assert "trigger words: inkstyle, INK style, by hand, heron, on water\n" in info
    assert "trigger words: Heron" in info  # its own, though it is not given twice


@pytest.mark.parametrize("note", [[], {"trigger_words": "ink"}, {"trigger_words": None}])
def test_a_note_of_another_kind_gives_no_words(tmp_path, note):
    assert told(a_file(tmp_path, record=note))[1] == ""


def test_the_facts_of_an_adapter_config_are_shown(tmp_path):
    config = {
        "peft_type": "LORA", "base_model_name_or_path": "black-forest-labs/FLUX.2-dev", "r": 16,
        "lora_alpha": 32, "use_dora": True, "use_rslora": False, "lora_dropout": 0.0,
        "target_modules": ["to_q"], "bias": "none", "revision": None,
    }  # fmt: skip
    info, _ = told(a_file(tmp_path, config=config))
    for fact in (
        "named base: black-forest-labs/FLUX.2-dev", "alpha: 32",
        "adapter_config.json: peft_type LORA, r 16, lora_alpha 32, use_dora, target_modules to_q",
    ):  # fmt: skip
        assert fact in info
    assert "rslora" not in info and "revision" not in info


def test_an_adapter_config_that_may_be_anothers_is_not_told_but_named(tmp_path):
    path = a_file(tmp_path, config={"peft_type": "LOHA", "r": 3, "alpha": 2})
    assert "adapter_config.json: peft_type LOHA, r 3, alpha 2" in told(path)[0]
    a_file(tmp_path, "b.safetensors")
    info, _ = told(path)
    assert "LOHA" not in info and "the adapter_config.json beside it is not used" in info


def test_an_empty_stack():
    assert describe_stack([], lambda entry: None) == ("The stack is empty.", "")


def test_long_metadata_is_cut(tmp_path):
    weights = {"x.lora_A.weight": torch.ones(1, 1)}
    save_file(weights, tmp_path / "a", {"modelspec.title": "x" * 5000 + "\n" * 50})
    info, _ = describe_stack([LoraEntry("a", 1.0, 1.0)], lambda entry: tmp_path / entry.name)
    assert len(info) < 1500


@pytest.mark.parametrize(("neighbour", "alpha"), [(False, "alpha: 4"), (True, "")])
def test_settings_beside_a_file_are_told_where_apply_uses_them(tmp_path, neighbour, alpha):
    """raw PEFT keeps alpha in adapter_config.json; with another LoRA there it may be that one's."""
    save_file({"x.lora_A.weight": torch.ones(8, 8)}, tmp_path / "a.safetensors")
    if neighbour:
        save_file({"x.lora_A.weight": torch.ones(8, 8)}, tmp_path / "b.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    info, _ = describe_stack([LoraEntry("a", 1.0, 1.0)], lambda _: tmp_path / "a.safetensors")
    assert (alpha in info) and ("alpha" in info) == bool(alpha)

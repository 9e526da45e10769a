"""What goes into the host's text channel reads well and means nothing to a page."""

import random
import re
from unittest.mock import Mock

import pytest

pytestmark = pytest.mark.usefixtures("comfy_inprocess")
PLAIN = (
    "LoRA ink: rank 8-16 · 3 of 4\n  C:\\loras\\ink.safetensors (100%) [1], `x` & co.\n"
    "https://example.org/a%20b?c=1&d=2#e 日本語 مرحبا é 🧑‍🎨"
)
MEANS = re.compile(
    r"""[<>"']|[!\[\]]\[|\]\(|__LNK[0-9]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"""
)
PARTS = (
    "<", ">", '"', "'", "[", "[[", "|", "]]", "!", "(", "__LNK", "__", "0", "\0", "\x1b[2J", "\r\n",
    "\t", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800", "\udfff", "\U000e0041", "&lt;",
    "https://a.b/", "javascript:", "a", "\n",
)  # fmt: skip


@pytest.fixture
def show(monkeypatch):
    """Shows a text; gives what the page gets, which is what stands in the node's ``ui``."""
    from flux2_lora_edit.nodes import host

    def show(text):
        server = Mock(client_id="page")
        monkeypatch.setattr(host.PromptServer, "instance", server, raising=False)
        (shown,) = host.show_text(text, "7")["text"]
        server.send_progress_text.assert_called_once_with(shown, "7", "page")
        assert (shown,) == host.show_text(text, None)["text"]
        return shown

    return show


def test_a_usual_text_is_shown_as_it_is(show):
    assert show(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<lora:ink:0.8>", "‹lora:ink:0.8›"),
        ("It's \"in\" 'ink'", "It’s “in” ’ink’"),
        ('96x96 -> 64x64, "a" and "b', "96x96 → 64x64, “a” and ”b"),
        ("[[me|javascript:x]]", "[ [me|javascript:x]]"),
        ("![a](b) [c][d]", "! [a] (b) [c] [d]"),
        ("[[[[a", "[ [ [ [a"),
        ("__LNK0__ __LNK", "__LNK 0__ __LNK"),
        ("a\r\nb\tc", "a \nb c"),
        ("gnp.\u202eexe\0", "gnp.\ufffdexe\ufffd"),
        ("\udcff.safetensors", "\ufffd.safetensors"),
        ("&lt;b&gt;", "&lt;b&gt;"),
    ],
)
def test_what_a_page_would_take_for_more_than_text(text, shown, show):
    assert show(text) == shown


def test_a_long_text_is_cut_and_says_so(show):
    shown = show("[" * 10**6)
    assert len(shown) < 50_000 and shown.endswith("and 980000 more characters")


def test_no_mixture_means_anything(show):
    chance = random.Random(11)
    for _ in range(3000):
        shown = show("".join(chance.choices(PARTS, k=12)))
        assert not MEANS.search(shown), ascii(shown)
        shown.encode()  # as the host sends it


def behind(monkeypatch, prompt, node_id, running="p"):
    from comfy_execution.utils import CurrentNodeContext

    from flux2_lora_edit.nodes import host

    items = [(0, "another", {}), (1, running, prompt, {}, [])]
    server = Mock(**{"prompt_queue.get_current_queue_volatile.return_value": (items, [])})
    monkeypatch.setattr(host.PromptServer, "instance", server, raising=False)
    for name, gives in GIVES.items():
        monkeypatch.setitem(host.NODE_CLASS_MAPPINGS, name, Mock(RETURN_TYPES=gives))
    with CurrentNodeContext("p", node_id):
        return host.weights_taken_by()


def node(kind, *sources, **widgets):
    inputs = {f"input_{n}": [source, 0] for n, source in enumerate(sources)}
    return {"class_type": kind, "inputs": inputs | widgets}


GIVES = {
    "Flux2EditApplyLoraStack": ("MODEL", "CLIP", "STRING"), "ModelSamplingFlux": ("MODEL",),
    "ModelMergeSimple": ("MODEL",), "FLUX2 Sampler": ("LATENT",), "NodeThatExpands": ("*",),
    "Packer": ("BASIC_PIPE",),
}  # fmt: skip
PROMPT = {
    "1": node("UNETLoader"),
    "9": node("ModelSave", "7"),
    "5:3": node("Flux2EditApplyLoraStack", "1", scales=[["5:3", 1], {}]),
    "5:4": node("ModelSamplingFlux", "5:3"),
    "7": node("ModelMergeSimple", "1", "5:4"),
    "8": node("FLUX2 Sampler", "7", words="ModelSave"),
    "10": node("CheckpointSave", "1"),
    "11": node("SaveImage", "8", listed=["10", "9"]),
    "12": node("NodeThatExpands", "1"),
    "13": node("LoraSave", "12"),
    "14": node("Packer", "5:4"),
    "15": node("PipeToCheckpointSave", "14"),
    "18": node("Save a Checkpoint", "5:4"),  # packs have kinds of several words
    # Of the report and of a picture: no weights come that way.
    "16": {"class_type": "ModelNotesSave", "inputs": {"text": ["5:3", 2]}},
    "17": node("SaveImageWithLora", "8"),
}


@pytest.mark.parametrize(
    ("node_id", "found"),
    [
        (
            "5:3",
            "ModelMergeSimple (node 7), Save a Checkpoint (node 18), ModelSave (node 9), "
            "PipeToCheckpointSave (node 15)",
        ),
        ("8", ""),
        ("12.0.0.4", "LoraSave (node 13)"),  # made by node 12: the host's own name for it
        ("gone", ""),
    ],
)
def test_what_takes_the_weights_behind_a_node(node_id, found, monkeypatch):
    assert behind(monkeypatch, PROMPT, node_id) == found
    assert behind(monkeypatch, PROMPT, node_id, running="another still") == ""


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        ("CheckpointSave", True),
        ("ImageOnlyCheckpointSave", True),
        ("ModelMergeFlux1", True),
        ("ModelMergeSubtract", True),
        ("ModelSaveKJ", True),
        ("LoraExtractKJ", True),
        ("XY Input: Merge Models", True),
        ("DYNAMIC_TRT_MODEL_CONVERSION", True),
        ("SaveImage", False),
        ("SaveLatent", False),
        ("VAESave", False),
        ("LoraLoaderModelOnly", False),
        ("ModelSamplingFlux", False),
        ("ModelPatchLoader", False),
        ("PatchModelAddDownscale", False),
        ("TorchCompileModel", False),
        ("Flux2EditApplyLoraStack", False),
        ("KSampler", False),
    ],
)
def test_the_kinds_that_take_weights(kind, takes):
    from flux2_lora_edit.nodes import host

    assert bool(host.TAKES_WEIGHTS.match(kind)) is takes


def test_the_texts_behind_an_input():
    """Through links, nested values, and nodes that others made while the prompt ran; not those of
    the node itself, nor of its other inputs."""
    from comfy_execution.graph import DynamicPrompt

    from flux2_lora_edit.nodes import host

    prompt = {
        "1": {"inputs": {"unet_name": "a\\ü.gguf", "weight_dtype": "default"}},
        "2": {"inputs": {"model": ["1", 0], "lora_1": {"on": True, "lora": "ink.safetensors"}}},
        "3": {"inputs": {"model": ["2", 0], "clip": ["4", 0], "strength": 1.0, "on": None}},
        "4": {"inputs": {"clip_name": "t.safetensors", "again": ["1", 0]}},
        "5": {"inputs": {"text": "a prompt"}},
        "9": {"inputs": {"model": ["3", 0], "positive": ["5", 0], "preset": "dev"}},
    }
    hidden = Mock(unique_id="9", dynprompt=DynamicPrompt(prompt))
    texts = host.texts_behind(hidden, "model")
    assert texts == [
        ("lora_1", "on"), ("lora_1", "lora"), ("lora_1", "ink.safetensors"),
        ("clip_name", "t.safetensors"), ("unet_name", "a\\\\ü.gguf"), ("weight_dtype", "default"),
    ]  # fmt: skip

    made = {"inputs": {"model": ["1", 0], "latent_image": ["5", 0]}}
    hidden.dynprompt.add_ephemeral_node("7.0.1", made, "7", "7")
    hidden.unique_id = "7.0.1"
    assert [name for name, _ in host.texts_behind(hidden, "model")] == ["unet_name", "weight_dtype"]
    for unknown in (Mock(unique_id="8", dynprompt=hidden.dynprompt),
                    Mock(unique_id=None, dynprompt=None)):  # fmt: skip
        assert host.texts_behind(unknown, "model") == []

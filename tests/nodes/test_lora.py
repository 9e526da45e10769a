"""The LoRA nodes in a real ComfyUI process: the queue's check, the run, the cache's key."""

import asyncio
import json
import logging
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from host import tiny, tiny_loras

pytestmark = pytest.mark.usefixtures("comfy_inprocess")

NONE = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}


@pytest.fixture
def loras(tmp_path, monkeypatch):
    """A loras folder with three trainers' files."""
    import folder_paths

    for name, made in (
        ("styles/ink", tiny_loras.ai_toolkit(double=1, single=1)),
        ("sea", tiny_loras.diffusers(double=1, single=1)),
        ("sky", tiny_loras.kohya(double=1, single=1)),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in made.weights.items()}, path, made.metadata)
    folders = {**folder_paths.folder_names_and_paths, "loras": ([str(tmp_path)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def nodes(loras):
    from flux2_lora_edit import nodes

    return nodes


@pytest.fixture(scope="module")
def model(comfy_inprocess):
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(tiny.transformer("dev", double=1, single=1))


def slot(number, kind="installed", **values):
    name = f"lora_{number}"
    inputs = {name: kind, f"{name}.scale": 1.0, f"{name}.enabled": True}
    return inputs | {f"{name}.{key}": value for key, value in values.items()}


def nested(inputs):
    """Flat prompt inputs as a node gets them."""
    slots = {f"lora_{n}": {} for n in (1, 2, 3)}
    for key, value in inputs.items():
        name, _, field = key.partition(".")
        slots[name][field or name] = value
    return slots


def queue(nodes, inputs):
    """The host's own check of a prompt; the errors it would show at the stack node."""
    import execution
    import nodes as host

    classes = (nodes.Flux2EditLoraStack, nodes.Flux2EditLoraInfo)
    from comfy_extras.nodes_preview_any import PreviewAny

    known = {c.define_schema().node_id: c for c in classes} | {"PreviewAny": PreviewAny}
    prompt = {
        "1": {"class_type": "Flux2EditLoraStack", "inputs": NONE | inputs},
        "2": {"class_type": "Flux2EditLoraInfo", "inputs": {"lora_stack": ["1", 0]}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    saved, host.NODE_CLASS_MAPPINGS = host.NODE_CLASS_MAPPINGS, known
    logging.disable(logging.ERROR)
    try:
        valid, *_, errors = asyncio.run(execution.validate_prompt("id", prompt, None))
    finally:
        logging.disable(logging.NOTSET)
        host.NODE_CLASS_MAPPINGS = saved
    return [] if valid else [error["details"] for error in errors["1"]["errors"]]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        slot(1, file="sea.safetensors"),
        slot(1, file="styles\\ink.safetensors", scale=4.0),
        slot(3, file="ink"),
        slot(2, "hugging face", repo="owner/repo:file.safetensors"),
        slot(2, "url", url="https://example.com/a.safetensors"),
        slot(1, file="gone.safetensors", enabled=False),
        slot(1, file="gone.safetensors", scale=0.0),
        slot(1, file="choose a LoRA", enabled=False),
        slot(1, "url", url="nonsense", enabled=False),
    ],
)
def test_the_queue_takes(nodes, inputs):
    assert queue(nodes, inputs) == []


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (slot(2, file="seaa.safetensors"), "LoRA slot 2: There is no LoRA 'seaa.*sea.safetensors"),
        (
            slot(1, file="../../secret.safetensors"),
            "slot 1: .*outside ComfyUI's loras folders",
        ),
        (
            slot(2, file="choose a LoRA"),
            "LoRA slot 2: No LoRA file is chosen. Choose one, or set the slot to none.",
        ),
        (slot(1, file="/etc/passwd"), "outside ComfyUI's loras folders"),
        (
            slot(1, file="sea.safetensors", scale=4.05),
            "slot 1: scale is 4.05; it takes -4 to 4",
        ),
        (slot(1, file="sea.safetensors", scale=-4.5), "scale is -4.5; it takes -4 to 4"),
        (slot(1, file="sea.safetensors", scale=float("nan")), "scale is nan"),
        (slot(3, "hugging face", repo="nope"), "LoRA slot 3: .*names no Hugging Face repo"),
        (slot(3, "url", url="http://example.com/a"), "LoRA slot 3: The URL must start with https"),
        ({"lora_1": "magic"}, "LoRA slot 1 is missing or of an unknown kind"),
    ],
)
def test_the_queue_refuses_in_one_line(nodes, inputs, words):
    import re

    (error,) = queue(nodes, inputs)
    assert re.search(words, error), error


def test_the_list_is_scanned_anew(nodes, loras):
    os.utime(loras, (1, 1))
    queue(nodes, {})
    (loras / "new.safetensors").write_bytes((loras / "sea.safetensors").read_bytes())
    assert queue(nodes, slot(1, file="new.safetensors")) == []


def stack_of(nodes, inputs, lora_stack=None):
    return nodes.Flux2EditLoraStack.execute(lora_stack=lora_stack, **nested(NONE | inputs)).args[0]


def test_the_stack_is_plain_triples_with_the_hosts_names(nodes):
    inputs = slot(1, file="styles\\ink", scale=0.5) | slot(2, file="sea.safetensors", enabled=False)
    stack = stack_of(nodes, inputs | slot(3, "hugging face", repo="o/r"), [("up", -1, 1)])
    assert stack == [("up", -1, 1), ("styles/ink.safetensors", 0.5, 0.5), ("o/r", 1.0, 1.0)]
    assert all(type(item).__mro__[1:][-2] is tuple for item in stack)
    assert [entry.slot for entry in stack[1:]] == ["LoRA slot 1", "LoRA slot 3"]


def test_more_than_three_in_all(nodes):
    two = [("a", 1, 1), ("b", 1, 1)]
    inputs = slot(1, file="sea.safetensors") | slot(2, file="sky.safetensors")
    with pytest.raises(ValueError, match="4 enabled LoRAs; 3 is the most"):
        stack_of(nodes, inputs, two)


def test_values_that_come_over_links_are_checked_when_they_are_known(nodes):
    inputs = slot(1, file="sea.safetensors", scale=None)
    assert nodes.Flux2EditLoraStack.validate_inputs(**nested(NONE | inputs)) is True
    with pytest.raises(ValueError, match="scale is 9"):
        stack_of(nodes, inputs | {"lora_1.scale": 9.0})


def test_the_fingerprint_follows_the_file_and_never_is_nan(nodes, loras):
    def of(inputs):
        return nodes.Flux2EditLoraStack.fingerprint_inputs(**nested(NONE | inputs))

    inputs = slot(1, file="sea.safetensors")
    first = of(inputs)
    assert of(inputs) == first
    os.utime(loras / "sea.safetensors", ns=(5, 5))
    assert of(inputs) != first
    gone = slot(1, file="gone.safetensors")
    assert of(gone) == of(gone)


def graph_of(monkeypatch, *takers):
    """A running stack "2:1" and its takers: (id, class, types it gives, links)."""
    from flux2_lora_edit.nodes import host

    nodes = [("2:1", "Flux2EditLoraStack", ("LORA_STACK",), []), *takers]
    kinds = {kind: type(kind, (), {"RETURN_TYPES": gives}) for _, kind, gives, _ in nodes}
    monkeypatch.setattr(host, "NODE_CLASS_MAPPINGS", kinds)
    prompt = {
        node: {"class_type": kind, "inputs": {"more": 3, "pair": [1, 2], **dict(enumerate(links))}}
        for node, kind, _, links in nodes
    }
    queue = SimpleNamespace(get_current_queue_volatile=lambda: ([(1, "this", prompt)], []))
    server = SimpleNamespace(prompt_queue=queue, client_id=None)
    context = SimpleNamespace(prompt_id="this", node_id="2:1")
    monkeypatch.setattr(host.PromptServer, "instance", server, raising=False)
    monkeypatch.setattr(host, "get_executing_context", lambda: context)


STACK = ("LORA_STACK",)


@pytest.mark.parametrize(
    ("nodes_after", "said"),
    [
        ([], []),
        ([("2:2", "Loader", ("MODEL", "STRING"), [["2:1", 0]])], ["Loader"]),
        ([("4", "Pipe", ("PIPE_LINE",), [["2:1", 0]])], ["Pipe"]),
        ([("4", "Loader", ("MODEL",), [["3", 0]])], []),
        ([("4", "ShowAnything", ("STRING",), [["2:1", 0]])], []),
        ([("4", "Save", (), [["2:1", 0]])], []),
        ([("4", "Flux2EditApplyLoraStack", ("MODEL",), [["2:1", 0]])], []),
        ([("4", "Stacker", STACK, [["2:1", 0]])], []),
        # A loop, as broken graphs have, and an output that is another's.
        (
            [("4", "Switch", ("COMFY_MATCHTYPE_V3",), [["2:1", 0], ["5", 0]]),
             ("5", "Stacker", ("INT", "LORA_STACK,STRING"), [["4", 0]]),
             ("6", "Loader", ("MODEL",), [["5", 1]]), ("7", "Other", ("MODEL",), [["5", 0]])],
            ["Loader"],
        ),
        (
            [("4", "Flux2EditDownloadLoras", STACK, [["2:1", 0]]),
             ("5", "Loader", ("MODEL",), [["4", 0]])],
            [],
        ),
    ],
)  # fmt: skip
def test_who_takes_a_stack_and_needs_its_files_here(nodes, monkeypatch, nodes_after, said):
    from flux2_lora_edit.nodes import host, lora_stack

    graph_of(monkeypatch, *nodes_after)
    takers = host.takers("LORA_STACK", ["Flux2EditDownloadLoras"])
    text = lora_stack.advice(["LoRA slot 1 (o/r)"], takers)
    assert [one for one in ("Loader", "Pipe", "ShowAnything", "Other") if one in text] == said
    assert bool(text) == bool(said)


@pytest.mark.parametrize(
    ("taker", "sees"),
    [("Flux2EditApplyLoraStack", False), ("Flux2EditRunComfy", False), ("Loader", True),
     ("Flux2EditLoraInfo", True), (None, True)],
)  # fmt: skip
def test_the_fingerprint_sees_a_file_that_has_come_where_it_matters(
    nodes, loras, monkeypatch, taker, sees
):
    """Who takes the source is not run again for it; where no graph is known it matters."""
    if taker:
        graph_of(monkeypatch, ("4", taker, ("MODEL",), [["2:1", 0]]))
    stack = nodes.Flux2EditLoraStack
    inputs = nested(NONE | slot(2, "hugging face", repo="o/r"))
    before = stack.fingerprint_inputs(**inputs)
    assert stack.fingerprint_inputs(**inputs) == before
    file = loras / "flux2-lora-edit" / "o--r" / "ink.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert (stack.fingerprint_inputs(**inputs) != before) == sees
    assert stack.execute(**inputs).args[0] == [("flux2-lora-edit/o--r/ink.safetensors", 1, 1)]
    assert stack.execute(**inputs).args[0][0].source.describe() == "o/r"


def test_a_name_is_resolved_once_a_step(nodes, model, monkeypatch):
    """Before queueing, for the cache, and in the stack's execute; Apply takes the host's name."""
    import importlib

    module = importlib.import_module("flux2_lora_edit.nodes.lora_stack")
    asked, resolve = [], module.sources.resolve_installed

    def counted(name, *folders):
        asked.append(name)
        return resolve(name, *folders)

    monkeypatch.setattr(module.sources, "resolve_installed", counted)
    inputs = nested(NONE | slot(1, file="ink"))
    for step in ("validate_inputs", "fingerprint_inputs", "execute"):
        made = getattr(nodes.Flux2EditLoraStack, step)(**inputs)
        assert asked == ["ink"], step
        asked.clear()
    apply(nodes, model, made.args[0], mode="merge")
    assert asked == []


def apply(nodes, model, stack, **how):
    class Hidden:
        unique_id = None

    class Apply(nodes.Flux2EditApplyLoraStack):
        hidden = Hidden()

    return Apply.execute(model, stack, **how)


def test_apply(nodes, model):
    inputs = slot(1, file="styles/ink.safetensors") | slot(2, file="sea.safetensors", scale=0.5)
    output = apply(nodes, model, stack_of(nodes, inputs), clip="the text encoder")
    patched, clip, report = output.args
    assert clip == "the text encoder" and model.patches == {} and len(patched.patches) == 10
    table = json.loads(report)
    assert [lora["matched"] for lora in table["loras"]] == [10, 14]
    assert table["loras"][1]["file_scales"] == [0.5] and table["loras"][1]["scale"] == 0.5
    assert table["mode"]["asked"] == "auto" and table["mode"]["reason"]
    (text,) = output.ui["text"]
    assert "sea.safetensors: matched 14/14, rank 8, diffusers" in text


def test_apply_nothing(nodes, model):
    patched, clip, report = apply(nodes, model, []).args
    assert patched is model and clip is None and json.loads(report)["loras"] == []


def test_an_open_lora_stack_is_no_loras(nodes, model):
    """As it is when the stack before it is muted or bypassed; whatever stands between."""
    output = apply(nodes, model, None)
    assert output.args[0] is model and "No LoRAs" in output.ui["text"][0]
    between = (
        nodes.Flux2EditLoraSchedule, nodes.Flux2EditLoraRegion, nodes.Flux2EditDownloadLoras,
        nodes.Flux2EditLoraInfo, nodes.Flux2EditApplyLoraStack,
    )  # fmt: skip
    for node in between:
        inputs = node.GET_NODE_INFO_V1()["input"]
        assert "lora_stack" in inputs["optional"], node.__name__
        hidden = type("Hidden", (), {"unique_id": None})
        execute = type(node.__name__, (node,), {"hidden": hidden}).execute
        given = {"model": model} if "model" in inputs.get("required", {}) else {}
        assert execute(**given).args[0] in ([], model, "The stack is empty."), node


def test_another_packs_stack_is_resolved_like_ours(nodes, model):
    patched, *_ = apply(nodes, model, [["styles\\ink", -0.5, 0]], mode="merge").args
    assert len(patched.patches) == 10
    with pytest.raises(ValueError, match="Entry 1 of lora_stack: There is no LoRA 'inkk'"):
        apply(nodes, model, [("inkk", 1, 1)])


def test_a_lora_that_does_not_fit(nodes, model, loras):
    wide = tiny_loras.ai_toolkit(hidden=384)
    save_file({k: v.contiguous() for k, v in wide.weights.items()}, loras / "wide.safetensors")
    stack = stack_of(nodes, slot(2, file="wide.safetensors"))
    with pytest.raises(ValueError, match=r"LoRA slot 2 was trained for a.*384.*\nwide\.saf"):
        apply(nodes, model, stack)
    output = apply(nodes, model, stack, on_mismatch="warn")
    assert output.args[0] is model and "Warning: wide" in output.ui["text"][0]


def test_another_kind_of_model(nodes, loras):
    import comfy.sd

    other = comfy.sd.load_diffusion_model_state_dict(tiny.flux1_transformer())
    with pytest.raises(ValueError, match="not FLUX.2: its weights are those of FLUX.1"):
        apply(nodes, other, stack_of(nodes, slot(1, file="sea.safetensors")))


def test_text_encoder_keys_go_to_the_hosts_loader(nodes, model, loras, monkeypatch):
    made = tiny_loras.ai_toolkit(double=1, single=1).weights
    text = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 8),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(8, 2),
    }
    save_file({k: v.contiguous() for k, v in (made | text).items()}, loras / "both.safetensors")
    stack = stack_of(nodes, slot(1, file="both.safetensors", scale=0.5))
    without = apply(nodes, model, stack)
    assert "connect clip" in without.ui["text"][0]
    seen = []

    def load(host_model, clip, tensors, strength_model, strength_clip):
        seen.append((host_model, clip, set(tensors), strength_model, strength_clip))
        return None, "patched clip"

    monkeypatch.setattr("comfy.sd.load_lora_for_models", load)
    assert apply(nodes, model, stack, clip="clip").args[1] == "patched clip"
    assert seen == [(None, "clip", set(text), 0, 0.5)]


def test_info(nodes):
    class Hidden:
        unique_id = None

    class Info(nodes.Flux2EditLoraInfo):
        hidden = Hidden()

    inputs = slot(1, file="sea.safetensors") | slot(2, "url", url="https://x.org/a.safetensors")
    info, words = Info.execute(stack_of(nodes, inputs)).args
    assert "trainer: diffusers" in info and "https://x.org/a.safetensors" in info and words == ""


def test_schemas(nodes):
    """Ids and inputs are permanent: workflows are written against them."""
    stack = nodes.Flux2EditLoraStack.define_schema()
    assert [i.id for i in stack.inputs] == ["lora_1", "lora_2", "lora_3", "lora_stack"]
    options = stack.inputs[0].options
    assert [o.key for o in options] == ["none", "installed", "hugging face", "url"]
    assert [[i.id for i in o.inputs] for o in options] == [
        [], ["file", "scale", "enabled"], ["repo", "scale", "enabled"], ["url", "scale", "enabled"],
    ]  # fmt: skip
    assert all(i.tooltip for option in options for i in option.inputs)
    # The first of the list is what a new slot says: no file that nobody has chosen.
    assert options[1].inputs[0].options[0] == "choose a LoRA"
    applied = nodes.Flux2EditApplyLoraStack.define_schema()
    assert [i.id for i in applied.inputs] == ["model", "mode", "on_mismatch", "lora_stack", "clip"]
    assert [o.display_name for o in applied.outputs] == ["model", "clip", "report"]
    info = nodes.Flux2EditLoraInfo.define_schema()
    assert [o.display_name for o in info.outputs] == ["info", "trigger_words"]
    for schema in (stack, applied, info):
        inputs = [
            *schema.inputs,
            *(i for s in stack.inputs[:3] for o in s.options for i in o.inputs),
        ]
        assert all(i.tooltip for i in inputs) and "lora" in schema.search_aliases
        assert schema.category == "FLUX.2 LoRA Edit"

"""Node ids, input names, order, types and ranges are permanent: a snapshot guards them.

After a wanted change: ``SNAPSHOT=write ./scripts/test tests/nodes``, and read the difference.
"""

import asyncio
import importlib
import inspect
import json
import os
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).with_name("schema.json")
FROM_THE_HOST = ("sampler_name",)
"""Combos whose options are the host's own and differ between versions."""
KEEP = ("min", "max", "step", "round", "default", "multiline", "advanced", "template")


@pytest.fixture(scope="module")
def node_classes(comfy_inprocess):
    package = importlib.import_module("flux2_lora_edit.nodes")
    extension = asyncio.run(package.comfy_entrypoint())
    return asyncio.run(extension.get_node_list())


def face(name, declaration):
    """What of one input must not change."""
    kind, *rest = declaration
    options = rest[0] if rest else {}
    shown = {key: options[key] for key in KEEP if key in options}
    if kind == "COMFY_DYNAMICCOMBO_V3":
        shown["options"] = {
            option["key"]: section_faces(option["inputs"]) for option in options["options"]
        }
    elif kind == "COMBO":
        dynamic = name.endswith("file") or name in FROM_THE_HOST
        shown["options"] = "(from the host)" if dynamic else options["options"]
        if dynamic:
            shown.pop("default", None)
    return [kind, shown]


def section_faces(inputs):
    return {
        section: {name: face(name, declaration) for name, declaration in inputs[section].items()}
        for section in ("required", "optional")
        if inputs.get(section)
    }


def test_schemas_equal_the_snapshot(node_classes):
    faces = {}
    for node in node_classes:
        info = node.GET_NODE_INFO_V1()
        outputs = zip(info["output_name"], info["output"], strict=True)
        faces[info["name"]] = {
            "display_name": info["display_name"],
            "category": info["category"],
            "inputs": section_faces(info["input"]),
            "order": info["input_order"],
            "outputs": [list(pair) for pair in outputs],
        }
    text = json.dumps(faces, indent=1) + "\n"
    if os.environ.get("SNAPSHOT") == "write":
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def all_inputs(inputs):
    """(name, options) of every input, those inside dynamic ones too."""
    for section in ("required", "optional"):
        for name, (kind, *rest) in inputs.get(section, {}).items():
            options = rest[0] if rest else {}
            yield name, options
            if kind == "COMFY_DYNAMICCOMBO_V3":
                for option in options["options"]:
                    yield from all_inputs(option["inputs"])


def test_every_node_and_input_explains_itself(node_classes):
    for node in node_classes:
        info = node.GET_NODE_INFO_V1()
        assert info["description"] and info["search_aliases"], info["name"]
        assert info["category"] == "FLUX.2 LoRA Edit"
        for name, options in all_inputs(info["input"]):
            assert options.get("tooltip"), f"{info['name']}.{name} has no tooltip"


WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
FROZEN = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "everything.json"


def sections(inputs):
    """The required and the optional inputs of a node, and of each option of its dynamic ones."""
    yield inputs
    for group in inputs.values():
        for kind, *rest in group.values() if isinstance(group, dict) else ():
            if kind == "COMFY_DYNAMICCOMBO_V3":
                for option in rest[0]["options"]:
                    yield from sections(option["inputs"])


def test_what_has_a_default_may_be_left_out_of_a_prompt(node_classes):
    required = {}
    for node in node_classes:
        for section in sections(node.GET_NODE_INFO_V1()["input"]):
            for name, (kind, *rest) in section.get("required", {}).items():
                assert "default" not in (rest[0] if rest else {}), f"{node.__name__}.{name}"
                required.setdefault(node.__name__, {})[name] = kind
    assert required == {
        "Flux2EditLoraStack": {"file": "COMBO", "repo": "STRING", "url": "STRING"},
        "Flux2EditApplyLoraStack": {"model": "MODEL"},
        "Flux2EditConditioning": {"clip": "CLIP", "vae": "VAE"},
        "Flux2EditSampler": {
            "model": "MODEL", "positive": "CONDITIONING", "latent_image": "LATENT",
        },
        "Flux2EditRegionCrop": {"image": "IMAGE"},
        "Flux2EditRegionPaste": {"region": "FLUX2_REGION", "image": "IMAGE"},
    }  # fmt: skip


def test_widgets_stand_where_a_saved_workflow_has_their_values(node_classes):
    """By position: a page makes those of required inputs first, then those of optional ones."""
    saved = {node["type"]: node["inputs"] for node in json.loads(FROZEN.read_text())["nodes"]}
    nodes = {node.__name__: node for node in node_classes}  # those that are newer were not saved
    for node in (nodes[name] for name in saved if name.startswith("Flux2Edit")):
        inputs = node.GET_NODE_INFO_V1()["input"]
        both = [*inputs.get("required", {}).items(), *inputs.get("optional", {}).items()]
        now = [name for name, (kind, *_) in both if kind in WIDGETS]
        widgets = [one["name"] for one in saved[node.__name__] if "widget" in one]
        then = [name for name in widgets if "." not in name]
        assert now[: len(then)] == then, node.__name__


def test_what_is_left_out_is_what_the_schema_says(node_classes):
    """One default in the schema and in ``execute``; tests/host does it to the running node."""
    for node in node_classes:
        info = node.GET_NODE_INFO_V1()
        parameters = inspect.signature(node.execute).parameters
        for section in ("required", "optional"):
            for name, (_, *rest) in info["input"].get(section, {}).items():
                if name in parameters and rest and "default" in rest[0]:
                    given = parameters[name].default
                    if info["name"] == "Flux2EditRunComfy":  # takes lists; an empty one is none
                        given = next(iter(given), rest[0]["default"])
                    assert given == rest[0]["default"], f"{info['name']}.{name}"


def test_the_hosted_nodes_settings_are_the_schemas(node_classes):
    from flux2_lora_edit.nodes.runcomfy import Flux2EditRunComfy, settings_of

    (settings,) = settings_of({})
    inputs = Flux2EditRunComfy.GET_NODE_INFO_V1()["input"]
    for name, (_, *rest) in inputs["optional"].items():
        if "default" in rest[0] and hasattr(settings, name):
            assert getattr(settings, name) == rest[0]["default"], name

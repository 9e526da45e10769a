"""Node ids, input names, order, types and ranges are permanent: a snapshot guards them.

After a wanted change: ``SNAPSHOT=write ./scripts/test tests/nodes``, and read the difference.
"""

import asyncio
import importlib
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

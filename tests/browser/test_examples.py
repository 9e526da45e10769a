"""Every example and blueprint: opened in the real page, exported, compared, run."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from tiny_names import with_tiny_models

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
# With what the boxes are tried: their own widgets by the names of the hosted API.
BOX = {"prompt": "a red bicycle", "num_inference_steps": 2, "seed": 7, "guidance_scale": 3.0}


def read(path):
    return json.loads(path.read_text("utf-8"))


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def test_there_are_examples_for_every_way_to_run():
    assert len(EXAMPLES) == 8 and len(BLUEPRINTS) == 2
    titles = " ".join(path.stem for path in EXAMPLES)
    for word in ("Text to image", "one picture", "three", "dev", "klein", "klein base", "RunComfy"):
        assert word in titles


@named(EXAMPLES)
def test_an_example_opens_exports_its_twin_and_runs(path, classic, client, token):
    workflow, twin = read(path), read(path.parent / "api" / path.name)
    classic.load(workflow)
    assert classic.export_api() == twin
    opened = classic.serialize()
    assert [n["pos"] for n in opened["nodes"]] == [n["pos"] for n in workflow["nodes"]]
    result = client.run(with_tiny_models(twin)).check()
    saves = [node for node, entry in twin.items() if entry["class_type"] == "SaveImage"]
    assert saves and all(result.images(node) for node in saves)


@named(EXAMPLES)
def test_an_example_says_where_its_files_come_from(path):
    workflow = read(path)
    (note,) = [n for n in workflow["nodes"] if n["type"] == "MarkdownNote"]
    text = note["widgets_values"][0]
    loaders = [n for n in workflow["nodes"] if n["type"].endswith("Loader")]
    assert loaders or "RunComfy" in path.stem
    for node in loaders:
        (entry,) = node["properties"]["models"]
        assert entry["name"] in node["widgets_values"]
        assert entry["url"].startswith("https://huggingface.co/Comfy-Org/")
        assert f"]({entry['url']})" in text
    assert "bills" in text or "RunComfy" not in path.stem


@named(EXAMPLES)
def test_nothing_in_an_example_overlaps(path):
    nodes = read(path)["nodes"]
    for number, one in enumerate(nodes):
        for other in nodes[number + 1 :]:
            apart = any(
                one["pos"][axis] + one["size"][axis] <= other["pos"][axis]
                or other["pos"][axis] + other["size"][axis] <= one["pos"][axis]
                for axis in (0, 1)
            )
            assert apart, f"{one['type']} and {other['type']} overlap"


def test_the_template_browser_lists_the_examples_alone(client):
    listed = client.get("/workflow_templates")["flux2-lora-edit"]
    assert sorted(listed) == sorted(path.stem for path in EXAMPLES)
    for name in listed:
        address = f"{client.url}/api/workflow_templates/flux2-lora-edit/{quote(name)}"
        assert client.http.get(f"{address}.json", timeout=10).json()["nodes"]
        assert client.http.get(f"{address}.jpg", timeout=10).headers["content-type"] == "image/jpeg"
        with Image.open(ROOT / "example_workflows" / f"{name}.jpg") as picture:
            assert picture.width >= 512


@named(BLUEPRINTS)
def test_a_blueprint_is_listed_opens_and_runs(path, page, client):
    entries = client.get("/global_subgraphs")
    (key,) = [k for k, e in entries.items() if e["name"] == path.stem]
    assert entries[key]["info"]["node_pack"].endswith("flux2-lora-edit")
    blueprint = json.loads(client.get(f"/global_subgraphs/{key}")["data"])
    page.load(blueprint)
    (box,) = page.serialize()["nodes"]
    assert box["type"] == blueprint["definitions"]["subgraphs"][0]["id"]
    page.js(
        """(values) => {
            const box = app.graph._nodes[0]
            for (const [name, value] of Object.entries(values)) {
                const widget = box.widgets.find(w => w.name === name || w.label === name)
                if (!widget) throw new Error('no widget ' + name)
                widget.value = value
            }
        }""",
        BOX,
    )
    exported = page.export_api()
    kinds = {entry["class_type"]: entry["inputs"] for entry in exported.values()}
    assert kinds["Flux2EditConditioning"]["prompt"] == BOX["prompt"]
    assert kinds["Flux2EditSampler"]["steps"] == 2 and kinds["Flux2EditSampler"]["seed"] == 7
    assert kinds["Flux2EditSampler"]["guidance"] == 3.0
    prompt = with_tiny_models(exported)
    (decode,) = [node for node, entry in prompt.items() if entry["class_type"] == "VAEDecode"]
    prompt["save"] = {
        "class_type": "SaveImage",
        "inputs": {"images": [decode, 0], "filename_prefix": "box"},
    }
    if "Edit" in path.stem:
        prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": "small-1.png"}}
        for entry in prompt.values():
            if entry["class_type"] in ("Flux2EditConditioning", "Flux2EditImageSize"):
                name = "image" if entry["class_type"] == "Flux2EditImageSize" else "image_1"
                entry["inputs"][name] = ["picture", 0]
    assert client.run(prompt).check().images("save")


def test_a_box_takes_what_the_hosted_node_takes(client):
    hosted = client.object_info("Flux2EditRunComfy")["input"]
    names = set(hosted["required"]) | set(hosted["optional"])
    for path in BLUEPRINTS:
        (box,) = read(path)["nodes"]
        own = {entry["name"] for entry in box["inputs"]}
        assert own - names == {"unet_name", "clip_name", "vae_name"}
        assert [out["name"] for out in box["outputs"]][0] == "image"

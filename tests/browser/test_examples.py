"""Every example and blueprint: opened in the real page, exported, compared, run."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from tiny_names import PAINTED, with_tiny_models

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
HUBS = ("https://huggingface.co/Comfy-Org/", "https://huggingface.co/black-forest-labs/")
# With what the boxes are tried: their own widgets by the names of the hosted API.
BOX = {"prompt": "a red bicycle", "num_inference_steps": 2, "seed": 7, "guidance_scale": 3.0}


def read(path):
    return json.loads(path.read_text("utf-8"))


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def every_node(workflow):
    """The nodes on the canvas, then those in its boxes."""
    boxes = workflow.get("definitions", {}).get("subgraphs", [])
    return [*workflow["nodes"], *(node for box in boxes for node in box["nodes"])]


def test_there_are_examples_for_every_way_to_run():
    assert len(EXAMPLES) == 21 and len(BLUEPRINTS) == 3
    titles = " ".join(path.stem for path in EXAMPLES)
    for word in ("Text to image", "one picture", "three", "dev", "klein", "klein base", "RunComfy"):
        assert word in titles
    for word in ("KV cache", "8 steps", "in tiles", "folder", "LoRA scales"):
        assert word in titles
    for word in ("scales in one run", "two regions", "fades out"):
        assert word in titles
    for word in ("a region (klein)", "dev, reference", "Remove", "Outpaint", "a region (RunComfy)"):
        assert word in titles


@named(EXAMPLES)
def test_an_example_opens_exports_its_twin_and_runs(path, classic, client, token):
    workflow, twin = read(path), read(path.parent / "api" / path.name)
    kinds = {entry["class_type"] for entry in twin.values()}
    if missing := kinds - set(client.get("/object_info")):
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    classic.load(workflow)
    assert classic.export_api() == twin
    opened = classic.serialize()
    assert [n["pos"] for n in opened["nodes"]] == [n["pos"] for n in workflow["nodes"]]
    saves = [node for node, entry in twin.items() if entry["class_type"] == "SaveImage"]
    assert saves
    if "RunComfy" in path.stem:  # the others run in tests/host/test_templates.py
        result = client.run(with_tiny_models(twin)).check()
        assert all(result.images(node) for node in saves)


@named(EXAMPLES)
def test_an_example_says_where_its_files_come_from(path):
    workflow = read(path)
    (note,) = [n for n in workflow["nodes"] if n["type"] == "MarkdownNote"]
    text = note["widgets_values"][0]
    loaders = [n for n in every_node(workflow) if n["type"].endswith("Loader")]
    assert loaders or "RunComfy" in path.stem
    for node in loaders:
        (entry,) = node["properties"]["models"]
        assert entry["name"] in node["widgets_values"]
        # Repacked for ComfyUI, or the makers' own, where nobody has.
        assert entry["url"].startswith(HUBS) and entry["url"].endswith(f"/{entry['name']}")
        assert f"]({entry['url']})" in text and entry["directory"] in text
    assert "bills" in text or "RunComfy" not in path.stem
    if loaders:
        assert "Apache-2.0" in text or "non-commercial licence" in text
        assert " GB of files" in text and "GPU memory" in text


@named(EXAMPLES)
def test_a_match_is_capped_by_a_widget(path):
    """A photograph of 12 megapixels would make 15,914 tokens of output, and take minutes."""
    for entry in read(path.parent / "api" / path.name).values():
        if entry["inputs"].get("image_size") == "match image":
            assert entry["inputs"]["megapixels"] == 1


@named([path for path in EXAMPLES if "definitions" in read(path)])
def test_an_example_with_a_box_can_be_read(path):
    """Four to seven nodes and a note, shown at 54 % or more in a window of 1600 x 1000."""
    workflow = read(path)
    (note,) = [n for n in workflow["nodes"] if n["type"] == "MarkdownNote"]
    assert 4 <= len(workflow["nodes"]) - 1 <= 7
    assert "**Next**" in note["widgets_values"][0]
    for axis, room in ((0, 1600), (1, 1000)):
        start = min(n["pos"][axis] for n in workflow["nodes"])
        end = max(n["pos"][axis] + n["size"][axis] for n in workflow["nodes"])
        assert (room - 180) / (end - start + 30) >= 0.54
    for box in workflow["definitions"]["subgraphs"]:
        assert all(n["properties"].get("cnr_id") for n in box["nodes"])
        inside = {n["id"] for n in box["nodes"]} | {-10, -20}
        assert all({k["origin_id"], k["target_id"]} <= inside for k in box["links"])


def offer_missing_models(page, offer):
    page.js(
        """async (offer) => await app.extensionManager.setting.set(
            'Comfy.Workflow.ShowMissingModelsWarning', offer)""",
        offer,
    )


# One with its loaders on the canvas, one with all in a box; what each names is checked above.
@named([path for path in EXAMPLES if path.stem in ("Edit one picture (klein)", "Outpaint (klein)")])
def test_missing_models_are_offered_with_their_links(path, classic):
    """ComfyUI's own dialog, which fetches what ``properties.models`` names, in a box or not."""
    fetched = set()

    def answer(route):
        if route.request.method == "GET":
            fetched.add(route.request.url)
        route.fulfill(headers={"access-control-allow-origin": "*", "content-length": "1"})

    classic.context.route("https://huggingface.co/**", answer)
    offer_missing_models(classic, True)
    try:
        classic.load(read(path))
        details = classic.page.get_by_role("button", name="View details")
        every = classic.page.get_by_role("button", name="Download all")
        details.or_(every).first.wait_for()
        if not every.is_visible():  # a dialog on old frontends, a panel behind a button on new ones
            details.click()
        every.click()
        nodes = every_node(read(path))
        links = {m["url"] for n in nodes for m in n["properties"].get("models", ())}
        for _ in range(1200):
            if fetched == links:
                break
            classic.page.wait_for_timeout(100)
        assert fetched == links and len(links) == 3
    finally:
        offer_missing_models(classic, False)
        classic.context.unroute("https://huggingface.co/**")


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
        assert client.http.get(f"{address}.json", timeout=60).json()["nodes"]
        assert client.http.get(f"{address}.jpg", timeout=60).headers["content-type"] == "image/jpeg"
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
    if "Region" in path.stem:
        prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": PAINTED}}
        (crop,) = [e for e in prompt.values() if e["class_type"] == "Flux2EditRegionCrop"]
        crop["inputs"] |= {"image": ["picture", 0], "mask": ["picture", 1]}
        (decode,) = [n for n, e in prompt.items() if e["class_type"] == "Flux2EditRegionPaste"]
        prompt["save"]["inputs"]["images"] = [decode, 0]
    elif "Edit" in path.stem:
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
        region = {"mask", "context", "grow", "feather"} if "Region" in path.stem else set()
        # A region has the size of its crop.
        assert "image_size" in own or region
        assert own - names == {"unet_name", "clip_name", "vae_name"} | region
        assert [out["name"] for out in box["outputs"]][0] == "image"

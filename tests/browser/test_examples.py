"""Every example and blueprint: opened in the real page, exported, compared, run."""

import itertools
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from frontends import SEVERAL
from PIL import Image
from shots import ARTIFACTS
from sight import fill_stacks, open_template, see
from tiny_names import PAINTED, with_tiny_models

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
HUBS = ("https://huggingface.co/Comfy-Org/", "https://huggingface.co/black-forest-labs/")
# As the LoRAs' own pages tell.
TRIGGERS = {
    "lovis93/Flux-2-Multi-Angles-LoRA-v2": ("<sks>",),
    "gokaygokay/Flux-2D-Game-Assets-LoRA": ("GRPZA", "game asset", "pixel art"),
    "fal/flux-2-klein-4b-spritesheet-lora:flux-spritesheet-lora.safetensors": ("2x2 sprite sheet",),
    "fal/FLUX.2-dev-Turbo:flux.2-turbo-lora.safetensors": (),
}
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
    assert len(EXAMPLES) == 22 and len(BLUEPRINTS) == 3
    titles = " ".join(path.stem for path in EXAMPLES)
    for word in ("Text to image", "one picture", "three", "dev", "klein", "klein-base", "runcomfy"):
        assert word in titles
    for word in ("KV cache", "8 steps", "in tiles", "folder", "LoRA scales", "Under the hood"):
        assert word in titles
    for word in ("scales in one run", "two regions", "fades out"):
        assert word in titles
    for word in (
        "a region - flux2-klein",
        "dev-reference",
        "Remove",
        "Outpaint",
        "a region - flux2-runc",
    ):
        assert word in titles


def test_the_files_names_are_an_index():
    """A pack has no other: the page sorts by them, shows them, and searches in them."""
    for number, path in enumerate(EXAMPLES, 1):
        assert path.stem.startswith(f"FLUX.2 LoRA {number:02} ")
        assert re.fullmatch(r"[A-Za-z0-9 .,-]+ - flux2-[a-z0-9-]+", path.stem)
        assert (path.parent / "api" / path.name).is_file() and path.with_suffix(".jpg").is_file()
    for language in ("en", "zh", "ja"):
        words = read(ROOT / "locales" / language / "main.json")
        assert "FLUX.2 LoRA" in words["templateWorkflows"]["category"]["flux2-lora-edit"]


@named(EXAMPLES)
def test_an_example_opens_exports_its_twin_and_runs(path, classic, client, token):
    workflow, twin = read(path), read(path.parent / "api" / path.name)
    kinds = {entry["class_type"] for entry in twin.values()}
    if missing := kinds - set(client.get("/object_info")):
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    open_template(classic, workflow, path.stem)
    assert classic.export_api() == twin
    opened = classic.serialize()
    assert [n["pos"] for n in opened["nodes"]] == [n["pos"] for n in workflow["nodes"]]
    check_it_can_be_read(classic)
    saves = [node for node, entry in twin.items() if entry["class_type"] == "SaveImage"]
    assert saves
    if "Flux2EditRunComfy" in kinds:  # the others run in tests/host/test_templates.py
        result = client.run(with_tiny_models(twin)).check()
        assert all(result.images(node) for node in saves)


def check_it_can_be_read(page):
    """At 54 % in a window of 1600 x 1000, with nothing in the way, whatever the stack holds."""
    seen = see(page)
    assert seen["scale"] >= 0.54 and not seen["faults"]
    fill_stacks(page)
    assert not see(page)["faults"]


# FLUX2_SLOW=1 looks at all of them everywhere, and takes a picture of each.
LOOKS = [("nodes2", "newest", EXAMPLES[11:12] + EXAMPLES[17:])]
if os.environ.get("FLUX2_SLOW"):
    LOOKS = [(how, page, EXAMPLES) for page in SEVERAL for how in ("classic", "nodes2")]


@pytest.mark.parametrize(("how", "frontend", "paths"), LOOKS, ids=[f"{f}-{h}" for h, f, _ in LOOKS])
def test_every_template_opens_so_that_it_can_be_read(how, frontend, paths, pages):
    page = pages.get(how, frontend)
    for path in paths:
        page.reset(vue=how == "nodes2")
        open_template(page, read(path), path.stem)
        if "FLUX2_SLOW" in os.environ:
            page.screenshot(ARTIFACTS / f"template-{path.stem[12:14]}-{frontend}-{how}.png")
        check_it_can_be_read(page)


def note_of(path):
    (note,) = [n for n in read(path)["nodes"] if n["type"] == "MarkdownNote"]
    return note["widgets_values"][0]


# The words of a note, and the first ground behind them that is not clear.
COLOURS = """() => {
    const words = document.querySelector('.comfy-markdown-content strong')
    let ground = words
    while (/, 0\\)$/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement
    return [getComputedStyle(words).color, getComputedStyle(ground).backgroundColor]
}"""


def brightness(colour):
    """Relative luminance of WCAG, of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_note_can_be_read_in_dark_and_in_light(pages):
    """In the newest Nodes 2.0, whose words are the dimmest."""
    page = pages.get("nodes2", "newest")
    open_template(page, read(EXAMPLES[0]), EXAMPLES[0].stem)
    try:
        for palette in ("light", "dark"):
            page.js("(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)", palette)
            page.settle()
            low, high = sorted(map(brightness, page.js(COLOURS)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, palette
    finally:
        page.reset(vue=True)


@named(EXAMPLES)
def test_an_example_says_where_its_files_come_from(path):
    workflow, text = read(path), note_of(path)
    loaders = [n for n in every_node(workflow) if n["type"].endswith("Loader")]
    assert loaders or "runcomfy" in path.stem
    for node in loaders:
        (entry,) = node["properties"]["models"]
        assert entry["name"] in node["widgets_values"]
        # Repacked for ComfyUI, or the makers' own, where nobody has.
        assert entry["url"].startswith(HUBS) and entry["url"].endswith(f"/{entry['name']}")
        assert f"]({entry['url']})" in text and entry["directory"] in text
    assert "bills" in text or "RunComfy" not in path.stem
    assert "**Next**" in text
    if loaders:
        assert "Apache-2.0" in text or "non-commercial licence" in text
        assert " GB of files" in text and "GPU memory" in text
        assert text.index("klein 4B. 16 GB") < text.index("RAM: dev")
    if "definitions" in workflow:
        for blueprint in BLUEPRINTS:
            assert f"**{blueprint.stem.removesuffix(' (FLUX.2)')}**" in text


@named(EXAMPLES)
def test_a_loras_trigger_words_are_in_its_prompt(path):
    """Without them the first picture may not show the LoRA at all."""
    inputs = [entry["inputs"] for entry in read(path.parent / "api" / path.name).values()]
    prompts = [one["prompt"] for one in inputs if "prompt" in one]
    repos = [value for one in inputs for key, value in one.items() if key.endswith(".repo")]
    assert set(repos) <= set(TRIGGERS)
    for words in map(TRIGGERS.get, repos):
        assert all(word in prompt for word in words for prompt in prompts)
        shown = note_of(path).replace("\\", "")
        assert all(f"**{word}**" in shown for word in words)


def test_the_same_edit_keeps_one_seed():
    """A seed that is drawn anew after each run is another one here than there."""
    (path,) = [path for path in EXAMPLES if "Same edit" in path.stem]
    seeds = [
        e["inputs"]["seed"]
        for e in read(path.parent / "api" / path.name).values()
        if "seed" in e["inputs"]
    ]
    assert len(seeds) == 2 and len(set(seeds)) == 1
    values = [value for node in every_node(read(path)) for value in node["widgets_values"]]
    assert values.count("fixed") == 2 and "randomize" not in values


@named(EXAMPLES)
def test_a_match_is_capped_by_a_widget(path):
    """A photograph of 12 megapixels would make 15,914 tokens of output, and take minutes."""
    for entry in read(path.parent / "api" / path.name).values():
        if entry["inputs"].get("image_size") == "match image":
            assert entry["inputs"]["megapixels"] == 1


@named(EXAMPLES)
def test_an_example_is_made_of_few_nodes(path):
    """Four to seven nodes and a note; one shows them all."""
    workflow = read(path)
    if "Under the hood" in path.stem:
        assert "definitions" not in workflow and len(workflow["nodes"]) == 12
        return
    assert 3 <= len(workflow["nodes"]) - 1 <= 7
    assert "definitions" in workflow or "runcomfy" in path.stem
    for box in workflow.get("definitions", {}).get("subgraphs", ()):
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
@named([path for path in EXAMPLES if "Under the hood" in path.stem or "Outpaint" in path.stem])
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


def test_the_template_browser_lists_the_examples_alone(client):
    listed = client.get("/workflow_templates")["flux2-lora-edit"]
    assert sorted(listed) == sorted(path.stem for path in EXAMPLES)
    for name in listed:
        address = f"{client.url}/api/workflow_templates/flux2-lora-edit/{quote(name)}"
        assert client.http.get(f"{address}.json", timeout=60).json()["nodes"]
        assert client.http.get(f"{address}.jpg", timeout=60).headers["content-type"] == "image/jpeg"


def test_thumbnails_are_square_and_differ_at_the_size_of_a_card():
    small = {}
    for path in EXAMPLES:
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.width == picture.height >= 400
            small[path.stem] = np.asarray(picture.convert("RGB").resize((200, 200)), dtype=int)
    for one, other in itertools.combinations(small, 2):
        assert np.abs(small[one] - small[other]).mean() > 10, f"{one} looks like {other}"


CARDS = """() => [...document.querySelectorAll('[data-testid^="template-workflow-"]')]
    .map(card => card.dataset.testid.replace('template-workflow-', ''))"""


# The other templates' moving pictures, which take a page without a GPU half a minute.
MOVING = re.compile(r"/templates/[^/]+\.(webp|mp4|gif|png|jpg)")


@pytest.mark.parametrize("frontend", SEVERAL)
def test_flux2_lora_finds_them_in_their_section_and_one_opens(frontend, pages):
    page, stems = pages.get("classic", frontend), sorted(path.stem for path in EXAMPLES)
    page.context.route(MOVING, lambda route: route.abort())
    try:
        page.command("Comfy.BrowseTemplates")
        dialog = page.page.get_by_role("dialog")
        search = dialog.get_by_placeholder("Search").locator("visible=true").first
        search.fill("flux2 lora")
        first = f"(stems) => String(({CARDS})().slice(0, stems.length).sort()) === String(stems)"
        page.page.wait_for_function(first, arg=stems)
        search.fill("")
        dialog.get_by_text("FLUX.2 LoRA Edit", exact=True).first.click()
        whole = f"(stems) => String(({CARDS})().sort()) === String(stems)"
        page.page.wait_for_function(whole, arg=stems)
        page.screenshot(ARTIFACTS / f"templates-{frontend}.png")
        dialog.get_by_test_id(f"template-workflow-{stems[0]}").click()
        opened = "() => app.graph._nodes.some(n => n.type === 'MarkdownNote')"
        page.page.wait_for_function(f"() => ({opened})() && app.canvas.ds.scale < 0.7")
        check_it_can_be_read(page)
    finally:
        page.context.unroute(MOVING)


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

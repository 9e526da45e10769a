"""What a person does: search, drag, choose, run, watch, stop, read the error, open the help."""

import json
import re

import pytest
from browser.hand import drag, open_help, search, slot, spread, widget
from shots import ARTIFACTS
from small_edit import APPLY, CONDITIONING, IMAGES, SAMPLER, SAVE, STACK, small_edit, unlinked

FOUND_BY = {
    "power lora": "FLUX.2 LoRA Stack",
    "download lora": "Download LoRAs",
    "apply lora": "Apply FLUX.2 LoRA Stack",
    "trigger words": "FLUX.2 LoRA Info",
    "resolution": "FLUX.2 Image Size",
    "kontext": "FLUX.2 Edit Conditioning",
    "flux 2 sampler": "FLUX.2 Sampler",
    "runcomfy": "RunComfy FLUX.2 LoRA",
}


@pytest.mark.parametrize("typed", FOUND_BY)
def test_a_node_is_found_by_what_people_type(typed, classic):
    search(classic, typed)
    options = classic.page.locator("#results-list [role=option]")
    wanted = options.filter(has_text=FOUND_BY[typed]).first
    wanted.wait_for()
    shown = options.all_inner_texts()
    place = next(i for i, text in enumerate(shown) if FOUND_BY[typed] in text)
    assert place < 10, f'"{typed}" shows it at place {place + 1}'
    wanted.click()
    (node,) = classic.serialize()["nodes"]
    assert node["type"].startswith("Flux2Edit")


def test_the_edit_graph_is_built_by_dragging_and_run(page):
    # A seed of its own: what is cached makes no progress.
    whole = small_edit(loras=(), seed=len(_name(page)))
    loose, links = unlinked(whole)
    page.load_api(loose)
    spread(page)
    for origin, output, target, name in links:
        drag(page, slot(page, origin, "output", output), slot(page, target, "input", name))
    # Links drawn by hand alone make it the graph that was meant.
    assert page.export_api() and _links(page.export_api()) == _links(whole)
    _choose_lora(page)
    seen = _watch(page)
    page.page.get_by_role("button", name="Run", exact=True).first.click()
    assert page.wait_for_end(0) == "success"
    page.screenshot(ARTIFACTS / f"built-by-hand-{_name(page)}.png")
    counted = seen()
    assert counted["progress"] >= 4, "no progress was shown"
    assert counted["preview"] >= 1, "no preview was shown"
    # Pictures count in the order of their sockets.
    words = page.text_of(CONDITIONING)
    for number, image in enumerate(IMAGES, 1):
        assert f"image_{number}: {image.size}" in words
    assert page.js("(id) => app.nodeOutputs[id].images.length", SAVE) == 1


def _links(prompt):
    return {
        (node, name): value
        for node, entry in prompt.items()
        for name, value in entry["inputs"].items()
        if isinstance(value, list)
    }


def _name(page):
    return "nodes2" if page.js("() => LiteGraph.vueNodesMode") else "classic"


def _choose_lora(page):
    """In the stock widgets: set the first slot to installed and pick a file by typing a part."""
    face = "(on) => app.extensionManager.setting.set('Flux2LoraEdit.Stack.List', on)"
    page.js(face, False)
    page.settle()
    if _name(page) == "classic":
        _pick(page, widget(page, STACK, "lora_1"), "installed")
        _pick(page, widget(page, STACK, "lora_1.file"), "kohya")
    else:
        node = page.page.locator(f'[data-node-id="{STACK}"]')
        node.get_by_role("combobox").first.click()
        page.page.get_by_role("option", name="installed").click()
        node.get_by_role("combobox").nth(1).click()
        page.page.keyboard.type("kohya")
        page.page.get_by_role("option", name=re.compile("kohya")).first.click()
    inputs = page.export_api()[str(STACK)]["inputs"]
    assert inputs["lora_1"] == "installed" and inputs["lora_1.file"] == "kohya.safetensors"


def _pick(page, point, typed):
    page.page.mouse.click(*point)
    menu = page.page.locator(".litecontextmenu")
    menu.wait_for()
    box = menu.locator("input")
    if box.count():
        box.fill(typed)
    menu.locator(".litemenu-entry:visible", has_text=typed).first.click()
    page.settle()


def _watch(page):
    """Count progress and preview events of the sampler from here on, and note its last step."""
    page.listen()
    page.js(
        """(id) => {
            window.__seen = { progress: 0, preview: 0, step: 0 }
            app.api.addEventListener('progress_state', ({ detail }) => {
                const state = detail.nodes[id]
                if (state?.state !== 'running' || !state.value) return
                window.__seen.progress += 1
                window.__seen.step = state.value
            })
            app.api.addEventListener('b_preview_with_metadata', ({ detail }) => {
                if (String(detail.displayNodeId) === String(id)) window.__seen.preview += 1
            })
        }""",
        SAMPLER,
    )
    return lambda: page.js("() => window.__seen")


def test_stop_ends_a_run(page):
    # A picture so large that a hundred steps outlast the slowest hand on a busy machine.
    prompt = small_edit(steps=100)
    (size,) = (node for node in prompt.values() if node["class_type"] == "Flux2EditImageSize")
    size["inputs"]["image_size"] = "square"
    page.load_api(prompt)
    page.fit()
    seen = _watch(page)
    before = page.start()
    page.page.wait_for_function("() => window.__seen.progress >= 2")
    page.page.get_by_role("button", name="Cancel current run").first.click()
    assert page.wait_for_end(before) == "interrupted"
    # Events are not steps: each step sends one for its number and one for its preview.
    assert 0 < seen()["step"] < 100
    page.load_api(small_edit())
    assert page.queue() == "success", "the next run is not harmed"


def test_the_error_of_a_wrong_base_is_shown(page):
    page.load_api(small_edit())
    assert page.queue() == "success"
    assert "matched" in page.text_of(APPLY)
    page.js(
        """(id) => {
            const file = app.graph.getNodeById(id).widgets.find(w => w.name === 'lora_1.file')
            file.value = 'flux1.safetensors'
        }""",
        STACK,
    )
    page.fit()
    assert page.queue() == "error"
    said = page.text_of(APPLY)
    assert "matched" not in said, "the words of an earlier run are gone"
    assert re.search(r"LoRA slot 1.* was trained for FLUX\.1", said), said
    page.screenshot(ARTIFACTS / f"wrong-base-{_name(page)}.png")
    # The page logs each failed run; nothing else may be in its console.
    page.errors[:] = [error for error in page.errors if "was trained for" not in error]


@pytest.mark.parametrize("kind", ["Flux2EditLoraStack", "Flux2EditRunComfy"])
def test_help_opens_beside_the_node(kind, classic):
    panel = open_help(classic, kind)
    panel.get_by_text("When it says no").wait_for()
    classic.screenshot(ARTIFACTS / f"help-{kind}.png")
    assert "FLUX.2 LoRA Stack" in panel.inner_text()
    box, words = panel.bounding_box(), panel.locator("li").first.bounding_box()
    assert words["x"] + words["width"] <= box["x"] + box["width"] + 1, "nothing is cut off"


def test_the_token_is_set_and_cleared_in_the_settings(classic, client, site):
    secret = "settings-token-4711"
    classic.command("Comfy.ShowSettingsDialog")
    dialog = classic.page.get_by_role("dialog")
    dialog.get_by_text("FLUX.2 LoRA Edit").first.click()
    part = classic.page.locator("#flux2-lora-edit-token")
    part.get_by_text(re.compile("token is set|^Set")).wait_for()
    field = part.get_by_label("RunComfy API token")
    field.fill(secret)
    part.get_by_role("button", name="Save").click()
    part.get_by_text("from this page").wait_for()
    classic.screenshot(ARTIFACTS / "settings.png")
    assert field.input_value() == "" and "4711" in part.inner_text()
    assert secret not in json.dumps(client.get("/settings")), "never among ComfyUI's settings"
    part.get_by_role("button", name="Clear").click()
    part.get_by_text("No token is set").wait_for()
    classic.page.keyboard.press("Escape")
    assert secret not in site.log()

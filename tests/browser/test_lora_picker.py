"""The LoRA picker on the real page: what it says of the installed files, and how one is chosen."""

import json
import shutil

import pytest
from browser.comfy_page import ComfyPage
from frontends import NEWEST, SEVERAL
from PIL import Image
from shots import ARTIFACTS
from small_edit import APPLY, MODEL, STACK, small_edit

# As the page's own modules see each other, wherever ComfyUI has put the pack.
MODULES = """
const entry = performance.getEntriesByType('resource').map(one => one.name)
    .find(name => name.endsWith('/js/stack/files.js'))
const folder = new URL('.', entry).href
const { loraFiles, loraFacts, modelOf } = await import(folder + 'files.js')
const { openPicker } = await import(folder + 'picker.js')
"""
FITTING = ["ai-toolkit.safetensors", "diffusers.safetensors"]


def run(page: ComfyPage, body: str, argument=None):
    return page.js(f"async (argument) => {{ {MODULES} {body} }}", argument)


def open_picker(page: ComfyPage, value: str = "") -> None:
    """The picker at a button in the page's corner; what is chosen lands in ``window.__picked``."""
    run(
        page,
        """
        const anchor = document.createElement('button')
        anchor.id = 'test-anchor'
        anchor.textContent = 'choose'
        Object.assign(anchor.style, { position: 'fixed', left: '300px', top: '150px', zIndex: 99 })
        document.getElementById('test-anchor')?.remove()
        document.body.append(anchor)
        window.__picked = []
        const node = app.graph.getNodeById(argument.stack)
        openPicker({ node, anchor, value: argument.value, onPick: name => __picked.push(name) })
        """,
        {"stack": STACK, "value": value},
    )
    page.page.wait_for_function(
        "() => document.querySelector('.flux2-edit-picker-said')?.textContent.includes(' LoRAs')"
    )


def rows(page: ComfyPage) -> list[str]:
    page.settle()
    return page.js("() => [...document.querySelectorAll('[role=option]')].map(r => r.innerText)")


def active(page: ComfyPage) -> str:
    return page.js(
        "() => document.querySelector('[role=option][aria-selected=true]')?.innerText ?? ''"
    )


def is_open(page: ComfyPage) -> bool:
    return page.js("() => !!document.querySelector('.flux2-edit-picker')")


def picked(page: ComfyPage) -> list[str]:
    return page.js("() => window.__picked")


@pytest.mark.parametrize("frontend", SEVERAL)
def test_files_that_fit_come_first_and_one_is_chosen_by_keys(pages, frontend, site):
    page = pages.get("nodes2" if frontend == NEWEST else "classic", frontend)
    page.load_api(small_edit())
    open_picker(page, "diffusers.safetensors")
    page.screenshot(ARTIFACTS / f"picker-{frontend}.png")
    told = rows(page)
    assert "None" in told[0]
    assert [one.splitlines()[0] for one in told[1:3]] == ["ai-toolkit", "diffusers"]
    assert "✓ fits" in told[1] and "rank 8" in told[1]
    (flux1,) = [one for one in told if one.startswith("flux1")]
    assert "✕ does not fit (FLUX.1)" in flux1
    assert active(page).startswith("diffusers")

    keys = page.page.keyboard
    keys.type("flux.1")  # of the base
    assert [one.splitlines()[0] for one in rows(page)] == ["flux1"]
    keys.press("Control+A")
    keys.type("TOOL ai")  # of the name, in any order and case
    assert [one.splitlines()[0] for one in rows(page)] == ["ai-toolkit"]
    before = page.serialize()
    keys.press("Enter")
    assert picked(page) == ["ai-toolkit.safetensors"] and not is_open(page)
    assert page.js("() => document.activeElement.id") == "test-anchor"
    assert page.serialize() == before, "the keys reached the graph"
    assert not page.errors


def test_none_escape_and_a_click_outside(classic):
    page = classic
    page.load_api(small_edit())
    keys = page.page.keyboard
    open_picker(page, "ai-toolkit.safetensors")
    keys.press("Escape")
    assert not is_open(page) and picked(page) == []
    assert page.js("() => document.activeElement.id") == "test-anchor"
    open_picker(page, "ai-toolkit.safetensors")
    page.page.mouse.click(1300, 800)
    assert not is_open(page) and picked(page) == []
    open_picker(page, "ai-toolkit.safetensors")
    keys.press("ArrowUp")
    assert "None" in active(page)
    keys.press("ArrowUp")
    assert "None" in active(page)
    keys.press("Enter")
    assert picked(page) == [""] and not is_open(page)
    open_picker(page)
    page.page.get_by_role("option").filter(has_text="diffusers").click()
    assert picked(page) == ["diffusers.safetensors"] and not is_open(page)


MODEL_FILE = "flux2-dev-tiny.safetensors"


def model_of(page: ComfyPage, stack: int = STACK) -> str:
    return run(page, "return modelOf(app.graph.getNodeById(argument))", stack)


def chained() -> dict:
    """The small edit with our nodes and one of the host's between stack, Apply and model."""
    prompt = small_edit()
    prompt["30"] = {
        "class_type": "Flux2EditLoraSchedule",
        "inputs": {"lora_stack": [str(STACK), 0]},
    }
    prompt["31"] = {"class_type": "Flux2EditLoraRegion", "inputs": {"lora_stack": ["30", 0]}}
    prompt["32"] = {
        "class_type": "Flux2EditLoraStack",
        "inputs": {"lora_1": "none", "lora_2": "none", "lora_3": "none", "lora_stack": ["31", 0]},
    }
    prompt["33"] = {
        "class_type": "ModelSamplingFlux",
        "inputs": {
            "model": [str(MODEL), 0],
            "max_shift": 1.15,
            "base_shift": 0.5,
            "width": 64,
            "height": 64,
        },
    }
    prompt[str(APPLY)]["inputs"] |= {"lora_stack": ["32", 0], "model": ["33", 0]}
    return prompt


@pytest.mark.parametrize("frontend", SEVERAL)
def test_the_model_is_found_through_nodes_and_subgraphs(pages, frontend):
    page = pages.get("classic", frontend)
    page.load_api(chained())
    assert model_of(page) == MODEL_FILE
    for inside in ([APPLY, 32], [MODEL, 33], [STACK, 30]):
        page.load_api(chained())
        page.js(
            """(ids) => {
                app.graph.convertToSubgraph(new Set(ids.map(id => app.graph.getNodeById(id))))
            }""",
            inside,
        )
        page.settle()
        found = run(
            page,
            """
            const all = [app.graph, ...app.graph.subgraphs.values()].flatMap(g => g.nodes)
            const first = all.find(n => n.comfyClass === 'Flux2EditLoraStack'
                && n.widgets[0].value === 'installed')
            return modelOf(first)
            """,
        )
        assert found == MODEL_FILE, inside
    page.load_api({"4": chained()[str(STACK)]})
    assert model_of(page, page.js("() => app.graph._nodes[0].id")) == ""
    page.errors.clear()  # of converting, which is the page's own


def test_what_is_known_of_a_file(classic, site):
    page = classic
    page.load_api(small_edit())
    files = run(page, "return loraFiles(app.graph.getNodeById(argument))", STACK)
    assert [file["name"] for file in files if file["fits"]][:2] == FITTING
    facts = run(page, "return loraFacts('flux1.safetensors')")
    assert facts["base"] == "FLUX.1" and facts["rank"] == 2 and facts["trigger_words"] == []
    assert run(page, "return loraFacts('not there.safetensors')") is None
    # R: the page asks again, and a file that has come is there.
    loras = site.base / "models" / "loras"
    new = loras / "sub folder" / "zz new.safetensors"
    new.parent.mkdir()
    try:
        shutil.copyfile(loras / FITTING[0], new)
        Image.new("RGB", (64, 64), "#c33").save(new.with_suffix(".png"))
        new.with_suffix(".txt").write_text("<b>trigger</b>, zebra")
        page.command("Comfy.RefreshNodeDefinitions")
        assert run(page, "return loraFacts('sub folder/zz new.safetensors')")["fits"] is None
        open_picker(page)
        page.page.keyboard.type("ZEBRA sub")
        (row,) = rows(page)
        assert "sub folder/" in row and "<b>trigger</b>" in row
        page.page.wait_for_function(
            "() => document.querySelector('[role=option] img')?.naturalWidth === 64"
        )
        page.screenshot(ARTIFACTS / "picker-picture.png")
        page.page.keyboard.press("Escape")
    finally:
        shutil.rmtree(new.parent)


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_two_thousand_files_are_a_few_rows(classic, palette):
    """Only the rows in sight are made; the keys reach the last one."""
    page = classic
    page.load_api(small_edit())
    page.js("(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)", palette)
    many = [
        {
            "name": f"styles/{number % 7} deep/a rather long name of a LoRA {number}.safetensors",
            "base": "FLUX.2 dev" if number < 500 else "SDXL", "fits": number < 500, "rank": 16,
            "trigger_words": [f"word{number}"], "preview": "",
        }
        for number in range(2000)
    ]  # fmt: skip
    answer = json.dumps({"model": "FLUX.2 dev", "files": many})
    where = "**/flux2-lora-edit/lora-files*"
    page.page.route(
        where, lambda route: route.fulfill(body=answer, content_type="application/json")
    )
    try:
        open_picker(page, many[700]["name"])
        assert "LoRA 700" in active(page) and len(rows(page)) < 30
        page.screenshot(ARTIFACTS / f"picker-2000-{palette}.png")
        keys = page.page.keyboard
        for _ in range(3):
            keys.press("PageDown")
        assert "LoRA 700" not in active(page) and len(rows(page)) < 30
        keys.type("word1999")
        assert len(rows(page)) == 1 and "LoRA 1999" in active(page)
        keys.press("Enter")
        assert picked(page) == [many[1999]["name"]]
    finally:
        page.page.unroute(where)
        run(page, "await loraFiles(null)")


def test_without_the_route_the_stock_names_are_there(classic):
    page = classic
    page.load_api(small_edit())
    where = "**/flux2-lora-edit/lora-files*"
    page.page.route(where, lambda route: route.fulfill(status=404, body="no"))
    try:
        open_picker(page)
        assert any(one.startswith("ai-toolkit") for one in rows(page))
        assert run(page, "return loraFiles(app.graph.getNodeById(argument))", STACK) == []
        page.page.keyboard.press("Escape")
    finally:
        page.page.unroute(where)
        page.errors.clear()  # the 404 itself


@pytest.mark.parametrize("mode", [2, 4])
def test_a_stack_that_is_muted_or_bypassed_leaves_a_graph_that_runs(classic, mode):
    page = classic
    page.load_api(small_edit(steps=1, seed=40 + mode))
    page.js("([id, mode]) => { app.graph.getNodeById(id).mode = mode }", [STACK, mode])
    exported = page.export_api()
    assert str(STACK) not in exported and "lora_stack" not in exported[str(APPLY)]["inputs"]
    assert page.queue() == "success"
    assert "No LoRAs" in page.text_of(APPLY)


def test_a_new_slot_chooses_no_file_and_the_queue_says_so(page, client):
    # An id that no test before has used: the page gives a new row what the node of that id had.
    prompt = small_edit(steps=1)
    new = str(7000 + STACK)
    prompt[new] = prompt.pop(str(STACK))
    prompt[str(APPLY)]["inputs"]["lora_stack"] = [new, 0]
    page.load_api(prompt)
    values = page.js(
        """(id) => {
            const node = app.graph.getNodeById(id)
            const kind = node.widgets.find(widget => widget.name === 'lora_3')
            kind.value = 'installed'
            kind.callback?.('installed', app.canvas, node)
            return node.widgets.map(widget => [widget.name, widget.value])
        }""",
        int(new),
    )
    assert ["lora_3.file", "choose a LoRA"] in values
    assert ["lora_1.file", FITTING[0]] in values, "a slot with a file keeps it"
    reply = client.http.post(f"{client.url}/prompt", json={"prompt": page.export_api()}, timeout=60)
    assert reply.status_code == 400
    assert "LoRA slot 3: No LoRA file is chosen. Choose one, or set the slot to none." in reply.text

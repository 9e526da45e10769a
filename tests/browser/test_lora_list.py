"""FLUX.2 LoRA Stack as a list: one row a LoRA, over the stock widgets and through them."""

import json

import pytest
from browser.comfy_page import ComfyPage
from browser.hand import Point, redo, undo
from frontends import SEVERAL
from shots import ARTIFACTS
from small_edit import APPLY, CLIP, CONDITIONING, SAMPLER, small_edit

TALLEST = 240  # three LoRAs, with title, sockets and all
SETTING = "Flux2LoraEdit.Stack.List"
LONG = (
    "https://civitai.com/api/download/models/a-long-name-of-a-lora-000001500.safetensors?type=Model"
)
FIELDS = {"installed": "file", "hugging face": "repo", "url": "url"}
FILES = ("ai-toolkit.safetensors", "diffusers.safetensors", "kohya.safetensors")

Slot = tuple[str, str, float, bool]
A: Slot = ("installed", FILES[0], 0.8, True)
B: Slot = ("hugging face", "owner/style-lora:styles/ink-wash.safetensors", 1, False)
C: Slot = ("url", LONG, -0.5, True)


def inputs(*slots: Slot | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for number, slot in enumerate([*slots, None, None, None][:3], 1):
        name = f"lora_{number}"
        found[name] = slot[0] if slot else "none"
        if slot:
            found |= {f"{name}.{FIELDS[slot[0]]}": slot[1]}
            found |= {f"{name}.scale": slot[2], f"{name}.enabled": slot[3]}
    return found


def stack(*slots: Slot | None) -> dict[str, dict[str, object]]:
    return {"1": {"class_type": "Flux2EditLoraStack", "inputs": inputs(*slots)}}


def now(page: ComfyPage, node: int = 1) -> dict[str, object]:
    page.settle()
    return page.export_api()[str(node)]["inputs"]


def opened(page: ComfyPage, *slots: Slot | None) -> None:
    page.load_api(stack(*slots))
    page.fit(1.0)


def row(page: ComfyPage, number: int):
    return page.page.locator(f".flux2-lora-list .row[data-slot='{number}']:visible")


def head(page: ComfyPage, name: str):
    return page.page.locator(".flux2-lora-list .head").get_by_role("button", name=name)


def drag(page: ComfyPage, what, by: Point, key: str = "") -> None:
    box = what.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    if key:
        page.page.keyboard.down(key)
    for part in (0.5, 1):
        page.page.mouse.move(x + by.x * part, y + by.y * part)
    page.page.mouse.up()
    if key:
        page.page.keyboard.up(key)
    page.settle()


def stock_face(page: ComfyPage, wanted: bool = True) -> None:
    page.js("([id, on]) => app.extensionManager.setting.set(id, on)", [SETTING, not wanted])
    page.settle()


def height(page: ComfyPage, node: int = 1) -> float:
    """With the title, as drawn."""
    return page.js(
        """(id) => document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect().height
            ?? app.graph.getNodeById(id).size[1] + LiteGraph.NODE_TITLE_HEIGHT""",
        node,
    )


@pytest.fixture(params=SEVERAL)
def every_page(request, pages, renderer):
    page = pages.get(renderer, request.param)
    yield page
    stock_face(page, False)
    errors, page.errors = page.errors, []
    assert not errors, errors[:3]


@pytest.fixture
def classic_list(classic):
    """Where the renderers do not differ."""
    yield classic
    stock_face(classic, False)


@pytest.fixture
def list_page(page):
    yield page
    stock_face(page, False)


def test_three_loras_are_three_rows_and_the_graph_is_the_same(every_page, renderer, request):
    page = every_page
    stock_face(page)
    page.load_api(stack(A, B, C))
    page.fit(1.0)
    stock, before, was_high = page.serialize(), page.export_api(), height(page)
    stock_face(page, False)
    page.fit(1.0)
    page.settle()
    assert page.page.locator(".flux2-lora-list .row:visible").count() == 3
    assert height(page) <= TALLEST < was_high
    assert page.export_api() == before
    listed = page.serialize()
    for saved in (stock, listed):
        size = saved["nodes"][0].pop("size")
        assert size[0] == 400
    assert json.dumps(listed["nodes"]) == json.dumps(stock["nodes"])
    page.load(listed)
    assert page.export_api() == before
    name = request.node.name.split("[")[1].rstrip("]")
    page.screenshot(ARTIFACTS / f"lora-list-{name}.png", [1])


def test_a_row_shows_its_lora(classic_list):
    page = classic_list
    opened(page, A, B, C)
    first, second, third = (row(page, n) for n in (1, 2, 3))
    assert first.locator(".name").inner_text() == "ai-toolkit"
    assert second.locator(".dim").inner_text() == "owner/style-lora:styles/"
    assert third.locator(".dim").text_content().startswith("civitai.com")
    assert third.locator(".end").text_content() == "00001500"
    assert third.locator(".name").get_attribute("title") == LONG
    assert second.get_attribute("aria-label") == "LoRA 2, ink-wash, off, scale 1.00"
    assert [r.locator(".value").inner_text() for r in (first, second, third)] == [
        "0.80", "1.00", "-0.50",
    ]  # fmt: skip
    assert page.page.locator(".head .said").inner_text() == "2 of 3 on"


def test_the_mouse(list_page):
    page = list_page
    opened(page, A, B)
    row(page, 1).locator(".toggle").click()
    assert now(page) == inputs((*A[:3], False), B)
    drag(page, row(page, 1).locator(".value"), Point(40, 0))
    assert now(page)["lora_1.scale"] == pytest.approx(1.3)
    drag(page, row(page, 1).locator(".value"), Point(-12, 0), "Shift")
    assert now(page)["lora_1.scale"] == pytest.approx(1.27)
    row(page, 1).locator(".value").click()
    page.page.keyboard.type("-9")
    page.page.keyboard.press("Enter")
    assert now(page)["lora_1.scale"] == -4
    row(page, 1).locator(".more").click()
    assert now(page)["lora_1.scale"] == pytest.approx(-3.95)
    # By its number to the place of the second.
    drag(page, row(page, 1).locator(".handle"), Point(0, 26))
    first = ("installed", FILES[0], -3.95, False)
    assert now(page) == inputs(B, first)
    page.page.locator(".head .toggle").click()
    assert now(page) == inputs((*B[:3], True), (*first[:3], True))
    page.page.locator(".head .toggle").click()
    assert now(page) == inputs((*B[:3], False), first)
    row(page, 1).locator(".remove").click()
    assert now(page) == inputs(None, first)
    # Each of these was one step for undo.
    undo(page)
    assert now(page) == inputs(B, first)
    redo(page)
    assert now(page) == inputs(None, first)


def test_the_menu_of_a_row(classic_list):
    page = classic_list
    opened(page, A, None, C)

    def choose(number, name):
        row(page, number).locator(".name").click(button="right")
        page.page.locator(".flux2-lora-popup button", has_text=name).click()

    choose(1, "Move down")
    assert now(page) == inputs(C, None, A)
    choose(3, "Switch off")
    assert now(page) == inputs(C, None, (*A[:3], False))
    choose(1, "Remove")
    assert now(page) == inputs(None, None, (*A[:3], False))
    choose(3, "Show all widgets")
    assert not page.page.locator(".flux2-lora-list").count()
    undo_size = height(page)
    node = page.serialize()["nodes"][0]
    assert node["widgets_values"][:4] == ["none", "none", "installed", FILES[0]], undo_size


def test_keys_alone(list_page):
    page = list_page
    opened(page, A, B)
    press = page.page.keyboard.press
    page.page.locator(".head .toggle").focus()
    for _ in range(3):  # over "+ link" and "+ LoRA" into the first row
        press("Tab")
    focused = "() => document.activeElement.dataset.slot ?? document.activeElement.className"
    assert page.js(focused) == "1"
    outline = "() => getComputedStyle(document.activeElement).boxShadow"
    assert page.js(outline) != "none", "the focus is not seen"
    press("Space")
    assert now(page)["lora_1.enabled"] is False
    press("ArrowRight")
    press("Shift+ArrowRight")
    assert now(page)["lora_1.scale"] == pytest.approx(0.86)
    press("Alt+ArrowDown")
    assert now(page) == inputs(B, ("installed", FILES[0], 0.86, False))
    assert page.js(focused) == "2", "the focus goes with the LoRA"
    press("ArrowUp")
    assert page.js(focused) == "1"
    press("5")
    press("Enter")
    assert now(page)["lora_1.scale"] == 4
    press("Delete")
    assert now(page) == inputs(None, ("installed", FILES[0], 0.86, False))
    assert page.js(focused) == "2"
    press("Enter")
    page.page.locator(":focus").wait_for()
    press("Escape")
    page.page.wait_for_function("() => document.activeElement.dataset.slot === '2'")
    press("Escape")
    assert page.js("() => document.activeElement === app.canvas.canvas || !document.activeElement"
                   ".closest('.flux2-lora-list')")  # fmt: skip
    assert page.js("() => app.graph._nodes.length") == 1, "Delete took the row, not the node"


def test_a_kind_and_back_keeps_name_and_scale(classic_list):
    """In the list and in the stock widgets, which forget them before frontend 1.58."""
    page = classic_list
    opened(page, A, B)

    def kind(name):
        row(page, 1).locator(".kind").click()
        page.page.locator(".flux2-lora-popup button", has_text=name).click()

    kind("Hugging Face")
    assert now(page)["lora_1"] == "hugging face" and now(page)["lora_1.scale"] == 0.8
    kind("Installed")
    assert now(page) == inputs(A, B)
    stock_face(page)
    by_hand = """([kind]) => {
        const widget = app.graph._nodes[0].widgets.find(w => w.name === 'lora_2')
        widget.value = kind
        widget.callback(kind, app.canvas, app.graph._nodes[0])
    }"""
    for name in ("url", "none", "hugging face"):
        page.js(by_hand, [name])
    assert now(page) == inputs(A, B)


def test_what_is_typed_or_pasted_is_recognised(classic_list):
    page = classic_list
    opened(page)
    head(page, "Add from Hugging Face or a link").click()
    page.page.keyboard.type("owner/repo:a.safetensors")
    page.page.keyboard.press("Enter")
    repo = ("hugging face", "owner/repo:a.safetensors", 1, True)
    assert now(page) == inputs(repo)
    paste = """([number, text]) => {
        const at = document.querySelector(number ? `.row[data-slot="${number}"]` : '.head .add')
        const data = new DataTransfer()
        data.setData('text', text)
        at.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))
    }"""
    page.js(paste, [0, LONG])
    assert now(page) == inputs(repo, ("url", LONG, 1, True))
    address = "https://huggingface.co/owner/repo/blob/main/b.safetensors"
    page.js(paste, [2, address])
    assert now(page) == inputs(repo, ("hugging face", address, 1, True))
    page.js(paste, [1, FILES[2]])
    assert now(page)["lora_1.file"] == FILES[2]
    assert page.js("() => app.graph._nodes.length") == 1
    # Escape takes back a link that was begun.
    head(page, "Add from Hugging Face or a link").click()
    page.page.keyboard.type("half a li")
    page.page.keyboard.press("Escape")
    assert now(page)["lora_3"] == "none" and row(page, 3).count() == 0


def test_a_linked_value_is_shown_and_not_edited(list_page):
    page = list_page
    linked = stack(A, B, C)
    linked["2"] = {"class_type": "PrimitiveFloat", "inputs": {"value": 0.3}}
    linked["1"]["inputs"]["lora_1.scale"] = linked["1"]["inputs"]["lora_3.scale"] = ["2", 0]
    page.load_api(linked)
    page.fit(1.0)
    page.settle()
    value = row(page, 1).locator(".value")
    assert value.inner_text() == "⟵" and "linked" in row(page, 1).get_attribute("class")
    drag(page, value, Point(60, 0))
    row(page, 1).press("ArrowRight")
    row(page, 1).press("Alt+ArrowDown")
    row(page, 1).press("Delete")
    assert now(page) == linked["1"]["inputs"]
    row(page, 1).locator(".toggle").click()
    assert now(page)["lora_1.enabled"] is False
    # The link ends at its row.
    end, middle = page.js(
        """() => {
            const node = app.graph.getNodeById(1), view = app.canvas.ds
            const slot = node.inputs.findIndex(input => input.name === 'lora_3.scale')
            const canvas = app.canvas.canvas.getBoundingClientRect()
            const at = node.getConnectionPos(true, slot)
            const row = document.querySelector('.row[data-slot="3"]').getBoundingClientRect()
            return [canvas.y + (at[1] + view.offset[1]) * view.scale, row.y + row.height / 2]
        }"""
    )
    page.screenshot(ARTIFACTS / f"lora-list-linked-{page.js('() => LiteGraph.vueNodesMode')}.png")
    assert end == pytest.approx(middle, abs=6)


PROMOTED = """() => {
    const box = app.graph.convertToSubgraph(new Set(app.graph._nodes)).node
    const inside = box.subgraph.nodes.find(n => n.comfyClass === 'Flux2EditLoraStack')
    for (const name of ['lora_1.scale', 'lora_2']) {
        const slot = inside.inputs.findIndex(input => input.name === name)
        const input = box.subgraph.addInput(name, inside.inputs[slot].type)
        input.connect(inside.inputs[slot], inside)
    }
    return box.id
}"""


def test_promoted_widgets_of_a_subgraph_are_those_of_the_stock_face(every_page):
    page = every_page

    def boxed(page, listed):
        stock_face(page, not listed)
        page.load_api(stack(A, B, C))
        box = page.js(PROMOTED)
        page.settle()
        faces = page.js(
            """(id) => app.graph.getNodeById(id).widgets.map(w => [
                w.name, w.value, Boolean(w.hidden), Boolean(w.options?.hidden)])""",
            box,
        )
        (exported,) = page.export_api().values()
        return box, faces, exported["inputs"]

    _, *stock = boxed(page, listed=False)
    box, *listed = boxed(page, listed=True)
    assert listed == stock
    assert [face[0] for face in listed[0]] == ["lora_1.scale", "lora_2"]
    assert not any(face[2] or face[3] for face in listed[0]), "hidden on the subgraph's node too"
    write = """([id, value]) => {
        const widget = app.graph.getNodeById(id).widgets[0]
        widget.value = value
        widget.callback?.(value)
    }"""
    for value in (1.5, 0.8):  # frontend 1.47 hands the last one on to the next graph
        page.js(write, [box, value])
        page.load(page.serialize())
        (exported,) = page.export_api().values()
        assert exported["inputs"] == stock[1] | {"lora_1.scale": value}


def test_a_list_that_fails_leaves_the_stock_widgets(list_page):
    page = list_page
    page.js(
        """() => {
            const whole = LGraphNode.prototype.addDOMWidget
            LGraphNode.prototype.addDOMWidget = function (name, ...rest) {
                if (name === 'flux2_edit_lora_list') throw new Error('broken')
                return whole.call(this, name, ...rest)
            }
            window.__mend = () => { LGraphNode.prototype.addDOMWidget = whole }
        }"""
    )
    opened(page, A, B)
    page.js("() => window.__mend()")
    assert now(page) == inputs(A, B)
    assert not page.page.locator(".flux2-lora-list").count()
    hidden = "() => app.graph._nodes[0].widgets.some(w => w.hidden || w.options.hidden)"
    assert not page.js(hidden)
    assert height(page) > TALLEST
    # Later, too: in the midst of a change.
    opened(page, A, B)
    page.js(
        """() => Object.defineProperty(
            document.querySelector('.flux2-lora-list .said'), 'textContent',
            { set() { throw new Error('broken') } })"""
    )
    row(page, 1).locator(".toggle").click()
    page.settle()
    assert now(page) == inputs((*A[:3], False), B)
    assert not page.page.locator(".flux2-lora-list").count() and not page.js(hidden)


def test_a_loaded_node_keeps_its_size(classic_list):
    page = classic_list
    opened(page, A, B, C)
    saved = page.serialize()
    saved["nodes"][0]["size"] = [620, 500]
    page.load(saved)
    assert page.serialize()["nodes"][0]["size"] == [620, 500]


def test_a_lora_is_added_from_the_picker(list_page):
    page = list_page
    opened(page)
    head(page, "Add an installed LoRA").click()
    page.page.locator(".flux2-edit-picker [role=option]", has_text="diffusers").click()
    first = ("installed", FILES[1], 1, True)
    assert now(page) == inputs(first)
    undo(page)
    assert now(page) == inputs(), "one step"
    redo(page)
    # The second by keys, and another file for the first.
    head(page, "Add an installed LoRA").press("Enter")
    page.page.keyboard.type("kohya")
    page.page.keyboard.press("Enter")
    assert now(page) == inputs(first, ("installed", FILES[2], 1, True))
    row(page, 1).locator(".name").click()
    page.page.locator(".flux2-edit-picker [role=option]", has_text="ai-toolkit").click()
    assert now(page)["lora_1.file"] == FILES[0]


def test_a_failed_slot_and_a_wrong_base_are_marked(list_page):
    page = list_page
    missing = "no-such-file.safetensors"
    page.load_api(small_edit(loras=[(FILES[0], 1), (missing, 0.5), ("flux1.safetensors", 1)]))
    page.fit(0.75)  # under 0.6 the classic canvas draws neither texts nor lists
    misfit = row(page, 3).locator(".error:visible")
    misfit.wait_for()
    assert misfit.inner_text() == "≠" and "FLUX.1" in misfit.get_attribute("title")
    page.js("async () => { try { await app.queuePrompt(0, 1) } catch {} }")
    mark = row(page, 2).locator(".error:visible")
    mark.wait_for()
    assert mark.inner_text() == "!" and missing in mark.get_attribute("title")
    assert missing in row(page, 2).get_attribute("aria-label")
    assert not row(page, 1).locator(".error:visible").count()
    page.page.keyboard.press("Escape")
    page.screenshot(ARTIFACTS / f"lora-list-marks-{page.js('() => LiteGraph.vueNodesMode')}.png")
    page.errors.clear()


def test_more_than_three_is_a_second_stack_and_apply_that_run(list_page, client):
    page = list_page
    edit = small_edit(loras=[(name, 0.5) for name in FILES], steps=1)
    edit[str(APPLY)]["inputs"] |= {"clip": [str(CLIP), 0], "on_mismatch": "warn"}
    edit[str(CONDITIONING)]["inputs"]["clip"] = [str(APPLY), 1]
    page.load_api(edit)
    page.fit(0.75)
    head(page, "More than three").click()
    page.settle()
    second = page.js("() => Math.max(...app.graph._nodes.filter(n => n.comfyClass === "
                     "'Flux2EditLoraStack').map(n => n.id))")  # fmt: skip
    page.js(
        """([id, file]) => {
            const node = app.graph.getNodeById(id)
            for (const [name, value] of [['lora_1', 'installed'], ['lora_1.file', file]]) {
                const widget = node.widgets.find(w => w.name === name)
                widget.value = value
                widget.callback?.(value)
            }
        }""",
        [second, FILES[0]],
    )
    prompt = page.export_api()
    applies = {k: v for k, v in prompt.items() if v["class_type"] == "Flux2EditApplyLoraStack"}
    behind = next(k for k in applies if k != str(APPLY))
    assert applies[behind]["inputs"]["model"] == [str(APPLY), 0]
    assert applies[behind]["inputs"]["lora_stack"] == [str(second), 0]
    assert applies[behind]["inputs"]["clip"] == [str(APPLY), 1]
    assert applies[behind]["inputs"]["on_mismatch"] == "warn"
    assert prompt[str(SAMPLER)]["inputs"]["model"] == [behind, 0]
    assert prompt[str(CONDITIONING)]["inputs"]["clip"] == [behind, 1]
    overlap = page.js(
        """() => {
            const boxes = app.graph._nodes.map(n => [n.pos[0], n.pos[1] - 30,
                n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
            return boxes.slice(-2).some((a, i) => boxes.some((b, j) => b !== a && j < boxes.length
                && a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]))
        }"""
    )
    assert not overlap
    assert client.run(prompt).check().images()

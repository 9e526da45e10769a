"""The words on the nodes: there, complete, legible, and there again whenever the graph is."""

from itertools import count

from browser.hand import another_tab_and_back, note_change, spread, undo
from shots import ARTIFACTS
from small_edit import APPLY, CONDITIONING, SAMPLER, SIZE, STACK, small_edit

HOSTED, INFO, SCHEDULED, REGION = "13", "14", "17", "18"
# The host's own text widget.
HOSTS_TEXT = "$$node-text-preview"
PALETTES = ("light", "dark")
# Contrast that WCAG asks of text of this size.
LEGIBLE = 4.5
# The server keeps the results of every run: nodes run again only with values it has not seen.
UNSEEN = count(1)


def new_graph():
    """Every node that has words, none of them with inputs of an earlier run."""
    number = next(UNSEEN)
    prompt = small_edit(steps=1, seed=10_000 + number)
    prompt[str(CONDITIONING)]["inputs"]["prompt"] = f"the cat, {number}"
    prompt[str(STACK)]["inputs"]["lora_2.scale"] = round(1 + number / 100, 2)
    prompt[str(SIZE)]["inputs"]["height"] = 512 + 16 * number
    prompt[HOSTED] = {
        "class_type": "Flux2EditRunComfy",
        "inputs": {
            "prompt": "make it winter",
            "image_1": ["6", 0],
            "image_urls": "",
            "mode": "auto",
            "image_size": "auto",
            "guidance_scale": 2.5,
            "num_inference_steps": 28,
            "seed": number,
            "output_format": "png",
            "batch_count": 1,
            "timeout_minutes": 5,
            "resume_request_id": "",
            "max_cost": 0.0,
        },
    }
    prompt[INFO] = {"class_type": "Flux2EditLoraInfo", "inputs": {"lora_stack": [str(STACK), 0]}}
    prompt[SCHEDULED] = {
        "class_type": "Flux2EditLoraSchedule",
        "inputs": {
            "lora_stack": [str(STACK), 0],
            "lora": "2",
            "schedule": "0:0, 0.25:1, 1:-0.5",
            "between": "ease in out",
            "clock": "steps",
            "pictures": "1, 0.5",
        },
    }
    prompt[REGION] = {
        "class_type": "Flux2EditLoraRegion",
        "inputs": {
            "lora_stack": [SCHEDULED, 0],
            "lora": "all",
            "text": 0,
            "references": 0.5,
            "blocks": "double 0-1=0.5, single=0",
        },
    }
    for node, source in (("15", [INFO, 0]), ("16", [HOSTED, 3]), ("19", [REGION, 0])):
        prompt[node] = {"class_type": "PreviewAny", "inputs": {"source": source}}
    return prompt


SAYS = {
    APPLY: ("matched 22/22", "rank 8", "ai-toolkit", "diffusers"),
    CONDITIONING: ("image_1: 96x96", "image_2: 144x96", "tokens"),
    SIZE: ("96x96", "tokens"),
    SAMPLER: ("96x96", "1 step", "guidance 2.5"),
    int(HOSTED): ("delivered", "cost $"),
    int(INFO): ("ai-toolkit.safetensors", "rank"),
    int(SCHEDULED): (": ▃▄▆▇██▇▇▆", "0.25:1, 1:-0.5 (ease in out, steps), pictures 1, 0.5"),
    int(REGION): ("region 100 % of the picture, text 0, references 0.5", "blocks double 0-1=0.5"),
}


def assert_every_node_tells(page):
    for node, words in SAYS.items():
        said = page.text_of(node)
        assert all(word in said for word in words), f"node {node} says: {said!r}"
        names = page.js("(id) => app.graph.getNodeById(id).widgets.map(w => w.name)", node)
        assert HOSTS_TEXT not in names, f"node {node} would show its text twice"


MEASURE = """() => {
    const luminance = (color) => {
        const rgb = color.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
    }
    return [...document.querySelectorAll('.flux2-edit-text')].map(element => {
        const style = getComputedStyle(element)
        const both = [style.color, style.backgroundColor].map(luminance)
        const low = Math.min(...both), high = Math.max(...both)
        return {
            text: element.textContent,
            contrast: (high + 0.05) / (low + 0.05),
            hidden: element.scrollHeight - element.clientHeight,
        }
    })
}"""


def test_every_node_tells_what_it_did_legibly(page, renderer, token):
    prompt = new_graph()
    page.load_api(prompt)
    spread(page)
    assert page.queue() == "success"
    spread(page)
    assert_every_node_tells(page)
    for palette in PALETTES:
        page.js("(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)", palette)
        page.fit(1.0)
        faces = page.js(MEASURE)
        assert len(faces) >= len(SAYS)
        for face in faces:
            assert face["contrast"] >= LEGIBLE, f"{palette}: {face}"
            assert face["hidden"] <= 1, f"cut off: {face['text'][:60]}"
        page.fit()
        page.screenshot(ARTIFACTS / f"faces-{renderer}-{palette}.png")
    # The words are no part of the graph.
    saved = str(page.serialize())
    assert "flux2_edit_text" not in saved and "matched 22/22" not in saved
    assert set(page.export_api()) == set(prompt)


def test_the_words_stay(pages, renderer, token):
    """Frontend 1.58 removes the host's own text at the end of a run, and undo makes all nodes anew.

    So does every change of the tab.
    """
    page = pages.get(renderer, "newest")
    page.load_api(new_graph())
    assert page.queue() == "success"
    page.page.wait_for_timeout(200)
    assert_every_node_tells(page)
    note_change(page)
    page.js("(id) => { app.graph.getNodeById(id).widgets[0].value = 4711 }", SAMPLER)
    note_change(page)
    undo(page)
    assert page.export_api()[str(SAMPLER)]["inputs"]["seed"] != 4711
    assert_every_node_tells(page)
    another_tab_and_back(page)
    assert_every_node_tells(page)


def test_a_graph_that_is_opened_again_says_its_words_again(classic, token):
    """Nothing of it is run: the server has every result."""
    prompt = new_graph()
    classic.load_api(prompt)
    assert classic.queue() == "success"
    classic.reset(vue=False)
    classic.load_api(prompt)
    assert not classic.text_of(APPLY)
    assert classic.queue() == "success"
    assert_every_node_tells(classic)


def test_the_words_inside_a_subgraph(classic, token):
    """They go when the node inside runs again, and not those of a node outside with its id."""
    classic.load_api(new_graph())
    classic.js(
        """(ids) => {
            app.graph.convertToSubgraph(new Set(ids.map(id => app.graph.getNodeById(id))))
        }""",
        [STACK, APPLY],
    )
    assert classic.queue() == "success"
    box = classic.js("() => app.graph._nodes.find(node => node.isSubgraphNode?.()).id")
    inside = f"app.graph.getNodeById({box}).subgraph"
    words = f"""() => {inside}.getNodeById({APPLY}).widgets
        .find(widget => widget.name === 'flux2_edit_text')?.element.textContent"""
    assert "matched 22/22" in classic.js(words)
    starts = "(id) => { app.api.dispatchCustomEvent('executing', id) }"
    classic.js(starts, f"{box}:{SIZE}")
    assert classic.text_of(SIZE) and classic.js(words)
    classic.js(starts, f"{box}:{APPLY}")
    assert classic.text_of(SIZE) and not classic.js(words)
    classic.js(starts, str(SIZE))
    assert not classic.text_of(SIZE)


def test_a_drawn_seed_stays_on_the_node_when_nothing_is_drawn_again(page, token, standin):
    prompt = {"1": new_graph()[HOSTED], "2": {"class_type": "PreviewAny",
                                              "inputs": {"source": ["1", 3]}}}  # fmt: skip
    prompt["1"]["inputs"] |= {"seed": -1, "prompt": f"winter {next(UNSEEN)}"}
    del prompt["1"]["inputs"]["image_1"]
    page.load_api(prompt)
    assert page.queue() == "success"
    drawn = standin.state.account(token).jobs[-1].payload["seed"]
    said = page.text_of(1)
    assert f"seed -1 drew {drawn}. Run again shows this very picture for nothing" in said
    paid = standin.state.account(token).submissions
    assert page.queue() == "success"
    assert page.text_of(1) == said and standin.state.account(token).submissions == paid
    page.fit()
    page.screenshot(ARTIFACTS / "drawn-seed.png")

"""Words that must arrive: after Stop, after an error, before a paid run; and one press fetches."""

import re

import pytest
from browser.hand import note_change, undo
from frontends import NEWEST, OLDEST, SEVERAL
from paid import hosted, open_settings
from shots import ARTIFACTS
from standin_faults import FAULTS
from standin_server.state import Timing

from host.graph import Graph

# The frontends and renderers that differ: what the oldest host pins, what is pinned, the newest.
RENDERERS = {"pinned": "classic", OLDEST: "classic"}
PAGES = [(RENDERERS.get(frontend, "nodes2"), frontend) for frontend in SEVERAL]
TEXT = """(id) => app.graph.getNodeById(id).widgets
    ?.find(w => w.name === 'flux2_edit_text')?.element"""
STOPPED = "What already runs at RunComfy cannot be cancelled"
NODE = 1


@pytest.fixture(autouse=True)
def nothing_left_open(client):
    """Other tests count what is open of the one account."""
    yield
    route = f"{client.url}/flux2-lora-edit/open-requests"
    for entry in client.get("/flux2-lora-edit/open-requests")["open_requests"]:
        key = {"key": entry["key"]}
        client.http.delete(route, json=key, headers={"X-Flux2-Lora-Edit": "1"}).raise_for_status()


def alert(page, node=NODE):
    """The text of an error that a node shows, as a screen reader is told."""
    return page.js(
        f"""(id) => {{
            const element = ({TEXT})(id)
            return element?.getAttribute('role') === 'alert' ? element.innerText : ''
        }}""",
        node,
    )


@pytest.mark.parametrize(("renderer", "frontend"), PAGES)
def test_the_last_words_stay(renderer, frontend, pages, token, standin, client):
    page = pages.get(renderer, frontend)
    account = standin.state.account(token)
    before, account.timing = account.timing, Timing(0, 600)
    try:
        # Stopped.
        page.load_api(hosted(batch_count=2))
        page.fit(1.0)
        run = page.start()
        page.page.wait_for_function(f"(id) => ({TEXT})(id)?.textContent.includes('2 running')",
                                    arg=NODE)  # fmt: skip
        client.interrupt()
        assert page.wait_for_end(run) == "interrupted"
        page.page.wait_for_timeout(300)  # what the newest one clears, it clears a moment later
        said = page.text_of(NODE)
        ids = [job.id for job in account.jobs[-2:]]
        assert said.count(STOPPED) == 1 and all(id in said for id in ids), said
        page.fit(1.0)
        page.screenshot(ARTIFACTS / f"words-stopped-{renderer}-{frontend}.png")
        assert not alert(page)
        note_change(page)
        page.js("(id) => { app.graph.getNodeById(id).widgets[0].value = 'another' }", NODE)
        note_change(page)
        undo(page)
        assert page.text_of(NODE) == said
    finally:
        account.timing = before
    # What was left open is said all the time.
    page.js("() => { window.__said = []; app.api.addEventListener('progress_text', "
            "({ detail }) => window.__said.push(detail.text)) }")  # fmt: skip
    page.load_api(hosted())
    assert page.queue() == "success"
    told = [*page.js("() => window.__said"), page.text_of(NODE)]
    assert len(told) > 2 and all("requests are open" in text for text in told), told
    assert "cost $" in told[-1]
    # One press fetches, whatever graph is open.
    paid = account.submissions
    for job in account.jobs:
        job.timing = before
    dialog = open_settings(page)
    row = page.page.locator("#flux2-lora-edit-open-requests").get_by_role("listitem").last
    assert ids[1] in row.inner_text() and "RunComfy finishes and bills it" in row.inner_text()
    row.get_by_role("button", name="Fetch").click()
    row.get_by_text("Nothing was paid for it now").wait_for()
    row.scroll_into_view_if_needed()
    page.screenshot(ARTIFACTS / f"settings-fetch-{renderer}-{frontend}.png")
    page.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert account.submissions == paid and page.text_of(NODE) == told[-1]
    still = client.get("/flux2-lora-edit/open-requests")["open_requests"]
    assert ids[1] not in [entry["request_id"] for entry in still]
    page.fit(1.0)
    page.screenshot(ARTIFACTS / f"words-open-{renderer}-{frontend}.png")
    assert not page.errors, page.errors[:3]


@pytest.mark.parametrize(("renderer", "frontend"), PAGES)
def test_an_error_is_on_its_node(renderer, frontend, pages, token, standin):
    page = pages.get(renderer, frontend)
    account = standin.state.account(token)
    plain, standin.faults = standin.faults, FAULTS
    standin.state.account(token, "submit_500_after")
    prompt = hosted()
    try:
        page.load_api(prompt)
        assert page.queue() == "error"
    finally:
        account.fault, standin.faults = "", plain
    shown = alert(page)
    assert "Error" in shown and "may have been accepted" in shown, shown
    page.fit(1.0)
    page.screenshot(ARTIFACTS / f"words-error-{renderer}-{frontend}.png")
    page.js("(id) => { app.graph.getNodeById(id).widgets.find(w => w.name === 'seed').value++ }",
            NODE)  # fmt: skip
    assert page.queue() == "success"
    assert not alert(page) and "delivered" in page.text_of(NODE)
    page.errors = [error for error in page.errors if "500" not in error]
    assert not page.errors, page.errors[:3]


@pytest.mark.parametrize(("renderer", "frontend"), PAGES)
def test_a_refused_prompt_is_told_at_its_node(renderer, frontend, pages):
    page = pages.get(renderer, frontend)
    graph = Graph()
    stack = graph.add("Flux2EditLoraStack", **{
        "lora_1": "none", "lora_2": "installed", "lora_2.file": "ai-toolkit.safetensor",
        "lora_2.scale": 1.0, "lora_2.enabled": True, "lora_3": "none",
    })  # fmt: skip
    info = graph.add("Flux2EditLoraInfo", lora_stack=stack)
    graph.add("PreviewAny", source=info)
    page.js("""() => {
        window.__told = []
        addEventListener('flux2-lora-edit:error', ({ detail }) =>
            window.__told.push([String(detail.node.id), detail.inputs, detail.text]))
    }""")
    page.load_api(graph.prompt)
    page.fit(1.0)
    page.js("async () => { await app.queuePrompt(0, 1) }")
    page.page.wait_for_function(f"(id) => ({TEXT})(id)?.textContent", arg=NODE)
    shown = alert(page)
    assert "Not run" in shown and "LoRA slot 2" in shown and "ai-toolkit.safetensors" in shown, (
        shown
    )
    node, inputs, text = page.js("() => window.__told.at(-1)")
    assert (node, inputs) == ("1", ["lora_2"]) and text in shown
    page.page.wait_for_function(
        """(id) => {
        const marked = app.graph.getNodeById(id).inputs.filter(slot => slot.hasErrors)
        return marked.map(slot => slot.name).join() === 'lora_2'
    }""",
        arg=NODE,
    )  # the page marks lora_stack
    page.page.keyboard.press("Escape")  # older pages show it in a dialog as well
    page.settle()
    page.screenshot(ARTIFACTS / f"words-refused-{renderer}-{frontend}.png")
    page.js("""(id) => { app.graph.getNodeById(id).widgets.find(w => w.name === 'lora_2.file')
        .value = 'ai-toolkit.safetensors' }""", NODE)  # fmt: skip
    assert page.queue() == "success"
    assert not alert(page)
    page.errors = [error for error in page.errors if not re.search("400|PromptExec", error)]
    assert not page.errors, page.errors[:3]


def test_a_node_inside_a_subgraph_is_heard_outside(pages):
    """Nodes that another has made belong to it; and what files say is text."""
    page = pages.get("classic", NEWEST)
    graph = Graph()
    slots = {"lora_1": "none", "lora_2": "none", "lora_3": "none"}
    info = graph.add("Flux2EditLoraInfo", lora_stack=graph.add("Flux2EditLoraStack", **slots))
    graph.add("PreviewAny", source=info)
    page.load_api(graph.prompt)
    page.js("() => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(2)])) }")
    box = page.js("() => app.graph._nodes.find(node => node.isSubgraphNode?.()).id")
    fails = """([id, text]) => { app.api.dispatchCustomEvent('execution_error', {
        node_id: id, node_type: 'any', exception_message: text, exception_type: 'x',
        prompt_id: 'none', traceback: [], executed: [], current_inputs: {}, current_outputs: {},
    }) }"""
    page.js("""() => {
        const { toast } = app.extensionManager, { add } = toast
        window.__toasts = []
        toast.add = (one) => { window.__toasts.push(one.detail); add.call(toast, one) }
        window.__mend = () => { toast.add = add }
    }""")
    page.js(fails, ["1.0.0.7", "<img src=x onerror=alert()> \u202eno\nhttps://evil.example/a"])
    assert alert(page) == "⚠ Error\n<img src=x onerror=alert()> \ufffdno\nhttps://evil.example/a"
    assert not page.js(f"(id) => ({TEXT})(id).querySelectorAll('a, img').length", NODE)
    page.js(fails, [f"{box}:2", "LoRA slot 3 is the wrong one"])
    inside = page.js("(box) => app.graph.getNodeById(box).subgraph.getNodeById(2).widgets.at(-1)"
                     ".element.innerText", box)  # fmt: skip
    assert "wrong one" in inside
    page.page.get_by_text("LoRA slot 3 is the wrong one").locator("visible=true").first.wait_for()
    page.screenshot(ARTIFACTS / "words-subgraph.png")
    page.js("""(id) => {
        const tell = (name, detail) =>
            app.api.dispatchCustomEvent(name, { prompt_id: 'none', ...detail })
        tell('progress_text', { nodeId: id, text: '2 running' })
        tell('execution_interrupted', { node_id: id, node_type: 'any', executed: [] })
    }""", f"{box}:2")  # fmt: skip
    told = [text for text in page.js("() => window.__toasts") if text]
    assert told.count("LoRA slot 3 is the wrong one") == told.count("2 running") == 1
    assert not any("evil.example" in text for text in told), "said by the node, which is in sight"
    page.js("() => { window.__mend(); app.extensionManager.toast.removeAll?.() }")
    assert not page.errors, page.errors[:3]


TOKEN_SET = "() => window.dispatchEvent(new Event('flux2-lora-edit:token'))"
PRICE = """(id) => app.graph.getNodeById(id).widgets
    ?.find(w => w.name === 'flux2_edit_price')?.element.innerText ?? ''"""


def price_says(page, node, *words):
    page.page.wait_for_function(
        f"([id, words]) => words.every(word => ({PRICE})(id).includes(word))",
        arg=[node, words],
    )


def change(page, node, name, value):
    """As both renderers do it when a hand has changed a value."""
    page.js("""([id, name, value]) => {
        const widget = app.graph.getNodeById(id).widgets.find(w => w.name === name)
        widget.value = value
        widget.callback?.(value, app.canvas, app.graph.getNodeById(id))
    }""", [node, name, value])  # fmt: skip


@pytest.mark.parametrize(("renderer", "frontend"), PAGES)
def test_what_a_run_costs_is_said_before_it(renderer, frontend, pages, token, client):
    page = pages.get(renderer, frontend)

    node = page.js("""() => {
        const node = LiteGraph.createNode('Flux2EditRunComfy')
        app.graph.add(node)
        node.setSize([node.size[0], node.size[1] + 300])
        return node.id
    }""")
    price_says(page, node, "A run costs $0.021 at RunComfy.")
    if renderer == "classic":
        page.settle()
        box = page.js("(id) => { const w = app.graph.getNodeById(id).widgets.find("
                      "w => w.name === 'image_urls'); return [w.computedHeight, "
                      "w.element.placeholder] }", node)  # fmt: skip
        assert box[0] <= 80 and "image_urls" in box[1], box
    if renderer == "nodes2":
        row = page.page.locator(f'[data-node-id="{node}"]').get_by_text("batch_count").locator("..")
        row.get_by_role("button").last.click()
    else:
        change(page, node, "batch_count", 2)
    price_says(page, node, "A run costs $0.042 at RunComfy: 2 × $0.021.")
    page.fit(1.0)
    page.screenshot(ARTIFACTS / f"words-price-{renderer}-{frontend}.png")
    change(page, node, "resume_request_id", "an-id")
    price_says(page, node, "costs nothing")
    change(page, node, "resume_request_id", "")
    saved = page.serialize()["nodes"][0]
    assert "RunComfy" not in str(saved["widgets_values"]) and "A run costs" not in str(saved)
    route = f"{client.url}/flux2-lora-edit/token"
    headers = {"X-Flux2-Lora-Edit": "1"}
    client.http.delete(route, json={}, headers=headers).raise_for_status()
    page.js(TOKEN_SET)
    price_says(page, node, "No API token is set", "https://www.runcomfy.com/profile")
    link = page.js("(id) => { const e = app.graph.getNodeById(id).widgets.find(w => w.name === "
                   "'flux2_edit_price').element.querySelector('a'); return [e.href, e.rel] }",
                   node)  # fmt: skip
    assert link == ["https://www.runcomfy.com/profile", "noopener noreferrer"]
    page.fit(1.0)
    page.screenshot(ARTIFACTS / f"words-no-token-{renderer}-{frontend}.png")
    assert not page.errors, page.errors[:3]


def test_the_price_is_that_of_the_mode(classic):
    """Auto edits as soon as a picture comes in, over a link or from an address."""
    page = classic
    prices = {"text to image": {"usd": 0.02, "text": ""}, "edit": {"usd": 0.05, "text": ""}}
    answer = {"set": True, "prices": prices}
    page.context.route("**/flux2-lora-edit/prices", lambda route: route.fulfill(json=answer))
    page.js(TOKEN_SET)  # asks anew
    try:
        node, picture = page.js("""() => ['Flux2EditRunComfy', 'LoadImage'].map(type => {
            const node = LiteGraph.createNode(type)
            app.graph.add(node)
            return node.id
        })""")
        price_says(page, node, "A run costs $0.02 at")
        page.js("""([id, from]) => {
            const node = app.graph.getNodeById(id)
            const slot = node.inputs.findIndex(input => input.name === 'image_1')
            app.graph.getNodeById(from).connect(0, node, slot)
        }""", [node, picture])  # fmt: skip
        price_says(page, node, "A run costs $0.05 at")
        change(page, node, "mode", "text to image")
        price_says(page, node, "A run costs $0.02 at")
        change(page, node, "mode", "auto")
        price_says(page, node, "A run costs $0.05 at")
        page.js("(id) => app.graph.getNodeById(id).disconnectOutput(0)", picture)
        price_says(page, node, "A run costs $0.02 at")
        change(page, node, "image_urls", "https://example.com/a.png")
        price_says(page, node, "A run costs $0.05 at")
    finally:
        page.context.unroute("**/flux2-lora-edit/prices")
        page.js(TOKEN_SET)

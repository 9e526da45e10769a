"""What a LoRA file, a link or a server says is shown in the page, and nothing of it runs there.

On the frontends that ComfyUI 0.18.2 and 0.20.1 pin, which put a node's progress text into
innerHTML and make links of parts of it.
"""

import os
import time

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from shots import ARTIFACTS
from standin_faults import Fault
from standin_faults.kinds import answer

from host.graph import Graph

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no file names with < in them")
VERSIONS = ("1.41.21", "1.42.15")
STOLEN = "stolen-by-a-page"
THEFT = (
    "fetch('/flux2-lora-edit/token',{method:'PUT',headers:{'Content-Type':'application/json',"
    f"'X-Flux2-Lora-Edit':'1'}},body:JSON.stringify({{token:'{STOLEN}'}})}})"
)


def hit(what):
    """JavaScript that says that it ran."""
    return f"ran_{what}=1"


def tag(code, gap=" "):
    return f'<img{gap}src="x"{gap}onerror="{code}">'


NAME = f"ink {tag(hit('name'))}.safetensors"
BROKEN = "broken.safetensors"
LINK = f"https://example.org/{tag(hit('link'), '/')}/ink.safetensors"
SAID = f"The GPU is full {tag(hit('server'))}"
METADATA = {
    "modelspec.title": f"Ink {tag(hit('title') + ',' + THEFT)}",
    # The page's own link syntax: the label lands inside the attribute of another link.
    "modelspec.author": "see https://example.org/__LNK0__ [[me\" style='animation:spin 1s' "
    f'onanimationstart="{hit("label")}" title="|me]]',
    # Pictures that the page would fetch, in HTML and in Markdown.
    "modelspec.license": '<img src="/told-of-html"> ![](/told-of-markdown) &lt;b&gt;',
}
# A place for a link that there is none of: the page's formatting throws.
BREAKS = {"modelspec.license": "__LNK7__"}


@pytest.fixture(scope="module")
def hostile_files(site, pages):
    folder = site.base / "models" / "loras"
    with safe_open(folder / "ai-toolkit.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    for name, more in ((NAME, METADATA), (BROKEN, BREAKS)):
        save_file(tensors, folder / name, metadata | more)
    yield
    pages.close(*VERSIONS)
    for name in (NAME, BROKEN):
        (folder / name).unlink()


@pytest.fixture
def hostile_server(standin, token):
    """Gives the account, whose next job fails with a message."""
    plain = standin.faults
    failed = {"status": "failed", "error": {"message": SAID}}
    standin.faults = {"says": Fault("says", "result", answer(200, failed), "failed")}
    yield standin.state.account(token, fault="says")
    standin.faults = plain
    standin.state.account(token).fault = ""


def stack(graph, *slots):
    inputs = {f"lora_{number}": "none" for number in (1, 2, 3)}
    for number, (kind, key, value) in enumerate(slots, 1):
        slot = f"lora_{number}"
        inputs |= {slot: kind, f"{slot}.{key}": value}
        inputs |= {f"{slot}.scale": 1.0, f"{slot}.enabled": True}
    return graph.add("Flux2EditLoraStack", **inputs)


def hostile_graph(seed, batch_count=2):
    """Every node that shows what it was told from outside."""
    graph = Graph()
    model = graph.add("UNETLoader", unet_name="flux2-dev-tiny.safetensors", weight_dtype="default")
    installed = ("installed", "file", NAME)
    applied = graph.add(
        "Flux2EditApplyLoraStack",
        model=model,
        lora_stack=stack(graph, installed),
        mode="auto",
        on_mismatch="error",
    )
    info = graph.add("Flux2EditLoraInfo", lora_stack=stack(graph, installed, ("url", "url", LINK)))
    hosted = graph.add(
        "Flux2EditRunComfy",
        prompt="make it winter",
        image_urls="",
        mode="auto",
        image_size="square_hd",
        guidance_scale=2.5,
        num_inference_steps=28,
        seed=seed,
        output_format="png",
        batch_count=batch_count,
        timeout_minutes=5,
        resume_request_id="",
    )
    for source in (applied.out(2), info, hosted.out(3)):
        graph.add("PreviewAny", source=source)
    return graph.prompt


def told(*slots):
    """LoRA Info of some slots, and nothing else."""
    graph = Graph()
    info = graph.add("Flux2EditLoraInfo", lora_stack=stack(graph, *slots))
    graph.add("PreviewAny", source=info)
    return graph.prompt


LISTEN = """() => {
    window.ran = () => Object.keys(window).filter(name => name.startsWith('ran_'))
    for (const name of ran()) delete window[name]
    window.__said = new Map()
    if (window.__hears) return
    window.__hears = true
    app.api.addEventListener('progress_text', ({ detail }) => __said.set(detail.nodeId, detail))
}"""
# The node takes the text away when it has its words; here it stays to be looked at.
SAY_AGAIN = """() => {
    for (const detail of __said.values()) app.api.dispatchCustomEvent('progress_text', detail)
    return [...__said.values()].map(detail => detail.text).join('\\n')
}"""
# What the page made of texts that name the attack: all of it must be text, links and line breaks.
MADE = """() => [...document.querySelectorAll('*')].filter(element => {
    const runs = [...element.attributes].some(attribute => attribute.name.startsWith('on'))
    const text = element.closest('span')
    const odd = text?.textContent.includes('ran_') && !['A', 'BR', 'SPAN'].includes(element.tagName)
    return runs || odd
}).map(element => element.outerHTML)"""


# The host's own node shows our outputs word for word; it can take them for Markdown.
AS_MARKDOWN = """() => {
    for (const node of app.graph._nodes.filter(node => node.type === 'PreviewAny')) {
        const mode = node.widgets.find(widget => typeof widget.value === 'boolean')
        mode.value = true
        mode.callback(true)
    }
}"""


@pytest.mark.parametrize("version", VERSIONS)
def test_no_text_runs_script(
    version, renderer, pages, hostile_files, hostile_server, client, token
):
    """A file's metadata, its name, a link and a server's message, by every way to the page."""
    page = pages.get(renderer, version)
    fetched = []
    page.page.on("request", lambda request: fetched.append(request.url))
    before = client.get("/flux2-lora-edit/token")
    client.forget()  # what is cached shows no progress
    page.load_api(hostile_graph(seed=time.monotonic_ns() % 2**31))
    page.js(LISTEN)
    assert page.queue() == "success"
    page.fit()
    page.screenshot(ARTIFACTS / f"hostile-{version}-{renderer}.png")
    said = page.js(SAY_AGAIN)
    for what in ("name", "title", "label", "link", "server"):
        assert f"ran_{what}=1" in said, "the attack did not get as far as the page"
    page.fit()
    page.screenshot(ARTIFACTS / f"hostile-progress-{version}-{renderer}.png")
    assert page.js(MADE) == []
    assert not [url for url in fetched if "told-of" in url or url.endswith("/x")]
    assert not page.errors, page.errors[:3]
    page.js(AS_MARKDOWN)
    page.screenshot(ARTIFACTS / f"hostile-markdown-{version}-{renderer}.png")
    assert page.js("() => ran()") == []
    assert client.get("/flux2-lora-edit/token") == before


@pytest.mark.parametrize("version", VERSIONS)
def test_no_error_list_or_setting_runs_script(
    version, pages, hostile_files, hostile_server, client, token
):
    """Where the page itself shows our words: the error of a run, file names, the settings."""
    page = pages.get("classic", version)
    page.load_api(hostile_graph(seed=time.monotonic_ns() % 2**31, batch_count=1))
    page.js(LISTEN)
    assert page.queue() == "error"
    page.page.get_by_text(SAID).first.wait_for()
    page.screenshot(ARTIFACTS / f"hostile-error-{version}.png")
    page.page.keyboard.press("Escape")
    page.load_api(told(("installed", "file", f"other {NAME}"), ("url", "url", f"ftp{LINK}")))
    page.js("() => app.queuePrompt(0, 1)")
    page.page.get_by_text("See Errors").dispatch_event("click")
    page.page.get_by_text(f"other {NAME}").last.wait_for()
    page.screenshot(ARTIFACTS / f"hostile-refused-{version}.png")
    page.js("() => app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
    page.page.keyboard.press("Escape")
    page.js("(name) => { new LiteGraph.ContextMenu([name], {}) }", NAME)
    page.page.locator(".litemenu-entry", has_text=NAME).wait_for()
    page.page.keyboard.press("Escape")
    row = {name: tag(hit(name)) for name in ("key", "id", "state", "what", "prompt", "cost")}
    row |= {"request_id": row["id"], "cost_usd": row["cost"], "started": 1}
    page.context.route(
        "**/open-requests",
        lambda route: route.fulfill(json={"open_requests": [row]}),
    )
    page.context.route(
        "**/flux2-lora-edit/history",
        lambda route: route.fulfill(json={"requests": [row], "sum_usd": tag(hit("sum"))}),
    )
    page.context.route(
        "**/flux2-lora-edit/token",
        lambda route: route.fulfill(json={"set": True, "source": tag(hit("source")), "hint": "…"}),
    )
    page.command("Comfy.ShowSettingsDialog")
    page.page.get_by_role("dialog").get_by_text("FLUX.2 LoRA Edit").first.click()
    page.page.get_by_text(tag(hit("sum"))).first.wait_for()
    for name in ("id", "state", "what", "prompt", "cost"):
        page.page.locator("#flux2-lora-edit-history").get_by_text(row[name]).wait_for()
        page.page.locator("#flux2-lora-edit-open-requests").get_by_text(row[name]).wait_for()
    page.page.get_by_text(tag(hit("source"))).first.wait_for()
    page.screenshot(ARTIFACTS / f"hostile-settings-{version}.png")
    page.page.keyboard.press("Escape")
    page.context.unroute("**/open-requests")
    page.context.unroute("**/flux2-lora-edit/history")
    page.context.unroute("**/flux2-lora-edit/token")
    assert page.js("() => ran()") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_no_text_breaks_the_page(version, pages, hostile_files, client):
    page = pages.get("classic", version)
    client.forget()
    page.load_api(told(("installed", "file", BROKEN)))
    page.js(LISTEN)
    assert page.queue() == "success"
    assert "LNK" in page.js(SAY_AGAIN)
    page.page.locator(".flux2-edit-text", has_text="LNK").first.wait_for()
    assert not page.errors, page.errors[:3]

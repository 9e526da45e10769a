"""The words on the nodes: there, complete, legible, in both renderers, dark and light."""

import time

import pytest
from browser.hand import spread
from shots import ARTIFACTS
from small_edit import APPLY, CONDITIONING, SAMPLER, SIZE, STACK, small_edit

HOSTED, INFO = "13", "14"
# Contrast that WCAG asks of text of this size.
LEGIBLE = 4.5


def graph(seed):
    prompt = small_edit(steps=1, seed=seed)
    prompt[str(CONDITIONING)]["inputs"]["prompt"] = f"the cat, {seed}"
    prompt[str(STACK)]["inputs"]["lora_2.scale"] = round(0.5 + seed % 50 / 100, 2)
    prompt[str(SIZE)]["inputs"]["height"] = 512 + 16 * (seed % 90)
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
            "seed": seed % 1000,
            "output_format": "png",
            "batch_count": 1,
            "timeout_minutes": 5,
            "resume_request_id": "",
        },
    }
    prompt[INFO] = {"class_type": "Flux2EditLoraInfo", "inputs": {"lora_stack": [str(STACK), 0]}}
    for number, source in (("15", [INFO, 0]), ("16", [HOSTED, 3])):
        prompt[number] = {"class_type": "PreviewAny", "inputs": {"source": source}}
    return prompt


SAYS = {
    APPLY: ("matched 22/22", "rank 8", "ai-toolkit", "diffusers"),
    CONDITIONING: ("image_1: 96x96", "image_2: 144x96", "tokens"),
    SIZE: ("96x96", "tokens"),
    SAMPLER: ("96x96", "1 step", "guidance 2.5"),
    int(HOSTED): ("delivered", "cost $"),
    int(INFO): ("ai-toolkit.safetensors", "rank"),
}

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


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_every_node_tells_what_it_did(page, palette, token):
    set_palette = "(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)"
    page.js(set_palette, palette)
    prompt = graph(int(time.time() * 1000) % 10**9)
    page.load_api(prompt)
    spread(page)
    assert page.queue() == "success"
    spread(page)
    for node, words in SAYS.items():
        said = page.text_of(node)
        assert all(word in said for word in words), f"node {node} says: {said!r}"
    page.fit(1.0)
    faces = page.js(MEASURE)
    assert len(faces) >= len(SAYS)
    for face in faces:
        assert face["contrast"] >= LEGIBLE, f"{face['contrast']:.1f}: {face['text'][:60]}"
        assert face["hidden"] <= 1, f"cut off: {face['text'][:60]}"
    page.fit()
    name = "nodes2" if page.js("() => LiteGraph.vueNodesMode") else "classic"
    page.screenshot(ARTIFACTS / f"faces-{name}-{palette}.png")
    page.js(set_palette, "dark")
    # The words are no part of the graph.
    saved = str(page.serialize())
    assert "flux2_edit_text" not in saved and "matched 22/22" not in saved
    assert set(page.export_api()) == set(prompt)


def test_the_words_stay_when_the_frontend_clears_its_own(pages, renderer, token):
    """Frontend 1.58 removes the host's progress text at the end of a run."""
    page = pages.get(renderer, "newest")
    page.load_api(graph(int(time.time() * 1000) % 10**9))
    assert page.queue() == "success"
    page.page.wait_for_timeout(500)
    assert "matched 22/22" in page.text_of(APPLY)
    doubled = (
        "(id) => app.graph.getNodeById(id).widgets.some(w => w.name.startsWith('$$node-text'))"
    )
    assert not page.js(doubled, APPLY), "the text would be shown twice"

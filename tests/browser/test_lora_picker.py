"""The LoRA picker on the real page: what it says of the installed files, and how one is chosen."""

import pytest
from browser.comfy_page import ComfyPage
from frontends import NEWEST
from shots import ARTIFACTS
from small_edit import STACK, small_edit

FRONTENDS = ("pinned", NEWEST, "1.41.21")
# As the page's own modules see each other, wherever ComfyUI has put the pack.
MODULES = """
const entry = performance.getEntriesByType('resource').map(one => one.name)
    .find(name => name.endsWith('/js/lora_files.js'))
const folder = new URL('.', entry).href
const { loraFiles, loraFacts, modelOf } = await import(folder + 'lora_files.js')
const { openPicker } = await import(folder + 'lora_picker.js')
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


@pytest.mark.parametrize("frontend", FRONTENDS)
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


def test_none_escape_and_a_click_outside(page):
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

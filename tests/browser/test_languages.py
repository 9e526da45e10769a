"""The page speaks the languages of ``locales``, dotted inputs and special characters included."""

import json
import re
from pathlib import Path

import pytest
from browser.hand import open_help
from shots import ARTIFACTS

ROOT = Path(__file__).resolve().parents[2]
LOCALES, DOCS = ROOT / "locales", ROOT / "web" / "docs"

FACE = """() => {
    const node = LiteGraph.createNode('Flux2EditLoraStack')
    app.graph.add(node)
    const kind = node.widgets.find(w => w.name === 'lora_1')
    kind.value = 'hugging face'
    kind.callback?.(kind.value)
    const repo = node.widgets.find(w => w.name === 'lora_1.repo')
    return { title: node.title, label: repo.label ?? repo.name, tooltip: repo.tooltip }
}"""
# The page fetches a language after the setting has changed.
SPOKEN = """(label) => {
    const node = LiteGraph.createNode('Flux2EditImageSize')
    return node.widgets.find(w => w.name === 'swap').label === label
}"""


def words(language):
    return json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8"))


def speak(page, language):
    page.js("(id) => app.extensionManager.setting.set('Comfy.Locale', id)", language)
    label = words(language)["Flux2EditImageSize"]["inputs"]["swap"]["name"]
    page.page.wait_for_function(SPOKEN, arg=label)
    page.command("Comfy.RefreshNodeDefinitions")  # for the titles; a reload does it too


@pytest.fixture(scope="module")
def in_english_again(pages):
    yield
    speak(pages.get("classic"), "en")


def test_english_keeps_the_signs_of_a_repo(classic):
    face = classic.js(FACE)
    assert face["title"] == "FLUX.2 LoRA Stack"
    assert "owner/repo@revision:file.safetensors" in face["tooltip"]


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_another_language_is_shown(language, classic, in_english_again):
    stack = words(language)["Flux2EditLoraStack"]
    speak(classic, language)
    face = classic.js(FACE)
    assert face["title"] == stack["display_name"]
    assert face["label"] == stack["inputs"]["lora_1_repo"]["name"]
    assert not [error for error in classic.errors if "intlify" in error or "locale" in error]


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_help_is_shown_in_another_language(language, classic, in_english_again):
    speak(classic, language)
    text = (DOCS / "Flux2EditSampler" / f"{language}.md").read_text("utf-8")
    heading = re.findall(r"^## (.+)$", text, re.MULTILINE)[-1]
    open_help(classic, "Flux2EditSampler").get_by_text(heading).wait_for()
    classic.screenshot(ARTIFACTS / f"help-{language}.png")

"""The page speaks the languages of ``locales``, dotted inputs and special characters included."""

import json
import re
from pathlib import Path

import pytest
import said
from browser.hand import open_help, spread
from frontends import NEWEST
from shots import ARTIFACTS
from small_edit import APPLY, CONDITIONING, SAMPLER, SIZE, STACK, small_edit

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


# The module is the one that the page has loaded.
TELL = """async ([texts, all]) => {
    const { t } = await import('/extensions/flux2-lora-edit/js/words.js')
    return texts.map(all ? text => [t(text), t(`${text}.`), t(`7 ${text}`), t(`7 ${text}.`)] : t)
}"""
TABLE_COMES = """async () => {
    const { t } = await import('/extensions/flux2-lora-edit/js/words.js')
    while (t('Stopped.') === 'Stopped.') await new Promise(done => setTimeout(done, 50))
}"""
ENGLISH = re.compile(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}")
# Choices and the host's nodes stay as they are.
NAMED = re.compile(
    r"owner/repo\S*|text to image|control after generate|hf auth login|git lfs pull|core percent|"
    r"Get Image from Batch|Scale Image to Total Pixels|Set Latent Noise Mask"
)

# Whether the page's own words are Chinese or Japanese.
SIGNS = """(wanted) => wanted === /[\u3040-\u30ff\u4e00-\u9fff]/.test(document.body.innerText)"""


def words(language):
    return json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8"))


def speak(page, language):
    page.js("(id) => app.extensionManager.setting.set('Comfy.Locale', id)", language)
    label = words(language)["Flux2EditImageSize"]["inputs"]["swap"]["name"]
    page.page.wait_for_function(SPOKEN, arg=label)
    if language != "en":
        page.js(TABLE_COMES)
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


def left_in_english(text):
    return ENGLISH.search(NAMED.sub("", text))


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_the_words_on_the_nodes_are_in_the_language_of_the_page(
    language, classic, in_english_again
):
    prompt = small_edit(steps=1, seed=20_000 + len(language))
    # Its picture is then not used, which it says.
    side = {"image_size": "custom", "width": 96 + 16 * (language == "ja"), "height": 96}
    prompt[str(SIZE)]["inputs"] |= side
    speak(classic, language)
    classic.load_api(prompt)
    assert classic.queue() == "success"
    spread(classic)
    for node in (APPLY, CONDITIONING, SIZE, SAMPLER):
        text = classic.text_of(node)
        assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", text), f"{node}: {text!r}"
        assert not left_in_english(text), f"{node}: {text!r}"
    assert "ai-toolkit.safetensors" in classic.text_of(APPLY)
    classic.screenshot(ARTIFACTS / f"words-{language}.png")

    slot = {"lora_1": "installed", "lora_1.file": "not there.safetensors"}
    prompt[str(STACK)]["inputs"] |= slot
    classic.load_api(prompt)
    classic.start()
    classic.page.wait_for_selector(".flux2-edit-text[role=alert]", state="attached")
    classic.page.keyboard.press("Escape")  # the page's own dialog
    classic.errors.clear()
    text = classic.text_of(STACK)
    assert "not there.safetensors" in text and not left_in_english(text), text
    classic.screenshot(ARTIFACTS / f"refused-{language}.png")
    # What is shown follows the page.
    classic.js("() => app.extensionManager.setting.set('Comfy.Locale', 'en')")
    english = classic.page.locator(".flux2-edit-text[role=alert]", has_text="There is no LoRA")
    english.wait_for(state="attached")
    assert "matched 22/22" in classic.text_of(APPLY)


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_no_sentence_of_ours_stays_english(language, classic, in_english_again):
    """Each as the code has it, with a number for each value, alone or behind a name."""
    speak(classic, language)
    silent = said.listed(said.NAMES + said.PARTS)
    schema = (LOCALES / "en" / "nodeDefs.json").read_text("utf-8")
    found = [one for one in {**said.in_python(), **said.in_scripts()} if one not in silent]
    found = [one for one in found if len(one) < 40 or one not in schema]
    told = classic.js(TELL, [[one.replace("{}", "7") for one in found], True])
    english = [
        one for one, forms in zip(found, told, strict=True) if all(map(left_in_english, forms))
    ]
    assert not english, "\n".join(english)


# On a page that is English before and after: the server keeps the language for every page, and
# one that loads late comes behind the next.
@pytest.mark.parametrize("locale", ["ja", "zh-TW"])
def test_what_files_and_servers_say_stays_as_it_is(locale, pages):
    page = pages.get("classic", NEWEST)
    set_language = "(id) => app.extensionManager.setting.set('Comfy.Locale', id)"
    page.js(set_language, "en")
    page.page.wait_for_function(SIGNS, arg=False)
    page.js(set_language, locale)
    page.page.wait_for_function(SIGNS, arg=True)
    page.js(TABLE_COMES)
    texts = [
        "a. b: c; d, e and f or g (h) · i",
        "'The file is empty (0 bytes)",
        "<b>rank 8</b>",
        "align is “off”; it takes auto or off.",
        "LoRA slot 1: There is no LoRA 'a. b; 1, 2 and 3.safetensors' in the loras folders.",
    ]
    # In a bounded time, whatever their signs: the test has a limit.
    hard = ["LoRA slot 1: ", "matched 1/2, rank 8; ", "(from ", "a: b, c. ", "Warning: (“"]
    told = page.js(TELL, [[*texts, *(one * 2000 for one in hard)], False])
    page.js(set_language, "en")
    page.page.wait_for_function(SIGNS, arg=False)
    assert told[:3] == texts[:3]
    assert "auto" in told[3] and told[3].count("off") == 2 and "takes" not in told[3]
    assert "a. b; 1, 2 and 3.safetensors" in told[4] and "There is" not in told[4]
    assert not [error for error in page.errors if "words" in error]

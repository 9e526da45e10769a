"""Every node and input is described wherever people look: help, tooltip, search, three languages.

``locales/en`` repeats the schema, so it is written, not edited: ``SNAPSHOT=write`` and this file.
"""

import ast
import asyncio
import importlib
import json
import os
import re
from pathlib import Path

import pytest
import said

ROOT = Path(__file__).resolve().parents[1]
DOCS, LOCALES, WORDS = ROOT / "web" / "docs", ROOT / "locales", ROOT / "web" / "words"
HOSTED = "Flux2EditRunComfy"
# What people type who do not know the pack; each finds at least one node.
TYPED = (
    "lora",
    "power lora",
    "hugging face",
    "civitai",
    "url",
    "lora stack",
    "kontext",
    "reference image",
    "image edit",
    "resolution",
    "aspect ratio",
    "runcomfy",
    "ksampler",
    "trigger words",
    "download lora",
    "inpaint",
    "outpaint",
    "mask",
    "remove object",
    "lora schedule",
    "lora mask",
    "block weight",
)


@pytest.fixture(scope="module")
def nodes(comfy_inprocess):
    """Node id -> what the page is told about it."""
    package = importlib.import_module("flux2_lora_edit.nodes")
    extension = asyncio.run(package.comfy_entrypoint())
    classes = asyncio.run(extension.get_node_list())
    return {cls.GET_SCHEMA().node_id: cls.GET_NODE_INFO_V1() for cls in classes}


def inputs_of(spec, prefix=""):
    """(dotted name, options) of every input, those inside dynamic ones too."""
    for section in ("required", "optional"):
        for name, (kind, *rest) in spec.get(section, {}).items():
            options = rest[0] if rest else {}
            yield prefix + name, options
            if kind == "COMFY_DYNAMICCOMBO_V3":
                for option in options["options"]:
                    yield from inputs_of(option["inputs"], f"{prefix}{name}.")


def escape(text):
    """A text for vue-i18n, which gives ``@ { } |`` a meaning of its own."""
    return re.sub(r"[@{}|]", lambda found: f"{{'{found[0]}'}}", text)


def words_of(info):
    """A node's entry in nodeDefs.json; ComfyUI's page looks dotted names up with underscores."""
    inputs = {}
    for name, options in inputs_of(info["input"]):
        label = name.rpartition(".")[2]
        inputs[name.replace(".", "_")] = {"name": label, "tooltip": escape(options["tooltip"])}
    tips = info.get("output_tooltips") or []
    outputs = {}
    for number, name in enumerate(info["output_name"]):
        outputs[str(number)] = {"name": name}
        if number < len(tips) and tips[number]:
            outputs[str(number)]["tooltip"] = escape(tips[number])
    return {
        "display_name": info["display_name"],
        "description": escape(info["description"]),
        "inputs": inputs,
        "outputs": outputs,
    }


def read(language, name):
    return json.loads((LOCALES / language / name).read_text("utf-8"))


def test_english_says_what_the_schema_says(nodes):
    text = json.dumps({node: words_of(nodes[node]) for node in nodes}, indent=2) + "\n"
    path = LOCALES / "en" / "nodeDefs.json"
    if os.environ.get("SNAPSHOT") == "write":
        path.write_text(text, "utf-8")
    assert json.loads(path.read_text("utf-8")) == json.loads(text)


def texts(entry, prefix=""):
    """(place, text) of every text of a table of words."""
    for key, value in entry.items():
        place = f"{prefix}{key}"
        yield from texts(value, f"{place}.") if isinstance(value, dict) else [(place, value)]


def signs(text):
    """What a translation keeps: numbers, names with signs in them, addresses."""
    text = re.sub(r"(\d)00 万", r"\1", text.replace("×", "x"))  # 4 megapixels are 400 万像素
    words = re.findall(r"[\w./:=+@-]*[\d_/=@][\w./:=+@-]*", text, re.ASCII)
    return {word.strip(".:/-+") for word in words} - {""}


def unescaped(text):
    return re.sub(r"\{'(.)'\}", r"\1", text)


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_other_languages_say_of_every_node_what_english_says(nodes, language):
    words = read(language, "nodeDefs.json")
    assert list(words) == list(read("en", "nodeDefs.json"))
    for node, info in nodes.items():
        told, english = dict(texts(words[node])), dict(texts(words_of(info)))
        assert list(told) == list(english), node
        for place, text in told.items():
            assert text.strip(), f"{node}.{place}"
            if place.endswith(("tooltip", "description")):
                assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", text), f"{node}.{place}: {text}"
                plain = unescaped(text)
                assert text == escape(plain), f"{node}.{place} is not escaped"
                assert signs(plain) == signs(unescaped(english[place])), f"{node}.{place}"


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_a_translated_tooltip_calls_the_choices_by_their_names(nodes, language):
    words, named = read(language, "nodeDefs.json"), 0
    for node, info in nodes.items():
        for name, options in inputs_of(info["input"]):
            told = words[node]["inputs"][name.replace(".", "_")]["tooltip"]
            for choice in options.get("options") or ():
                choice = choice["key"] if isinstance(choice, dict) else str(choice)
                word = rf"(?<![\w./-]){re.escape(choice)}(?![\w./-])"
                if re.search(word, options["tooltip"]):
                    assert re.search(word, told, re.ASCII), f"{node}.{name}: {choice}"
                    named += 1
    assert named > 20


def told_in(language):
    """English sentence -> what the page says in its place."""
    return json.loads((WORDS / f"{language}.json").read_text("utf-8"))


def pattern_of(sentence):
    """A sentence of the tables with a group for each value, as ``web/js/words.js`` reads it."""
    pieces = re.split(r"\{(\w+)\}", sentence.replace("“", '"').replace("”", '"'))
    value = {True: r"([-+]?[\d.,]+ ?%?)", False: "(.*?)"}
    made = [
        value[bool(re.fullmatch(r"n\d*", piece))] if at % 2 else re.escape(piece)
        for at, piece in enumerate(pieces)
    ]
    return max(pieces[::2], key=len), re.compile("".join(made))


def is_told(filled, patterns):
    """Whether a sentence with 7 for each value is one of the tables' and leaves no words."""
    for piece, pattern in patterns:
        for form in (filled, f"{filled}.", f"7 {filled}", f"7 {filled}.", filled.strip("():")):
            found = pattern.fullmatch(form) if piece in form else None
            if found and not re.search(r"[a-z]{2,} [a-z]{2,}", " ".join(found.groups())):
                return True
    head, colon, rest = filled.partition(": ")
    return bool(colon) and rest == "7" and is_told(head, patterns)


def test_every_sentence_has_words_in_the_other_languages():
    """What fails here is written into ``web/words``, with a name for each value."""
    schema = "\n".join(text for _, text in texts(read("en", "nodeDefs.json")))
    patterns = [pattern_of(sentence) for sentence in told_in("zh")]
    found, silent = {**said.in_python(), **said.in_scripts()}, said.listed(said.NAMES + said.PARTS)
    assert len(found) > 500 and not sorted(silent - {*found})
    missing = [
        f"{place}: {sentence}"
        for sentence, place in found.items()
        if sentence not in silent
        and not (len(sentence) > 40 and sentence in schema)
        and not is_told(sentence.replace("{}", "7").replace("“", '"').replace("”", '"'), patterns)
    ]
    assert not missing, "\n" + "\n".join(missing)


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_a_translated_sentence_keeps_values_numbers_and_names(language):
    table = told_in(language)
    assert list(table) == list(told_in("zh"))
    for english, text in table.items():
        values = r"\{(\w+)\}"
        assert set(re.findall(values, text)) == set(re.findall(values, english)), english
        plain, other = (re.sub(values, " ", one) for one in (text, english))
        assert signs(plain) >= signs(other), english
        assert text != english or not re.search(r"\b[a-z]{2}", other), english


@pytest.mark.parametrize("name", ["main.json", "settings.json"])
def test_languages_have_the_same_keys(name):
    def keys(table, prefix=""):
        for key, value in table.items():
            yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]

    english = sorted(keys(read("en", name)))
    assert english
    for language in ("zh", "ja"):
        assert sorted(keys(read(language, name))) == english, language


def test_settings_are_named_in_the_locales():
    scripts = [path.read_text("utf-8") for path in (ROOT / "web" / "js").rglob("*.js")]
    ids = {name for script in scripts for name in re.findall(r"'(Flux2LoraEdit\.[\w.]+)'", script)}
    assert len(ids) > 1
    assert sorted(read("en", "settings.json")) == sorted(i.replace(".", "_") for i in ids)


def test_every_node_has_help_and_nothing_else_has(nodes):
    assert sorted(path.stem for path in DOCS.glob("*.md")) == sorted(nodes)


def test_help_names_every_input_and_output_and_nothing_that_is_not_there(nodes):
    for node, info in nodes.items():
        text = (DOCS / f"{node}.md").read_text("utf-8")
        cells = re.findall(r"^- (`.+?`):", text, re.MULTILINE)
        named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
        inputs = {name.rpartition(".")[2] for name, _ in inputs_of(info["input"])}
        assert named == inputs | set(info["output_name"]), node
        for part in ("## Inputs", "## Output", "## Example", "## When it says no"):
            assert part in text, f"{node} has no {part}"


def shape(text):
    """A help page without its words: headings, items, rows and code in order of their sections."""
    sections = re.split(r"^## .+$", text, flags=re.MULTILINE)
    return [
        (
            len(re.findall(r"^- ", section, re.MULTILINE)),
            len(re.findall(r"^\|", section, re.MULTILINE)),
            sorted(re.findall(r"`[^`\n]+`", section)),
        )
        for section in sections
    ]


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_help_says_the_same_in_every_language(nodes, language):
    """The page asks for ``<node>/<language>.md`` first. Errors are quoted as they are shown."""
    assert len(list(DOCS.glob(f"*/{language}.md"))) == len(nodes)
    for node in nodes:
        english = (DOCS / f"{node}.md").read_text("utf-8")
        text = (DOCS / node / f"{language}.md").read_text("utf-8")
        assert shape(text) == shape(english), node
        said = english.partition("## When it says no")[2]
        for phrase in re.findall(r"^- \*\*(.+?)\*\*", said, re.MULTILINE):
            assert f"**{phrase}**" in text, f"{node}: {phrase}"
        assert not re.search(r"[.!?] [A-Z][a-z]+ [a-z]+ [a-z]+", text), f"{node} has English"


def test_help_quotes_errors_that_exist():
    """Each bold phrase under "When it says no" stands in a message of the pack's own source.

    ``…`` stands for the values that a message carries.
    """
    messages = "\n".join(_messages())
    for path in sorted(DOCS.glob("*.md")):
        section = path.read_text("utf-8").partition("## When it says no")[2]
        phrases = re.findall(r"\*\*(.+?)\*\*", "\n".join(re.findall(r"^- (.*?):", section, re.M)))
        assert phrases, path.name
        for phrase in phrases:
            for piece in (part.strip(" ;,") for part in phrase.split("…")):
                assert piece in messages, f'{path.name}: no message says "{piece}"'


def _messages():
    """Every string of the pack's code, f-strings with … where a value stands."""
    for room in ("flux2", "lora_loader", "network", "nodes", "remote"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(part, "value", "…") for part in node.values)
                    yield "".join(part if isinstance(part, str) else "…" for part in parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_what_people_type_finds_a_node(nodes):
    for typed in TYPED:
        found = [
            node
            for node, info in nodes.items()
            if typed in [alias.lower() for alias in info["search_aliases"]]
            or typed in info["display_name"].lower()
        ]
        assert found, f'"{typed}" finds nothing'


def test_every_output_says_what_it_is(nodes):
    silent = [
        f"{node}.{name}"
        for node, info in nodes.items()
        for name, tip in zip(info["output_name"], info["output_tooltips"] or [], strict=True)
        if not tip
    ]
    # These two are only handed on, under a name that says it all.
    assert set(silent) <= {"Flux2EditSampler.latent", "Flux2EditConditioning.positive"}


def test_the_way_to_the_settings_is_told_as_the_page_names_it(nodes):
    script = (ROOT / "web" / "js" / "runcomfy_settings.js").read_text("utf-8")
    ((pack, part),) = set(re.findall(r"category: \['([^']+)', '([^']+)', '[^']+'\]", script))
    way = f"Settings, {pack}, {part}"
    texts = [*_messages(), json.dumps(read("en", "nodeDefs.json")[HOSTED])]
    folders = (DOCS.glob("*.md"), (ROOT / "example_workflows").glob("*.json"))
    texts += [path.read_text("utf-8") for folder in folders for path in folder]
    sentences = {
        " ".join(sentence.replace(" → ", ", ").split())
        for text in texts
        for sentence in re.split(r"(?<=\.)\s", text)
        if re.search(r"(?i)(?<!account )(?<!/)\bsettings\b(?!['’]| page| file|\))", sentence)
        and re.search(r"(?i)token|dismiss", sentence)
    }
    assert len(sentences) >= 6
    assert [one for one in sentences if way not in one] == []
    for language in ("zh", "ja"):
        names = read(language, "main.json")["settingsCategories"]
        told = read(language, "nodeDefs.json")[HOSTED]["description"]
        assert f" → {names[pack.replace('.', '_')]} → {names[part]}" in told, language


def test_the_same_edit_on_two_machines_promises_no_equal_pictures():
    (template,) = (ROOT / "example_workflows").glob("*Same edit here and on RunComfy*.json")
    for path in (template, DOCS / f"{HOSTED}.md"):
        assert "need not match" in path.read_text("utf-8"), path.name

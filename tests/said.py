"""Every sentence of the pack's code that a person may read, as the page's scripts look it up.

A sentence here is what stands between two line ends or full stops of a string, with ``{}`` where a
value stands: what ``web/js/words.js`` cuts a text into.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("flux2", "lora_loader", "network", "nodes", "remote")
# What the page has from elsewhere (the schema's words are in nodeDefs.json), or never sees.
SCHEMA = ("tooltip", "description", "display_name", "search_aliases", "category", "placeholder")
# No words for a person: choices that stay as they are, models, parts of files, keys, addresses.
NAMES = """
(un|non|de)[._ -]?distil | 1 megapixel each | 2001::/23 2001:db8::/32 2002::/16 3fff::/20
activation text | as is | as set | attn.add_q_proj attn.add_k_proj attn.add_v_proj
attn.to_q attn.to_k attn.to_v | b norm | Basic {} | Bearer {} | cancelled canceled
civitai {} {} {} {} | completed succeeded success | core percent | dev with Turbo LoRA | diff b
dora scale | double 0-3=0.5, single=0, other=1 | ease in | ease in out | ease out
failed error timeout | fileId={}: {} | FLUX.2 LoRA Edit | FLUX.2 {}
flux2-lora-edit (ComfyUI custom nodes) | git {} | HTTP {} | hub {} {} {} | hugging face
Hugging Face: {} | ia3 l | in_queue queued pending waiting submitted | klein 4B | klein 9B
klein base | klein distilled | klein {}B | lambda layer | lora a | lora b | lora down
lora linear layer down | lora linear layer up | lora magnitude vector | lora mid | lora up
match image | Mistral 3 Small (FLUX.2 dev) | no such state: {} | oft blocks | oft r scaled oft
oft r weight | on input | p layer weight | q layer weight | Qwen3 4B (FLUX.2 klein 4B)
Qwen3 8B (FLUX.2 klein 9B) | reshape weight | RunComfy CLI | scaled oft | SD 1.5 | SD 2 | SD 3
set weight | side path | Stable Diffusion
starting in_progress processing running cancellation_requested | text to image
the schema uses a word that is not checked: {} | Tucker GLoRA | Tucker LoHa | Tucker LoKr
Tunnel connection failed | w norm | {} (rsLoRA) | {} is not the caller's to set; use credentials
{} weight
"""
# Parts of sentences that stand whole in the tables, with what comes before or behind them.
PARTS = """
(it says {}) | (position {}) | and does not say its scale: {} px a cell | are a text encoder's
come under two names and are added | mode merge puts | not applied | not in this model | or load {}
per {} | Picture {}: | {} (HTTP {}).
{} has a schedule or a region, which no weight can hold, and {} the LoRAs in the weights. | {} takes
{} to {} | {}${} for this run | {}, {} MB | {}, {} MiB | {}: {} MB
{}: {} modules {}: {} | with at least {} double and {} single blocks (the model has {} and {})
"""
UNSEEN = re.compile(r"logger\.|re\.compile|threading\.Thread|frozenset|ipaddress|_?networks?\b")


def _strings(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if isinstance(child, ast.Call) and UNSEEN.match(ast.unparse(child.func)):
            continue
        if isinstance(child, ast.keyword) and child.arg in SCHEMA:
            continue
        if isinstance(child, ast.JoinedStr):
            yield child
            for part in child.values:
                yield from _strings(part)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        else:
            yield from _strings(child)


def _template(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return re.sub(r"\{\w+(:[^{}]*)?\}", "{}", node.value)  # one that is formatted later
    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
    return "".join(parts)


def cut(template: str) -> list[str]:
    """A template in its lines and sentences, without what only joins them to others."""
    text = template.replace("->", "→")  # as host.show_text shows it
    text = re.sub(r"(\{\})+", "{}", text)
    text = re.sub(r"(?<=[a-z]{3})\{\}", "", text)  # what may follow a word has a sentence itself
    text = re.sub(r"(?<=\S\.) (?=\S)|(?<=[!?]) (?=\S)|(?<=\{\}) (?=[A-Z][a-z]+ )", "\n", text)
    lines = [line.strip(" ,;·") for line in text.split("\n")]
    return [re.sub(r"(?<=[.:])\{\}$", "", line) for line in lines]


def listed(names: str) -> set[str]:
    """``NAMES`` or ``PARTS`` one by one."""
    return set(re.split(r" \| |\n+", names.strip()))


def in_python() -> dict[str, str]:
    """Sentence -> where it stands, of two words or more, or of one and a value."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in _strings(ast.parse(path.read_text("utf-8"))):
                for sentence in cut(_template(node)):
                    plain = sentence.replace("{}", "7")
                    if re.search(r"[A-Za-z]{2}", plain) and re.search(r"\w\S* \S*\w", plain):
                        place = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
                        found.setdefault(sentence, place)
    return found


_STRING = re.compile(r"""'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`""")


def _call(script: str, start: int) -> str:
    """What stands between the brackets of a call that begin at ``start``."""
    depth, at = 1, start
    while depth:
        if string := _STRING.match(script, at):
            at = string.end()
            continue
        depth += {"(": 1, ")": -1}.get(script[at], 0)
        at += 1
    return script[start : at - 1]


def in_scripts() -> dict[str, str]:
    """The sentences of the texts inside t(...) of the page's scripts, with where they stand."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "web" / "js").rglob("*.js")):
        script = path.read_text("utf-8")
        for call in re.finditer(r"(?<![\w.$])(?<!function )t\(", script):
            inside, texts, end = _call(script, call.end()), [], None
            for string in _STRING.finditer(inside):
                text = next((part for part in string.groups() if part is not None), "")
                text = re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", "{}", text)
                text = re.sub(r"\\(.)", r"\1", text)
                if end is not None and inside[end : string.start()].strip() == "+":
                    texts[-1] += text
                else:
                    texts.append(text)
                end = string.end()
            for sentence in (sentence for text in texts for sentence in cut(text)):
                if re.search(r"[A-Za-z]{2}", sentence.replace("{}", "")):
                    line = script.count("\n", 0, call.start()) + 1
                    place = f"{path.relative_to(ROOT).as_posix()}:{line}"
                    found.setdefault(sentence, place)
    return found

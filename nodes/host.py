"""What ComfyUI offers: the one module of ``nodes/`` that imports it.

What the host renames or moves is one edit: its own types, nodes and modules pass through as they
are, and what takes more than a name is a function.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
from aiohttp import web
from comfy import samplers, sd
from comfy.cli_args import args
from comfy.model_management import (
    InterruptProcessingException,
    processing_interrupted,
    throw_exception_if_processing_interrupted,
)
from comfy.sample import fix_empty_latent_channels
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    CFGGuider,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_flux import (
    EmptyFlux2LatentImage,
    Flux2Scheduler,
    compute_empirical_mu,
    generalized_time_snr_shift,
)
from node_helpers import conditioning_set_values
from nodes import NODE_CLASS_MAPPINGS, CLIPTextEncode, VAEEncode
from server import PromptServer

logger = logging.getLogger(__name__)

PACK = "flux2_lora_edit"
CATEGORY = "FLUX.2 LoRA Edit"
"""Where the nodes stand in ComfyUI's menus."""

LoraStackType = io.Custom("LORA_STACK")

TAKES_WEIGHTS = re.compile(
    r"(?=.*(model|checkpoint|ckpt|unet|lora))"
    r"(.*(save|merge|merging|subtract|extract|export|convert|conversion|quanti|onnx)|modeladd$)",
    re.IGNORECASE,
)
"""Kinds of nodes that save or mix a model's weights and know nothing of what is beside them: the
host's ModelSave, CheckpointSave, ModelMerge*, LoraSave, and what packs call theirs."""
_ANYTHING = r"\*|COMFY_MATCHTYPE_V3"
"""The types of outputs that hand on whatever comes in."""

MAX_TEXT = 20_000
"""Characters of a text that is shown on a node."""
# Frontends to 1.42 put that text into the page as HTML; in Nodes 2.0 it is Markdown. All make links
# of addresses and of "[[label|address]]", which they set aside as "__LNK0__" meanwhile. Entities
# would be seen where the page escapes; look-alikes and a space between read the same everywhere.
_LOOK_ALIKES = str.maketrans("<>\"'\t\r", "‹›”’  ")
_QUOTED = re.compile('"([^"\n]*)"')
_LINK_SYNTAX = re.compile(r"(?<=[!\[\]])(?=\[)|(?<=\])(?=\()|(?<=__LNK)(?=\d)")
# Control characters, what turns the direction of text or cannot be seen, and halves of characters,
# which a file's name can hold and the wire to the page cannot.
_UNSEEN = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def optional_defaults(inputs: list[io.Input]) -> list[io.Input]:
    """``inputs`` in the order of a node's face, those with a default optional: a headless prompt
    may leave them out.

    A page makes widgets of required inputs first, and saved workflows hold their values by
    position: what is declared ``optional`` stands after the rest, whatever has a default.
    """
    inputs = sorted(inputs, key=lambda one: bool(one.optional))
    for one in inputs:
        one.optional = one.optional or getattr(one, "default", None) is not None
    return inputs


def schema(**declared: Any) -> io.Schema:
    """The schema of a node of ours that shows words (``show_text``)."""
    declared["inputs"] = optional_defaults(declared["inputs"])
    if "has_intermediate_output" in {field.name for field in fields(io.Schema)}:
        # A page that was reloaded has lost a node's words, and when the node is cached the host
        # sends them again only to those who ask for it (from 0.20 on).
        declared["has_intermediate_output"] = True
    declared.setdefault("hidden", [io.Hidden.unique_id])
    return io.Schema(category=CATEGORY, **declared)


def show_text(text: str, node_id: str | None) -> dict[str, tuple[str]]:
    """Show ``text`` under node ``node_id`` in the page that queued this run; the node's ``ui``.

    Where no page is listening that ``ui`` is all: headless runs read it. Files, links and servers
    have a say in the text, so nothing of it means anything to a page but newlines and addresses.
    """
    more = len(text) - MAX_TEXT
    text = text if more <= 0 else f"{text[:MAX_TEXT]}\n… and {more} more characters"
    text = _QUOTED.sub("“\\1”", text.replace("->", "→")).translate(_LOOK_ALIKES)
    text = _UNSEEN.sub("\ufffd", text)
    text = _LINK_SYNTAX.sub(" ", text)
    server = PromptServer.instance if node_id is not None else None
    if server is not None and server.client_id is not None:
        try:
            server.send_progress_text(text, node_id, server.client_id)
        except Exception as error:  # noqa: BLE001 (a page that cannot be reached fails no paid job)
            logger.info("%s could not be shown (%s)", text, type(error).__name__)
    return {"text": (text,)}


class Taker(NamedTuple):
    """A node that takes an output: its class, its title in the page, and the types it gives."""

    node_id: str
    class_type: str
    title: str
    gives: tuple[str, ...]

    def hands_on(self, kind: str) -> list[int]:
        """The outputs that give ``kind``, or whatever came in."""
        return [
            number
            for number, gives in enumerate(self.gives)
            if any(re.fullmatch(f"{kind}|{_ANYTHING}", one) for one in gives.split(","))
        ]


def _taker(node_id: str, prompt: Mapping[str, Any]) -> Taker:
    name = prompt[node_id]["class_type"]
    gives = getattr(NODE_CLASS_MAPPINGS.get(name), "RETURN_TYPES", ())
    title = prompt[node_id].get("_meta", {}).get("title", name)
    return Taker(node_id, name, title, (*map(str, gives),))


def takers(kind: str, ends: Collection[str] = ()) -> list[Taker] | None:
    """Who takes what the running node gives as ``kind``, a pattern of types, also from nodes that
    hand it on: a reroute, a switch, another pack's stacker. Those of the classes ``ends`` hand on
    another. None where its graph is not known.

    The prompt is that of the host's queue: what it hands to ``fingerprint_inputs`` holds none. A
    node that another one has made is no part of it; then it is the maker's takers.
    """
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is None or server is None:
        return None
    items = server.prompt_queue.get_current_queue_volatile()[0]
    prompt = next((item[2] for item in items if item[1] == context.prompt_id), {})
    node_id = context.node_id if context.node_id in prompt else context.node_id.partition(".")[0]
    if node_id not in prompt:
        return None

    found, givers = {node_id: _taker(node_id, prompt)}, [node_id]
    for giver in givers:  # which grows meanwhile
        handed = [[giver, output] for output in found[giver].hands_on(kind)]
        for other, node in prompt.items():
            links = filter(is_link, node["inputs"].values())
            if other not in found and any(link in handed for link in links):
                found[other] = _taker(other, prompt)
                givers += [] if found[other].class_type in ends else [other]
    return list(found.values())[1:]


def texts_behind(hidden: Any, name: str) -> list[tuple[str, str]]:
    """(input, text) of every text in the nodes that the input ``name`` of the running node comes
    from, the nearest first; nested ones too. Empty where its graph is not known.

    ``hidden`` has the node's id and its ``dynprompt``, which knows the nodes that others made.
    """
    graph, givers, found = hidden.dynprompt, [hidden.unique_id], []
    for node_id in givers:  # which grows meanwhile
        inputs = graph.get_node(node_id)["inputs"] if graph and graph.has_node(node_id) else {}
        for key, value in inputs.items():
            if node_id == hidden.unique_id and key != name:
                continue
            if is_link(value):
                givers += [] if value[0] in givers else [value[0]]
            else:
                found += [
                    (key, text) for text in _QUOTED.findall(json.dumps(value, ensure_ascii=False))
                ]
    return found


def weights_taken_by() -> str:
    """Who takes the weights of the MODEL that the running node gives ("ModelSave (node 12)")."""
    return ", ".join(
        f"{one.class_type} (node {one.node_id})"
        for one in takers("MODEL|.*PIPE.*") or ()
        if TAKES_WEIGHTS.match(one.class_type)
    )


def when_held(then: Callable[[bool], None]) -> None:
    """Call ``then`` from a thread when the host's prompt has ended, with whether the host holds
    what the running node returns; at once where no prompt runs."""
    context, server = get_executing_context(), PromptServer.instance
    if context is None or server is None:
        return then(True)
    queue = server.prompt_queue

    def wait() -> None:
        while any(context.prompt_id in item for item in queue.get_current_queue_volatile()[0]):
            time.sleep(0.2)
        # The node's part of a prompt is recorded just before the host keeps its outputs.
        ended = queue.get_history(context.prompt_id, map_function=dict)
        then(all(context.node_id in prompt.get("outputs", {}) for prompt in ended.values()))

    threading.Thread(target=wait, name="runcomfy held", daemon=True).start()


def when_ended(then: Callable[[bool], None]) -> None:
    """Call ``then`` from a thread when the host's prompt has ended, with whether it succeeded; at
    once, with False, where no prompt runs."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is None or server is None:
        return then(False)

    def ended(_: bool) -> None:
        found = server.prompt_queue.get_history(context.prompt_id, map_function=dict).values()
        then(any((prompt.get("status") or {}).get("completed") for prompt in found))

    when_held(ended)


def private_folder() -> Path:
    """The pack's own folder: a system user's, which ComfyUI serves to nobody."""
    return Path(folder_paths.get_system_user_directory(PACK))


def loras_folders() -> list[Path]:
    """The loras folders, in the host's order."""
    return [Path(root) for root in folder_paths.get_folder_paths("loras")]


def shorten_error_names() -> None:
    """Let every exception of this pack say that it is the pack's, not where on the disk it lies.

    ComfyUI shows an error's class with its module, and names a pack's modules by their path.
    """
    root = __name__.rsplit(".", 2)[0]
    for name, module in list(sys.modules.items()):
        if not name.startswith(f"{root}."):
            continue
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, Exception):
                if value.__module__ == name:
                    value.__module__ = PACK

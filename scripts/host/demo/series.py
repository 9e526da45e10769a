"""The demo's runs on one server: the edit, the edit with each LoRA, and with all of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..client import Client
from ..events import Result
from ..graph import Graph
from .graph import Built, build
from .trial import Lora, Trial

TINY_VAE = "taef2"
UNTOLD = "an unknown model"
"""What the pack reports of a LoRA whose file does not tell."""


class Shot(NamedTuple):
    """One picture of the series: its file, and two lines to stand below it."""

    path: Path
    title: str
    subtitle: str


def run(client: Client, trial: Trial, output: Path, timeout: float) -> list[Shot]:
    """Queue the graph once for each picture, and the last one again from its own saved file.

    Raises PromptRefused, RuntimeError and TimeoutError.
    """
    _require_vae(client, trial)
    built, shots = build(trial), []
    for number, (on, name, title, subtitle) in enumerate(_variants(trial.loras), 1):
        built.switch(on, name)
        result = client.run(built.graph.prompt, timeout).check()
        (image,) = result.images()
        shots.append(Shot(output / image["subfolder"] / image["filename"], title, subtitle))
        said = f"{title}, {subtitle}" if subtitle else title
        print(f"[demo]   {said:<44}{result.wall:8.2f} s   {shots[-1].path.name}", flush=True)
        if number == 1:
            _tell_nodes(built.graph, result)
    _tell_loras(built, result)
    _queue_again(client, shots[-1].path, timeout)
    return shots


def _require_vae(client: Client, trial: Trial) -> None:
    """Raise RuntimeError where the host is older than the tiny VAE that the trial is for."""
    spec = client.object_info("VAELoader")["input"]["required"]["vae_name"]
    listed = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    if trial.models.vae == TINY_VAE and TINY_VAE not in listed:
        raise RuntimeError(
            f"this ComfyUI does not know {TINY_VAE}, FLUX.2's tiny VAE, which the demo's own model "
            "is for: it came with ComfyUI 0.24. Update ComfyUI, or leave COMFYUI_PATH unset and "
            "the demo brings one of its own."
        )


def _variants(loras: Sequence[Lora]) -> list[tuple[tuple[int, ...], str, str, str]]:
    """(slots switched on, file name, title, subtitle) of each picture."""
    rows = [((), "edit", "edit", "no LoRA" if loras else "")]
    for number, lora in enumerate(loras, 1):
        rows.append(((number,), f"edit-lora-{number}", lora.label, f"scale {lora.scale:g}"))
    if len(loras) > 1:
        every = tuple(range(1, len(loras) + 1))
        scales = " and ".join(f"{lora.scale:g}" for lora in loras)
        title = "both LoRAs" if len(loras) == 2 else f"all {len(loras)} LoRAs"
        rows.append((every, "edit-all-loras", title, f"scales {scales}"))
    return rows


def _tell_nodes(graph: Graph, result: Result) -> None:
    """Where the first run's time went."""
    for node, seconds in sorted(result.node_seconds.items(), key=lambda item: -item[1])[:4]:
        print(f"[demo]       {graph.prompt[node]['class_type']:<40}{seconds:8.2f} s")


def _tell_loras(built: Built, result: Result) -> None:
    """What the pack reports of each LoRA."""
    for node, output in result.outputs.items():
        if built.graph.prompt[node]["class_type"] == "PreviewAny":
            for lora in json.loads(output["text"][0])["loras"]:
                told = f"trained for {lora['trained_for']}"
                if lora["trained_for"] == UNTOLD:
                    told = "its file does not tell which model it is for"
                print(
                    f"[demo]   {lora['name']}: {lora['matched']} of {lora['total']} modules found "
                    f"in the model; {told}"
                )


def _queue_again(client: Client, path: Path, timeout: float) -> None:
    """Queue the graph that a saved picture carries. Raises RuntimeError if it does not run."""
    with Image.open(path) as picture:
        text = getattr(picture, "text", {})
    if "prompt" not in text:
        raise RuntimeError(f"the saved picture carries no graph: {path}")
    client.run(json.loads(text["prompt"]), timeout).check()
    print(f"[demo]   {path.name} carries its workflow: taken out of it and queued again, it ran")

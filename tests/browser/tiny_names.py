"""A graph that names real model files, made to run on the toy that really edits."""

import copy
from pathlib import Path
from typing import Any

from PIL import Image

Prompt = dict[str, dict[str, Any]]

MOST_STEPS = 6  # enough for the toy to show what is meant, dev's a little soft
PICTURE = "picture"
PAINTED = "painted.png"  # with a hole, which is the mask
HOLE = (36, 36, 60, 60)
FOLDER = "flux2"  # of the input folder, as the example of a folder names it
FETCHED_LORAS = ("toy-duotone.safetensors", "ai-toolkit.safetensors")
CHOSEN_LORAS = ("toy-mosaic.safetensors", "toy-duotone.safetensors")
TILED_VAE = "flux2-vae-tiny.safetensors"  # the host decodes no tiles with taef2
ITS_REPO = "owner/tiny-lora"


def with_tiny_models(prompt: Prompt, vae: str = "") -> Prompt:
    """The same graph with the toy models, small sizes, few steps and installed LoRAs.

    ``vae`` is taken in place of the cheapest one, which only newer hosts know. A picture to match
    is all that is added: no preset is small. The RunComfy node keeps all its inputs.
    """
    prompt, added = copy.deepcopy(prompt), {}
    local = {
        entry["inputs"]["lora_stack"][0]
        for entry in prompt.values()
        if entry["class_type"] != "Flux2EditRunComfy" and "lora_stack" in entry["inputs"]
    }
    regions = [e for e in prompt.values() if e["class_type"] == "Flux2EditLoraRegion"]
    painted = {
        entry["inputs"]["mask"][0]
        for entry in prompt.values()
        if entry["class_type"] == "Flux2EditRegionCrop" and "mask" in entry["inputs"]
    }
    tiled = any(entry["class_type"] == "VAEDecodeTiled" for entry in prompt.values())
    for node, entry in prompt.items():
        inputs = entry["inputs"]
        kind = entry["class_type"]
        if kind == "UNETLoader":
            small = "klein" if "klein" in inputs["unet_name"] else "dev"
            inputs["unet_name"] = f"flux2-toy-{small}.safetensors"
        elif kind == "CLIPLoader":
            inputs["clip_name"] = "toy-words.safetensors"
        elif kind == "VAELoader":
            inputs["vae_name"] = vae or (TILED_VAE if tiled else "taef2")
        elif kind == "Flux2EditSampler":
            inputs["steps"] = min(inputs["steps"], MOST_STEPS)
        elif kind == "LoadImage" and node in painted:
            inputs["image"] = PAINTED
        # Where a region gives the size, it is small.
        elif kind == "Flux2EditImageSize" and isinstance(inputs["width"], list):
            continue
        elif kind == "Flux2EditImageSize" and inputs["image_size"] != "match image":
            inputs |= {"image_size": "match image", "image": [PICTURE, 0]}
            added[PICTURE] = {"class_type": "LoadImage", "inputs": {"image": "small-1.png"}}
        elif kind == "Flux2EditLoraStack" and node in local:
            _install(inputs)
            for region in regions:
                _choose(inputs, int(region["inputs"]["lora"]))
    return prompt | added


def write_painted(folder: Path) -> None:
    """Beside ``small-1.png`` in the input folder: the same with a hole, as the mask editor does."""
    with Image.open(folder / "small-1.png") as picture:
        hole = Image.new("L", picture.size, 255)
        hole.paste(0, HOLE)
        picture.putalpha(hole)
        picture.save(folder / PAINTED)


def _install(inputs: dict[str, Any]) -> None:
    """Hugging Face slots become installed ones, of a file that RunComfy can have by its record."""
    for number in (1, 2, 3):
        slot = f"lora_{number}"
        if inputs[slot] == "hugging face":
            del inputs[f"{slot}.repo"]
            inputs |= {slot: "installed", f"{slot}.file": FETCHED_LORAS[0]}


def _choose(inputs: dict[str, Any], number: int) -> None:
    """A toy's LoRA in a slot that is left to the user."""
    slot = f"lora_{number}"
    inputs |= {slot: "installed", f"{slot}.file": CHOSEN_LORAS[number - 1]}
    inputs |= {f"{slot}.scale": 1.0, f"{slot}.enabled": True}

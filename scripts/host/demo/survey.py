"""What lies in a models folder, told by the files' headers: no tensor is read, no host is asked."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from .pack import room

# Folder name -> ComfyUI's name of the kind. unet and clip are the older names.
KINDS = {
    "diffusion_models": "diffusion_models",
    "unet": "diffusion_models",
    "text_encoders": "text_encoders",
    "clip": "text_encoders",
    "vae": "vae",
    "vae_approx": "vae_approx",
    "loras": "loras",
}
# ComfyUI's other folders: nothing for this graph, and thousands of files.
OTHERS = frozenset(
    "audio_encoders checkpoints classifiers clip_vision configs controlnet diffusers embeddings "
    "gligen hypernetworks latent_upscale_models model_patches photomaker style_models "
    "upscale_models custom_nodes input output temp user".split()
)
SAFE, GGUF = (".safetensors", ".sft"), ".gguf"
_MODEL_PREFIXES = ("model.diffusion_model.", "diffusion_model.")


class Candidate:
    """A file of the folder. ``root`` is the folder that ComfyUI is told of, for ``kind``."""

    def __init__(self, path: Path, root: Path, kind: str) -> None:
        self.path, self.root, self.kind = path, root, kind
        self.size, self.modified = path.stat().st_size, path.stat().st_mtime

    @property
    def name(self) -> str:
        """As ComfyUI's loaders list it."""
        return str(self.path.relative_to(self.root))

    @cached_property
    def header(self) -> Any:
        """The file's header, or None where it is no readable safetensors file."""
        file = room("lora_loader.reading.file")
        try:
            return file.read_header(self.path) if self.path.suffix in SAFE else None
        except file.LoraFileError:
            return None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' shapes by name, those of a whole model by the names inside it."""
        found = {}
        for name, info in self.header.tensors.items() if self.header else ():
            for prefix in _MODEL_PREFIXES:
                name = name.removeprefix(prefix)
            found[name] = info.shape
        return found

    @cached_property
    def flux2(self) -> Any:
        """The FLUX.2 transformer that this file is (``flux2.variants.Flux2Model``), or None."""
        variants = room("flux2.variants")
        try:
            return variants.identify(self.shapes)
        except variants.NotFlux2Error:
            return None

    @property
    def text_width(self) -> int:
        """Of a FLUX.2 transformer: how wide the text is that it takes."""
        return self.shapes.get("txt_in.weight", (0, 0))[1]

    @cached_property
    def vocabulary(self) -> tuple[int, int]:
        """(words, width) of a text encoder's table of words; zeros where the file has none."""
        for name, shape in self.shapes.items():
            if name.endswith(("embed_tokens.weight", "token_embedding.weight")) and len(shape) == 2:
                return shape[0], shape[1]
        return 0, 0

    @property
    def is_vae(self) -> bool:
        """FLUX.2's autoencoder: no other normalises 128 channels of its latent by a table."""
        return self.shapes.get("bn.running_mean") == (128,)

    @property
    def quantised(self) -> bool:
        """Whether it holds 8-bit or 4-bit weights, which only CUDA computes with quickly."""
        tensors = self.header.tensors.values() if self.header else ()
        return any(info.dtype.startswith(("F8", "F4", "U8", "I8")) for info in tensors)

    @property
    def bfloat16(self) -> bool:
        """Whether all of its tensors are bfloat16."""
        return {info.dtype for info in self.header.tensors.values()} == {"BF16"}


def models_folder(folder: Path) -> Path:
    """``folder``, or its ``models`` where a whole ComfyUI was named."""
    inner = folder / "models"
    has_kinds = any((folder / name).is_dir() for name in KINDS)
    return inner if inner.is_dir() and not has_kinds else folder


def survey(folder: Path) -> list[Candidate]:
    """Every model file below ``folder`` that could matter here, in the order of their paths."""
    return sorted(_walk(folder), key=lambda found: found.path)


def _walk(folder: Path) -> Iterator[Candidate]:
    # Links are followed: big files often lie on another disk. A link to a parent ends by itself.
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [
            name for name in folders if name.lower() not in OTHERS and not name.startswith(".")
        ]  # fmt: skip
        seen.add(real)
        here = Path(place)
        for name in files:
            if name.lower().endswith((*SAFE, GGUF)) and (here / name).is_file():
                root, kind = _kind_of(folder, here)
                yield Candidate(here / name, root, kind)


def _kind_of(folder: Path, here: Path) -> tuple[Path, str]:
    """The folder of ComfyUI's kinds that ``here`` lies in; ``here`` itself and "" in none."""
    for place in (here, *here.parents):
        if place.name.lower() in KINDS:
            return place, KINDS[place.name.lower()]
        if place == folder:
            break
    return here, ""

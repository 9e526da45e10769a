"""``--real``: which files of the hub, under which licences, and whether this machine can do it.

Sizes and sha256 are those that the hub gives for these commits. Licences are those of the
repositories' model cards: FLUX.2 klein 4B with its autoencoder, Qwen3 4B, and the LoRA are all
Apache-2.0.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import models
from .machine import Device, minutes_on_cpu

GB = 1e9
SPARE = 1e9
"""Bytes of the disk that are left over."""
LEAST_MEMORY, EASY_MEMORY, EASY_VIDEO_MEMORY = 11e9, 20e9, 13e9
EDITS = 2
TITLE, TRIGGER = "LoRA: pixel art", "PXART4"
"""What the LoRA is called on the sheet, and the word that it was trained with."""


class Declined(Exception):
    """The person said no, or could not be asked."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a commit; ``size`` in bytes; ``what`` it is, for a person."""

    repo: str
    revision: str
    path: str
    size: int
    sha256: str
    licence: str
    what: str

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.path.rpartition("/")[2]


def _comfy(path: str, size: int, sha256: str, what: str) -> HubFile:
    repo = "Comfy-Org/vae-text-encorder-for-flux-klein-4b"
    revision = "5f526678002e43af5551dadb73ce2e8c91b43afe"
    return HubFile(repo, revision, f"split_files/{path}", size, sha256, "Apache-2.0", what)


KLEIN_4B = (
    _comfy(
        "diffusion_models/flux-2-klein-4b.safetensors",
        7_751_105_712,
        "ec3d4e733a771f61c052fb4856c48b336c55eaf2c65487c2a1faeb9bbda7a343",
        "FLUX.2 klein 4B, the model (Black Forest Labs)",
    ),
    _comfy(
        "text_encoders/qwen_3_4b.safetensors",
        8_044_982_048,
        "6c671498573ac2f7a5501502ccce8d2b08ea6ca2f661c458e708f36b36edfc5a",
        "Qwen3 4B, its text encoder (Alibaba)",
    ),
    _comfy(
        "vae/flux2-vae.safetensors",
        336_211_292,
        "868fe7b343cc8f3a19dbcfcafbc3d5f888802be3f89bd81b65b3621a066ce8f3",
        "its autoencoder (Black Forest Labs)",
    ),
    HubFile(
        "adirik/pixel-art-lora-flux.2-klein-4B",
        "cb04fb378e80efc7be0450457714a50292f011d1",
        "pixelart_lora.safetensors",
        369_644_416,
        "eec52255dd0611861def82a2a7c8b0439a4b0748a77ca55802a097013176564a",
        "Apache-2.0",
        "a LoRA for pixel art (adirik)",
    ),
)
"""Model, text encoder, autoencoder, LoRA: in this order."""


def describe(missing: Sequence[HubFile], root: Path) -> None:
    """Print what would be fetched, from where, under which licence, and where to."""
    print("[demo] FLUX.2 klein 4B on this machine needs these files of Hugging Face:")
    for file in missing:
        print(f"[demo]   {file.name:<30}{file.size / GB:7.2f} GB   {file.licence}   {file.what}")
    total = sum(file.size for file in missing)
    print(f"[demo]   {'in all':<30}{total / GB:7.2f} GB   into {root}")
    for repo, revision in dict.fromkeys((file.repo, file.revision) for file in missing):
        print(f"[demo]   from https://huggingface.co/{repo} at its commit {revision[:12]}")


def minutes(device: Device) -> float:
    """About how long the edits take where there is no GPU; 0 where there is one."""
    if device.gpu:
        return 0.0
    photos = (models.PHOTOS["astronaut.png"], models.PHOTOS["chelsea.png"])
    references = sum(width * height for width, height in photos)
    return minutes_on_cpu(512 * 512, references, 4, EDITS)


def check(need: int, free: int, root: Path, device: Device, estimate: float) -> None:
    """Tell how this machine will do. Raises RuntimeError where it cannot.

    ``need`` and ``free``: bytes of the disk, ``estimate``: minutes on a CPU.
    """
    if need and free < need + SPARE:
        raise RuntimeError(
            f"{need / GB:.1f} GB are to be fetched and {free / GB:.1f} GB of the disk are free. "
            f"Make room, or set FLUX2_LORA_EDIT_CACHE to a folder on another disk.\n{root}"
        )
    if device.memory < LEAST_MEMORY:
        raise RuntimeError(
            f"this machine has {device.memory / GB:.0f} GB of memory, and the text encoder alone "
            f"takes 8: {EASY_MEMORY / GB:.0f} GB are comfortable. ./scripts/demo without --real "
            "runs everywhere."
        )
    print(f"[demo] it will run on {device.title}, {device.memory / GB:.0f} GB of memory")
    if device.kind == "cuda" and device.video_memory < EASY_VIDEO_MEMORY:
        print("[demo]   which is less than the 13 GB that hold it at once: it will be slower")
    elif device.kind != "cuda" and device.memory < EASY_MEMORY:
        print(f"[demo]   which is tight: with {EASY_MEMORY / GB:.0f} GB it would not swap")
    if device.gpu:
        print("[demo]   two edits take seconds to a few minutes there; nobody has timed yours yet")
    else:
        print(
            f"[demo]   about {max(estimate, 1):.0f} minutes for two edits of 512 x 512, by what a "
            "matrix product takes here now"
        )
    sys.stdout.flush()


def ask(ask_person: Callable[[str], str] = input) -> None:
    """Raise Declined unless the person says yes."""
    try:
        answer = ask_person("[demo] Fetch them now? [y/N] ")
    except EOFError:
        print()
        raise Declined("nobody answered, so nothing was fetched (--yes answers yes)") from None
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined("nothing was fetched. ./scripts/demo without --real needs none of it")

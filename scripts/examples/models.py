"""The model files that the examples name, with the addresses that ComfyUI's own templates give."""

from typing import NamedTuple

HUB = "https://huggingface.co"


class File(NamedTuple):
    """One model file: its folder below ``models``, where to get it, and how many bytes it has."""

    name: str
    folder: str
    url: str
    gigabytes: float = 0.0


class Family(NamedTuple):
    """The three files that belong together, what to sample with, and what a user must know."""

    title: str
    model: File
    text_encoder: File
    vae: File
    steps: int
    guidance: float
    licence: str = ""
    memory: str = ""

    @property
    def files(self) -> tuple[File, File, File]:
        return self.model, self.text_encoder, self.vae


def _file(folder: str, repo: str, name: str, gigabytes: float) -> File:
    address = f"{HUB}/Comfy-Org/{repo}/resolve/main/split_files/{folder}/{name}"
    return File(name, folder, address, gigabytes)


WHICH_MODEL = (
    "8 to 16 GB: klein 4B. 16 GB and more: klein 9B. 24 GB and 64 GB of RAM: dev. None: the "
    "RunComfy node."
)
NON_COMMERCIAL = "FLUX non-commercial licence"
SMALL = "13 GB of GPU memory by its makers' word, or less with ComfyUI's offloading"

VAE = _file("vae", "flux2-dev", "flux2-vae.safetensors", 0.3)
QWEN_4B = _file("text_encoders", "flux2-klein", "qwen_3_4b.safetensors", 8.0)

DEV = Family(
    "FLUX.2 dev",
    _file("diffusion_models", "flux2-dev", "flux2_dev_fp8mixed.safetensors", 35.5),
    _file("text_encoders", "flux2-dev", "mistral_3_small_flux2_fp8.safetensors", 18.0),
    VAE,
    28,
    2.5,
    NON_COMMERCIAL,
    "24 GB of GPU memory and 64 GB beside it, into which it is offloaded; with less take klein",
)
KLEIN = Family(
    "FLUX.2 klein 4B",
    _file("diffusion_models", "flux2-klein", "flux-2-klein-4b.safetensors", 7.8),
    QWEN_4B,
    VAE,
    4,
    1.0,
    "Apache-2.0",
    SMALL,
)
KLEIN_BASE = Family(
    "FLUX.2 klein base 4B",
    _file("diffusion_models", "flux2-klein", "flux-2-klein-base-4b.safetensors", 7.8),
    QWEN_4B,
    VAE,
    20,
    4.0,
    "Apache-2.0",
    SMALL,
)
# Nobody has repacked it: the address is its makers' own, who ask for an account and a yes.
KLEIN_KV = Family(
    "FLUX.2 klein 9B KV",
    File(
        "flux-2-klein-9b-kv-fp8.safetensors",
        "diffusion_models",
        f"{HUB}/black-forest-labs/FLUX.2-klein-9b-kv-fp8/resolve/main/flux-2-klein-9b-kv-fp8.safetensors",
        9.8,
    ),
    _file("text_encoders", "flux2-klein-9B", "qwen_3_8b_fp8mixed.safetensors", 8.7),
    VAE,
    4,
    1.0,
    f"{NON_COMMERCIAL}, agreed to with a Hugging Face account before the download",
    "29 GB of GPU memory by its makers' word for bf16, about half for this fp8, or less with "
    "ComfyUI's offloading",
)


class Lora(NamedTuple):
    """What a note says of a LoRA: the words that its prompt must hold, and what it is."""

    triggers: tuple[str, ...]
    about: str


# The samples of the hosted API's own pages; both are for dev and lie on Hugging Face.
STYLE_LORA = "gokaygokay/Flux-2D-Game-Assets-LoRA"
EDIT_LORA = "lovis93/Flux-2-Multi-Angles-LoRA-v2"
# Their repos hold the same LoRA twice, in two namings: so the file is named.
TURBO_LORA = "fal/FLUX.2-dev-Turbo:flux.2-turbo-lora.safetensors"
SPRITES_LORA = "fal/flux-2-klein-4b-spritesheet-lora:flux-spritesheet-lora.safetensors"
LORAS = {
    STYLE_LORA: Lora(("GRPZA", "game asset", "pixel art"), "pixel art for games"),
    EDIT_LORA: Lora(("<sks>",), "the camera's view, angle and distance, in this order"),
    TURBO_LORA: Lora((), f"8 steps instead of 28; 2.8 GB, {NON_COMMERCIAL}"),
    SPRITES_LORA: Lora(("2x2 sprite sheet",), "an object from four sides; 76 MB, Apache-2.0"),
}

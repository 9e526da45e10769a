"""The model files that the examples name, with the addresses that ComfyUI's own templates give."""

from typing import NamedTuple

HUB = "https://huggingface.co/Comfy-Org"


class File(NamedTuple):
    """One model file: its folder below ``models`` and where to get it."""

    name: str
    folder: str
    url: str


class Family(NamedTuple):
    """The three files that belong together, and what to sample with."""

    title: str
    model: File
    text_encoder: File
    vae: File
    steps: int
    guidance: float

    @property
    def files(self) -> tuple[File, File, File]:
        return self.model, self.text_encoder, self.vae


def _file(folder: str, repo: str, name: str) -> File:
    return File(name, folder, f"{HUB}/{repo}/resolve/main/split_files/{folder}/{name}")


VAE = _file("vae", "flux2-dev", "flux2-vae.safetensors")
QWEN_4B = _file("text_encoders", "flux2-klein", "qwen_3_4b.safetensors")

DEV = Family(
    "FLUX.2 dev",
    _file("diffusion_models", "flux2-dev", "flux2_dev_fp8mixed.safetensors"),
    _file("text_encoders", "flux2-dev", "mistral_3_small_flux2_fp8.safetensors"),
    VAE,
    28,
    2.5,
)
KLEIN = Family(
    "FLUX.2 klein 4B",
    _file("diffusion_models", "flux2-klein", "flux-2-klein-4b.safetensors"),
    QWEN_4B,
    VAE,
    4,
    1.0,
)
KLEIN_BASE = Family(
    "FLUX.2 klein base 4B",
    _file("diffusion_models", "flux2-klein", "flux-2-klein-base-4b.safetensors"),
    QWEN_4B,
    VAE,
    20,
    4.0,
)

# The samples of the hosted API's own pages; both are for dev and lie on Hugging Face.
STYLE_LORA = "gokaygokay/Flux-2D-Game-Assets-LoRA"
EDIT_LORA = "lovis93/Flux-2-Multi-Angles-LoRA-v2"

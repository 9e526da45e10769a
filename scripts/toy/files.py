"""The toy's files, as a ComfyUI models folder holds them."""

import hashlib
from pathlib import Path

from safetensors import safe_open

from host.tiny import Weights

from . import autoencoder, loras, words
from .transformer import transformer

HERE = Path(__file__).resolve().parent
PEFT_LORA = HERE / "mosaic.safetensors"


def files() -> dict[str, tuple[Weights, dict[str, str]]]:
    """Path below ``models`` -> weights and header metadata."""
    plain = {
        "diffusion_models/flux2-toy-klein.safetensors": transformer("klein"),
        "diffusion_models/flux2-toy-dev.safetensors": transformer("dev"),
        "text_encoders/toy-words.safetensors": words.clip_l(),
        "vae_approx/taef2_encoder.safetensors": autoencoder.encoder(),
        "vae_approx/taef2_decoder.safetensors": autoencoder.decoder(),
    }
    made = {name: (weights, {"format": "pt"}) for name, weights in plain.items()}
    with safe_open(PEFT_LORA, "pt") as file:
        mosaic = {key: file.get_tensor(key) for key in file.keys()}
        made["loras/toy-mosaic.safetensors"] = (mosaic, file.metadata())
    made["loras/toy-duotone.safetensors"] = loras.duotone()
    return made


def fingerprint() -> bytes:
    """Changes with all that the files are made from."""
    digest = hashlib.sha256()
    for path in sorted((*HERE.glob("*.py"), *HERE.glob("*.safetensors"))):
        digest.update(path.read_bytes())
    return digest.digest()

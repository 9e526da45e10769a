"""Model files with the real ones' headers and no bytes on the disk: their tensors are holes."""

import json
import os
import struct
from pathlib import Path

from host import tiny, tiny_loras

QWEN_4B, QWEN_8B, MISTRAL = (151936, 2560), (151936, 4096), (131072, 5120)
SIZES = {
    "dev": (6144, 15360, 8, 48),
    "klein-9b": (4096, 12288, 8, 24),
    "klein-4b": (3072, 7680, 5, 20),
}


def write(path: Path, shapes: dict, dtype: str = "BF16", metadata: dict | None = None) -> Path:
    """A safetensors file with these shapes and no bytes on the disk: the tensors are a hole."""
    header, end, width = {}, 0, {"BF16": 2, "F8_E4M3": 1}[dtype]
    for name, shape in shapes.items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def transformer(
    path: Path,
    variant: str = "klein-4b",
    dtype: str = "BF16",
    prefix: str = "",
    sizes: tuple[int, int, int, int] | None = None,
) -> Path:
    """A transformer of a released size, or of ``sizes``: width, text width, and the blocks."""
    hidden, context, double, single = sizes or SIZES[variant]
    shapes = tiny.transformer_shapes(variant, hidden, context, double, single)
    return write(path, {prefix + name: shape for name, shape in shapes.items()}, dtype)


def encoder(path: Path, table: tuple[int, int] = QWEN_4B) -> Path:
    """A text encoder with a ``table`` of so many words, so wide."""
    return write(path, {"model.embed_tokens.weight": table, "model.norm.weight": (table[1],)})


def vae(path: Path) -> Path:
    """FLUX.2's autoencoder, as far as its header tells it."""
    return write(path, {"bn.running_mean": (128,), "decoder.conv_in.weight": (512, 32, 3, 3)})


def lora(
    path: Path, variant: str = "klein-4b", age: int = 0, width: int = 0, **metadata: str
) -> Path:
    """A LoRA for a released size, or for ``width``; ``age`` in seconds before a fixed moment."""
    hidden = width or SIZES[variant][0]
    shapes = {}
    for name, (out, into) in tiny_loras.block_modules(hidden, 1, 1).items():
        shapes[f"diffusion_model.{name}.lora_A.weight"] = (4, into)
        shapes[f"diffusion_model.{name}.lora_B.weight"] = (out, 4)
    write(path, shapes, metadata=metadata or None)
    os.utime(path, (2e9 - age, 2e9 - age))
    return path

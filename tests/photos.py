"""Photographs, and edits of them that are known to the pixel."""

import io
from functools import cache

import numpy as np
import skimage.data
import torch
from PIL import Image

from flux2_lora_edit.flux2.region.alignment import Alignment
from flux2_lora_edit.flux2.region.crop import resample


@cache
def photo(name: str) -> np.ndarray:
    """A photograph of scikit-image, ``[H, W, 3]`` float32 in 0..1."""
    pixels = np.asarray(getattr(skimage.data, name)())
    pixels = np.stack([pixels] * 3, 2) if pixels.ndim == 2 else pixels[..., :3]
    pixels = (pixels / 255).astype(np.float32)
    pixels.flags.writeable = False
    return pixels


def image(pixels: np.ndarray) -> torch.Tensor:
    """As ComfyUI hands it on."""
    return torch.from_numpy(pixels.copy())[None]


def drifted(pixels: np.ndarray, dx: float, dy: float, zoom: float = 1.0) -> np.ndarray:
    """``pixels`` moved by (dx, dy) and zoomed around the middle; beyond the edges they go on."""
    height, width = pixels.shape[:2]
    back = Alignment(-dx / zoom, -dy / zoom, 1 / zoom)
    box = back.found((0, 0, width, height), (width, height))
    return resample(pixels, box, (width, height)).clip(0, 1)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """``pixels`` as a JPEG file gives them back."""
    buffer = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(
        buffer, "JPEG", quality=quality
    )
    return np.asarray(Image.open(buffer)).astype(np.float32) / 255

"""A picture from the graph as a ``data:`` address, within the caps that RunComfy's nodes use.

The API has no upload; RunComfy's own pack sends pictures inside the request, at most 6 MiB and
32 MP each and 64 MiB in all (runcomfy-com/comfyui-runcomfy-partner-nodes).
"""

import base64
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..errors import InvalidInput

MAX_PICTURE_BYTES = 6 * 1024 * 1024
MAX_PICTURE_PIXELS = 32_000_000
MAX_REQUEST_BYTES = 64 * 1024 * 1024


def encode(pixels: np.ndarray, name: str, max_bytes: int = MAX_PICTURE_BYTES) -> tuple[str, str]:
    """One picture, float [height, width, 1, 3 or 4] in 0..1: its data URI, and what had to change.

    Values are clipped and rounded to 8 bit (NaN becomes 0), alpha is laid on white. PNG first;
    over the cap lossless WebP, then JPEG of falling quality, with a notice (else an empty text).
    Raises InvalidInput, naming ``name``.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise InvalidInput(f"{name} is no picture (its shape is {tuple(pixels.shape)}).")
    height, width = pixels.shape[:2]
    if width * height > MAX_PICTURE_PIXELS:
        raise InvalidInput(
            f"{name} has {width} x {height} pixels; {MAX_PICTURE_PIXELS // 10**6} MP is the most "
            "that RunComfy takes. Scale it down first (Scale Image to Total Pixels).",
        )
    image = Image.fromarray(_on_white(pixels))
    for kind, change, options in _ways(max(image.size)):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        if buffer.tell() <= max_bytes:
            data = base64.b64encode(buffer.getvalue()).decode()
            notice = f"{name} was sent as {change}: its PNG is too large." if change else ""
            return f"data:image/{kind.lower()};base64,{data}", notice
    raise InvalidInput(f"{name} does not fit into {max_bytes / 2**20:g} MiB. Scale it down first.")


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]."""
    values = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    rgb = values[..., :3] if values.shape[2] > 1 else np.repeat(values, 3, axis=2)
    if values.shape[2] == 4:
        alpha = values[..., 3:]
        rgb = rgb * alpha + (1.0 - alpha)
    return (rgb * 255.0 + 0.5).astype(np.uint8)


def _ways(side: int) -> Iterator[tuple[str, str, dict[str, int]]]:
    """(format, what it changes, Pillow's options) for a longest side in pixels, the best first."""
    yield "PNG", "", {"compress_level": 6}
    if side <= 16383:  # the most that WebP has room for
        yield "WEBP", "lossless WebP", {"lossless": True, "quality": 50, "method": 2}
    if side <= 65500:  # the most of JPEG
        for quality in (95, 90, 85, 75, 60):
            yield "JPEG", f"JPEG of quality {quality}", {"quality": quality, "subsampling": 0}


def check_request(addresses: list[str], max_bytes: int = MAX_REQUEST_BYTES) -> None:
    """Refuse pictures that fit alone but not together. Raises InvalidInput."""
    total = sum(len(address) for address in addresses)
    if total > max_bytes:
        raise InvalidInput(
            f"The pictures take {total / 2**20:.1f} MiB together; {max_bytes / 2**20:g} MiB is the "
            "most of one request. Use fewer or smaller pictures, or addresses in image_urls.",
        )

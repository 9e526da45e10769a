"""What this machine computes on, how much memory it has, and how long an edit will take on it."""

import os
import time
from typing import NamedTuple

import torch

# A forward of a transformer is two operations for each weight and token.
_KLEIN_4B = 3.88e9
_TEXT_TOKENS = 512
# Blocks of klein 4B's width took 0.9 to 1.3 times what the product foretold; text and pictures
# are a tenth besides.
_MORE = 1.25


class Device(NamedTuple):
    """``kind`` is "cuda", "mps" or "cpu"; memory in bytes, video memory 0 where it has none."""

    kind: str
    title: str
    memory: int
    video_memory: int = 0

    @property
    def gpu(self) -> bool:
        return self.kind != "cpu"

    @property
    def size(self) -> str:
        """The preset size to edit at: a megapixel on CUDA, a quarter of it elsewhere."""
        return "square_hd" if self.kind == "cuda" else "square"


def look() -> Device:
    """The device that ComfyUI will choose by itself."""
    memory = _memory()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        title = f"the GPU ({properties.name}, {properties.total_memory / 1e9:.0f} GB)"
        return Device("cuda", title, memory, properties.total_memory)
    if torch.backends.mps.is_available():
        return Device("mps", "Apple's GPU (MPS)", memory, memory)
    return Device("cpu", f"the CPU ({os.cpu_count()} threads; no CUDA or MPS found)", memory)


def minutes_on_cpu(pixels: int, reference_pixels: int, steps: int, edits: int) -> float:
    """About how long klein 4B takes here: its operations over what a matrix product shows now.

    Reading the weights comes on top, and is up to the disk.
    """
    tokens = (pixels + reference_pixels) / 256 + _TEXT_TOKENS
    return _MORE * 2 * _KLEIN_4B * tokens * steps * edits / _operations_a_second() / 60


def _operations_a_second() -> float:
    """Of a float32 matrix product of the model's width, the best of three."""
    left, right = torch.ones(1024, 3072), torch.ones(3072, 3072)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - began)
    return 2 * 1024 * 3072 * 3072 / min(seconds)


def _memory() -> int:
    """Bytes of memory in all; ComfyUI itself needs psutil."""
    import psutil

    return int(psutil.virtual_memory().total)

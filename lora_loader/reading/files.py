"""LoRA files with the tensors that were read from them, kept for a while.

Moving a slider applies the same files again: what was read stays until other files need the room.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .header import Header, LoraFileError, read_header

_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(eq=False)
class LoraFile:
    """One file: its header, and what was read of it so far.

    Of equal ``identity`` (path, size, modification time) are equal tensors. ``tensors`` are bf16,
    fp16, fp32 or integers; ``peaks`` their largest magnitudes, NaN or infinity where they hold one.
    ``made`` is what was last made of the file, and for what: see ``read_stack``.
    """

    header: Header
    identity: tuple[str, int, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    made: tuple[Any, Any] | None = None

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of ``keys``, which stay in memory; raises LoraFileError."""
        wanted = list(keys)
        missing = [key for key in wanted if key not in self.tensors]
        try:
            if missing:
                with safe_open(self.header.path, framework="pt", device="cpu") as file:
                    for key in missing:
                        self._keep(key, file.get_tensor(key))
        except (SafetensorError, OSError, TypeError, RuntimeError) as error:
            raise LoraFileError(
                f"The file cannot be read: {error}. Delete it and fetch it again."
            ) from None
        return {key: self.tensors[key] for key in wanted}

    def _keep(self, key: str, tensor: Tensor) -> None:
        if tensor.dtype in _FLOAT8:
            tensor = tensor.to(torch.bfloat16)  # exact: it holds every such value
        elif tensor.dtype == torch.float64 and tensor.numel() > 1:
            tensor = tensor.float()
        low = high = 0.0
        if tensor.numel() and tensor.is_floating_point():
            low, high = (float(end) for end in torch.aminmax(tensor))
        self.peaks[key] = max(high, -low)  # aminmax carries NaN into both ends
        # A copy: what safe_open gives is the mapped file, which may be replaced.
        self.tensors[key] = tensor.clone()


class LoraFiles:
    """The files last used, at most ``most`` of them and ``most_bytes`` together.

    A file is known by its path, size and modification time: a changed file is read anew.
    """

    def __init__(self, most: int = 6, most_bytes: int = 2 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._files: OrderedDict[tuple[str, int, int], LoraFile] = OrderedDict()
        self._lock = Lock()

    def open(self, path: Path) -> LoraFile:
        """The file at ``path`` with its header checked; raises LoraFileError."""
        try:
            stat = path.stat()
        except OSError as error:
            raise LoraFileError(f"The file cannot be read: {error.strerror}.") from None
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        with self._lock:
            file = self._files.pop(key, None)
            if file is None:
                for stale in [other for other in self._files if other[0] == key[0]]:
                    del self._files[stale]
                file = LoraFile(read_header(path), key)
            self._files[key] = file
            return file

    def trim(self) -> None:
        """Let go of the files used longest ago until the rest fits."""
        with self._lock:
            while self._files and (
                len(self._files) > self.most
                or sum(t.nbytes for file in self._files.values() for t in file.tensors.values())
                > self.most_bytes
            ):
                self._files.popitem(last=False)

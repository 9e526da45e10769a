"""LoRA files with the tensors that were read from them, kept for a while.

Moving a slider applies the same files again: what was read stays until other files need the room.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .header import Header, LoraFileError, read_header
from .scaling import CONFIG_NAME, PEFT_NAME, PeftSettings, config_settings

MAX_CONFIG_BYTES = 2**20
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class LoraFile:
    """One file: its header, and the tensors read so far, as bf16, fp16, fp32 or integers."""

    def __init__(self, header: Header, identity: tuple[str, int, int] | None = None) -> None:
        """``identity`` is path, size and modification time; the same identity, the same tensors."""
        self.header = header
        self.identity = identity or (str(header.path), -1, id(self))
        self._tensors: dict[str, Tensor] = {}
        self._peaks: dict[str, float] = {}
        # What was last made of this file, and for what: see ``read_stack``.
        self.made: tuple[Any, Any] | None = None

    @property
    def bytes(self) -> int:
        """What the tensors read so far take."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def read(self, keys: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of ``keys``, which stay in memory; raises LoraFileError."""
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._tensors]
        try:
            if missing:
                with safe_open(self.header.path, framework="pt", device="cpu") as file:
                    for key in missing:
                        tensor = file.get_tensor(key)
                        if tensor.dtype in _FLOAT8:
                            tensor = tensor.to(torch.bfloat16)  # exact: it holds every such value
                        elif tensor.dtype == torch.float64 and tensor.numel() > 1:
                            tensor = tensor.float()
                        # A copy: what safe_open gives is the mapped file, which may be replaced.
                        self._tensors[key] = tensor.clone()
        except (SafetensorError, OSError, TypeError, RuntimeError) as error:
            raise LoraFileError(
                f"The file cannot be read: {error}. Delete it and fetch it again."
            ) from None
        return {key: self._tensors[key] for key in wanted}

    def peak(self, key: str) -> float:
        """The largest magnitude of a tensor that was read; NaN or infinity where it holds one."""
        if key not in self._peaks:
            tensor, peak = self._tensors[key], 0.0
            if tensor.numel() and tensor.is_floating_point():
                low, high = (float(end) for end in torch.aminmax(tensor))
                # aminmax carries NaN into both ends.
                peak = math.nan if math.isnan(low) else max(abs(low), abs(high))
            self._peaks[key] = peak
        return self._peaks[key]


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
                or sum(file.bytes for file in self._files.values()) > self.most_bytes
            ):
                self._files.popitem(last=False)


def short_text(path: Path, most_bytes: int) -> str:
    """The text of a file; "" where there is none, or a longer one."""
    try:
        if path.stat().st_size > most_bytes:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def settings_beside(path: Path) -> tuple[PeftSettings | None, str]:
    """PEFT's settings beside a file, where they are surely its own; and what was ignored."""
    text = short_text(path.with_name(CONFIG_NAME), MAX_CONFIG_BYTES)
    settings = config_settings(text) if text else None
    if settings is None or path.name == PEFT_NAME:
        return settings, ""
    if all(other == path for other in path.parent.glob("*.safetensors")):
        return settings, ""
    return None, (
        f"the {CONFIG_NAME} beside it is not used, because other LoRAs lie there too. If it "
        f"belongs to this one, give both a folder of their own"
    )

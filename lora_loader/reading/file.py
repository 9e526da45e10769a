"""A .safetensors file: its header, read and checked without reading a tensor, and its tensors.

The format (huggingface/safetensors README): 8 bytes, little-endian length N; N bytes of JSON that
map each tensor's name to dtype, shape and byte range; then the tensors, in order and without gaps.
The checks here are stricter than a parser needs: a LoRA comes from anywhere.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_DIMS = 8

# Bits of one element. Sub-byte types are packed.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class LoraFileError(ValueError):
    """A file that is not a usable LoRA; says what it is and the way out, without its path."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's dtype name, shape and byte range after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: tensors by name, and the trainer's metadata (strings)."""

    path: Path
    size: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


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
                f"The file cannot be read: {str(error)[:200]}. Delete it and fetch it again."
            ) from None
        return {key: self.tensors[key] for key in wanted}

    def _keep(self, key: str, tensor: Tensor) -> None:
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensor = tensor.to(torch.bfloat16)  # exact: it holds every such value
        elif tensor.dtype == torch.float64 and tensor.numel() > 1:
            tensor = tensor.float()
        low = high = 0.0
        if tensor.numel() and tensor.is_floating_point():
            low, high = (float(end) for end in torch.aminmax(tensor))
        self.peaks[key] = max(high, -low)  # aminmax carries NaN into both ends
        # A copy: what safe_open gives is the mapped file, which may be replaced.
        self.tensors[key] = tensor.clone()


def read_header(path: Path) -> Header:
    """The checked header of the file at ``path``; raises LoraFileError and nothing else."""
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            prefix = file.read(64)
            length = int.from_bytes(prefix[:8], "little")
            if len(prefix) < 8 or length < 2 or length > min(size - 8, MAX_HEADER_BYTES):
                raise LoraFileError(_what_it_is(prefix, size, length))
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise LoraFileError(f"The file cannot be read: {error.strerror or error}.") from None
    if len(text) != length:
        raise LoraFileError(_CUT_SHORT)
    tensors, metadata = parse_header(text, size - 8 - length)
    return Header(Path(path), size, tensors, metadata)


_CUT_SHORT = "The file is cut short: its download did not finish. Delete it and fetch it again."


def _what_it_is(prefix: bytes, size: int, length: int) -> str:
    """Why the first bytes are no safetensors header, in the user's words."""
    start = prefix.lstrip().lower()
    if size == 0:
        return "The file is empty (0 bytes). Delete it and fetch it again."
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "The file is a web page, not a LoRA: the site answered with a log-in or error page. "
            "Fetch it again from its download link."
        )
    if start.startswith(b"version https://git-lfs"):
        return (
            "The file is a git-lfs pointer, not the LoRA itself. Run 'git lfs pull' in its "
            "repository, or download the file from its page."
        )
    if prefix.startswith(b"PK\x03\x04") or prefix[:1] == b"\x80":
        return (
            "The file is a pickle (.pt, .bin or .ckpt) under another name. Pickle can carry code "
            "and is never read: get the .safetensors version."
        )
    if prefix.startswith(b"GGUF"):
        return "The file is a GGUF model, not a LoRA in .safetensors form."
    if start.startswith((b"{", b"[")):
        return "The file is a JSON text, not a LoRA. Fetch the .safetensors file itself."
    if length > MAX_HEADER_BYTES and length < size:
        return (
            f"The file's header claims {length} bytes; {MAX_HEADER_BYTES} is the most for a LoRA. "
            "The file is damaged or made to do harm."
        )
    if size >= 8 and 2 <= length <= MAX_HEADER_BYTES:
        return _CUT_SHORT
    return "The file is not a .safetensors file or is damaged. Delete it and fetch it again."


def parse_header(text: bytes, data_bytes: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors and metadata of a header's JSON, checked against the bytes that follow it.

    Raises LoraFileError and nothing else, whatever the text.
    """
    try:
        top = json.loads(text.decode("utf-8"), object_pairs_hook=_unique_pairs)
        if b"\\u" in text:  # half a surrogate pair can be written nowhere, and no parser of ours
            json.dumps(top, ensure_ascii=False).encode()  # reads such a file
    except (ValueError, RecursionError):
        raise LoraFileError(
            "The file's header is damaged: it is no readable JSON. Delete it and fetch it again."
        ) from None
    if not isinstance(top, dict):
        raise LoraFileError("The file's header is damaged: it is not a table of tensors.")
    metadata = top.pop("__metadata__", None)
    strings = metadata.items() if isinstance(metadata, dict) else ()
    if len(top) > MAX_TENSORS:
        raise LoraFileError(
            f"The file lists {len(top)} tensors; {MAX_TENSORS} is the most for a LoRA."
        )
    tensors = {name: _tensor(name, entry) for name, entry in top.items()}
    end = 0
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != end:
            raise LoraFileError(
                "The file's header is damaged: its tensors overlap or leave gaps. Delete it and "
                "fetch it again."
            )
        end = info.end
    if end > data_bytes:
        raise LoraFileError(_CUT_SHORT)
    if end < data_bytes:
        raise LoraFileError(
            f"The file has {data_bytes - end} bytes behind its last tensor: it is damaged. "
            "Delete it and fetch it again."
        )
    return tensors, {key: value for key, value in strings if isinstance(value, str)}


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _tensor(name: str, entry: object) -> TensorInfo:
    damaged = LoraFileError(f"The file's header is damaged at the tensor '{name[:200]}'.")
    if not isinstance(entry, dict):
        raise damaged
    dtype, shape, offsets = (entry.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        kind = dtype if isinstance(dtype, str) else type(dtype).__name__
        raise LoraFileError(
            f"The tensor '{name[:200]}' has the unknown type {kind[:40]}. Save the LoRA as bf16, "
            "fp16 or fp32."
        )
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise damaged
    if len(shape) > MAX_DIMS or len(offsets) != 2:
        raise damaged
    if not all(type(n) is int and 0 <= n < 2**62 for n in shape + offsets):  # a bool is no count
        raise damaged
    start, end = offsets
    if start > end or (end - start) * 8 != prod(shape) * DTYPE_BITS[dtype]:
        raise damaged
    return TensorInfo(dtype, tuple(shape), start, end)

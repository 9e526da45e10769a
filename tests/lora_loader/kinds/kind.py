"""What one kind of LoRA file is: the files a producer writes, and the change they stand for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Generator, Tensor

from .base import Base, Site, Truth
from .maths import Parts


@dataclass(frozen=True)
class LoraFile:
    """Tensors and metadata of a ``.safetensors``, and what the producer leaves beside it."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    siblings: Mapping[str, str] = field(default_factory=dict)
    name: str = "pytorch_lora_weights.safetensors"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.contiguous() for key, value in self.tensors.items()}
        save_file(tensors, folder / self.name, dict(self.metadata) or None)
        for name, text in self.siblings.items():
            (folder / name).write_text(text)
        return folder / self.name


@dataclass(frozen=True)
class Built:
    """A stack of files with their scales, and the change of the whole stack."""

    slots: list[tuple[LoraFile, float]]
    truth: Truth


@dataclass(frozen=True)
class Kind:
    """A row of the table. ``expect`` is one of:

    exact: the model changes by ``truth``. unsupported: it does with on_mismatch=warn, and the
    report names every key of ``unsupported``. refused: an error that says ``says``.
    """

    name: str
    trainer: str
    make: Callable[[Base, Generator], Built]
    expect: str = "exact"
    unsupported: tuple[str, ...] = ()
    says: str = ""
    tolerance: float = 1e-3
    geometries: tuple[str, ...] = ("dev", "klein")

    def build(self, base: Base) -> Built:
        """Same tensors each time: the seed is the kind's and the geometry's name."""
        seed = sum(ord(c) * 131**i for i, c in enumerate(self.name + base.geometry)) % 2**31
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(base, torch.Generator().manual_seed(seed))


Maker = Callable[[Tensor, Generator, torch.dtype], tuple[Parts, Tensor]]
Naming = Callable[[str], str]


def plain(name: str) -> str:
    return name


def flat(name: str) -> str:
    return name.replace(".", "_")


def assemble(
    base: Base,
    g: Generator,
    sites: list[Site],
    make: Maker,
    naming: Naming = plain,
    prefix: str = "",
    dtype: torch.dtype = torch.bfloat16,
    metadata: Mapping[str, str] | None = None,
) -> Built:
    """One file: every site's tensors under ``prefix + naming(site) + "." + part``."""
    tensors: dict[str, Tensor] = {}
    truth = Truth(base)
    for site in sites:
        parts, delta = make(site.weight(base), g, dtype)
        for part, tensor in parts.items():
            tensors[f"{prefix}{naming(site.name)}.{part}"] = tensor
        truth.add(site, delta)
    return one(LoraFile(tensors, metadata or {}), truth)


def one(file: LoraFile, truth: Truth, scale: float = 1.0) -> Built:
    return Built([(file, scale)], truth)


def single(built: Built) -> LoraFile:
    return built.slots[0][0]


def merged(*builts: Built) -> Built:
    """Several parts of one file."""
    truth, tensors, metadata = Truth(builts[0].truth.base), {}, {}
    for built in builts:
        truth.include(built.truth)
        overlap = tensors.keys() & single(built).tensors.keys()
        assert not overlap, overlap
        tensors |= single(built).tensors
        metadata |= single(built).metadata
    return one(LoraFile(tensors, metadata), truth)


def read_saved(folder: Path, dtype: torch.dtype) -> LoraFile:
    """What a library saved into ``folder``, in the dtype that the trainer would have saved."""
    (path,) = folder.glob("*.safetensors")
    tensors = {key: _cast(value, dtype) for key, value in load_file(path).items()}
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata() or {}
    siblings = {p.name: p.read_text() for p in folder.glob("*.json")}
    for text in siblings.values():
        json.loads(text)
    return LoraFile(tensors, metadata, siblings, path.name)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor

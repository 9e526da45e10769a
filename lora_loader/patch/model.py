"""What a ComfyUI MODEL tells of itself."""

import os
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from comfy import model_management
from torch import Tensor

from ...flux2.variants import PREFIX

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class PatchError(ValueError):
    """A stack that this model cannot take; says why and what to do."""


def weight_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the diffusion model's weights and biases by the names that patches use.

    Taken from the modules, where a quantised weight has its true shape.
    """
    shapes = {}
    for name, module in model.model.named_modules():
        if not name.startswith(PREFIX):
            continue
        for leaf in ("weight", "bias"):
            tensor = getattr(module, leaf, None)
            if isinstance(tensor, Tensor):
                shapes[f"{name}.{leaf}"] = tuple(tensor.shape)
    return shapes


def model_file(model: Any) -> str:
    """The name of the file that the model came from, as far as the host remembers it; or ""."""
    loaded_by = getattr(model, "cached_patcher_init", None)
    source = loaded_by[1][0] if loaded_by and loaded_by[1] else ""
    return os.path.basename(source) if isinstance(source, str) else ""


def multiplying(model: Any, keys: Iterable[str]) -> frozenset[str]:
    """Those of the weights ``keys`` that belong to a module which multiplies by them."""
    found = set()
    for key in keys:
        name, _, leaf = key.rpartition(".")
        width = getattr(model.model.get_submodule(name), "in_features", None)
        if leaf == "weight" and width is not None:
            found.add(key)
    return frozenset(found)


def quantised(model: Any, keys: Iterable[str]) -> str:
    """The type of those of the weights ``keys`` that are coarser than 16 bit; or ""."""
    kinds: Counter[str] = Counter()
    for weight in (attrgetter(key)(model.model) for key in keys):
        if weight.dim() != 2:
            continue
        layout = getattr(weight, "_layout_cls", None)
        if layout is not None:
            # comfy_kitchen's tensors act as if they had the type that they stand for.
            kind = layout if isinstance(layout, str) else getattr(layout, "__name__", "")
            for noise in ("TensorCore", "TensorWise", "Layout"):
                kind = kind.replace(noise, "")
            kinds[kind.lower() or "quantised"] += 1
        elif hasattr(weight, "tensor_type"):  # city96's ComfyUI-GGUF
            kinds[getattr(weight.tensor_type, "name", "GGUF")] += 1
        elif weight.dtype not in _PLAIN:
            kinds[str(weight.dtype).removeprefix("torch.")] += 1
    return max(kinds, key=lambda kind: kinds[kind], default="")


def exceeds_memory(model: Any) -> bool:
    """Whether the model's weights cannot all be on the device that runs them."""
    if model_management.is_device_cpu(model.load_device):
        return False
    states = model_management.VRAMState
    if model_management.vram_state in (states.LOW_VRAM, states.NO_VRAM):
        return True
    total = model_management.get_total_memory(model.load_device)
    # Of the whole memory, not of what is free now: the same machine shall decide the same way.
    return bool(model.model_size() + model_management.minimum_inference_memory() > total)

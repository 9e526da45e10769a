"""What a ComfyUI MODEL tells of itself."""

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from comfy import model_management
from torch import Tensor

from ...flux2.variants import PREFIX

_PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class PatchError(ValueError):
    """A plan that this model cannot take; says why and what to do."""


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


def quantised(model: Any, keys: Iterable[str]) -> str:
    """The type of those of the weights ``keys`` that are coarser than 16 bit; or ""."""
    kinds: Counter[str] = Counter()
    for key in keys:
        weight = attribute(model.model, key)
        if isinstance(weight, Tensor) and weight.dim() == 2:
            kinds[_quantised_kind(weight)] += 1
    return max((kind for kind in kinds if kind), key=lambda kind: kinds[kind], default="")


def _quantised_kind(weight: Tensor) -> str:
    layout = getattr(weight, "_layout_cls", None)
    if layout is not None:
        # comfy_kitchen's tensors act as if they had the type that they stand for.
        name = layout if isinstance(layout, str) else getattr(layout, "__name__", "")
        for noise in ("TensorCore", "TensorWise", "Layout"):
            name = name.replace(noise, "")
        return name.lower() or "quantised"
    if hasattr(weight, "tensor_type"):  # city96's ComfyUI-GGUF
        return getattr(weight.tensor_type, "name", "GGUF")
    if weight.dtype in _PLAIN:
        return ""
    return str(weight.dtype).removeprefix("torch.")


def exceeds_memory(model: Any) -> bool:
    """Whether the model's weights cannot all be on the device that runs them."""
    if model_management.is_device_cpu(model.load_device):
        return False
    if model_management.vram_state in (
        model_management.VRAMState.LOW_VRAM,
        model_management.VRAMState.NO_VRAM,
    ):
        return True
    total = model_management.get_total_memory(model.load_device)
    # Of the whole memory, not of what is free now: the same machine shall decide the same way.
    return bool(model.model_size() + model_management.minimum_inference_memory() > total)


def attribute(root: Any, name: str) -> Any:
    """What the dotted ``name`` leads to from ``root``; None where it leads nowhere."""
    for step in name.split("."):
        root = getattr(root, step, None)
    return root

"""What a ComfyUI MODEL tells of itself."""

import os
from typing import Any

from torch import Tensor

PREFIX = "diffusion_model."


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

"""Side paths kept between runs, so that a moved slider builds and uploads nothing."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from comfy import model_management

from ..beside import build
from ..fuse import StackedLora, Step
from .model import weight_shapes
from .side_path import KEY, SidePath


class SidePathCache:
    """The last side paths, at most ``most`` and ``most_bytes`` together, by what they are made of.

    Holds factors and no model: which LoRAs, in which order, for weights of which shapes.
    """

    def __init__(self, most: int = 2, most_bytes: int = 2 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._patchers: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, model: Any, stack: Sequence[StackedLora]) -> Any:
        """The host's patcher of the side path of ``stack`` for ``model``, whatever the scales."""
        shapes = weight_shapes(model)
        key = (
            tuple(lora.identity for lora in stack),
            # On top of itself a stack has other scales, and a side path has one set of them.
            len(model.get_additional_models_with_key(KEY)),
            tuple(sorted(shapes.items())),
            model.model.get_dtype_inference(),
            model.load_device,
            model.offload_device,
        )
        with self._lock:
            patcher = self._patchers.pop(key, None)
            if patcher is None:
                # Room first, so that the old and the new are not in memory together.
                sizes = [model_management.module_size(p.model) for p in self._patchers.values()]
                while sizes and (len(sizes) >= self.most or sum(sizes) > self.most_bytes):
                    self._patchers.popitem(last=False)
                    del sizes[0]
                side_path = _side_path(stack, shapes, model.model.get_dtype_inference())
                patcher = side_path.patcher(model.load_device, model.offload_device)
            self._patchers[key] = patcher
            return patcher


def _side_path(
    stack: Sequence[StackedLora], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype
) -> SidePath:
    if dtype not in (torch.bfloat16, torch.float16, torch.float32):
        dtype = torch.bfloat16
    steps: dict[str, list[tuple[int, Step]]] = {}
    for number, lora in enumerate(stack):
        for key, step in lora.steps:
            steps.setdefault(key, []).append((number, step))
    built = {key: build(members, shapes[key][1], dtype) for key, members in steps.items()}
    layouts = {key.removesuffix(".weight"): layout for key, (layout, _) in built.items()}
    return SidePath(layouts, [factors for _, factors in built.values()])

"""Side paths kept between runs, so that a moved slider builds and uploads nothing."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any

from ..parts import Part
from .model import weight_shapes
from .side_path import bytes_of, side_patcher


class SideStacks:
    """The last side paths, at most ``most`` and ``most_bytes`` together, by what they are made of.

    Holds factors and no model: which LoRAs, in which order, for weights of which shapes.
    """

    def __init__(self, most: int = 2, most_bytes: int = 2 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._patchers: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, model: Any, parts: Sequence[Part]) -> Any:
        """The patcher of the stack of ``parts`` for ``model``, whatever the parts' scales."""
        shapes = weight_shapes(model)
        key = (
            tuple(part.identity for part in parts),
            tuple(sorted(shapes.items())),
            model.model.get_dtype_inference(),
            model.load_device,
            model.offload_device,
        )
        with self._lock:
            patcher = self._patchers.pop(key, None)
            if patcher is None:
                self._make_room()
                patcher = side_patcher(model, parts, shapes)
            self._patchers[key] = patcher
            return patcher

    def _make_room(self) -> None:
        """Before the next is built, so that the old and the new are not in memory together."""
        while self._patchers and (
            len(self._patchers) >= self.most
            or sum(bytes_of(patcher) for patcher in self._patchers.values()) > self.most_bytes
        ):
            self._patchers.popitem(last=False)

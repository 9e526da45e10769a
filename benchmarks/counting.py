"""Counting what a computation does, the same on every machine."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_VIEWS = frozenset(
    "view slice detach expand narrow alias _unsafe_view _reshape_alias transpose t "
    "unsqueeze".split()
)


class Counter(TorchDispatchMode):
    """``ops`` on tensors of at least ``least`` elements and their ``bytes``, read and written; and
    ``peak``: the most bytes of new tensors alive at once, of any size."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.ops: list[str] = []
        self.bytes = self.peak = 0
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in args:
            if isinstance(given, torch.Tensor):
                self._known.add(given.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if isinstance(result, torch.Tensor):
            self._allocated(result.untyped_storage())
        tensors = [t for t in (*args, result) if isinstance(t, torch.Tensor)]
        large = [t for t in tensors if t.numel() >= self.least]
        if large and name not in _VIEWS and not name.startswith("empty"):
            self.ops.append(name)
            self.bytes += sum(t.numel() * t.element_size() for t in large)
        return result

    def _allocated(self, storage: Any) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._freed, place, size)

    def _freed(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._live -= size

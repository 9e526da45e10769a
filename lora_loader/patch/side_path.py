"""A stack computed beside the weights: y = Wx + B(Ax), with nothing of the model changed.

The factors are a small model of their own: the host loads, offloads, streams and counts them as it
does a control net. While the diffusion model runs, and only then, the modules that the stack
adapts are instances of a subclass that adds the stack's part to what the module, whatever it and
other packs make of it, returns. The scales are a tensor that each run sets: moving one touches no
weight, and under torch.compile it neither compiles again nor goes stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
import comfy.ops
import torch
from comfy import model_management
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..beside import Beside, build
from ..fuse import Step
from ..parts import Part
from .model import PatchError, attribute

KEY = "flux2_lora_edit"
_LAYERS = "_flux2_lora_edit_layers"


class SideLayer(nn.Module):
    """The stack's part of one weight: its factors, flat, in one weight that the host moves."""

    def __init__(self, layout: Beside, factors: Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.factors = comfy.ops.manual_cast.Linear(factors.numel(), 1, bias=False, device="meta")
        self.factors.weight = nn.Parameter(factors.view(1, -1), requires_grad=False)
        # By device: a view of the stack's gains. No buffer: the host would move and restore it.
        self.gains: dict[torch.device, Tensor] = {}

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """What the module returned for ``x``, with the stack's part added."""
        module = self.factors
        gains = self.gains[x.device]
        weight = module.weight
        if weight.device == x.device and weight.dtype == x.dtype and not hasattr(module, "_v"):
            return self.layout.add_to(y, x, weight.view(-1), gains)
        weight, _, stream = comfy.ops.cast_bias_weight(module, x, offloadable=True)
        result = self.layout.add_to(y, x, weight.view(-1), gains)
        comfy.ops.uncast_bias_weight(module, weight, None, stream)
        return result


class SideStack(nn.Module):
    """All layers of a stack, for the modules ``names`` of a model, whatever the scales."""

    def __init__(
        self,
        names: Sequence[str],
        layers: Sequence[SideLayer],
        coefficients: Tensor,
        parts: Tensor,
        token: object,
    ) -> None:
        """Gain n of all layers' gains, in a row, is coefficients[n] times the scale of parts[n].

        ``token`` is the same in every copy of this stack.
        """
        super().__init__()
        self.names = tuple(names)
        self.layers = tuple(layers)
        self.held = nn.ModuleList(layers)  # where the host finds their factors
        # Plain attributes: as buffers the host would move them.
        self.coefficients, self.parts, self.token = coefficients, parts, token
        self._gains: dict[torch.device, Tensor] = {}
        self._set: dict[torch.device, tuple[float, ...]] = {}
        self._classes: dict[type, type] = {}

    def set_scales(self, scales: tuple[float, ...], device: torch.device) -> None:
        """The scale of each part, for the forwards on ``device`` to come; a few numbers to copy."""
        if self._set.get(device) == scales:
            return
        gains = self.coefficients * torch.tensor(scales, dtype=torch.float64)[self.parts]
        if device in self._gains:
            # The same tensor: compiled code holds it.
            self._gains[device].copy_(gains)
        else:
            self._gains[device] = gains.to(device, torch.float32)
            at = 0
            for layer in self.layers:
                count = layer.layout.gains
                layer.gains[device] = self._gains[device].narrow(0, at, count)
                at += count
        self._set[device] = scales

    @contextmanager
    def beside(self, base: nn.Module) -> Iterator[None]:
        """``base`` (the host's BaseModel) with the stack beside its modules."""
        entered = []
        try:
            for name, layer in zip(self.names, self.layers, strict=True):
                module = _module(base, name)
                self._enter(module, layer)
                entered.append(module)
            yield
        finally:
            for module in reversed(entered):
                _leave(module)

    def _enter(self, module: nn.Module, layer: SideLayer) -> None:
        layers = module.__dict__.get(_LAYERS)
        if layers is None:
            kind = type(module)
            if kind not in self._classes:
                self._classes[kind] = _beside(kind)
            module.__class__ = self._classes[kind]
        module.__dict__[_LAYERS] = (*(layers or ()), layer)

    def twin(self) -> SideStack:
        """The same stack for another device: it shares the factors in memory, and nothing else."""
        layers = [
            SideLayer(layer.layout, layer.factors.weight.detach().view(-1)) for layer in self.layers
        ]
        return SideStack(self.names, layers, self.coefficients, self.parts, self.token)


def _beside(kind: type) -> type:
    """``kind`` with the layers' parts added to what it returns.

    ``__call__`` and not ``forward``, which others (the host's bypass loader) replace on the
    instance.
    """

    class WithSidePath(kind):
        def __call__(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            result = kind.__call__(self, input, *args, **kwargs)
            for layer in getattr(self, _LAYERS):
                result = layer.add_to(result, input)
            return result

    WithSidePath.__name__ = kind.__name__
    WithSidePath.__qualname__ = kind.__qualname__
    return WithSidePath


def _leave(module: nn.Module) -> None:
    layers = module.__dict__[_LAYERS][:-1]
    if layers:
        module.__dict__[_LAYERS] = layers
    else:
        del module.__dict__[_LAYERS]
        module.__class__ = type(module).__bases__[0]


def _module(base: nn.Module, name: str) -> nn.Module:
    module = attribute(base, name)
    if not isinstance(module, nn.Module):
        raise PatchError(
            f"The model has no module {name} any more: another node has replaced it. Put that node "
            "behind the LoRAs, or set mode to merge."
        )
    return module


class SidePath:
    """The wrapper of a MODEL: a stack and its scales round each run of the diffusion model."""

    def __init__(self, stack: SideStack, scales: tuple[float, ...]) -> None:
        self.stack = stack
        self.scales = scales

    def __call__(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        stack = self._on_the_same_device(executor.class_obj)
        stack.set_scales(self.scales, x.device)
        with stack.beside(executor.class_obj):
            return executor(x, *args, **kwargs)

    def _on_the_same_device(self, base: nn.Module) -> SideStack:
        """The stack, or its twin where ``base`` is a copy of the model on another GPU."""
        patcher = getattr(base, "current_patcher", None)
        if patcher is not None:
            for model in patcher.get_additional_models_with_key(KEY):
                if model.model.token is self.stack.token:
                    return model.model
        return self.stack


def side_patcher(model: Any, parts: Sequence[Part], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The host's patcher of a new SideStack for ``parts``, for the device of ``model``."""
    steps: dict[str, list[tuple[int, Step]]] = {}
    for number, part in enumerate(parts):
        for key, step in part.steps:
            steps.setdefault(key, []).append((number, step))
    dtype = _compute_dtype(model)
    built = {key: build(members, shapes[key][1], dtype) for key, members in steps.items()}
    stack = SideStack(
        [key.removesuffix(".weight") for key in built],
        [SideLayer(one.layout, one.factors) for one in built.values()],
        torch.tensor([c for one in built.values() for c in one.coefficients], dtype=torch.float64),
        torch.tensor([n for one in built.values() for n in one.parts], dtype=torch.int64),
        object(),
    )
    return _patcher_of(stack, model.load_device, model.offload_device)


def _patcher_of(stack: SideStack, load_device: torch.device, offload_device: torch.device) -> Any:
    patcher = comfy.model_patcher.CoreModelPatcher(
        stack, load_device=load_device, offload_device=offload_device
    )
    # How the host makes a copy for another GPU.
    patcher.cached_patcher_init = (_copy, (stack, load_device, offload_device))
    return patcher


def _copy(
    stack: SideStack,
    load_device: torch.device,
    offload_device: torch.device,
    disable_dynamic: bool = False,
) -> Any:
    return _patcher_of(stack.twin(), load_device, offload_device)


def _compute_dtype(model: Any) -> torch.dtype:
    dtype = model.model.get_dtype_inference()
    known = (torch.bfloat16, torch.float16, torch.float32)
    return dtype if dtype in known else torch.bfloat16


def put_beside(model: Any, patcher: Any, scales: tuple[float, ...]) -> Any:
    """A clone of ``model`` that runs with the stack of ``patcher`` beside it."""
    clone = model.clone()
    own = patcher.clone()
    clone.set_additional_models(KEY, [*clone.get_additional_models_with_key(KEY), own])
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, SidePath(own.model, scales))
    return clone


def modules_of(model: Any, keys: Sequence[str]) -> frozenset[str]:
    """Those of the weights ``keys`` that belong to a module which multiplies by them."""
    found = set()
    for key in keys:
        name, _, leaf = key.rpartition(".")
        module = attribute(model.model, name)
        width = getattr(module, "in_features", None)
        if leaf == "weight" and isinstance(module, nn.Module) and width is not None:
            found.add(key)
    return frozenset(found)


def bytes_of(patcher: Any) -> int:
    """The size of a stack's factors."""
    return int(model_management.module_size(patcher.model))

"""A stack computed beside the weights: y = Wx + B(Ax), with nothing of the model changed.

The factors are a small model of their own: the host loads, offloads, streams and counts them as it
does a control net. While the MODEL is loaded, and only then, the modules that the stack adapts are
instances of a subclass that adds what the stack makes of their input to what the module, whatever
it and other packs make of it, returns. The scales are a tensor that each run sets: moving one
touches no weight, and under torch.compile it neither compiles again nor goes stale. Side paths are
kept between runs, so that a moved slider builds and uploads nothing.

A sampler that goes through the host's ``apply_model`` hands over the MODEL's wrappers, and these
say what is beside the modules in that run. One that runs the diffusion model, or its blocks, by
itself says nothing: there it is the MODEL that the host has loaded.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import comfy.model_patcher
import comfy.ops
import torch
from comfy import model_management
from comfy.patcher_extension import PatcherInjection, WrappersMP
from comfy_execution.utils import get_executing_context
from torch import Tensor, nn

from ..beside import Beside, build
from ..fuse import StackedLora, Step
from .merge import PatchError

KEY = "flux2_lora_edit"
_LAYERS = "_flux2_lora_edit_layers"

Watch = Callable[[Callable[[bool], bool]], None]
"""Calls what it is given once the running prompt has ended, with whether it has ended well. True:
nothing has run the loaded side path."""


class SideLayer(nn.Module):
    """What is beside one weight: its factors, flat, in one weight that the host moves."""

    def __init__(self, layout: Beside, factors: Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.factors = comfy.ops.manual_cast.Linear(factors.numel(), 1, bias=False, device="meta")
        self.factors.weight = nn.Parameter(factors.view(1, -1), requires_grad=False)
        # By device: a view of the side path's gains. No buffer: the host would move and restore it.
        self.gains: dict[torch.device, Tensor] = {}

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """What the module returned for ``x``, with what the stack makes of ``x`` added."""
        module = self.factors
        gains = self.gains[x.device]
        weight = module.weight
        if weight.device == x.device and weight.dtype == x.dtype and not hasattr(module, "_v"):
            return self.layout.add_to(y, x, weight.view(-1), gains)
        weight, _, stream = comfy.ops.cast_bias_weight(module, x, offloadable=True)
        result = self.layout.add_to(y, x, weight.view(-1), gains)
        comfy.ops.uncast_bias_weight(module, weight, None, stream)
        return result


class SidePath(nn.Module):
    """All layers of a stack, for the modules of a model, whatever the LoRAs' scales."""

    def __init__(self, layouts: Mapping[str, Beside], factors: Sequence[Tensor]) -> None:
        """Module name -> layout; ``factors`` in the same order. Copies share ``layouts``, and are
        known by it."""
        super().__init__()
        self.layouts = layouts
        self.layers = tuple(map(SideLayer, layouts.values(), factors))
        self.held = nn.ModuleList(self.layers)  # where the host finds their factors
        # Plain attributes: as buffers the host would move them.
        self._gains: dict[torch.device, Tensor] = {}
        self._scales: dict[torch.device, tuple[float, ...]] = {}
        self.runs = 0
        self.watched = ""  # in which prompt
        self._classes: dict[type, type] = {}

    def patcher(self, load_device: torch.device, offload_device: torch.device) -> Any:
        """The host's patcher of it, which can make a copy for another GPU."""
        patcher = comfy.model_patcher.CoreModelPatcher(
            self, load_device=load_device, offload_device=offload_device
        )
        patcher.cached_patcher_init = (self._copy, (load_device, offload_device))
        return patcher

    def _copy(self, *devices: torch.device, disable_dynamic: bool = False) -> Any:
        """The patcher of another that shares the factors in memory, and nothing else."""
        factors = [layer.factors.weight.detach().view(-1) for layer in self.layers]
        return SidePath(self.layouts, factors).patcher(*devices)

    def set_scales(self, scales: tuple[float, ...], device: torch.device) -> None:
        """The scale of each LoRA, for the forwards on ``device`` to come; a few numbers to copy."""
        if self._scales.get(device) == scales:
            return
        layouts = self.layouts.values()
        values = [gain.coefficient * scales[gain.lora] for one in layouts for gain in one.gains]
        # A tensor of inference mode could not be changed by a run outside of it.
        with torch.inference_mode(False):
            gains = torch.tensor(values, dtype=torch.float32, device=device)
        if device in self._gains:
            # The same tensor: compiled code holds it.
            self._gains[device].copy_(gains)
        else:
            self._gains[device] = gains
            counts = [len(one.gains) for one in layouts]
            for layer, own in zip(self.layers, gains.split(counts), strict=True):
                layer.gains[device] = own
        self._scales[device] = scales

    def of(self, patcher: Any) -> "SidePath":
        """The copy of this that the host's ``patcher`` has for its GPU; or this."""
        mine = self
        for other in patcher.get_additional_models_with_key(KEY) if patcher is not None else ():
            if other.model.layouts is self.layouts:
                mine = other.model
        return mine

    def run(
        self, scales: tuple[float, ...], executor: Any, x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """The host's wrapper round a run of the diffusion model: ``beside`` it, at ``scales``.

        The innermost of all: the host's compile wrapper, which a node behind the LoRAs adds, puts
        compiled modules into the model, perhaps for the very ones that the stack adapts.
        """
        inside = [*executor.wrappers[executor.idx + 1 :], partial(self.beside, scales)]
        moved = type(executor)(executor.original, executor.class_obj, inside, 0)
        return moved.execute(x, *args, **kwargs)

    def beside(
        self, scales: tuple[float, ...], executor: Any, x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """A run of the diffusion model with the layers beside its modules.

        Raises PatchError where the model has one of them no more.
        """
        base = executor.class_obj
        path = self.of(getattr(base, "current_patcher", None))
        path.set_scales(scales, x.device)
        path.runs += 1
        with ExitStack() as leaving:
            for name, layer in zip(path.layouts, path.layers, strict=True):
                module = _module(base, name)
                if module is None:
                    raise PatchError(
                        f"The model has no module {name} any more: another node has replaced it. "
                        "Put that node behind the LoRAs, or set mode to merge."
                    )
                # Of this run alone: what is beside the module while a MODEL is loaded waits.
                compiled = getattr(module, "_orig_mod", None)
                if compiled is not None:
                    leaving.callback(path._put, compiled, path._put(compiled, ()))
                others = [one for one in _layers(module) if isinstance(one, SideLayer)]
                leaving.callback(path._put, module, path._put(module, (*others, layer)))
            return executor(x, *args, **kwargs)

    def inject(self, scales: tuple[float, ...], watch: Watch | None, patcher: Any) -> None:
        """The host has loaded ``patcher``: beside its modules for who runs them by himself."""
        path, owner = self.of(patcher), weakref.ref(patcher)
        for name, layer in zip(path.layouts, path.layers, strict=True):
            module = _module(patcher.model, name)
            if module is not None:  # else ``run`` says so
                path._put(module, (*_layers(module), Loaded(owner, path, scales, layer)))
        context = get_executing_context()
        if watch is not None and context is not None and context.prompt_id != path.watched:
            path.watched, runs = context.prompt_id, path.runs
            watch(lambda well: well and path.runs == runs)

    def eject(self, patcher: Any) -> None:
        """The host unloads ``patcher``, or loads it anew: nothing of it stays with the modules."""
        for name in self.layouts:
            module = _module(patcher.model, name)
            if module is not None and (layers := _layers(module)):
                loaded = [one for one in layers if isinstance(one, Loaded)]
                # A MODEL that is collected with a cycle is known by its weak references no more.
                gone = [one for one in loaded if one.patcher() in (patcher, None)]
                self._put(module, tuple(one for one in layers if one not in gone))

    def _put(self, module: nn.Module, layers: tuple[Any, ...]) -> tuple[Any, ...]:
        """Exactly these beside ``module``; returns those before. With none its class is its own."""
        before: tuple[Any, ...] = module.__dict__.pop(_LAYERS, ())
        kind = type(module)
        if layers and not before:
            if kind not in self._classes:
                self._classes[kind] = _beside(kind)
            module.__class__ = self._classes[kind]
        elif before and not layers:
            module.__class__ = kind.__bases__[0]
        if layers:
            module.__dict__[_LAYERS] = layers
        return before


@dataclass(frozen=True, eq=False)
class Loaded:
    """A layer beside its module while the host has ``patcher`` loaded, for who runs the modules by
    himself; ``apply_model`` puts its own in the place of these.

    The host injects more than it loads (a clone of a loaded MODEL passes for injected, and is when
    it gets patches), and may load two MODELs of the same modules at once: then none of them is
    meant.
    """

    patcher: weakref.ref[Any]
    path: SidePath
    scales: tuple[float, ...]
    layer: SideLayer

    @torch.compiler.disable
    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """As a layer's; ``y`` as it is where another MODEL is loaded. Not a part of compiled code:
        which MODEL is loaded is asked at each call."""
        patcher = self.patcher()
        for other in model_management.loaded_models():
            if patcher is None or (other is not patcher and patcher.is_clone(other)):
                return y
        self.path.set_scales(self.scales, x.device)
        self.path.runs += 1
        return self.layer.add_to(y, x)


def _module(base: nn.Module, name: str) -> Any:
    """The module of that name, or torch.compile's wrapper of it alone, which is what is called; or
    None."""
    try:
        return base.get_submodule(name)
    except AttributeError:
        return None


def _layers(module: nn.Module) -> tuple[Any, ...]:
    found: tuple[Any, ...] = module.__dict__.get(_LAYERS, ())
    return found


def _beside(kind: type) -> type:
    """``kind`` with its layers' results added to what it returns.

    ``__call__`` and not ``forward``, which others (the host's bypass loader) replace on the
    instance.
    """

    class WithSidePath(kind):
        def __call__(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            result = kind.__call__(self, input, *args, **kwargs)
            # None where compiled code has bound this method, and its own layers are round it.
            for layer in getattr(self, _LAYERS, ()):
                result = layer.add_to(result, input)
            return result

    WithSidePath.__name__ = kind.__name__
    WithSidePath.__qualname__ = kind.__qualname__
    return WithSidePath


def put_beside(
    model: Any, patcher: Any, scales: tuple[float, ...], watch: Watch | None = None
) -> Any:
    """A clone of ``model`` that runs with the side path of ``patcher`` beside it, at ``scales``.

    ``watch`` is asked, at most once a prompt, to look whether it has run.
    """
    clone = model.clone()
    own = patcher.clone()
    path = own.model
    clone.set_additional_models(KEY, [*clone.get_additional_models_with_key(KEY), own])
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, partial(SidePath.run, path, scales))
    injection = PatcherInjection(partial(path.inject, scales, watch), path.eject)
    clone.set_injections(KEY, [*(clone.get_injections(KEY) or ()), injection])
    return clone


class SidePathCache:
    """The last side paths, at most ``most`` and ``most_bytes`` together, by what they are made of.

    Holds factors and no model: which LoRAs, in which order, for weights of which shapes.
    """

    def __init__(self, most: int = 2, most_bytes: int = 2 * 2**30) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._patchers: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(
        self, model: Any, shapes: Mapping[str, tuple[int, ...]], stack: Sequence[StackedLora]
    ) -> Any:
        """The host's patcher of the side path of ``stack`` for ``model`` with weights of these
        ``shapes``, whatever the scales."""
        dtype = model.model.get_dtype_inference()
        key = (
            tuple(lora.identity for lora in stack),
            # On top of itself a stack has other scales, and a side path has one set of them.
            len(model.get_additional_models_with_key(KEY)),
            tuple(sorted(shapes.items())),
            dtype,
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
                side_path = _built(stack, dtype)
                patcher = side_path.patcher(model.load_device, model.offload_device)
            self._patchers[key] = patcher
            return patcher


def _built(stack: Sequence[StackedLora], dtype: torch.dtype) -> SidePath:
    if dtype not in (torch.bfloat16, torch.float16, torch.float32):
        dtype = torch.bfloat16
    steps: dict[str, list[tuple[int, Step]]] = {}
    for number, lora in enumerate(stack):
        for key, step in lora.steps:
            steps.setdefault(key.removesuffix(".weight"), []).append((number, step))
    built = {name: build(members, dtype) for name, members in steps.items()}
    layouts = {name: layout for name, (layout, _) in built.items()}
    return SidePath(layouts, [factors for _, factors in built.values()])

"""A stack computed beside the weights: y = Wx + B(Ax), with nothing of the model changed.

The factors are a small model of their own: the host loads, offloads, streams and counts them as it
does a control net. While the MODEL is loaded, and only then, the modules that the stack adapts are
instances of a subclass that adds what the stack makes of their input to what the module, whatever
it and other packs make of it, returns. The scales are a tensor that each run sets: moving one
touches no weight, and under torch.compile it neither compiles again nor goes stale. So a scale may
be another at each step, for each picture of a batch, and for each token (``modifiers.weights``).
Side paths are kept between runs, so that a moved slider builds and uploads nothing.

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
from types import MappingProxyType
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.ops
import torch
from comfy import model_management
from comfy.patcher_extension import PatcherInjection, WrappersMP
from comfy_execution.utils import get_executing_context
from torch import Tensor, nn

from ..beside import Beside, build
from ..fuse import StackedLora, Step
from ..modifiers.region import IMAGE, JOINT, NONE, TEXT, stream_of
from ..modifiers.text import ModifierError
from ..modifiers.weights import Forward, Kept, Weights
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
        # By device: a view of the side path's gains, (numbers,) or (rows, numbers); which LoRA each
        # is of; and the multipliers of the tokens that the layer sees, or nothing.
        # No buffers: the host would move and restore them.
        self.gains: dict[torch.device, Tensor] = {}
        self.parts: dict[torch.device, Tensor] = {}
        self.tokens: dict[torch.device, Tensor] = {}
        self.references = 0  # of those tokens, the last

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """What the module returned for ``x``, with what the stack makes of ``x`` added."""
        module = self.factors
        gains = self.gains[x.device]
        if gains.dim() > 1 or self.tokens:
            gains = self._for_each(gains, x)
        weight = module.weight
        if weight.device == x.device and weight.dtype == x.dtype and not hasattr(module, "_v"):
            return self.layout.add_to(y, x, weight.view(-1), gains)
        weight, _, stream = comfy.ops.cast_bias_weight(module, x, offloadable=True)
        result = self.layout.add_to(y, x, weight.view(-1), gains)
        comfy.ops.uncast_bias_weight(module, weight, None, stream)
        return result

    def _for_each(self, gains: Tensor, x: Tensor) -> Tensor:
        """The gains for each row and token of ``x`` (rows, channels) or (rows, tokens, channels).

        Raises ModifierError for tokens that nobody told of.
        """
        gains = (gains if gains.dim() > 1 else gains.unsqueeze(0)).unsqueeze(1)
        tokens = self.tokens.get(x.device)
        if tokens is not None:
            # The KV cache leaves out the references, which are the last.
            if tokens.shape[1] > 1 and tokens.shape[1] - x.shape[1] not in (0, self.references):
                raise ModifierError(
                    "Another node adds tokens of its own to the model's, or merges them, and a "
                    "LoRA region cannot tell where they lie. Take that node out, or FLUX.2 LoRA "
                    "Region."
                )
            seen = tokens if tokens.shape[1] == 1 else tokens.narrow(1, 0, x.shape[1])
            gains = gains * seen.index_select(-1, self.parts[x.device])
        if 1 < gains.shape[0] < x.shape[0]:  # timestep zero doubles the rows
            gains = gains.repeat(x.shape[0] // gains.shape[0], 1, 1)
        return gains if x.dim() > 2 else gains.squeeze(1)


class Strengths(NamedTuple):
    """The LoRAs' scales, and what multiplies them in each run."""

    scales: tuple[float, ...]
    weights: Weights | None = None


class SidePath(nn.Module):
    """All layers of a stack, for the modules of a model, whatever the LoRAs' scales."""

    def __init__(self, layouts: Mapping[str, Beside], factors: Sequence[Tensor]) -> None:
        """Module name -> layout; ``factors`` in the same order. Copies share ``layouts``, and are
        known by it."""
        super().__init__()
        self.layouts = layouts
        self.layers = tuple(map(SideLayer, layouts.values(), factors))
        self.streams = tuple(map(stream_of, layouts))  # of each layer
        self.held = nn.ModuleList(self.layers)  # where the host finds their factors
        # Plain attributes: as buffers the host would move them.
        self._gains: dict[torch.device, Tensor] = {}
        self._scales: dict[torch.device, tuple[float, ...] | None] = {}
        self._tokens: dict[tuple[torch.device, str], Tensor] = {}
        self._kept: tuple[Strengths | None, Kept] = None, {}
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

    def set_gains(
        self, strengths: Strengths, device: torch.device, run: Forward | None = None
    ) -> None:
        """The gains for the forwards on ``device`` to come, in the tensors that compiled code
        holds; ``run`` where they depend on it. Raises ModifierError."""
        scales, weights = strengths
        if run is None and self._scales.get(device) == scales:
            return
        if self._kept[0] is not strengths:
            self._kept = strengths, {}
        kept = self._kept[1]
        gains, parts = self._numbers(scales, device, kept)
        tokens: Mapping[str, Tensor] = {}
        if run is not None and weights is not None:
            rows = weights.rows(run, kept)
            if rows is not None:
                gains = gains * rows.squeeze(0).index_select(-1, parts)
            tokens = weights.tokens(run, kept)
        counts = [len(one.gains) for one in self.layouts.values()]
        if _copied(self._gains, device, gains):
            own = self._gains[device].split(counts, -1), parts.split(counts)
            for layer, *views in zip(self.layers, *own, strict=True):
                layer.gains[device], layer.parts[device] = views
        if tokens or self._tokens:
            self._set_tokens(tokens, device, run.references if run else 0)
        self._scales[device] = scales if run is None else None

    def _numbers(
        self, scales: tuple[float, ...], device: torch.device, kept: Kept
    ) -> tuple[Tensor, Tensor]:
        """The gains at these scales, and of which LoRA each is."""
        if (device, scales) not in kept:
            every = [gain for one in self.layouts.values() for gain in one.gains]
            values = [gain.coefficient * scales[gain.lora] for gain in every]
            kept[device, scales] = torch.tensor(values, dtype=torch.float32, device=device)
            kept[device] = torch.tensor([gain.lora for gain in every], device=device)
        return kept[device, scales], kept[device]

    def _set_tokens(
        self, tokens: Mapping[str, Tensor], device: torch.device, references: int
    ) -> None:
        """The tokens' multipliers by stream, for the layers that see it; or no more."""
        for stream in (IMAGE, TEXT, JOINT, NONE):
            if stream not in tokens:
                self._tokens.pop((device, stream), None)
            else:
                _copied(self._tokens, (device, stream), tokens[stream])
        for stream, layer in zip(self.streams, self.layers, strict=True):
            found, layer.references = self._tokens.get((device, stream)), references
            if found is None:
                layer.tokens.pop(device, None)
            else:
                layer.tokens[device] = found

    def of(self, patcher: Any) -> "SidePath":
        """The copy of this that the host's ``patcher`` has for its GPU; or this."""
        mine = self
        for other in patcher.get_additional_models_with_key(KEY) if patcher is not None else ():
            if other.model.layouts is self.layouts:
                mine = other.model
        return mine

    def run(self, strengths: Strengths, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The host's wrapper round a run of the diffusion model: ``beside`` it, at ``strengths``.

        The innermost of all: the host's compile wrapper, which a node behind the LoRAs adds, puts
        compiled modules into the model, perhaps for the very ones that the stack adapts.
        """
        inside = [*executor.wrappers[executor.idx + 1 :], partial(self.beside, strengths)]
        moved = type(executor)(executor.original, executor.class_obj, inside, 0)
        return moved.execute(x, *args, **kwargs)

    def beside(
        self, strengths: Strengths, executor: Any, x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """A run of the diffusion model with the layers beside its modules.

        Raises PatchError where the model has one of them no more, ModifierError.
        """
        base = executor.class_obj
        path = self.of(getattr(base, "current_patcher", None))
        told = _told(base, x, *args, **kwargs) if strengths.weights else None
        path.set_gains(strengths, x.device, told)
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

    def inject(self, strengths: Strengths, watch: Watch | None, patcher: Any) -> None:
        """The host has loaded ``patcher``: beside its modules for who runs them by himself."""
        path, owner = self.of(patcher), weakref.ref(patcher)
        for name, layer in zip(path.layouts, path.layers, strict=True):
            module = _module(patcher.model, name)
            if module is not None:  # else ``run`` says so
                path._put(module, (*_layers(module), Loaded(owner, path, strengths, layer)))
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
    strengths: Strengths
    layer: SideLayer

    @torch.compiler.disable
    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """As a layer's; ``y`` as it is where another MODEL is loaded. Not a part of compiled code:
        which MODEL is loaded is asked at each call."""
        patcher = self.patcher()
        for other in model_management.loaded_models():
            if patcher is None or (other is not patcher and patcher.is_clone(other)):
                return y
        if self.strengths.weights:
            raise PatchError(
                "A LoRA of this model has a schedule or a region, and this sampler runs the parts "
                "of the model by itself, so that nothing tells of steps and tokens. Use FLUX.2 "
                "Edit Sampler or another that samples through ComfyUI, or take the two out."
            )
        self.path.set_gains(self.strengths, x.device)
        self.path.runs += 1
        return self.layer.add_to(y, x)


def _copied(tensors: dict[Any, Tensor], key: Hashable, values: Tensor) -> bool:
    """Puts ``values`` into the tensor of ``key``, or into a new one where its shape is another;
    whether it is new."""
    known = tensors.get(key)
    new = known is None or known.shape != values.shape
    if new:
        # A tensor of inference mode could not be changed by a run outside of it.
        with torch.inference_mode(False):
            tensors[key] = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    tensors[key].copy_(values)
    return new


def _tell_noise(
    executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any
) -> Any:
    """The host's wrapper round a step: tells the runs in it what is sampled as a whole."""
    options = {**model_options.get("transformer_options", {}), KEY: tuple(x.shape)}
    return executor(x, timestep, {**model_options, "transformer_options": options}, *args)


def _told(
    base: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
    control: Any = None, transformer_options: Mapping[str, Any] = MappingProxyType({}),
    **extra: Any,
) -> Forward:  # fmt: skip
    """What the arguments of the host's ``apply_model`` tell of a run."""
    cells = [one.shape[-2] * one.shape[-1] for one in extra.get("ref_latents") or ()]
    return Forward(
        sigma=t[:1].float(),
        sigmas=transformer_options.get("sample_sigmas"),
        rows=x.shape[0],
        chunks=max(len(transformer_options.get("cond_or_uncond", ())), 1),
        cells=(x.shape[-2], x.shape[-1]),
        text=0 if c_crossattn is None else c_crossattn.shape[1],
        references=sum(cells),
        noise=transformer_options.get(KEY),
        percent_to_sigma=base.model_sampling.percent_to_sigma,
    )


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


def put_beside(model: Any, patcher: Any, strengths: Strengths, watch: Watch | None = None) -> Any:
    """A clone of ``model`` that runs with the side path of ``patcher`` beside it, at ``strengths``.

    ``watch`` is asked, at most once a prompt, to look whether it has run.
    """
    clone = model.clone()
    own = patcher.clone()
    path = own.model
    clone.set_additional_models(KEY, [*clone.get_additional_models_with_key(KEY), own])
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, partial(SidePath.run, path, strengths))
    if strengths.weights:
        clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, _tell_noise)
    injection = PatcherInjection(partial(path.inject, strengths, watch), path.eject)
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

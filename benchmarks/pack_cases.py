"""What ``packs.py`` tries: for each pack, graphs with this pack in them, and what they must equal.

The truth is ComfyUI's own LoRA loader in a graph without the other pack; behind another pack's
loader or sampler, ComfyUI's LoRA loader in the same graph.
"""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pack_host import Build, Host, Run

from host.demo.graph import installed
from host.graph import Graph, Output, Ref
from host.stock import sampled

Model = Ref | Output
Change = Callable[[Graph, Model], Model]
"""Adds a node that takes a MODEL and gives one."""
Step = Callable[[Host], Run | None]

CORE = "ComfyUI"
ALL = "all of them at once"
UNET = "flux2-klein-tiny.safetensors"
LORAS = ("ai-toolkit.safetensors", "kohya.safetensors")
SCALES = (0.8, 0.5)
HUB_FILE, HUB_REPO = "flux2-lora-edit/somebody--sketch/sketch.safetensors", "somebody/sketch"
MANAGER_SCAN = "/api/lm/loras/scan?full_rebuild=true"
"""LoRA Manager reads its folders when it is asked to: its page's Refresh."""
SIZE = {"width": 64, "height": 64}
ALLOWED = 1e-3


class Case(NamedTuple):
    """``steps`` run one after another where the pack is installed; the last gives the latent.

    ``truth`` and ``plain`` (the truth without LoRAs) run without the pack, or with it if
    ``beside``. The error is the difference as a share of what the LoRAs do; without a ``plain``
    the latents must be the same to the bit. ``alike`` is the case with ComfyUI's own LoRA loader in
    our place, to tell our faults from the pack's. ``before`` makes what the truth needs.
    """

    pack: str
    name: str
    steps: tuple[Step, ...]
    truth: Build
    plain: Build | None
    beside: bool = False
    alike: Build | None = None
    before: Step | None = None
    allowed: float = ALLOWED


def loaded(graph: Graph, name: str = UNET) -> Model:
    return graph.add("UNETLoader", unet_name=name, weight_dtype="default")


def clip(graph: Graph) -> Ref:
    return graph.add("CLIPLoader", clip_name="clip-l-random.safetensors", type="flux2")


def words(graph: Graph, text: str = "a cat") -> Ref:
    return graph.add("CLIPTextEncode", clip=clip(graph), text=text)


def vae(graph: Graph) -> Ref:
    return graph.add("VAELoader", vae_name="taef2")


def picture(graph: Graph, name: str = "astronaut.png") -> Ref:
    image = graph.add("LoadImage", image=name)
    return graph.add("ImageScale", image=image, upscale_method="area", crop="center", **SIZE)


def empty(graph: Graph) -> Ref:
    return graph.add("EmptyFlux2LatentImage", batch_size=1, **SIZE)


def sample(graph: Graph, model: Model, steps: int = 2) -> Ref:
    return sampled(graph, model, words(graph), empty(graph), steps=steps, seed=3, **SIZE)


def stock_loras(graph: Graph, model: Model, scales: tuple[float, ...] = SCALES) -> Model:
    for name, scale in zip(LORAS, scales, strict=False):
        inputs = {"model": model, "lora_name": name, "strength_model": scale}
        model = graph.add("LoraLoaderModelOnly", **inputs)
    return model


def stack(graph: Graph, scales: tuple[float, ...] = SCALES) -> Ref:
    return graph.add("Flux2EditLoraStack", **installed(zip(LORAS, scales, strict=False)))


def apply(graph: Graph, model: Model, loras: Model, mode: str = "auto") -> Ref:
    inputs = {"model": model, "lora_stack": loras, "mode": mode, "on_mismatch": "error"}
    return graph.add("Flux2EditApplyLoraStack", **inputs)


def our_loras(
    graph: Graph, model: Model, scales: tuple[float, ...] = SCALES, mode: str = "auto"
) -> Model:
    return apply(graph, model, stack(graph, scales), mode)


def same(graph: Graph, model: Model) -> Model:
    return model


def drawn(
    load: Callable[[Graph], Model] = loaded,
    before: Change = same,
    loras: Change = same,
    after: Change = same,
    draw: Callable[[Graph, Model], Ref] = sample,
) -> Build:
    """Loader, something before the LoRAs, the LoRAs, something after them, and a sampler."""
    return lambda graph: draw(graph, after(graph, loras(graph, before(graph, load(graph)))))


TRUTH, PLAIN = drawn(loras=stock_loras), drawn()


def ran(build: Build) -> Step:
    return lambda host: host.run(build)


def node(kind: str, /, *, into: str = "model", **inputs: Any) -> Change:
    """A node of this class, with these inputs besides the MODEL."""
    return lambda graph, model: graph.add(kind, **{into: model}, **inputs)


# LORA_STACK of other packs


def efficiency(graph: Graph) -> Model:
    inputs: dict[str, Any] = {"input_mode": "simple", "lora_count": len(LORAS)}
    for number in range(1, 51):
        name, scale = _numbered(number)
        inputs |= {f"lora_name_{number}": name, f"lora_wt_{number}": scale}
        inputs |= {f"model_str_{number}": scale, f"clip_str_{number}": scale}
    return graph.add("LoRA Stacker", **inputs)


def comfyroll(graph: Graph) -> Model:
    inputs: dict[str, Any] = {}
    for number in (1, 2, 3):
        name, scale = _numbered(number)
        inputs |= {f"switch_{number}": "On", f"lora_name_{number}": name}
        inputs |= {f"model_weight_{number}": scale, f"clip_weight_{number}": scale}
    return graph.add("CR LoRA Stack", **inputs)


def _counted(graph: Graph, kind: str, output: int, **more: Any) -> Model:
    inputs: dict[str, Any] = {"toggle": True, "mode": "simple", "num_loras": len(LORAS)}
    for number in range(1, len(LORAS) + 1):
        name, scale = _numbered(number)
        inputs |= {f"lora_{number}_name": name, f"lora_{number}_strength": scale}
    return graph.add(kind, **inputs, **more).out(output)


def easy_use(graph: Graph) -> Model:
    return _counted(graph, "easy loraStack", 0)


def tinyterra(graph: Graph) -> Model:
    return _counted(graph, "ttN pipeLoraStack", 1)


def manager_widget(names: tuple[str, ...] = LORAS, scales: tuple[float, ...] = SCALES) -> Any:
    pairs = zip(names, scales, strict=True)
    rows = [
        {"name": Path(name).stem, "strength": scale, "clipStrength": scale, "active": True}
        for name, scale in pairs
    ]
    return {"__value__": rows}


def lora_manager(graph: Graph, names: tuple[str, ...] = LORAS) -> Model:
    return graph.add("Lora Stacker (LoraManager)", text="", loras=manager_widget(names))


def _numbered(number: int) -> tuple[str, float]:
    return (LORAS[number - 1], SCALES[number - 1]) if number <= len(LORAS) else ("None", 1.0)


STACKERS: Mapping[str, tuple[str, Callable[[Graph], Model]]] = {
    "willmiao/ComfyUI-Lora-Manager": ("Lora Stacker", lora_manager),
    "jags111/efficiency-nodes-comfyui": ("LoRA Stacker", efficiency),
    "Suzie1/ComfyUI_Comfyroll_CustomNodes": ("CR LoRA Stack", comfyroll),
    "yolain/ComfyUI-Easy-Use": ("easy loraStack", easy_use),
    "TinyTerra/ComfyUI_tinyterraNodes": ("ttN pipeLoraStack", tinyterra),
}


# Appliers of other packs


def comfyroll_applies(graph: Graph, model: Model, loras: Model) -> Model:
    return graph.add("CR Apply LoRA Stack", model=model, clip=clip(graph), lora_stack=loras)


def easy_use_applies(graph: Graph, model: Model, loras: Model) -> Model:
    return graph.add("easy loraStackApply", model=model, lora_stack=loras)


def manager_applies(graph: Graph, model: Model, loras: Model) -> Model:
    inputs = {"model": model, "lora_stack": loras, "text": "", "loras": manager_widget((), ())}
    return graph.add("Lora Loader (LoraManager)", **inputs)


Applier = Callable[[Graph, Model, Model], Model]
APPLIERS: Mapping[str, tuple[str, Applier]] = {
    "willmiao/ComfyUI-Lora-Manager": ("Lora Loader", manager_applies),
    "Suzie1/ComfyUI_Comfyroll_CustomNodes": ("CR Apply LoRA Stack", comfyroll_applies),
    "yolain/ComfyUI-Easy-Use": ("easy loraStackApply", easy_use_applies),
}


def stacks() -> list[Case]:
    cases = []
    for pack, (name, stacker) in STACKERS.items():

        def theirs(graph: Graph, model: Model, stacker: Any = stacker) -> Model:
            return apply(graph, model, stacker(graph))

        cases.append(_loras(pack, f"LORA_STACK of {name} into our Apply", theirs))

        def chained(graph: Graph, model: Model, stacker: Any = stacker) -> Model:
            none = installed([])
            return apply(
                graph, model, graph.add("Flux2EditLoraStack", lora_stack=stacker(graph), **none)
            )

        cases.append(_loras(pack, f"LORA_STACK of {name} through our LoRA Stack", chained))
    for pack, (name, applier) in APPLIERS.items():

        def ours(graph: Graph, model: Model, applier: Any = applier) -> Model:
            return applier(graph, model, stack(graph))

        cases.append(_loras(pack, f"our LoRA Stack into {name}", ours))
        cases += [
            hub_entry(pack, f"a hub entry that is on disk into {name}", applier, True),
            hub_entry(pack, f"a hub entry that is not on disk into {name}", applier, False),
        ]
    return [*cases, *absolute_paths()]


def _loras(pack: str, name: str, loras: Change) -> Case:
    return Case(pack, name, (ran(drawn(loras=loras)),), TRUTH, PLAIN)


def hub_entry(pack: str, name: str, applier: Applier, on_disk: bool) -> Case:
    """A LoRA of a repository, straight into another pack's applier."""
    one = (SCALES[0],)

    def placed(host: Host) -> None:
        file = host.models / "loras" / HUB_FILE
        file.unlink(missing_ok=True)
        if on_disk:
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(host.models / "loras" / LORAS[0], file)
        if applier is manager_applies:
            host.client.get(MANAGER_SCAN)

    def ours(graph: Graph, model: Model) -> Model:
        slot = {"lora_1": "hugging face", "lora_1.repo": HUB_REPO}
        slot |= {"lora_1.scale": one[0], "lora_1.enabled": True}
        none = {"lora_2": "none", "lora_3": "none"}
        return applier(graph, model, graph.add("Flux2EditLoraStack", **slot, **none))

    truth = drawn(loras=partial(stock_loras, scales=one))
    return Case(pack, name, (placed, ran(drawn(loras=ours))), truth, PLAIN)


def absolute_paths() -> list[Case]:
    """LoRA Manager's entries for a LoRA that ComfyUI knows by another path than it does."""
    pack = "willmiao/ComfyUI-Lora-Manager"
    one, linked_name = SCALES[:1], "linked-sketch.safetensors"
    truth = drawn(loras=partial(stock_loras, scales=one))

    def theirs(graph: Graph, model: Model, name: str = LORAS[0]) -> Model:
        made = graph.add("Lora Stacker (LoraManager)", text="", loras=manager_widget((name,), one))
        return apply(graph, model, made)

    def linked(host: Host) -> None:
        elsewhere = host.base / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        shutil.copyfile(host.models / "loras" / LORAS[0], elsewhere / linked_name)
        (host.models / "loras" / "linked").symlink_to(elsewhere, target_is_directory=True)
        host.client.get(MANAGER_SCAN)

    def moved(host: Host) -> None:
        """It remembers the paths of an earlier start; this one goes by another name."""
        link = host.base.with_name(f"{host.base.name}-link")
        link.symlink_to(host.base, target_is_directory=True)
        host.reopen(link)
        host.client.get(MANAGER_SCAN)
        host.reopen(host.base)

    here = (linked, ran(drawn(loras=partial(theirs, name=linked_name))))
    there = (moved, ran(drawn(loras=theirs)))
    return [
        Case(pack, "its entry for a LoRA in a linked folder", here, truth, PLAIN),
        Case(pack, "its entry after a start through a link", there, truth, PLAIN),
    ]


# Loaders and samplers of other packs


def behind_a_loader(pack: str, name: str, load: Callable[[Graph], Model]) -> list[Case]:
    """Both ways to apply, behind another pack's loader; the truth is behind the same loader."""
    truth, plain = drawn(load=load, loras=stock_loras), drawn(load=load)
    cases = []
    for mode in ("merge", "side path"):
        ours = ran(drawn(load=load, loras=partial(our_loras, mode=mode)))
        cases.append(Case(pack, f"{name}, {mode}", (ours,), truth, plain, beside=True))
    return cases


def gguf() -> list[Case]:
    cases = []
    for kind in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_K"):

        def load(graph: Graph, name: str = f"tiny-{kind}.gguf") -> Model:
            return graph.add("UnetLoaderGGUF", unet_name=name)

        cases += behind_a_loader("city96/ComfyUI-GGUF", f"{kind} by Unet Loader (GGUF)", load)

    def theirs(graph: Graph) -> Model:
        return graph.add("LoaderGGUF", gguf_name="tiny-Q8_0.gguf")

    return cases + behind_a_loader("calcuis/gguf", "Q8_0 by GGUF Loader", theirs)


def multigpu() -> list[Case]:
    pack = "pollockjj/ComfyUI-MultiGPU"

    def plain(graph: Graph) -> Model:
        file = {"unet_name": UNET, "weight_dtype": "default"}
        return graph.add("UNETLoaderMultiGPU", device="cpu", **file)

    def distorch(graph: Graph) -> Model:
        file = {"unet_name": UNET, "weight_dtype": "default", "expert_mode_allocations": ""}
        memory = {"compute_device": "cpu", "virtual_vram_gb": 0.0, "donor_device": "cpu"}
        return graph.add("UNETLoaderDisTorch2MultiGPU", eject_models=False, **file, **memory)

    return behind_a_loader(pack, "UNETLoaderMultiGPU", plain) + behind_a_loader(
        pack, "UNETLoaderDisTorch2MultiGPU", distorch
    )


def klein_sampler() -> list[Case]:
    """Flux2Klein KSampler Experimental calls the diffusion model itself."""
    pack = "capitan01R/ComfyUI-Flux2Klein-Enhancer"

    def draw(graph: Graph, model: Model) -> Ref:
        inputs = {"model": model, "positive": words(graph), "latent_image": empty(graph)}
        shift = {"base_shift": 0.5, "max_shift": 1.15, "denoise": 1.0}
        kind = "Flux2KleinKSamplerExperimental"
        return graph.add(kind, steps=2, seed=3, **inputs, **shift)

    plain = drawn(draw=draw)
    name = "Flux2Klein KSampler Experimental"

    def truth(scales: tuple[float, ...] = SCALES) -> Build:
        return drawn(loras=partial(stock_loras, scales=scales), draw=draw)

    def ours(mode: str, scales: tuple[float, ...] = SCALES) -> Step:
        return ran(drawn(loras=partial(our_loras, scales=scales, mode=mode), draw=draw))

    moved = (0.4, 0.5)
    return [
        Case(pack, f"{name}, merge", (ours("merge"),), truth(), plain, True),
        Case(pack, f"{name}, side path", (ours("side path"),), truth(), plain, True),
        Case(pack, f"{name}, auto", (ours("auto"),), truth(), plain, True),
        Case(
            pack, f"{name}, auto after a moved scale", (ours("auto"), ours("auto", moved)),
            truth(moved), plain, True,
        ),
    ]  # fmt: skip


# What stands after our Apply, or before it

INDUCTOR = {"backend": "inductor"}
KJ_COMPILES = {
    "fullgraph": False, "mode": "default", "dynamic": "false", "dynamo_cache_size_limit": 64,
    "compile_transformer_blocks_only": True, "debug_compile_keys": False,
}  # fmt: skip
SAFE_COMPILES = {
    "mode": "default", "fullgraph": False, "dynamic": False, "disable_cudagraphs": True,
    "compile_transformer_only": True, "debug_torch_logs": False, "skip_dynamic_cudagraphs": True,
    "allow_flux_inferred_targets": True, "fallback_to_full_model_if_no_targets": True,
}  # fmt: skip
WAVE_COMPILES = {
    "is_patcher": True, "object_to_patch": "diffusion_model", "compiler": "torch.compile",
    "fullgraph": False, "dynamic": False, "mode": "", "options": "", "disable": False,
}  # fmt: skip
PLUS = node("ModelCompile+", fullgraph=False, dynamic=False, mode="default")
COMPILERS: tuple[tuple[str, str, Change], ...] = (
    (CORE, "TorchCompileModel", node("TorchCompileModel", **INDUCTOR)),
    ("kijai/ComfyUI-KJNodes", "TorchCompileModelAdvanced",
     node("TorchCompileModelAdvanced", **KJ_COMPILES, **INDUCTOR)),
    ("xmarre/TorchCompileModel_LoRASafe", "TorchCompileModel_LoRASafe",
     node("TorchCompileModel_LoRASafe", **SAFE_COMPILES, **INDUCTOR)),
    ("chengzeyi/Comfy-WaveSpeed", "Compile Model+",
     node("EnhancedCompileModel", **WAVE_COMPILES, **INDUCTOR)),
    ("cubiq/ComfyUI_essentials", "ModelCompile+", PLUS),
)  # fmt: skip


def compiled() -> list[Case]:
    moved = (0.4, 0.5)
    truth = drawn(loras=partial(stock_loras, scales=moved))
    cases = []
    for pack, name, compiles in COMPILERS:

        def after(
            scales: tuple[float, ...] = SCALES, mode: str = "auto", compiles: Change = compiles
        ) -> Step:
            return ran(drawn(loras=partial(our_loras, scales=scales, mode=mode), after=compiles))

        stock = drawn(loras=stock_loras, after=compiles)
        for mode in ("merge", "side path"):
            where = f"{name} after our Apply, {mode}"
            cases.append(Case(pack, where, (after(mode=mode),), TRUTH, PLAIN, alike=stock))
        both = (after(), after(moved))
        where = f"{name} after our Apply, auto after a moved scale"
        stock = drawn(loras=partial(stock_loras, scales=moved), after=compiles)
        cases.append(Case(pack, where, both, truth, PLAIN, alike=stock))
        ours, stock = (drawn(before=compiles, loras=each) for each in (our_loras, stock_loras))
        where = f"{name} before our Apply"
        cases.append(Case(pack, where, (ran(ours),), TRUTH, PLAIN, alike=stock))
    return cases


def hooked(graph: Graph, model: Model) -> Ref:
    """A LoRA as a hook of the conditioning: on for the first half of the schedule."""
    hook = graph.add("CreateHookLoraModelOnly", lora_name=LORAS[1], strength_model=0.7)
    with_hook = graph.add(
        "SetClipHooks", clip=clip(graph), hooks=hook, apply_to_conds=True, schedule_clip=False
    )
    positive = graph.add("CLIPTextEncode", clip=with_hook, text="a cat")
    return sampled(graph, model, positive, empty(graph), steps=2, seed=3, **SIZE)


def with_reference(graph: Graph, model: Model) -> Ref:
    """An edit of one picture."""
    latent = graph.add("VAEEncode", pixels=picture(graph), vae=vae(graph))
    positive = graph.add("ReferenceLatent", conditioning=words(graph), latent=latent)
    return sampled(graph, model, positive, empty(graph), steps=2, seed=3, **SIZE)


CACHE = {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}


def patched() -> list[Case]:
    """Nodes that patch the MODEL after our Apply, or sample it in a way of their own."""
    easy = node("EasyCache", **CACHE)
    first_block = node(
        "ApplyFBCacheOnModel", object_to_patch="diffusion_model", residual_diff_threshold=0.1,
        start=0.0, end=1.0, max_consecutive_cache_hits=-1,
    )  # fmt: skip
    power = node(
        "Power Lora Loader (rgthree)",
        lora_1={"on": True, "lora": "diffusers.safetensors", "strength": 0.6},
    )
    klein_lora = node(
        "FluxLoraLoader", lora_name="diffusers.safetensors", strength=0.6, use_case="Edit",
        auto_convert=True,
    )  # fmt: skip
    identity = node(
        "IdentityFeatureTransfer", strength=0.3, start_block=0, end_block=23, mode="cosine_pull",
        top_k_percent=0.25,
    )  # fmt: skip
    six = partial(sample, steps=6)
    one = (SCALES[0],)
    cases = []
    for mode in ("merge", "side path"):
        loras = partial(our_loras, mode=mode)
        for pack, name, after, draw in (
            (CORE, "EasyCache", easy, six),
            ("chengzeyi/Comfy-WaveSpeed", "Apply First Block Cache", first_block, six),
            (CORE, "a LoRA hook", same, hooked),
            ("rgthree/rgthree-comfy", "Power Lora Loader after our Apply", power, sample),
            (
                "TuZZiL/Comfyui-flux2klein-Lora-loader",
                "its LoRA loader after our Apply",
                klein_lora,
                sample,
            ),
            (
                "capitan01R/ComfyUI-Flux2Klein-Enhancer",
                "Identity Feature Transfer",
                identity,
                with_reference,
            ),
        ):
            only = partial(our_loras, scales=one, mode=mode) if draw is hooked else loras
            stock = partial(stock_loras, scales=one) if draw is hooked else stock_loras
            ours = ran(drawn(loras=only, after=after, draw=draw))
            truth = drawn(loras=stock, after=after, draw=draw)
            plain = drawn(after=after, draw=draw)
            cases.append(Case(pack, f"{name}, {mode}", (ours,), truth, plain, beside=True))
    return cases


# Saved models and LoRAs


def saved(name: str, keep: Change, way: str, scales: tuple[tuple[float, ...], ...]) -> Case:
    """A file that ``keep`` writes, after one run for each of ``scales``, and what it draws.

    A LoRA that the host extracts is not what it is extracted from: the truth is its own.
    """
    folder = "loras" if name == "LoraSave" else "diffusion_models"

    def kept(host: Host, file: str, loras: Change) -> Run:
        def build(graph: Graph) -> None:
            keep(graph, loras(graph, loaded(graph)))

        run = host.run(build)
        newest = max(host.server.output.rglob("packs-kept*"), key=lambda p: p.stat().st_mtime_ns)
        newest.replace(host.models / folder / file)
        return run

    def read(file: str) -> Build:
        if folder == "loras":
            return drawn(loras=node("LoraLoaderModelOnly", lora_name=file, strength_model=1.0))
        return drawn(load=partial(loaded, name=file))

    def read_ours(host: Host) -> Run:
        host.forget()
        return host.run(read("packs-ours.safetensors"))

    stock = partial(stock_loras, scales=scales[-1])
    theirs = f"packs-{name}-{scales[-1][0]}.safetensors"
    before = partial(kept, file=theirs, loras=stock)
    each = (partial(our_loras, scales=one, mode=way) for one in scales)
    steps = tuple(partial(kept, file="packs-ours.safetensors", loras=ours) for ours in each)
    after = " after a moved scale" if len(scales) > 1 else ""
    name = f"{name}, {way}{after}"
    # An extract is stored in half precision, along directions that the last bit may turn.
    allowed = 1e-2 if folder == "loras" else ALLOWED
    last = read(theirs)
    return Case(CORE, name, (*steps, read_ours), last, PLAIN, before=before, allowed=allowed)


def kept_model(graph: Graph, model: Model) -> Model:
    return graph.add("ModelSave", model=model, filename_prefix="packs-kept")


def kept_lora(graph: Graph, model: Model) -> Model:
    change = graph.add("ModelMergeSubtract", model1=model, model2=loaded(graph), multiplier=1.0)
    # The rank of both together: beyond it the host would extract what rounding left.
    how = {"rank": 16, "lora_type": "standard", "bias_diff": False}
    return graph.add("LoraSave", model_diff=change, filename_prefix="packs-kept", **how)


def mixed(graph: Graph, model: Model) -> Model:
    """Half of the model with LoRAs, half of it without."""
    return graph.add("ModelMergeSimple", model1=model, model2=loaded(graph), ratio=0.5)


def saves() -> list[Case]:
    moved = (SCALES, (0.4, 0.5))
    cases = []
    for name, keep in (("ModelSave", kept_model), ("LoraSave", kept_lora)):
        cases += [saved(name, keep, "auto", moved), saved(name, keep, "side path", moved[:1])]
    truth = drawn(loras=partial(stock_loras, scales=moved[-1]), after=mixed)
    twice = tuple(ran(drawn(loras=partial(our_loras, scales=each), after=mixed)) for each in moved)
    beside = ran(drawn(loras=partial(our_loras, mode="side path"), after=mixed))
    plain = drawn(after=mixed)
    return [
        *cases,
        Case(CORE, "ModelMergeSimple, auto after a moved scale", twice, truth, plain),
        Case(CORE, "ModelMergeSimple, side path", (beside,),
             drawn(loras=stock_loras, after=mixed), plain),
    ]  # fmt: skip


# Our sampler


def our_sampler(graph: Graph, model: Model, latent: Model, **more: Any) -> Ref:
    inputs: dict[str, Any] = {"model": model, "latent_image": latent, "seed": 3, "steps": 2}
    inputs |= {"positive": words(graph), "guidance": 2.5} | more
    return graph.add("Flux2EditSampler", **inputs)


def latents() -> list[Case]:
    """Empty latents of other models, into our sampler as into the host's."""
    cases = []
    for kind in ("EmptyLatentImage", "EmptySD3LatentImage"):

        def ours(graph: Graph, kind: str = kind) -> Ref:
            latent = graph.add(kind, batch_size=1, **SIZE)
            return our_sampler(graph, loaded(graph), latent)

        def stock(graph: Graph, kind: str = kind) -> Ref:
            latent = graph.add(kind, batch_size=1, **SIZE)
            return sampled(graph, loaded(graph), words(graph), latent, steps=2, seed=3, **SIZE)

        cases.append(Case(CORE, f"{kind} into our sampler", (ran(ours),), stock, None))
    return cases


def attention_guidance() -> list[Case]:
    scale = {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5}

    def ours(graph: Graph) -> Ref:
        model = graph.add("NAGuidance", model=loaded(graph), **scale)
        unwanted = words(graph, "a dog")
        return our_sampler(graph, model, empty(graph), negative=unwanted, guidance=1.0)

    def stock(graph: Graph) -> Ref:
        model = graph.add("NAGuidance", model=loaded(graph), **scale)
        texts = {"positive": words(graph), "negative": words(graph, "a dog")}
        return graph.add(
            "SamplerCustomAdvanced",
            noise=graph.add("RandomNoise", noise_seed=3),
            guider=graph.add("CFGGuider", model=model, cfg=1.0, **texts),
            sampler=graph.add("KSamplerSelect", sampler_name="euler"),
            sigmas=graph.add("Flux2Scheduler", steps=2, **SIZE),
            latent_image=empty(graph),
        )

    name = "NAGuidance into our sampler, a negative and guidance 1"
    return [Case(CORE, name, (ran(ours),), stock, None)]


def edit(graph: Graph) -> Ref:
    """Our edit graph: two references and two LoRAs."""
    pictures = {"image_1": picture(graph), "image_2": picture(graph, "coffee.png")}
    text = graph.add(
        "Flux2EditConditioning", clip=clip(graph), vae=vae(graph), prompt="the cup of image 2",
        negative_prompt="", reference_size="as is", **pictures,
    )  # fmt: skip
    return our_sampler(graph, our_loras(graph, loaded(graph)), empty(graph), positive=text)


def cases() -> list[Case]:
    """All of them, those without another pack first."""
    all_at_once = Case(
        ALL, "the edit graph, two references and two LoRAs", (ran(edit),), edit, None
    )
    found = [*attention_guidance(), *latents(), *saves(), *patched(), *stacks(), *klein_sampler()]
    found += [*gguf(), *multigpu(), *compiled(), all_at_once]
    return sorted(found, key=lambda case: case.pack != CORE)

"""A LoRA by step, by picture and by region: a forward over the unmodified side path's.

    COMFYUI_PATH=/path/to/ComfyUI python benchmarks/where_when.py [--device cuda] [--write]

Three LoRAs of ranks 16, 32 and 64 on a random bfloat16 model. Every forward is the host's
``apply_model`` at another step, one side after the other in each round, begun with another. On a
CPU the time is the process's own, of one thread, and the ratio that counts takes from a forward
only what is spent in the side path: the rest is the same, and varies by more than is asked of. What
is counted is the same on every machine: the operations, and the bytes that they read and write.
Needs about 4 GB of memory. ``--write`` writes benchmarks/results/where_when.md.
"""

import argparse
import gc
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import bench
import subjects
from bench import ROOT
from counting import Counter

STEPS = 28
PICTURES = (0.0, 0.5, 1.0, 1.5)


class Size(NamedTuple):
    """Of a model and its picture: ``side ** 2`` tokens, and as many for each reference."""

    width: int
    double: int
    single: int
    side: int
    text: int
    rounds: int


FULL = Size(1024, 1, 1, 32, 128, 9)
GPU = Size(4096, 2, 6, 64, 512, 30)
QUICK = Size(256, 1, 1, 8, 16, 2)
TARGETS = {"steps": 1.01, "core percent": 1.01, "pictures": 1.01, "region": 1.02, "both": 1.03}
"""Of the median of a side's ratios; "both" is what its parts may cost together."""


class Subject:
    """A model with side paths on it, all of them in memory at once."""

    def __init__(self, size: Size, paths: Any, batch: int, device: Any) -> None:
        import torch

        self.size, self.batch, self.device = size, batch, device
        self.base = subjects.model(*size[:3], "klein-9b", torch.bfloat16)
        self.loras = subjects.Applier(paths, "side path").read(self.base, subjects.SCALES)
        self.sides = {name: self.applied(by) for name, by in modifiers(batch, size.side).items()}
        self.load()

    def applied(self, by: tuple[Any, ...]) -> Any:
        from dataclasses import replace

        from flux2_lora_edit.lora_loader.patch import apply_stack

        stack = [replace(lora, modifiers=by) for lora in self.loras]
        return apply_stack(self.base, stack, "side path").model

    def load(self) -> None:
        from comfy import model_management

        others = [m for one in self.sides.values() for m in one.get_nested_additional_models()]
        model_management.load_models_gpu([self.base, *others])
        self.base.pre_run()

    def given(self, references: int) -> dict[str, Any]:
        import torch

        make = torch.Generator().manual_seed(0)
        side, columns = self.size.side, self.base.model.diffusion_model.txt_in.weight.shape[1]

        def random(*shape: int) -> Any:
            return torch.randn(self.batch, *shape, generator=make).to(self.device)

        latents = [random(128, side, side) for _ in range(references)]
        given = {"x": random(128, side, side), "c_crossattn": random(self.size.text, columns)}
        sigmas = (torch.linspace(1, 0, STEPS + 1) ** 0.6).to(self.device)
        return {**given, "sigmas": sigmas, "ref_latents": latents or None}

    def forward(self, name: str, given: dict[str, Any], step: int) -> Any:
        """One step as the host's samplers make it, without what is theirs."""
        given = dict(given)
        x, sigmas = given.pop("x"), given.pop("sigmas")
        options = {
            "wrappers": self.sides[name].wrappers,
            "sample_sigmas": sigmas,
            "cond_or_uncond": [0],
            "flux2_lora_edit": tuple(x.shape),
        }
        sigma = sigmas[step].expand(self.batch)
        return self.base.model.apply_model(x, sigma, transformer_options=options, **given)


def modifiers(batch: int, side: int) -> dict[str, tuple[Any, ...]]:
    """Side -> what each of its three LoRAs has."""
    import torch

    from flux2_lora_edit.lora_loader.modifiers.region import Region
    from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule

    fade = ((0.0, 1.0), (0.5, 0.25), (1.0, 1.0))
    mask = torch.zeros(1, 16 * side, 16 * side)
    mask[..., : 6 * side] = 1
    steps, region = Schedule(fade), Region(mask, 0.5, 0.25)
    if batch > 1:
        pictures = Schedule(fade, pictures=PICTURES)
        return {"unmodified": (), "pictures": (pictures,), "both": (pictures, region)}
    percent = Schedule(fade, clock="core percent")
    return {
        "unmodified": (),
        "steps": (steps,),
        "core percent": (percent,),
        "region": (region,),
        "both": (steps, region),
    }


def timed(run: Callable[[], Any]) -> float:
    """Seconds: of this process on a CPU, on the clock on a GPU."""
    import torch

    ready = torch.cuda.synchronize if bench.gpu() else lambda: None
    clock = time.perf_counter if bench.gpu() else time.process_time
    ready()
    begun = clock()
    run()
    ready()
    return clock() - begun


class Inside:
    """Seconds that this process spends in the side path itself while this is entered.

    On a busy CPU a forward varies by several per cent, and what is asked of is one: of the side
    path's own few per cent the same noise is little. On a GPU, whose work is only started there,
    it tells nothing.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Inside":
        from flux2_lora_edit.lora_loader.patch.side_path import SideLayer, SidePath

        self.real = [(SideLayer, "add_to", SideLayer.add_to)]
        self.real.append((SidePath, "set_gains", SidePath.set_gains))
        for kind, name, real in self.real:
            setattr(kind, name, self.timed(real))
        return self

    def timed(self, real: Any) -> Any:
        def run(*args: Any) -> Any:
            begun = time.process_time()
            result = real(*args)
            self.seconds += time.process_time() - begun
            return result

        return run

    def __exit__(self, *_: Any) -> None:
        for kind, name, real in self.real:
            setattr(kind, name, real)


def ratios(subject: Subject, references: int) -> list[str]:
    """A table's lines: each side over the unmodified side path."""
    import torch

    given, names = subject.given(references), list(subject.sides)
    for name in names:
        subject.forward(name, given, 0)
    gc.collect()
    gc.disable()
    times: dict[str, list[float]] = {name: [] for name in names}
    own: dict[str, list[float]] = {name: [] for name in names}
    for number in range(subject.size.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            run = lambda n=name, s=number % STEPS: subject.forward(n, given, s)  # noqa: E731
            with Inside() as inside:
                times[name].append(timed(run))
            own[name].append(inside.seconds)
    gc.enable()
    counts = {}
    for name in names:
        with Counter(1) as counter, torch.inference_mode():
            subject.forward(name, given, 1)
        counts[name] = len(counter.ops), counter.bytes
    lines = []
    (ops, size), base = counts["unmodified"], statistics.median(times["unmodified"])
    for name in names:
        each = [a / b for a, b in zip(times[name], times["unmodified"], strict=True)]
        more = [(a - b) / base for a, b in zip(own[name], own["unmodified"], strict=True)]
        whole, ours = statistics.median(each), 1 + statistics.median(more)
        if name == "unmodified":
            part = statistics.median(own[name]) / base
            cells = f"{base * 1e3:.0f} ms | {part:.3f} of it | {ops} | {size / 2**20:.0f} MiB | |"
        else:
            ratio, most = whole if bench.gpu() else ours, TARGETS[name]
            cells = (
                f"{whole:.3f} ({min(each):.2f}-{max(each):.2f}) | {ours:.4f} "
                f"({1 + min(more):.3f}-{1 + max(more):.3f}) | {counts[name][0] - ops:+d} | "
                f"{(counts[name][1] - size) / 2**20:+.2f} MiB, {counts[name][1] / size:.4f} | "
                f"<= {most} | {'yes' if ratio <= most else '**no**'}"
            )
        lines.append(f"| {name}, {references} references | {cells} |")
    return lines


READING = (
    "Ratios are over the unmodified side path. What is counted is the same on every machine, and "
    "carries over to a GPU, whose forward is bound by its matrix products: the table at the true "
    "sizes makes a bound of it with 4.3 TB/s, 790 TFLOP/s and 2.5 us a kernel."
)
HEAD = (
    "| batch {} | a forward (least-most) | by the side path's own time | operations "
    "| bytes read and written | target | met |\n|---|---|---|---|---|---|---|"
)


def hooks(size: Size, paths: Any) -> list[str]:
    """The host's LoRA hook with 21 keyframes over 28 steps, and our schedule of 21 moments."""
    import comfy.hooks
    import comfy.utils

    from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule

    moments = [number / 20 for number in range(21)]
    model = subjects.model(*size[:3], "klein-9b")
    frames = comfy.hooks.HookKeyframeGroup()
    for moment in moments:
        frames.add(comfy.hooks.HookKeyframe(1.0 - 0.9 * moment, moment, 0))
    group = comfy.hooks.create_hook_lora(comfy.utils.load_torch_file(str(paths[0])), 1.0, 0.0)
    group.set_keyframes_on_hooks(frames)
    pairs = tuple((moment, 1.0 - 0.9 * moment) for moment in moments)
    lora = subjects.Applier(paths[:1], "side path").read(model, (1.0,))[0]
    from dataclasses import replace

    from flux2_lora_edit.lora_loader.patch import apply_stack

    schedule = Schedule(pairs, "hold", "core percent")
    ours = apply_stack(model, [replace(lora, modifiers=(schedule,))], "side path").model
    still = apply_stack(model, [lora], "side path").model
    sides = {
        "no schedule, side path": (still, None),
        "our schedule": (ours, None),
        "the host's hook": (model, group),
    }
    lines = ["| 28 steps, one LoRA | s | over no schedule | weights patched | bytes moved by it |",
             "|---|---|---|---|---|"]  # fmt: skip
    times, first = {}, 0.0
    for name, (patcher, hook) in sides.items():
        with Patched() as patched:
            sampled(patcher, size, hook, STEPS)
        times[name] = timed(lambda p=patcher, h=hook: sampled(p, size, h, STEPS))
        first = first or times[name]
        lines.append(f"| {name} | {times[name]:.2f} | {times[name] / first:.3f} | {patched.count} "
                     f"| {patched.bytes / 2**20:.0f} MiB |")  # fmt: skip
    return lines


def sampled(model: Any, size: Size, hook: Any, steps: int) -> Any:
    """The host's own sampling, loading included."""
    import comfy.hooks
    import comfy.sample
    import comfy.samplers
    import torch

    make = torch.Generator().manual_seed(0)
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    noise = torch.randn(1, 128, size.side // 2, size.side // 2, generator=make)
    given = [[torch.randn(1, size.text, columns, generator=make), {}]]
    if hook is not None:
        given = comfy.hooks.set_hooks_for_conditioning(given, hook)
    return comfy.sample.sample_custom(
        model, noise, 1.0, comfy.samplers.sampler_object("euler"),
        torch.linspace(1.0, 0.0, steps + 1) ** 0.6, given, given, torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip


class Patched:
    """Weights that the host patches while this is entered, and the bytes that it takes."""

    names = ("patch_weight_to_device", "patch_hook_weight_to_device")

    def __init__(self) -> None:
        self.count = self.bytes = 0

    def __enter__(self) -> "Patched":
        from comfy.model_patcher import ModelPatcher

        self.real = {name: getattr(ModelPatcher, name) for name in self.names}
        for name, real in self.real.items():
            setattr(ModelPatcher, name, self.counted(real))
        return self

    def counted(self, real: Any) -> Any:
        def patch(*args: Any, **kwargs: Any) -> Any:
            with Counter(4096) as counter:
                result = real(*args, **kwargs)
            if counter.bytes:
                self.count += 1
                self.bytes += counter.bytes
            return result

        return patch

    def __exit__(self, *_: Any) -> None:
        from comfy.model_patcher import ModelPatcher

        for name, real in self.real.items():
            setattr(ModelPatcher, name, real)


def flat(subject: Subject, forwards: int) -> list[str]:
    """Live tensors, Python's memory and the side path's tables over many forwards."""
    import torch

    given, name = subject.given(1), "both"
    path = subject.sides[name].get_additional_models_with_key("flux2_lora_edit")[0].model

    def now() -> tuple[int, int, int]:
        gc.collect()
        tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
        return tensors, len(path._kept[1]), tracemalloc.get_traced_memory()[0]

    for step in range(STEPS):
        subject.forward(name, given, step)
    tracemalloc.start()
    # Until what is made once has been made under its eyes too.
    for step in range(STEPS):
        subject.forward(name, given, step)
    before = now()
    for number in range(forwards):
        subject.forward(name, given, number % STEPS)
    after = now()
    tracemalloc.stop()
    return [
        f"Over {forwards} forwards with a schedule and a region: live tensors {before[0]} to "
        f"{after[0]}, tables kept {before[1]} to {after[1]}, Python's memory "
        f"{(after[2] - before[2]) / 1024:+.1f} KiB."
    ]


def at_true_size(name: str, images: int) -> list[str]:
    """What is read, written and started more than by the unmodified side path, counted on shapes
    without memory, and what a GPU of 4.3 TB/s, 790 TFLOP/s and 2.5 us a kernel would need for it.
    """
    import gpu

    klein_4b = ("klein-4b", 3072, 5, 20)
    shape = {"dev": gpu.DEV, "klein 9B": gpu.KLEIN_9B, "klein 4B": klein_4b}[name]
    _, width, double, single = shape
    tokens = {"image": images, "text": 512, "joint": images + 512}
    layers = [(stream, double, rows, columns) for stream in ("image", "text")
              for rows, columns in ((3, 1), (1, 1), (6, 1), (1, 3))]  # fmt: skip
    layers += [("joint", single, 9, 1), ("joint", single, 1, 4)]
    most = {}
    for how in ("unmodified", "pictures", "region", "both"):
        ops = size = 0
        for stream, times, rows, columns in layers:
            given = rows * width, columns * width, tokens[stream], 1 if stream == "text" else None
            counter = one_layer(*given, how)
            ops, size = ops + times * len(counter.ops), size + times * counter.bytes
        most[how] = ops, size
    ops, size = most.pop("unmodified")
    forward = gpu.flops(shape, images, 512) / 790e12
    lines = []
    for how, found in most.items():
        more = found[0] - ops, found[1] - size
        seconds = more[1] / 4.3e12 + more[0] * 2.5e-6
        lines.append(
            f"| {name}, {images} image tokens, {how} | {more[0]:+d} | {more[1] / 2**20:+.0f} MiB | "
            f"{forward * 1e3:.0f} ms | {1 + seconds / forward:.4f} |"
        )
    return lines


def one_layer(rows: int, columns: int, tokens: int, constant: int | None, how: str) -> Counter:
    """The side path of one weight on ``tokens``; those of the text have one multiplier."""
    import torch

    from flux2_lora_edit.lora_loader.adapters.lora import LowRank
    from flux2_lora_edit.lora_loader.beside import build
    from flux2_lora_edit.lora_loader.fuse import Step
    from flux2_lora_edit.lora_loader.patch.side_path import SideLayer

    where = torch.device("meta")

    def empty(*shape: int, dtype: Any = torch.bfloat16) -> Any:
        return torch.empty(shape, dtype=dtype, device=where)

    loras = [
        (number, Step(0, rows, 1.0, LowRank(empty(rows, rank), empty(rank, columns), 1.0)))
        for number, rank in enumerate(subjects.RANKS)
    ]
    layer = SideLayer(*build(loras, torch.bfloat16))
    numbers = sum(subjects.RANKS)
    layer.gains[where] = empty(numbers, dtype=torch.float32)
    if how in ("pictures", "both"):
        layer.gains[where] = empty(1, numbers, dtype=torch.float32)
    if how in ("region", "both"):
        layer.tokens[where] = empty(1, constant or tokens, 3, dtype=torch.float32)
        layer.parts[where] = empty(numbers, dtype=torch.int64)
    x, y = empty(1, tokens, columns), empty(1, tokens, rows)
    with Counter(1) as counter:
        layer.add_to(y, x)
    return counter


def no_waiting(subject: Subject) -> list[str]:
    """A GPU's own word on whether forwards wait for it."""
    import torch

    if not bench.gpu():
        return ["Waiting for the device: tests/lora_loader/test_modifiers_ways.py, on a CPU."]
    given = subject.given(1)
    for name in subject.sides:
        subject.forward(name, given, 0)
        torch.cuda.set_sync_debug_mode("error")
        for step in range(1, 4):
            subject.forward(name, given, step)
        torch.cuda.set_sync_debug_mode("default")
    return ["Waiting for the device: none (torch.cuda.set_sync_debug_mode raised nothing)."]


def measure(size: Size, device: Any, forwards: int, most: int) -> Iterator[str]:
    """The lines of the results, as they are found."""
    import torch

    with subjects.three_loras(*size[:3]) as paths, torch.inference_mode():
        alone = Subject(size, paths, 1, device)
        yield HEAD.format(1)
        for references in range(most + 1):
            yield from ratios(alone, references)
        yield from ("", *no_waiting(alone), "")
        del alone
        batch = Subject(size._replace(side=size.side // 2), paths, 4, device)
        yield HEAD.format(4)
        for references in (0, most):
            yield from ratios(batch, references)
        del batch
        yield from ("", *hooks(size, paths), "")
    yield "| counted at true size | operations | bytes | a forward, at least | modelled |"
    yield "|---|---|---|---|---|"
    for name in ("klein 4B", "klein 9B", "dev"):
        for images in (4096, 16384):
            yield from at_true_size(name, images)
    yield ""
    small = QUICK._replace(width=128)
    with subjects.three_loras(*small[:3]) as paths, torch.inference_mode():
        yield from flat(Subject(small, paths, 1, device), forwards)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds")
    parser.add_argument("--write", action="store_true", help="write results/where_when.md")
    parser.add_argument("--rounds", type=int, help="forwards of each side; more, less noise")
    parser.add_argument("--side", type=int, help="the picture's side in tokens")
    asked = parser.parse_args()
    if asked.device == "cuda":
        os.environ["BENCH_GPU"] = "1"
    about = bench.machine(bench.host())
    if asked.device == "cuda" and not bench.gpu():
        sys.exit("There is no GPU that torch can use.")
    size = QUICK if asked.quick else GPU if asked.device == "cuda" else FULL
    size = size._replace(rounds=asked.rounds or size.rounds, side=asked.side or size.side)
    heading = ", ".join(f"{name} {value}" for name, value in about.items())
    shape = (f"Width {size.width}, {size.double} double and {size.single} single blocks, "
             f"{size.side**2} tokens a picture and reference (a quarter in the batch of 4), "
             f"{size.text} text tokens, {size.rounds} rounds.")  # fmt: skip
    lines = ["# A LoRA where and when it is wanted", "", heading, "", shape, "", READING, ""]
    print("\n".join(lines))
    for line in measure(size, asked.device, *((100, 1) if asked.quick else (1000, 3))):
        print(line, flush=True)
        lines.append(line)
    text = "\n".join(lines)
    if asked.write:
        (ROOT / "benchmarks" / "results" / "where_when.md").write_text(text + "\n")
    return int("**no**" in text)


if __name__ == "__main__":
    sys.exit(main())

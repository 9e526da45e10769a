"""Runs of a tiny FLUX.2 as the host's samplers make them, and what modified LoRAs add to each.

The truth here knows nothing of the pack's own: each LoRA's dense change of every Linear, times a
number for each row and token, added by a forward hook to what the base model's module returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from tiny_stacks import effect, error, r

from flux2_lora_edit.lora_loader.adapters.lora import LowRank
from flux2_lora_edit.lora_loader.fuse import StackedLora, Step
from flux2_lora_edit.lora_loader.modifiers.schedule import Schedule
from host import tiny

CELLS = (4, 6)
FADE = Schedule(((0.0, 1.0), (1.0, -1.0)))
"""1 at the first step, and as far under 0 as the run is behind its middle."""
LEFT = torch.tensor([1.0, 1.0, 1.0, 0.25, 0.0, 0.0]).expand(1, *CELLS)
TOP = torch.tensor([[1.0], [0.5], [0.0], [0.0]]).expand(1, *CELLS)


def small(variant: str = "dev") -> Any:
    """A MODEL of one head, which is cheap enough to be run at each step again."""
    import comfy.sd

    weights = tiny.transformer(variant, 128, double=1, single=1, dtype=torch.float32)
    return comfy.sd.load_diffusion_model_state_dict(weights, {"dtype": torch.float32})


def lora(model: Any, seed: int, scale: float = 1.0, *modifiers: Any) -> StackedLora:
    """A plain LoRA on every Linear of the model, not of the blocks alone."""
    steps = []
    for name, module in model.model.named_modules():
        if name.startswith("diffusion_model.") and hasattr(module, "in_features"):
            out, into = module.out_features, module.in_features
            pair = r(out, 2, seed=seed, std=0.3), r(2, into, seed=seed + 1, std=into**-0.5)
            steps.append((f"{name}.weight", Step(0, out, 1.0, LowRank(*pair, 1.0))))
    return StackedLora(f"lora {seed}", scale, tuple(steps), f"{seed}.safetensors", modifiers)


class Run(NamedTuple):
    """One call of the host's ``apply_model``, and what it returned."""

    x: torch.Tensor
    sigma: torch.Tensor
    given: dict[str, Any]
    options: dict[str, Any]
    out: torch.Tensor
    ran: bool

    @property
    def halves(self) -> list[int]:
        """0 for each chunk of positive, 1 for each of negative conditioning."""
        return self.options["cond_or_uncond"]

    @property
    def step(self) -> int:
        """Whose sigma is nearest; for a step between two of like distance the former."""
        away = [abs(float(s) - float(self.sigma[0])) for s in self.options["sample_sigmas"][:-1]]
        return away.index(min(away))

    @property
    def steps(self) -> int:
        return len(self.options["sample_sigmas"]) - 1


def recorded(model: Any) -> tuple[Any, list[Run]]:
    """A clone whose runs are told, each with whether it came to the model's modules."""
    from comfy.patcher_extension import WrappersMP

    clone, runs = model.clone(), []
    first = clone.model.diffusion_model.img_in

    def record(
        executor: Any, x: Any, sigma: Any, concat: Any = None, text: Any = None,
        control: Any = None, transformer_options: Any = None, **given: Any,
    ) -> Any:  # fmt: skip
        options, before, ran = dict(transformer_options), x.clone(), []
        hook = first.register_forward_hook(lambda *_: ran.append(True))
        try:
            out = executor(x, sigma, concat, text, control, options.copy(), **given)
        finally:
            hook.remove()
        given["c_crossattn"] = text
        runs.append(Run(before, sigma, given, options, out.clone(), bool(ran)))
        return out

    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "recorder", record)
    return clone, runs


def noise(batch: int = 1) -> torch.Tensor:
    return r(batch, 128, *CELLS, std=1.0)


def text_of(model: Any, seed: int, **options: Any) -> list[Any]:
    columns = model.model.diffusion_model.txt_in.weight.shape[1]
    # Without a pooled output older hosts make no conditioning of FLUX.2.
    given = {"guidance": 2.5, "pooled_output": torch.zeros(1, 1), **options}
    return [[r(1, 8, columns, seed=seed, std=1.0), given]]


def sample(
    model: Any, *, steps: int = 3, sampler: str = "euler", cfg: float = 1.0, batch: int = 1,
    references: int = 0, positive: Any = None, sigmas: Any = None,
) -> torch.Tensor:  # fmt: skip
    """The host's sampling, loading included; the references are of other sizes than the output."""
    import comfy.sample
    import comfy.samplers

    given = {}
    if references:
        sizes = ((2, 3), (3, 3), (1, 5))[:references]
        given = {"reference_latents": [r(1, 128, *size, seed=9, std=1.0) for size in sizes]}
    positive = text_of(model, 1, **given) if positive is None else positive
    # As Flux2Scheduler: not evenly spaced.
    sigmas = torch.linspace(1, 0, steps + 1) ** 0.6 if sigmas is None else sigmas
    return comfy.sample.sample_custom(
        model, noise(batch), cfg, comfy.samplers.sampler_object(sampler), sigmas,
        positive, text_of(model, 2, **given), torch.zeros(batch, 128, *CELLS),
        disable_pbar=True, seed=0,
    )  # fmt: skip


def recording(model: Any, **how: Any) -> list[Run]:
    """The runs of one sampling."""
    clone, runs = recorded(model)
    sample(clone, **how)
    return runs


Gain = Callable[[Run, str], torch.Tensor | float]
"""(a run, "image", "text", "joint" or "none") -> (rows or 1, tokens or 1), or one number."""


def by_step(run: Run) -> float:
    """What FADE is at the run's step."""
    return 1.0 - 2.0 * run.step / run.steps


def by_picture(run: Run, pictures: tuple[float, ...]) -> torch.Tensor:
    """(rows, 1): the picture's, in each of the chunks."""
    rows = run.x.shape[0]
    assert rows == len(pictures) * len(run.halves)
    return torch.tensor([pictures[row % len(pictures)] for row in range(rows)]).view(-1, 1)


def by_token(
    run: Run, stream: str, masks: torch.Tensor, text: float, references: float
) -> torch.Tensor:
    """(rows, tokens): ``masks`` (pictures or 1, height, width) on the output's tokens."""
    if stream in ("text", "none"):
        return torch.tensor([[text]])
    rows, count = run.x.shape[0], run.given["c_crossattn"].shape[1]
    others = sum(one.shape[-1] * one.shape[-2] for one in run.given.get("ref_latents") or ())
    lines = []
    for row in range(rows):
        cells = masks[row % len(masks)].flatten().tolist()
        line = cells + [references] * others
        lines.append(line if stream == "image" else [text] * count + line)
    return torch.tensor(lines)


def _stream(name: str) -> str:
    for part, stream in (("img_in", "image"), ("txt_in", "text"), (".img_", "image"),
                         (".txt_", "text"), ("modulation", "none"), ("single_blocks", "joint"),
                         ("final_layer.linear", "image")):  # fmt: skip
        if part in name:
            return stream
    assert any(part in name for part in ("time_in", "guidance_in")), name
    return "none"


@contextmanager
def added(model: Any, run: Run, loras: list[tuple[StackedLora, Gain]]) -> Iterator[None]:
    """Each LoRA's dense change times its scale and gain, to what the modules return."""
    changes: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for one, gain in loras:
        for key, step in one.steps:
            name = key.removesuffix(".weight")
            dense = step.effect.dense().float() * (one.scale * step.scale)
            rows = model.model.get_submodule(name).out_features
            dense = torch.nn.functional.pad(dense, (0, 0, step.start, rows - step.end))
            number = torch.as_tensor(gain(run, _stream(name)), dtype=torch.float32)
            number = number if number.dim() == 2 else number.view(1, 1)
            changes.setdefault(name, []).append((dense, number))

    def hook(own: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
        def add(_module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            x = args[0]
            result = out.float()
            for dense, number in own:
                # Timestep zero: the rows again. The KV cache: the last tokens are left out.
                many = number.repeat(x.shape[0] // len(number), 1) if len(number) > 1 else number
                many = many[:, : x.shape[1]].unsqueeze(-1) if x.dim() == 3 else many[:, :1]
                result = result + (x.float() @ dense.T) * many
            return result.to(out.dtype)

        return add

    hooks = [
        model.model.get_submodule(name).register_forward_hook(hook(own))
        for name, own in changes.items()
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


@torch.inference_mode()
def again(model: Any, run: Run, loras: list[tuple[StackedLora, Gain]] = ()) -> torch.Tensor:
    """The same call on ``model`` without anybody's wrappers, with ``loras`` added; no LoRA: the
    base model, or what patches a MODEL has."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    options = {key: one for key, one in run.options.items() if key in ("patches", "sample_sigmas")}
    with added(model, run, list(loras)):
        found = model.model.apply_model(
            run.x.clone(), run.sigma, transformer_options=options, **run.given
        )
    return found.clone()


def check(
    model: Any, runs: list[Run], loras: list[tuple[StackedLora, Gain]], limit: float = 2e-6
) -> None:
    """Every run's output is that of ``loras`` at their gains; and these do something."""
    first = again(model, runs[0], loras)
    assert effect(first, again(model, runs[0])).norm() > 0.05 * first.norm(), "no effect"
    for run in runs:
        want = first if run is runs[0] else again(model, run, loras)
        found = error(run.out, want)
        assert found < limit, f"step {run.step}, halves {run.halves}: {found:.2e}"

"""What a FLUX.2 model is to be sampled with: presets, a schedule of one's own, and the advice where
the settings are another model's."""

import math
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch

from .references import InputError

AS_SET = "as set"
TURBO = "dev with Turbo LoRA"
TURBO_SIGMAS = (1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031)
"""The 8 steps of fal's Turbo LoRA for dev, BEFORE the shift by the size of the output.

Source: the card of fal/FLUX.2-dev-Turbo, whose code hands them to diffusers' Flux2Pipeline; that
shifts them by its own ``compute_empirical_mu`` (FlowMatchEulerDiscreteScheduler.set_timesteps with
dynamic shifting, as FLUX.2-dev's scheduler_config.json has it). At 1024x1024 this gives 1, 0.947,
0.882, 0.800, 0.693, 0.546, 0.335, 0.003, which is an even schedule at shift 3; unshifted they would
leap from 1 to 0.65.
"""


class Preset(NamedTuple):
    """A model's steps and guidance, whether it ``embeds`` that guidance (dev, else klein), and
    ``sigmas`` of its own before their shift, one a step."""

    embeds: bool
    steps: int
    guidance: float
    sigmas: tuple[float, ...] = ()


PRESETS = {
    "dev": Preset(True, 28, 4.0),
    "klein distilled": Preset(False, 4, 1.0),
    "klein base": Preset(False, 50, 4.0),
    TURBO: Preset(True, 8, 2.5, TURBO_SIGMAS),
}
"""The model authors' numbers (black-forest-labs/flux2 ``util.py``; dev with the 28 steps that its
card calls a good trade-off), and those of the card of fal/FLUX.2-dev-Turbo."""

_FEW, _MANY = 10, 8
"""Fewer steps are few for a model that is not distilled; more are many for one that is."""
_MODEL_FILE = re.compile(r"[^\\/]+\.(safetensors|gguf|sft|ckpt|pth?|bin)$", re.IGNORECASE)
_IN_FEW_STEPS = re.compile(
    r"turbo|lightning|schnell|distil|hyper(?:sd|flux|(?![a-z]))|(?<![a-z])(?:lcm|dmd)(?![a-z])"
    r"|\d[-_ ]?steps?(?![a-z])"
)
"""In the names of LoRAs and merges that are made for few steps, whatever model they are for."""
_WORD = r"(?<![a-z]){}(?![a-z])"
_BASE, _DISTILLED = (re.compile(_WORD.format(word)) for word in ("base", "(?:step)?distill?ed"))
# As its authors and those who quantise it name the distilled klein: without another word. A name
# with one is a finetune's, of whichever klein.
_PLAIN = re.compile(
    r"flux[._ -]?2[._ -]klein[._ -][49]b"
    r"(?:[._ -](?:kv|ud|scaled|mixed|(?:nv|mx)?fp\d+(?:mixed|scaled)?|bf16|e[45]m[23]\w*|int[48]"
    r"|i?q\d|[01ksml]|x+[sl]))*\.\w+"
)


def settle(preset: str, embeds: bool, has_negative: bool, steps: int, guidance: float) -> Preset:
    """What to sample with: the numbers of ``preset``, or ``steps`` and ``guidance`` as set.

    ``embeds``: the model is dev. Raises InputError for a preset of the other model, and for one
    that needs the negative that is not there.
    """
    if preset == AS_SET:
        return Preset(embeds, steps, guidance)
    if preset not in PRESETS:
        raise InputError(f"preset is '{preset}'; choose {AS_SET}, {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    if chosen.embeds != embeds:
        model, other = ("dev", "klein") if embeds else ("klein", "dev")
        fitting = " or ".join(name for name, one in PRESETS.items() if one.embeds == embeds)
        raise InputError(
            f"preset is {preset} and model is FLUX.2 {model}. Set preset to {fitting}, or load "
            f"FLUX.2 {other}."
        )
    if not (embeds or has_negative or chosen.guidance == 1):
        raise InputError(
            f"preset is {preset}, whose CFG needs negative. Connect that of FLUX.2 Edit "
            "Conditioning."
        )
    return chosen


def check_sigmas(sigmas: object) -> torch.Tensor:
    """``sigmas``, unless it is no schedule of FLUX.2: [steps + 1] noise levels, falling from 1 at
    most to 0 at least. Raises InputError."""
    if not isinstance(sigmas, torch.Tensor):
        raise InputError("sigmas is no tensor. Connect a scheduler such as Flux2Scheduler.")
    if sigmas.ndim != 1 or len(sigmas) < 2:
        shape = "x".join(map(str, sigmas.shape))
        raise InputError(
            f"sigmas has the shape {shape}; it takes one row of 2 values or more, one more than "
            "there are steps. Connect a scheduler such as Flux2Scheduler."
        )
    if not torch.isfinite(sigmas).all():
        raise InputError("sigmas has NaN or infinite values.")
    first, last = float(sigmas[0]), float(sigmas[-1])
    if (sigmas.diff() > 0).any() or first > 1.0001 or last < 0:
        raise InputError(
            f"sigmas runs from {first:g} to {last:g}, {len(sigmas)} values; FLUX.2's fall step by "
            "step, from 1 at most to 0 at least. Connect a schedule that is made for it, such as "
            "Flux2Scheduler's."
        )
    return sigmas


def describe_steps(steps: int, preset: str, chosen: Preset, by_sigmas: bool) -> str:
    """The ``steps`` that are taken, in words, and whose they are."""
    count = "1 step" if steps == 1 else f"{steps} steps"
    named = "" if preset == AS_SET else f"preset {preset}: "
    if by_sigmas:
        return f"{named}{count} of sigmas, in place of steps and denoise"
    if steps < len(chosen.sigmas):
        return f"{named}{count}, the last of its own {len(chosen.sigmas)}"
    return f"{named}{count}{' of its own schedule' if chosen.sigmas else ''}"


def distillation(file: str) -> str:
    """Which klein a file is by its name: "base", "distilled", or "" where that does not tell."""
    name = file.lower()
    base, distilled = "klein" in name and _BASE.search(name), _DISTILLED.search(name)
    if _PLAIN.fullmatch(name) or ("klein" in name and distilled and not base):
        return "" if re.search(r"(un|non|de)[._ -]?distil", name) else "distilled"
    return "base" if base and not _IN_FEW_STEPS.search(name) else ""


def model_file(texts: Iterable[tuple[str, str]]) -> str:
    """The one name of a model's file among the (input, text) of the nodes that a model comes from;
    "" where there is none, or more than one."""
    found = (_MODEL_FILE.search(text) for name, text in texts if "lora" not in name.lower())
    names = {match[0] for match in found if match}
    return names.pop() if len(names) == 1 else ""


def advise(
    chosen: Preset, steps: float, denoise: float, cfg: bool, nag: bool, *,
    file: str, texts: Collection[str], bare: bool,
) -> str:  # fmt: skip
    """What to set where the settings are another model's, in a line; "" where they may be right.

    ``steps`` are those taken, NaN where they follow no rule; ``cfg``: the negative is handed on;
    ``nag``: a node on the model uses it. ``file`` is the model's, ``texts`` is what stands in the
    nodes that the model comes from. ``bare``: no LoRA is on it. Names tell of a LoRA or a merge
    that is made for few steps: nothing is said then.
    """
    others = [text.lower() for text in texts if not (file and text.endswith(file))]
    made_for_few = any(map(_IN_FEW_STEPS.search, others)) or not (bare or texts)
    if chosen.embeds and _IN_FEW_STEPS.search(file.lower()) or made_for_few:
        return ""
    if not chosen.embeds:
        return _advise_klein(chosen, steps, denoise, cfg, nag, file)
    if chosen.sigmas:
        return "no LoRA is on the model: add the Turbo LoRA, or set preset to dev" * bare
    # A LoRA whose name tells nothing may be made for eight steps.
    if steps / denoise >= (_FEW if bare else _MANY) or math.isnan(steps):
        return ""
    return (
        f"dev takes more steps than {steps:g}: set steps to 28, or add the Turbo LoRA and set "
        f"preset to {TURBO}"
    )


def _advise_klein(
    chosen: Preset, steps: float, denoise: float, cfg: bool, nag: bool, file: str
) -> str:
    guided = cfg and not math.isclose(chosen.guidance, 1)
    kind, wrong = distillation(file), []
    if kind == "distilled":
        wrong += ["steps to 4"] * (steps > _MANY) + ["guidance to 1"] * guided
    elif kind == "base":
        wrong += ["steps to 20 or more"] * (steps / denoise < _FEW)
        wrong += ["guidance to 4 with a negative"] * (not guided and not (cfg and nag))
    if not wrong:
        return ""
    return f"{file} is klein {kind}: set {' and '.join(wrong)}, or preset to klein {kind}"

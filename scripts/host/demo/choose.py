"""``--models DIR``: the model, text encoder, VAE and LoRAs of a folder that belong together."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..stock import Models
from .machine import Device
from .pack import room
from .recipes import ENCODERS, encodes_for, missing, recipe
from .survey import GGUF, Candidate
from .trial import PROMPT, Lora, Trial

# Step-distilled LoRAs ask for steps and sigmas of their own.
_OTHER_STEPS = re.compile(r"turbo|lightning|hyper|lcm|\d+[\W_]*steps?", re.IGNORECASE)
_LORAS = 2
_SHOWN = 8
_TINY_VAE = {"taef2_encoder.safetensors", "taef2_decoder.safetensors"}


class Named(NamedTuple):
    """What the user named, "" where it is to be found: the three files, and the LoRAs."""

    unet: str = ""
    clip: str = ""
    vae: str = ""
    loras: tuple[tuple[str, float], ...] = ()


def choose(found: Sequence[Candidate], named: Named, device: Device) -> Trial:
    """What to edit with, and why, of these files. Raises LookupError with what is missing."""
    model, why = _model(found, named.unet, device)
    encoders = [one for one in _of(found, "text_encoders") if model and encodes_for(model, one)]
    encoder = _by_name(found, "clip", named.clip) if named.clip else _largest(encoders)
    vae = _vae(found, named.vae)
    if model is None or encoder is None or not vae:
        raise LookupError(_what_is_missing(found, model, encoder, vae))
    how = recipe(model.flux2, model.name)
    loras, said = _loras(found, named.loras, model)
    words = _words(loras)
    return Trial(
        model=f"{how.title} ({model.path.name})",
        models=Models(model.name, encoder.name, vae),
        loras=tuple(lora for lora, _ in loras),
        steps=how.steps,
        guidance=how.guidance,
        negative=how.negative,
        prompt=", ".join([PROMPT, *words]),
        size=device.size,
        notes=(
            f"model         {model.name}: {how.title}{why}",
            f"              told by its header: {how.why}",
            f"              so {how.steps} steps, guidance {how.guidance:g}, "
            + ("with a negative (CFG)" if how.negative else "no negative"),
            f"text encoder  {encoder.name}: {_fits(model, encoder)}",
            f"VAE           {vae}",
            *said,
            *([f"prompt        with their trigger words: {', '.join(words)}"] if words else []),
        ),
    )


def roots(found: Sequence[Candidate]) -> dict[str, list[Path]]:
    """The folders that ComfyUI is to list, by its name of the kind, in the order of the paths."""
    by_kind: dict[str, list[Path]] = {}
    for one in found:
        kind = one.kind or _kind(one)
        if kind and one.root not in by_kind.setdefault(kind, []):
            by_kind[kind].append(one.root)
    return by_kind


def _kind(one: Candidate) -> str:
    """Of a file in no folder of ComfyUI's: what its header says that it is."""
    if one.flux2:
        return "diffusion_models"
    if one.is_vae:
        return "vae"
    if one.vocabulary[1]:
        return "text_encoders"
    return "loras" if _training(one) is not None else ""


def _of(found: Sequence[Candidate], kind: str) -> list[Candidate]:
    return [one for one in found if (one.kind or _kind(one)) == kind]


def _model(found: Sequence[Candidate], named: str, device: Device) -> tuple[Candidate | None, str]:
    """The transformer, and why it is this one where there are several."""
    if named:
        one = _by_name(found, "unet", named)
        if one.path.name.lower().endswith(GGUF):
            raise LookupError(f"--unet: {_GGUF_WORDS}\n{one.path}")
        if one.flux2 is None:
            variants = room("flux2.variants")
            try:
                variants.identify(one.shapes)
            except variants.NotFlux2Error as error:
                raise LookupError(f"--unet: {error}\n{one.path}") from None
        return one, ""
    models = [one for one in _of(found, "diffusion_models") if one.flux2]
    encoders = _of(found, "text_encoders")

    def order(one: Candidate) -> tuple[bool, int, bool, int]:
        complete = any(encodes_for(one, encoder) for encoder in encoders)
        slow = one.quantised and device.kind != "cuda"
        return not complete, recipe(one.flux2, one.name).pace, slow, one.size

    models.sort(key=order)
    several = f", the quickest here of {len(models)} that are FLUX.2 (--unet NAME takes another)"
    return (models[0], several if len(models) > 1 else "") if models else (None, "")


def _largest(found: Sequence[Candidate]) -> Candidate | None:
    return max(found, key=lambda one: one.size, default=None)


def _vae(found: Sequence[Candidate], named: str) -> str:
    """The name of FLUX.2's VAE in Load VAE, or ""; the tiny one where there is no other."""
    names = {one.path.name for one in _of(found, "vae_approx")}
    if named == "taef2" and names >= _TINY_VAE:
        return named
    if named:
        return _by_name(found, "vae", named).name
    full = _largest([one for one in _of(found, "vae") if one.is_vae])
    return full.name if full else "taef2" if names >= _TINY_VAE else ""


def _by_name(found: Sequence[Candidate], option: str, named: str) -> Candidate:
    """The file of this name, path below its folder, or path. Raises LookupError."""
    wanted = named.replace("\\", "/")
    for one in found:
        path = one.path.as_posix()
        if path == wanted or path.endswith(f"/{wanted}"):
            return one
    names = [f"  {one.name}" for one in found if one.kind != "loras"][:20]
    raise LookupError(
        f"--{option}: there is no {named} in that folder. It holds:\n" + "\n".join(names)
    )


def _fits(model: Candidate, encoder: Candidate) -> str:
    known = ENCODERS.get(model.flux2.name)
    width = encoder.vocabulary[1]
    if not encodes_for(model, encoder):
        return f"as you said, though its width of {width} is not what the model takes"
    title = known.title if known else f"a text encoder of width {width}"
    return f"{title}, {width} wide, which the model takes ({model.text_width})"


def _training(one: Candidate) -> object | None:
    """What a LoRA file was trained for, or None where it is no LoRA of a known width."""
    if one.header is None:
        return None
    known = room("lora_loader.reading.facts").facts(one.header)
    reading = room("lora_loader.reading.training")
    training = reading.trained_for(known, reading.anatomy(known))
    return training if training.width else None


def _loras(
    found: Sequence[Candidate], named: Sequence[tuple[str, float]], model: Candidate
) -> tuple[list[tuple[Lora, Candidate]], list[str]]:
    """The LoRAs, those named or the newest that fit, and lines that say so."""
    files = _of(found, "loras")
    if named:
        chosen = [(Lora(one.name, scale), one) for name, scale in named
                  for one in (_by_name(files, "lora", name),)]  # fmt: skip
        return chosen, [f"LoRA          {lora.name} x {lora.scale:g}" for lora, _ in chosen]
    wrong_base = room("lora_loader.reading.training").wrong_base
    fitting = []
    for one in files:
        training = _training(one)
        if training is not None and training.width == model.flux2.width:
            if not wrong_base(training, model.flux2):
                fitting.append(one)
    usable = [one for one in fitting if not _OTHER_STEPS.search(one.name)]
    usable.sort(key=lambda one: -one.modified)
    lines = [f"LoRA          {one.name}: trained for this model" for one in usable[:_LORAS]]
    if not files:
        lines.append("LoRA          none: there is no loras folder with files in it")
    elif not usable:
        lines.append(f"LoRA          none: of {len(files)} LoRA files none is for this model")
    elif len(usable) > _LORAS:
        lines.append(
            f"              the newest of {len(usable)} that fit; --lora NAME:SCALE takes another"
        )
    if len(fitting) > len(usable):
        lines.append("              LoRAs that change the number of steps are left out")
    return [(Lora(one.name), one) for one in usable[:_LORAS]], lines


def _words(loras: Sequence[tuple[Lora, Candidate]]) -> list[str]:
    """The first trigger word that each file names; kohya's lists of tags are no such words."""
    trigger_words = room("lora_loader.reading.info").trigger_words
    named = [
        trigger_words(
            {k: v for k, v in one.header.metadata.items() if k != "ss_tag_frequency"}, ""
        )[:1]
        for _, one in loras
        if one.header is not None
    ]
    return list(dict.fromkeys(word for words in named for word in words))


_GGUF_WORDS = "a GGUF file: ComfyUI's own loader cannot open it, the ComfyUI-GGUF pack's can"


def _what_is_missing(
    found: Sequence[Candidate], model: Candidate | None, encoder: Candidate | None, vae: str
) -> str:
    """What there is, what is missing, and its link, in words for a person."""
    if model is None:
        lines = ["--models: there is no FLUX.2 model in that folder."]
    else:
        lines = [f"--models: {recipe(model.flux2, model.name).title} is there ({model.name}), but"]
        lacking = [] if encoder else ["no text encoder for it"]
        lines[0] += " " + " and ".join(lacking + ([] if vae else ["no FLUX.2 VAE"])) + "."
    for file in missing(model, encoder, vae):
        lines.append(f"  needed: {file.folder}/{file.name}\n          {file.url}")
    if model is None:
        lines += [f"  there: {_seen(one)}" for one in _of(found, "diffusion_models")][:_SHOWN]
        lines.append("  ./scripts/demo --real fetches klein 4B and what belongs to it.")
    elif encoder is None:
        lines += [f"  there: {_seen(one)}" for one in _of(found, "text_encoders")][:_SHOWN]
    return "\n".join(lines)


def _seen(one: Candidate) -> str:
    if one.path.name.lower().endswith(GGUF):
        return f"{one.name}, {_GGUF_WORDS}"
    if one.header is None:
        return f"{one.name}, which is no readable .safetensors file"
    if one.vocabulary[1]:
        return f"{one.name}, a text encoder of width {one.vocabulary[1]}"
    return f"{one.name}, which is not FLUX.2"

"""A file's facts against one model: what of it fits, the steps it makes, and its report."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...flux2.variants import Flux2Model
from ..adapters import Adapter, base, read_adapter
from ..adapters.base import Algorithm, Geometry, Unfit
from ..fuse import Step
from ..stack import LoraEntry
from .facts import PLAIN, Facts, Module, facts
from .file import LoraFile
from .layout import Layout, Target, is_text_encoder, words
from .report import LoraReport, refusal, shortlist
from .scaling import PeftSettings
from .training import Training, anatomy, other_distillation, trained_for, wrong_base

Problems = dict[type[Unfit], list[str]]
"""What is wrong with modules, each by its name in the file, by the kind of wrong."""


class Fitting(NamedTuple):
    """A module of the file whose shapes are right for its target in the model."""

    module: Module
    target: Target
    algorithm: Algorithm
    geometry: Geometry


class Fit(NamedTuple):
    """A file's modules on a model, from names and shapes alone.

    ``namings`` has one for each module that the model has got, ``twice`` names those given twice;
    ``unmatched`` and ``text_encoder`` are names that it has not got, ``weights`` counts weights
    that only a whole model has.
    """

    fitting: tuple[Fitting, ...]
    problems: Problems
    namings: tuple[str, ...]
    twice: tuple[str, ...]
    weights: int
    unmatched: tuple[str, ...]
    text_encoder: tuple[str, ...]


@dataclass(frozen=True)
class ReadLora:
    """A LoRA's steps by weight name at scale 1, and its report.

    ``refusal`` is why it should not be used, or ""; it is one of the ``warnings`` too.
    ``text_keys`` are the keys of a text encoder's LoRA in the same file.
    """

    steps: tuple[tuple[str, Step], ...]
    report: LoraReport
    refusal: str
    warnings: tuple[str, ...]
    text_keys: tuple[str, ...]


def read_lora(
    entry: LoraEntry,
    file: LoraFile,
    layout: Layout,
    model: Flux2Model,
    config: PeftSettings | None = None,
    model_file: str = "",
) -> ReadLora:
    """Match, check and read a file; ``config`` are the settings of an adapter_config.json.

    ``model_file`` is the name of the model's file, which alone tells base from distilled klein.

    Raises LoraFileError where the file cannot be read. Everything else that is wrong with it is in
    ``refusal``, so that the caller may still apply what fits.
    """
    known = facts(file.header, config)
    fitted, training = fit(known, layout), trained_for(known, anatomy(known))
    made, steps = _read(fitted.fitting, file, known.settings, fitted.problems)
    report = _report(entry, fitted, made, training)
    refused = wrong_base(training, model) or refusal(
        report, fitted.weights, fitted.text_encoder, training, model
    )
    cautions = (refused, other_distillation(file.header.metadata, model, model_file))
    warnings = [f"{entry.name} {sentence}" for sentence in cautions if sentence]
    for what, names in (
        ("not in this model", report.unmatched),
        ("not applied", report.unsupported),
    ):
        if names:
            warnings.append(f"{entry.name}: {len(names)} modules {what}: {shortlist(names)}")
    text_keys = tuple(
        key for key in file.header.tensors if fitted.text_encoder and is_text_encoder(words(key))
    )
    return ReadLora(tuple(steps), report, refused, tuple(warnings), text_keys)


def refused(known: Facts, training: Training, layout: Layout, model: Flux2Model) -> str:
    """Why ``read_lora`` would refuse a file for the model, as far as its header tells; or ""."""
    if wrong := wrong_base(training, model):
        return wrong
    fitted = fit(known, layout)
    report = _report(LoraEntry("", 1.0, 1.0), fitted, (), training)
    report = replace(report, matched=len(fitted.fitting))
    return refusal(report, fitted.weights, fitted.text_encoder, training, model)


def fit(known: Facts, layout: Layout) -> Fit:
    """Where a file's modules lie in the model, and whether their shapes are right there."""
    fitting, namings, twice, weights = [], [], [], 0
    problems: Problems = defaultdict(list)
    strange = list(known.unread)
    taken = set()
    for module in known.modules:
        place = layout.resolve(module.stem)
        if place is None:
            strange.append(module.stem)
            continue
        if module.keys.keys() <= PLAIN:
            weights += len(module.keys)
            continue
        namings.append(place.naming(module.stem))
        target = place.target
        if target[:3] in taken:
            twice.append(module.stem)
        taken.add(target[:3])
        try:
            if isinstance(module.made, Unfit):
                raise module.made
            algorithm, geometry = module.made
            shape = (target.rows,) if target.columns is None else (target.rows, target.columns)
            algorithm.check(geometry, shape)
        except Unfit as error:
            problems[type(error)].append(f"{module.stem} {error}")
        else:
            fitting.append(Fitting(module, target, algorithm, geometry))
    text = {stem for stem in strange if is_text_encoder(words(stem))}
    unmatched = sorted(set(strange) - text)
    return Fit(
        tuple(fitting), problems, tuple(namings), tuple(twice), weights,
        tuple(unmatched), tuple(sorted(text)),
    )  # fmt: skip


def _read(
    fitting: Sequence[Fitting], file: LoraFile, settings: PeftSettings | None, problems: Problems
) -> tuple[list[Adapter], list[tuple[str, Step]]]:
    """The adapters of modules, and their steps by weight; what is wrong goes to ``problems``."""
    made, steps = [], []
    tensors = file.read(key for at in fitting for key in at.module.keys.values())
    for (stem, keys, _), target, algorithm, geometry in fitting:
        given = base.Given(
            tensors={role: tensors[key] for role, key in keys.items()},
            peaks={role: file.peaks[key] for role, key in keys.items()},
            rows=target.rows,
            columns=target.columns,
            scale=settings.scale(algorithm.peft_type, stem, geometry.rank) if settings else 1.0,
            stem=stem,
        )
        try:
            adapter = read_adapter(algorithm, geometry.rank, given)
        except Unfit as error:
            problems[type(error)].append(f"{stem} {error}")
            continue
        made.append(adapter)
        changes = [(target.key, adapter.effect), (target.bias, adapter.bias)]
        if adapter.bias and (target.bias is None or adapter.bias.diff.numel() != target.rows):
            problems[base.Unsupported].append(f"{stem} changes a bias, which the model has not got")
            changes.pop()
        for key, effect in changes:
            if key is not None and effect is not None:
                effect = effect.rolled() if target.swapped else effect
                steps.append((key, Step(target.start, target.rows, 1.0, effect)))
    return made, steps


def _report(
    entry: LoraEntry, fitted: Fit, made: Sequence[Adapter], training: Training
) -> LoraReport:
    order_matters = any(isinstance(adapter.effect, base.Transform) for adapter in made)
    notes = []
    for said, names in (
        ("come under two names and are added", fitted.twice),
        ("are a text encoder's", fitted.text_encoder),
    ):
        if names:
            notes.append(f"{len(names)} modules {said}: {shortlist(names)}")
    if order_matters:
        notes.append("depends on the weights below it: its place in the stack matters")
    return LoraReport(
        slot=entry.slot,
        name=entry.name,
        source=entry.source.describe(),
        trained_for=training.describe(),
        trainer=training.trainer,
        naming=tuple(sorted(set(fitted.namings))),
        kinds=dict(Counter(adapter.name for adapter in made).most_common()),
        ranks=tuple(sorted({at.geometry.rank for at in fitted.fitting if at.geometry.rank})),
        scale=entry.strength_model,
        file_scales=tuple(sorted({adapter.scale for adapter in made})),
        matched=len(made),
        total=len(fitted.namings) + len(fitted.unmatched),
        unmatched=fitted.unmatched,
        misshapen=tuple(fitted.problems[Unfit]),
        unpaired=tuple(fitted.problems[base.Unpaired]),
        not_finite=tuple(fitted.problems[base.NotFinite]),
        unsupported=tuple(fitted.problems[base.Unsupported]),
        notes=tuple(notes),
        order_matters=order_matters,
    )

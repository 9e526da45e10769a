"""One LoRA file against one model: what fits, what does not, and the steps it makes."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...flux2.variants import Flux2Model
from ..adapters.geometry import Geometry, Unfit, Unpaired, Unsupported, geometry
from ..adapters.reading import Adapter, NotFinite, read_adapter
from ..adapters.transforms import Transform
from ..fuse import Step
from ..stack import LoraEntry
from .compatibility import other_distillation, trained_for, wrong_base
from .files import LoraFile
from .header import TensorInfo
from .layout import Layout
from .matching import Group, Matching, match, naming_of
from .refusal import is_text_encoder, refusal
from .report import LoraReport, counted, shortlist
from .scaling import PeftSettings, header_settings
from .trainer import trainer_of


@dataclass(frozen=True)
class Prepared:
    """A LoRA's steps by weight name at scale 1, and its report.

    ``refusal`` is why it should not be used, ``caution`` what to beware of; "" where there is
    nothing. ``text_keys`` are the keys of a text encoder's LoRA in the same file.
    """

    steps: tuple[tuple[str, Step], ...]
    report: LoraReport
    refusal: str
    caution: str
    text_keys: tuple[str, ...]


@dataclass
class _Findings:
    """What a file's groups came to, by the module's own name."""

    misshapen: list[str]
    unpaired: list[str]
    not_finite: list[str]
    unsupported: list[str]
    notes: list[str]


def prepare(
    entry: LoraEntry,
    file: LoraFile,
    layout: Layout,
    model: Flux2Model,
    config: PeftSettings | None = None,
    model_file: str = "",
) -> Prepared:
    """Match, check and read a file; ``config`` are the settings of an adapter_config.json.

    ``model_file`` is the name of the model's file, which alone tells base from distilled klein.

    Raises LoraFileError where the file cannot be read. Everything else that is wrong with it is in
    ``refusal``, so that the caller may still apply what fits.
    """
    header = file.header
    matching = match(header, layout)
    training = trained_for(header)
    findings = _Findings([], [], [], [], [])
    settings = header_settings(header.metadata) or config
    fitting = _fitting(matching, header.tensors, findings)
    wrong = wrong_base(training, model)
    adapters = _read(file, fitting, settings, findings)
    steps = [step for group, adapter in adapters for step in _steps(group, adapter, findings)]
    twice = _given_twice(matching)
    if twice:
        findings.notes.append(
            f"{len(twice)} modules come under two names and are added: {shortlist(twice)}"
        )
    text_stems = {stem for stem in matching.unmatched if is_text_encoder(stem)}
    text_keys = tuple(key for key in header.tensors if text_stems and is_text_encoder(key))
    unmatched = tuple(stem for stem in matching.unmatched if stem not in text_stems)
    if text_stems:
        findings.notes.append(
            f"{len(text_stems)} modules are a text encoder's: {shortlist(sorted(text_stems))}"
        )
    order_matters = any(isinstance(step.effect, Transform) for _, step in steps)
    if order_matters:
        findings.notes.append("depends on the weights below it: its place in the stack matters")
    ranks = sorted({form.rank for _, form in fitting if form.rank and form.kind != "OFTv2"})
    report = LoraReport(
        slot=entry.slot,
        name=entry.name,
        source=entry.source.describe(),
        trained_for=training.describe(),
        trainer=trainer_of(header),
        naming=tuple(sorted({naming_of(group) for group in matching.groups})),
        kinds=counted([adapter.kind for _, adapter in adapters]),
        ranks=tuple(ranks),
        scale=entry.strength_model,
        file_scales=tuple(sorted({adapter.scale for _, adapter in adapters})),
        matched=len(adapters),
        total=matching.total - len(text_stems),
        unmatched=unmatched,
        misshapen=tuple(findings.misshapen),
        unpaired=tuple(findings.unpaired),
        not_finite=tuple(findings.not_finite),
        unsupported=tuple(findings.unsupported),
        notes=tuple(findings.notes),
        order_matters=order_matters,
    )
    refused = wrong or refusal(matching, report, training, model)
    caution = other_distillation(training, model, model_file) or ""
    return Prepared(tuple(steps), report, refused, caution, text_keys)


def _fitting(
    matching: Matching, tensors: Mapping[str, TensorInfo], findings: _Findings
) -> list[tuple[Group, Geometry]]:
    """The groups whose tensors make an adapter of their module's shape."""
    fitting = []
    for group in matching.groups:
        if group.stem in matching.repeated:
            findings.misshapen.append(f"{group.stem} has the same part twice")
            continue
        shapes = {part: tensors[key].shape for part, key in group.parts.items()}
        try:
            form = geometry(shapes, group.target_shape)
            _check_shape(form, group)
        except Unsupported as error:
            findings.unsupported.append(f"{group.stem} {error}")
        except Unpaired as error:
            findings.unpaired.append(f"{group.stem} {error}")
        except Unfit as error:
            findings.misshapen.append(f"{group.stem} {error}")
        else:
            fitting.append((group, form))
    return fitting


def _check_shape(form: Geometry, group: Group) -> None:
    target = group.resolved.target
    rows = form.rows if form.rows is not None else target.rows
    columns = form.columns if form.columns is not None else target.columns
    if form.kind == "full difference":
        columns = form.columns
    if (rows, columns) != (target.rows, target.columns):
        made = f"{rows} x {columns}" if columns is not None else f"{rows}"
        wanted = " x ".join(str(n) for n in group.target_shape)
        raise Unfit(f"was made for a weight of {made}; the model's is {wanted}")
    if target.columns is None and form.kind not in ("full difference", "bias"):
        raise Unsupported(f"is {form.kind} on a norm")


def _read(
    file: LoraFile,
    fitting: list[tuple[Group, Geometry]],
    settings: PeftSettings | None,
    findings: _Findings,
) -> list[tuple[Group, Adapter]]:
    file.read([key for group, _ in fitting for key in group.parts.values()])
    adapters = []
    for group, form in fitting:
        target = group.resolved.target
        try:
            adapter = read_adapter(
                {part: file.tensor(key) for part, key in group.parts.items()},
                {part: file.peak(key) for part, key in group.parts.items()},
                form,
                target.rows,
                target.columns,
                group.stem,
                settings,
            )
        except NotFinite as error:
            findings.not_finite.append(f"{group.stem} {error}")
        except Unfit as error:
            findings.misshapen.append(f"{group.stem} {error}")
        else:
            adapters.append((group, adapter))
    return adapters


def _steps(group: Group, adapter: Adapter, findings: _Findings) -> list[tuple[str, Step]]:
    target = group.resolved.target
    steps = []
    if adapter.effect is not None:
        effect = adapter.effect.rolled() if target.swapped else adapter.effect
        steps.append((target.key, Step(target.start, target.rows, 1.0, effect)))
    if adapter.bias is not None:
        if target.bias is None or adapter.bias.diff.numel() != target.rows:
            findings.unsupported.append(f"{group.stem} changes a bias, which the model has not got")
        else:
            bias = adapter.bias.rolled() if target.swapped else adapter.bias
            steps.append((target.bias, Step(target.start, target.rows, 1.0, bias)))
    return steps


def _given_twice(matching: Matching) -> list[str]:
    """Modules that more than one group of the file adapts."""
    seen: dict[tuple[str, int, int], str] = {}
    twice = []
    for group in matching.groups:
        target = group.resolved.target
        where = (target.key, target.start, target.rows)
        if where in seen:
            twice.append(group.stem)
        seen[where] = group.stem
    return twice

"""What became of each LoRA, for people and for programs. The JSON's keys are permanent."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...flux2.variants import Flux2Model

SCHEMA = 1
SHOWN = 5


@dataclass(frozen=True)
class LoraReport:
    """One LoRA's part: names of modules are the file's own."""

    slot: str
    name: str
    source: str
    trained_for: str
    trainer: str
    naming: tuple[str, ...]
    kinds: dict[str, int]
    ranks: tuple[int, ...]
    scale: float
    file_scales: tuple[float, ...]
    matched: int
    total: int
    unmatched: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    order_matters: bool = False

    def as_text(self) -> str:
        """One line: "ink.safetensors: matched 88/88, rank 16, ai-toolkit, FLUX.2 klein 9B"."""
        rank = f"rank {_span(self.ranks)}" if self.ranks else ""
        kinds = ", ".join(kind for kind in self.kinds if kind != "LoRA")
        parts = [f"matched {self.matched}/{self.total}", rank, kinds, self.trainer]
        parts += [self.trained_for, f"scale {self.scale:g}"]
        return f"{self.name}: {', '.join(part for part in parts if part)}"


@dataclass(frozen=True)
class Report:
    """The whole stack's: the model it went onto, each LoRA, the mode taken and why, warnings."""

    model: Flux2Model | None
    mode: str
    mode_taken: str
    mode_reason: str
    loras: tuple[LoraReport, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        model = self.model
        return json.dumps(
            {
                "schema": SCHEMA,
                "model": None
                if model is None
                else {
                    "name": model.name,
                    "width": model.width,
                    "double_blocks": model.double_blocks,
                    "single_blocks": model.single_blocks,
                    "guidance": model.guidance,
                },
                "mode": {
                    "asked": self.mode,
                    "taken": self.mode_taken,
                    "reason": self.mode_reason,
                },
                "loras": [_as_table(lora) for lora in self.loras],
                "warnings": list(self.warnings),
            },
            indent=2,
            ensure_ascii=False,
        )

    def to_text(self) -> str:
        """A few lines for the node: one a LoRA, then the warnings."""
        if not self.loras:
            return "No LoRA is enabled; the model passes through unchanged."
        lines = [lora.as_text() for lora in self.loras]
        lines += [f"Warning: {warning}" for warning in self.warnings]
        if self.mode_taken:
            lines.append(f"{self.mode_taken}: {self.mode_reason}")
        return "\n".join(lines)


def _as_table(lora: LoraReport) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, value in vars(lora).items():
        table[name] = list(value) if isinstance(value, tuple) else value
    return table


def _span(ranks: Sequence[int]) -> str:
    return f"{min(ranks)}-{max(ranks)}" if min(ranks) != max(ranks) else f"{ranks[0]}"


def shortlist(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(name[:120] for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def counted(kinds: Sequence[str]) -> dict[str, int]:
    """How many modules of each kind, the most frequent first."""
    return dict(Counter(kinds).most_common())

"""The file's own scale of each adapter: alpha / rank, wherever the trainer keeps alpha.

An ``.alpha`` tensor wins. Without one, PEFT's settings count: diffusers and SimpleTuner write them
into the header as ``lora_adapter_metadata``, raw PEFT into ``adapter_config.json`` beside the file.
Without any, the scale is 1. Rules: peft ``LoraLayer.update_layer`` and ``get_pattern_key``.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The files that PEFT itself writes, side by side.
CONFIG_NAME = "adapter_config.json"
PEFT_NAME = "adapter_model.safetensors"

MAX_CONFIG_BYTES = 2**20
_MOST_PATTERNS = 5_000
# How many of them are regular expressions, and the names that those are tried on.
_PLAIN = re.compile(r"[\w.-]*")
_MOST_EXPRESSIONS = 20
_MOST_STEM = 160
_MOST_DOTS = 20


@dataclass(frozen=True)
class PeftSettings:
    """What PEFT trained with: its ``peft_type`` ("LORA", "LOHA", "LOKR"), alpha and rank.

    The patterns are PEFT's exceptions to both, by module.
    """

    peft_type: str
    alpha: float
    rank: int | None = None
    rslora: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rank_pattern: Mapping[str, float] = field(default_factory=dict)

    def scale(self, kind: str | None, stem: str, rank: int | None) -> float:
        """alpha / rank (or / sqrt(rank) with rsLoRA) of the module that ``stem`` names.

        1 where its ``kind`` is not the settings'. ``rank`` is that of its tensors; where they have
        none (full LoKr), the rank it was set to.
        """
        if kind != self.peft_type:
            return 1.0
        ranks, alphas = (
            (value for pattern, value in patterns.items() if _matches(pattern, stem))
            for patterns in (self.rank_pattern, self.alpha_pattern)
        )
        if rank is None:
            rank = int(next(ranks, self.rank or 0))
        if rank < 1:
            return 1.0
        alpha = next(alphas, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _matches(pattern: str, stem: str) -> bool:
    """PEFT's rule: the pattern matches the whole path or its end after a dot."""
    if stem == pattern or stem.endswith(f".{pattern}"):
        return True
    if _PLAIN.fullmatch(pattern):
        return False
    if len(stem) > _MOST_STEM or stem.count(".") > _MOST_DOTS:
        return False
    anchored, bare = pattern.startswith("^"), pattern.removeprefix("^")
    before = r"^(?:base_model\.model\.|transformer\.)*" if anchored else r"(?:^|\.)"
    try:
        return re.search(rf"{before}(?:{bare})$", stem) is not None
    except re.error:
        return False


def header_settings(metadata: Mapping[str, str]) -> PeftSettings | None:
    """PEFT's settings from the header, with ``transformer.`` before each name or without; or None.

    A text encoder's settings are not the transformer's.
    """
    table = json_table(metadata.get("lora_adapter_metadata", ""))
    prefixes = sorted({key.split(".", 1)[0] for key in table if "." in key})
    prefixes = [name for name in prefixes if not name.startswith("text_encoder")]
    prefix = "transformer" if "transformer" in prefixes else "".join(prefixes[:1])
    own = {key: value for key, value in table.items() if "." not in key}
    for key, value in table.items():
        if prefix and key.startswith(f"{prefix}."):
            own[key.removeprefix(f"{prefix}.")] = value
    return peft_settings(own)


def settings_beside(path: Path) -> tuple[PeftSettings | None, str]:
    """PEFT's settings beside a file, where they are surely its own; and what was ignored."""
    text = short_text(path.with_name(CONFIG_NAME), MAX_CONFIG_BYTES)
    settings = peft_settings(json_table(text))
    if settings is None or owns_config(path):
        return settings, ""
    return None, (
        f"the {CONFIG_NAME} beside it is not used, because other LoRAs lie there too. If it "
        f"belongs to this one, give both a folder of their own"
    )


def owns_config(path: Path) -> bool:
    """Whether an adapter_config.json beside the file can be no other LoRA's."""
    others = path.parent.glob("*.safetensors")
    return path.name == PEFT_NAME or all(other == path for other in others)


def short_text(path: Path, most_bytes: int) -> str:
    """The text of a file; "" where there is none, or a longer one."""
    try:
        if path.stat().st_size > most_bytes:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def json_table(text: str) -> dict[str, object]:
    """The table that a JSON text is; empty where it is none."""
    try:
        table = json.loads(text) if text else {}
        json.dumps(table, ensure_ascii=False).encode()  # half a surrogate pair cannot be shown
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def peft_settings(table: Mapping[str, object]) -> PeftSettings | None:
    """What a table, as PEFT writes it, sets; None where it has no alpha."""
    named = table.get("peft_type", "LORA")
    kind = named if isinstance(named, str) else ""
    alpha = _number(table.get("lora_alpha" if kind == "LORA" else "alpha"))
    rank = _number(table.get("r"))
    if alpha is None:
        return None
    return PeftSettings(
        kind,
        alpha,
        int(rank) if rank is not None and rank >= 1 else None,
        table.get("use_rslora") is True,
        _patterns(table.get("alpha_pattern")),
        _patterns(table.get("rank_pattern")),
    )


def _patterns(given: object) -> dict[str, float]:
    if not isinstance(given, dict):
        return {}
    numbers = {pattern: _number(value) for pattern, value in given.items() if _is_safe(pattern)}
    known = {pattern: value for pattern, value in numbers.items() if value is not None}
    expressions = [pattern for pattern in known if not _PLAIN.fullmatch(pattern)]
    for pattern in expressions[_MOST_EXPRESSIONS:]:
        del known[pattern]
    return dict(list(known.items())[:_MOST_PATTERNS])


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 and math.isfinite(value) else None


def _is_safe(pattern: object) -> bool:
    """A pattern is a regular expression from a stranger's file: with one choice between words, two
    wildcards, and neither repeated groups nor references, matching it takes about a millisecond."""
    return (
        isinstance(pattern, str)
        and len(pattern) <= 300
        and re.search(r"\)\s*[*+?{]|\\[1-9]|\(\?[^:]", pattern) is None
        and len(re.findall(r"[*+{]|(?<!\()\?", pattern)) <= 2
        and ("|" not in pattern or pattern.count("(") <= 1)
    )

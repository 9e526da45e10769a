"""What a LoRA file says of itself: base, rank, alpha, trainer, licence, trigger words. No network.

Sources: modelspec (Stability AI's sai-model-spec), kohya's ``ss_*`` keys, ai-toolkit's
``training_info`` and ``trigger_word``, and the ``.txt`` that many download pages put beside a file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..adapters.base import Unfit
from ..sources.source import SourceError
from ..stack import LoraEntry
from .facts import Facts, facts
from .file import LoraFileError, read_header
from .scaling import json_table, settings_beside, short_text
from .training import trained_for

MAX_SIDECAR_BYTES = 16 * 1024
MAX_TEXT = 500
_TRIGGER_KEYS = (
    "modelspec.trigger_phrase", "trigger_word", "trigger_words", "ss_trigger_words",
    "activation text", "instance_prompt", "modelspec.usage_hint",
)  # fmt: skip
_MOST_TAGS = 5


def describe_stack(
    entries: Sequence[LoraEntry], locate: Callable[[LoraEntry], Path]
) -> tuple[str, str]:
    """A few lines on each LoRA, and all trigger words joined by commas.

    A file that is not on disk or cannot be read is said so in its lines; nothing raises.
    """
    texts, words = [], []
    for entry in entries:
        name = entry.source.describe()
        try:
            path = Path(locate(entry))
            known = facts(read_header(path), settings_beside(path)[0])
        except (SourceError, LoraFileError) as error:
            texts.append(f"{name}\n  {error}")
            continue
        # Many download pages give ``ink.txt`` beside ``ink.safetensors``.
        sidecar = short_text(path.with_suffix(".txt"), MAX_SIDECAR_BYTES)
        found = trigger_words(known.header.metadata, sidecar)
        words += found
        texts.append("\n  ".join([name, *_lines(known, found)]))
    return "\n".join(texts) or "The stack is empty.", ", ".join(dict.fromkeys(words))


def _lines(known: Facts, found: Sequence[str]) -> list[str]:
    header, training = known.header, trained_for(known)
    metadata = header.metadata
    made = [module.made for module in known.modules if not isinstance(module.made, Unfit)]
    ranks = sorted({geometry.rank for _, geometry in made if geometry.rank})
    alpha = f"{known.settings.alpha:g}" if known.settings else metadata.get("ss_network_alpha", "")
    lines = {
        "title": metadata.get("modelspec.title") or metadata.get("ss_output_name", ""),
        "trained for": training.describe(),
        "named base": training.base_model or "",
        "rank": ", ".join(map(str, ranks)),
        "alpha": alpha,
        "trainer": training.trainer,
        "licence": metadata.get("modelspec.license") or metadata.get("license", ""),
        "author": metadata.get("modelspec.author", ""),
        "trigger words": ", ".join(found),
        "tensors": f"{len(header.tensors)}, {header.size / 2**20:.1f} MiB",
    }
    return [f"{name}: {' '.join(line.split())[:MAX_TEXT]}" for name, line in lines.items() if line]


def trigger_words(table: Mapping[str, str], sidecar: str) -> list[str]:
    """The words a file was trained with: what it names, else its most frequent training tags."""
    texts: list[object] = [table.get(key) for key in _TRIGGER_KEYS]
    texts += [json_table(table.get("training_info", "")).get("trigger_word"), sidecar]
    named = ",".join(text.replace("\n", ",") for text in texts if isinstance(text, str))
    words = [word.strip()[:MAX_TEXT] for word in named.split(",") if word.strip()]
    return list(dict.fromkeys(words)) or _frequent_tags(table.get("ss_tag_frequency", ""))


def _frequent_tags(text: str) -> list[str]:
    """kohya's tag counts per data set; a tag of a single picture is no trigger."""
    counts: dict[str, int] = {}
    for tags in json_table(text).values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool):
                counts[tag.strip()] = counts.get(tag.strip(), 0) + count
    ranked = sorted(counts, key=lambda tag: -counts[tag])
    return [tag for tag in ranked if tag and counts[tag] > 1][:_MOST_TAGS]

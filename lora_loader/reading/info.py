"""What a LoRA file says of itself: base, rank, alpha, trainer, licence, trigger words. No network.

Sources: modelspec (Stability AI's sai-model-spec), kohya's ``ss_*`` keys, ai-toolkit's
``training_info`` and ``trigger_word``; and what lies beside a file: the note of its download with
Civitai's trigger words, PEFT's ``adapter_config.json``, the ``.txt`` of many download pages.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ...network.files import read_record, record_of
from ..adapters.base import Unfit
from ..sources.source import SourceError
from ..stack import LoraEntry
from .facts import Facts, facts
from .file import LoraFileError, read_header
from .scaling import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    json_table,
    owns_config,
    settings_beside,
    short_text,
)
from .training import anatomy, trained_for

MAX_SIDECAR_BYTES = 16 * 1024
MAX_TEXT = 500
_TRIGGER_KEYS = (
    "modelspec.trigger_phrase", "trigger_word", "trigger_words", "ss_trigger_words",
    "activation text", "instance_prompt", "modelspec.usage_hint",
)  # fmt: skip
_CONFIG_KEYS = (
    "peft_type", "r", "lora_alpha", "alpha", "use_rslora", "use_dora", "target_modules",
)  # fmt: skip
_MOST_TAGS = 5


def describe_stack(
    entries: Sequence[LoraEntry], locate: Callable[[LoraEntry], Path]
) -> tuple[str, str]:
    """A few lines on each LoRA, and all trigger words, each once, in one line with commas.

    A file that is not on disk or cannot be read is said so in its lines; nothing raises.
    """
    texts, words = [], []
    for entry in entries:
        name = entry.source.describe()
        try:
            path = Path(locate(entry))
            settings, ignored = settings_beside(path)
            known = facts(read_header(path), settings)
        except (SourceError, LoraFileError) as error:
            texts.append(f"{name}\n  {error}")
            continue
        found = trigger_words(known.header.metadata, *words_beside(path))
        words += found
        config = short_text(path.with_name(CONFIG_NAME), MAX_CONFIG_BYTES)
        table = json_table(config) if owns_config(path) else {}
        texts.append("\n  ".join([name, *_lines(known, found, table, ignored)]))
    return "\n".join(texts) or "The stack is empty.", ", ".join(_once(words))


def _lines(
    known: Facts, found: Sequence[str], config: Mapping[str, object], ignored: str
) -> list[str]:
    header, settings = known.header, known.settings
    training = trained_for(known, anatomy(known))
    metadata = header.metadata
    made = [module.made for module in known.modules if not isinstance(module.made, Unfit)]
    ranks = sorted({geometry.rank for _, geometry in made if geometry.rank})
    alpha = f"{settings.alpha:g}" if settings else metadata.get("ss_network_alpha", "")
    base = config.get("base_model_name_or_path")
    lines = {
        "title": metadata.get("modelspec.title") or metadata.get("ss_output_name", ""),
        "trained for": training.describe(),
        "named base": training.base_model or (base if isinstance(base, str) else ""),
        "rank": ", ".join(map(str, ranks)),
        "alpha": f"{alpha} (rsLoRA)" if settings and settings.rslora else alpha,
        "trainer": training.trainer,
        CONFIG_NAME: ", ".join(filter(None, (_fact(key, config.get(key)) for key in _CONFIG_KEYS))),
        "note": ignored,
        "licence": metadata.get("modelspec.license") or metadata.get("license", ""),
        "author": metadata.get("modelspec.author", ""),
        "trigger words": ", ".join(found),
        "tensors": f"{len(header.tensors)}, {header.size / 2**20:.1f} MiB",
    }
    return [f"{name}: {' '.join(line.split())[:MAX_TEXT]}" for name, line in lines.items() if line]


def _fact(key: str, value: object) -> str:
    """``key value``; the key alone where it is on, nothing where it is off or no plain value."""
    if isinstance(value, list):
        value = " ".join(str(one) for one in value[:100])
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return key if value is True else ""
    return f"{key} {value}"


def words_beside(path: Path) -> tuple[str, list[object]]:
    """What lies beside a file: a text, which many download pages give (``ink.txt`` beside
    ``ink.safetensors``), and the trigger words that its own download's page named."""
    text, record = path.with_suffix(".txt"), record_of(path)
    # Files: to open a pipe waits for whoever writes into it.
    sidecar = short_text(text, MAX_SIDECAR_BYTES) if text.is_file() else ""
    noted = (read_record(record) or {}).get("trigger_words") if record.is_file() else None
    return sidecar, noted if isinstance(noted, list) else []


def trigger_words(
    table: Mapping[str, str], sidecar: str, noted: Iterable[object] = ()
) -> list[str]:
    """The words a file was trained with, each once: what it, its download's page (``noted``) and
    the text beside it name, else its most frequent training tags."""
    texts: list[object] = [table.get(key) for key in _TRIGGER_KEYS]
    texts += [json_table(table.get("training_info", "")).get("trigger_word"), *noted, sidecar]
    named = ",".join(text.replace("\n", ",") for text in texts if isinstance(text, str))
    # No halves of characters, which a note can hold and no prompt.
    words = (" ".join(word.split()).encode(errors="ignore").decode() for word in named.split(","))
    found = _once(word[:MAX_TEXT] for word in words if word)
    return found or _frequent_tags(table.get("ss_tag_frequency", ""))


def _once(words: Iterable[str]) -> list[str]:
    """Each word as it is first written; in another case it is no other word."""
    kept: dict[str, str] = {}
    for word in words:
        kept.setdefault(word.casefold(), word)
    return list(kept.values())


def _frequent_tags(text: str) -> list[str]:
    """kohya's tag counts per data set; a tag of a single picture is no trigger."""
    counts: dict[str, int] = {}
    for tags in json_table(text).values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool):
                counts[tag.strip()] = counts.get(tag.strip(), 0) + count
    ranked = sorted(counts, key=lambda tag: -counts[tag])
    return [tag for tag in ranked if tag and counts[tag] > 1][:_MOST_TAGS]

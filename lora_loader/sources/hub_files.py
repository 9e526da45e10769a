"""Which file of a repository is the LoRA, from the hub's listing of it."""

import re
from collections.abc import Sequence
from typing import Any

from ..reading.scaling import CONFIG_NAME, PEFT_NAME
from .access import FetchError
from .file_names import EXTENSION
from .source import HubSource

CANONICAL = "pytorch_lora_weights.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_ID = re.compile(r"[0-9a-f]{40}")
_LISTED = 12


def siblings(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The repository's files by their path in it."""
    found = answer.get("siblings")
    return {
        entry["rfilename"]: entry
        for entry in (found if isinstance(found, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("rfilename"), str)
    }


def choose(files: Sequence[str], source: HubSource) -> str:
    """The one LoRA of a repository, or the name that diffusers gives to it."""
    loras = [file for file in files if file.lower().endswith(EXTENSION)]
    if len(loras) == 1:
        return loras[0]
    if CANONICAL in loras:
        return CANONICAL
    if not loras:
        raise FetchError(
            f"The repository holds no {EXTENSION} file; other formats are not read.\n"
            f"{source.describe()}"
        )
    raise FetchError(
        f"The repository holds {len(loras)} {EXTENSION} files. Write which one, as in "
        f"{source.describe()}:{min(loras)}\n{_listing(loras)}"
    )


def no_such_file(file: str, files: Sequence[str], source: HubSource) -> str:
    """That ``file`` is not there, and what is."""
    loras = [name for name in files if name.lower().endswith(EXTENSION)]
    has = f"It holds:\n{_listing(loras)}" if loras else f"It holds no {EXTENSION} file."
    return f"{source.repo} has no file '{file}' at this revision. {has}"


def _listing(files: Sequence[str]) -> str:
    lines = [name[:120] for name in sorted(files)[:_LISTED]]
    more = len(files) - len(lines)
    return "\n".join(lines + ([f"... and {more} more"] if more > 0 else []))


def content(entry: dict[str, Any]) -> tuple[str | None, int | None, str | None]:
    """sha256, size and git id that the hub's listing gives for a file."""
    lfs = entry.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    sha256 = lfs.get("sha256") or lfs.get("oid")
    size = lfs.get("size", entry.get("size"))
    blob = entry.get("blobId")
    return (
        sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
        size if isinstance(size, int) and size >= 0 else None,
        f"git {blob}" if isinstance(blob, str) and _GIT_ID.fullmatch(blob) else None,
    )


def config_of(file: str, files: Sequence[str]) -> str | None:
    """The adapter_config.json that surely belongs to ``file``: PEFT's own pair, or no doubt."""
    folder, slash, name = file.rpartition("/")
    config = f"{folder}{slash}{CONFIG_NAME}"
    beside = [other for other in files if other.rpartition("/")[0] == folder]
    loras = [other for other in beside if other.lower().endswith(EXTENSION)]
    own = name == PEFT_NAME or loras == [file]
    return config if own and config in beside else None

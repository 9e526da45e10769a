"""An installed LoRA's name -> the one name of the host's list that it means.

Names travel between machines in workflows: with the other slash, from another folder, without the
extension. What they must never do is to leave the loras folders.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

from .source import EXTENSION, SourceError

NEAR_NAMES = 5

_OTHER_FORMATS = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".gguf", ".zip"})
_DRIVE = re.compile(r"^[A-Za-z]:")


def resolve_installed(name: str, available: Iterable[str]) -> str:
    """The entry of ``available`` that ``name`` means: by path with either slash, then by file name.

    Raises SourceError for a path outside the folders, another file type, a miss (with near names)
    and an ambiguous file name (with the candidates).
    """
    wanted = _checked(name)
    listed = [entry for entry in available if entry.lower().endswith(EXTENSION)]
    by_path = {entry.replace("\\", "/"): entry for entry in listed}
    if not wanted.lower().endswith(EXTENSION):
        wanted += EXTENSION
    if wanted in by_path:
        return by_path[wanted]
    base = wanted.rsplit("/", 1)[-1]
    same_base = [entry for path, entry in by_path.items() if path.rsplit("/", 1)[-1] == base]
    if len(same_base) == 1:
        return same_base[0]
    if same_base:
        raise SourceError(
            f"'{name}' is in several loras folders: {', '.join(sorted(same_base))}. Choose one "
            "with its folder."
        )
    raise SourceError(_miss(name, wanted, sorted(by_path)))


def _checked(name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise SourceError("No LoRA file is chosen. Choose one, or set the slot to none.")
    path = name.strip().replace("\\", "/")
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in parts or "\0" in path:
        raise SourceError(
            f"'{name[:200]}' is a path outside ComfyUI's loras folders. Put the file into one of "
            "them and choose it by its name there."
        )
    last = parts[-1]
    extension = last[last.rfind(".") :].lower() if "." in last else ""
    if extension in _OTHER_FORMATS:
        raise SourceError(
            f"'{name[:200]}' is a {extension} file. Only .safetensors is read: the other formats "
            "can carry code."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _miss(name: str, wanted: str, paths: Sequence[str]) -> str:
    if not paths:
        return f"There is no LoRA '{name}': the loras folders hold no .safetensors file."
    # Without the extension, which would make every name near to every other.
    known: dict[str, str] = {}
    for path in paths:
        whole = path.lower().removesuffix(EXTENSION)
        known.setdefault(whole, path)
        known.setdefault(whole.rsplit("/", 1)[-1], path)
    asked = wanted.lower().removesuffix(EXTENSION)
    close: list[str] = []
    for text in (asked, asked.rsplit("/", 1)[-1]):
        close += difflib.get_close_matches(text, known, n=NEAR_NAMES, cutoff=0.6)
    near = list(dict.fromkeys(known[key] for key in close))[:NEAR_NAMES]
    if near:
        return f"There is no LoRA '{name}' in the loras folders. Near names: {', '.join(near)}."
    return (
        f"There is no LoRA '{name}' in the loras folders, and no name near it. Put the file there "
        "and press R to refresh the list."
    )

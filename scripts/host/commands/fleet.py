"""A table of edits over many ComfyUIs, on Ray: ``fleet/`` in an environment of its own."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..cache import cache_root
from ..environment import ROOT, fleet_python
from ..steps import SetupError

# For the servers, which are not to see ours.
GIVEN_PATH = "FLUX2_FLEET_PYTHONPATH"
BASE = "FLUX2_FLEET_BASE"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    sys.path.insert(0, str(ROOT))
    from fleet.options import parse as options_of

    options = options_of(arguments)
    if getattr(options, "comfyui", None):
        os.environ["COMFYUI_PATH"] = str(options.comfyui.resolve())
    return options


def run(options: argparse.Namespace) -> int:
    try:
        python = fleet_python()
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    if options.command == "setup":
        print(python)
        return 0
    environment = dict(os.environ)
    environment[GIVEN_PATH] = environment.get("PYTHONPATH", "")
    # Ray's processes find the room by it, those that start on other machines too.
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "scripts")))
    environment["COMFYUI_PYTHON"] = sys.executable
    # Nobody is told of anybody's runs, unless they say so.
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray makes its workers yield to everybody (nice 15), and the ComfyUIs are theirs.
    environment.setdefault("RAY_worker_niceness", "0")
    if options.command == "run" and not options.base and _is_pinned():
        environment[BASE] = str(_toy_base())
    module, arguments = "fleet", sys.argv[1:]
    if options.command == "ray":
        module, arguments = "ray.scripts.scripts", options.ray
    command = [str(python), "-m", module, *arguments]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)  # noqa: S606  (the path is our own)
    return subprocess.call(command, env=environment)


def _is_pinned() -> bool:
    """Whether the ComfyUI is the one that was made here, which has no models of its own."""
    return Path(os.environ["COMFYUI_PATH"]).parent == cache_root()


def _toy_base() -> Path:
    """A base directory with the models that the demo uses, and this pack."""
    from .. import models

    toy = models.toy_dir(cache_root())
    base = cache_root() / f"fleet-base-{toy.name}"
    if not base.is_dir():
        scratch = base.with_name(f"{base.name}-{os.getpid()}")
        models.make_base(scratch, [toy])
        try:
            scratch.rename(base)
        except OSError:  # another run was quicker
            shutil.rmtree(scratch, ignore_errors=True)
    link = base / "custom_nodes" / "flux2-lora-edit"
    if not link.exists() or link.resolve() != ROOT:
        link.unlink(missing_ok=True)
        models.link_nodes(ROOT, base, link.name)
    return base

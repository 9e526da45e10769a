"""The whole suite: lint, then pytest against a real ComfyUI with tiny models.

Without arguments two processes share the tests. Every argument but --no-lint goes to pytest, which
is then one process: -k sampler, -m "not host", tests/flux2.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

from ..environment import ROOT
from ..server import ENVIRONMENT

# Not more: each has a ComfyUI of its own, and the browser's part takes about half of the time.
SHARED = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "--durations", "12")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--no-lint", action="store_true", help="tests only")
    options, options.pytest = parser.parse_known_args(arguments)
    return options


def run(options: argparse.Namespace) -> int:
    """pytest's exit status; 1 when the tests pass and the lint does not."""
    from .lint import check

    if find_spec("pytest") is None:
        print(f"pytest is not installed in {sys.executable}; see the line above for what to do")
        return 2
    clean = options.no_lint or check()
    began = time.monotonic()
    status = pytest(options.pytest or shared())
    print(f"[test] pytest ended with status {status} ({time.monotonic() - began:.1f} s)")
    if not clean:
        print("[test] the lint above is not clean; scripts/lint --fix repairs most of it")
    return status or int(not clean)


def shared() -> Sequence[str]:
    """The arguments that let two processes share the tests, where the plugin is installed."""
    return SHARED if find_spec("xdist") else ()


def pytest(arguments: Sequence[str], comfyui: str = "", python: str = sys.executable) -> int:
    """Run pytest from the root on the ComfyUI in ``COMFYUI_PATH``, or on another one.

    ``python`` is another environment's interpreter. Returns pytest's exit status.
    """
    environment = {**ENVIRONMENT, **os.environ}
    environment["COMFYUI_PATH"] = comfyui or os.environ["COMFYUI_PATH"]
    command = [python, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode

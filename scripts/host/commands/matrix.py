"""The tests on every supported ComfyUI, or on every supported Python; ends with a table.

By default what needs a host runs on each ComfyUI, in one environment. With --pythons, what needs
none runs on each Python, in an environment of its own (some minutes the first time).
Arguments after -- go to pytest instead of the default.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .. import pythons, report, versions
from ..cache import cache_root
from ..environment import source
from ..steps import SetupError
from .test import pytest, shared

ON_HOSTS = ("-m", "host or comfy", "-q")
ON_PYTHONS = ("-m", "not host and not comfy and not browser", "-q")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    arguments = list(arguments)
    mark = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="scripts/matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hosts = ", ".join(host.comfyui for host in versions.HOSTS)
    parser.add_argument(
        "versions",
        nargs="*",
        help=f"of ComfyUI: {hosts}; with --pythons of Python: {', '.join(pythons.SUPPORTED)}",
    )
    parser.add_argument("--pythons", action="store_true", help="go through the Pythons instead")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write it as Markdown too")
    options = parser.parse_args(arguments[:mark])
    known = pythons.SUPPORTED if options.pythons else [host.comfyui for host in versions.HOSTS]
    if unknown := [version for version in options.versions if version not in known]:
        parser.error(f"not among the known ones ({', '.join(known)}): {', '.join(unknown)}")
    options.pytest = arguments[mark + 1 :]
    return options


def run(options: argparse.Namespace) -> int:
    """0 when every version passes."""
    if options.pythons:
        subject, rows = "Python", _on_pythons(options)
    else:
        subject, rows = "ComfyUI", _on_hosts(options)
    print("\n" + report.plain(subject, rows))
    if options.table:
        options.table.write_text(report.markdown(subject, rows), "utf-8")
    return int(any(row.status for row in rows))


def _on_hosts(options: argparse.Namespace) -> list[report.Row]:
    rows = []
    for version in options.versions or versions.SUPPORTED:
        comfyui = source(versions.find(version), Path(sys.executable), cache_root())
        print(f"\n[matrix] ComfyUI {version}", flush=True)
        arguments = options.pytest or (*ON_HOSTS, *shared())
        rows.append(_row(version, arguments, comfyui, Path(sys.executable)))
    return rows


def _on_pythons(options: argparse.Namespace) -> list[report.Row]:
    rows = []
    for version in options.versions or pythons.SUPPORTED:
        print(f"\n[matrix] Python {version}", flush=True)
        try:
            python = pythons.environment_of(pythons.find(version))
        except SetupError as error:
            rows.append(report.Row(version, "", str(error), report.NOTHING, 0.0))
            continue
        comfyui = source(versions.NEWEST, python, cache_root())
        arguments = options.pytest or (*ON_PYTHONS, *shared())
        rows.append(_row(version, arguments, comfyui, python))
    return rows


def _row(version: str, arguments: Sequence[str], comfyui: Path, python: Path) -> report.Row:
    """One run of pytest, counted and timed."""
    command = [str(python), "-c", "import importlib.metadata as m; print(m.version('torch'))"]
    torch = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "report.xml"
        status = pytest([*arguments, f"--junit-xml={file}"], str(comfyui), str(python))
        counts = report.read(file)
    return report.Row(version, torch, status, counts, time.monotonic() - began)

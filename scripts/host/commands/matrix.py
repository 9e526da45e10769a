"""The host tests on every supported ComfyUI, in one environment; ends with a table.

Arguments after -- go to pytest instead of the default: -m host -q.
"""

import argparse
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from .. import versions
from ..cache import cache_root
from ..environment import source
from .test import pytest

DEFAULT = ("-m", "host", "-q")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    arguments = list(arguments)
    mark = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="scripts/matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(host.comfyui for host in versions.HOSTS)
    parser.add_argument(
        "versions", nargs="*", default=versions.SUPPORTED, help=f"ComfyUI versions: {known}"
    )
    options = parser.parse_args(arguments[:mark])
    try:
        options.hosts = [versions.find(version) for version in options.versions]
    except ValueError as error:
        parser.error(str(error))
    options.pytest = arguments[mark + 1 :] or DEFAULT
    return options


def run(options: argparse.Namespace) -> int:
    """0 when every host passes."""
    rows = []
    for host in options.hosts:
        comfyui = source(host, Path(sys.executable), cache_root())
        print(f"\n[matrix] ComfyUI {host.comfyui}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.xml"
            status = pytest([*options.pytest, f"--junit-xml={report}"], str(comfyui))
            counts = _counts(report)
        rows.append((host.comfyui, status, counts, time.monotonic() - began))
    print(f"\n{'ComfyUI':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for version, status, (passed, failed, skipped), seconds in rows:
        line = f"{version:<10}{passed:>8}{failed:>8}{skipped:>9}{seconds:>9.0f}"
        print(line + (f"   pytest status {status}" if status else ""))
    return int(any(status for _, status, _, _ in rows))


def _counts(report: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped) of a JUnit report; zeros when pytest wrote none."""
    if not os.path.exists(report):
        return 0, 0, 0
    # Written by our own pytest a moment ago.
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return total - failed - skipped, failed, skipped

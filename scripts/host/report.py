"""What pytest's JUnit report says, and a table of several of them, plain and in Markdown."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HEAD = ("passed", "failed", "skipped", "seconds")


class Counts(NamedTuple):
    """The tests of one run; ``reasons`` counts the skipped ones by what they say."""

    passed: int
    failed: int
    skipped: int
    reasons: Counter[str]


class Row(NamedTuple):
    """One run. ``status`` is pytest's exit status, or a sentence when there was no run."""

    version: str
    torch: str
    status: int | str
    counts: Counts
    seconds: float


NOTHING = Counts(0, 0, 0, Counter())


def read(report: Path) -> Counts:
    """The counts of a JUnit report; zeros when pytest wrote none."""
    if not report.exists():
        return NOTHING
    total = failed = 0
    reasons: Counter[str] = Counter()
    # Written by our own pytest a moment ago.
    root = ElementTree.parse(report).getroot()  # noqa: S314
    for suite in root.iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    for skipped in root.iter("skipped"):
        reasons[skipped.get("message", "")] += 1
    return Counts(total - failed - reasons.total(), failed, reasons.total(), reasons)


def plain(subject: str, rows: Sequence[Row]) -> str:
    """The table in columns, with pytest's status where it is not 0."""
    lines = [f"{subject:<10}{'torch':<14}" + "".join(f"{name:>9}" for name in HEAD)]
    for row in rows:
        cells = (*row.counts[:3], f"{row.seconds:.0f}")
        line = f"{row.version:<10}{row.torch:<14}" + "".join(f"{cell:>9}" for cell in cells)
        lines.append(line + (f"   {_trouble(row)}" if row.status else ""))
    return "\n".join(lines + [""] + _skips(rows)).rstrip()


def markdown(subject: str, rows: Sequence[Row]) -> str:
    """The table as Markdown, then why what was skipped was skipped."""
    head = (subject, "torch", *HEAD)
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * len(HEAD)]
    for row in rows:
        cells = (row.version, row.torch, *row.counts[:3], f"{row.seconds:.0f}")
        line = "| " + " | ".join(str(cell) for cell in cells) + " |"
        lines.append(line)
    troubles = [f"- {row.version}: {_trouble(row)}" for row in rows if row.status]
    skips = _skips(rows)
    for title, points in (("Not passed", troubles), ("Skipped", skips)):
        if points:
            lines += ["", f"{title}:", "", *points]
    return "\n".join(lines) + "\n"


def _trouble(row: Row) -> str:
    return row.status if isinstance(row.status, str) else f"pytest status {row.status}"


def _skips(rows: Sequence[Row]) -> list[str]:
    """One line for each reason, with the versions that gave it and how often."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        for reason, times in row.counts.reasons.items():
            by_reason.setdefault(reason, []).append(f"{row.version}: {times}")
    return [f"- {reason} ({', '.join(versions)})" for reason, versions in by_reason.items()]

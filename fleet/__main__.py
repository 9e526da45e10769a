"""``./scripts/fleet run``: read, check everything, run what is left, say how it ended.

Exit status: 0 every row is done, 1 some failed, 2 nothing began (the reasons are on standard
error), 3 some were left (Ctrl-C, --max-cost, no server). The last line on standard output is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from . import drive, hosted, journal, ledger, options, prepare, sheet
from .prepare import Stopped
from .progress import Progress
from .rows.graph import check_format
from .rows.plan import Job, Plan, chunks, make_plan
from .rows.table import Refused
from .worker import sweep

ROWS_A_CHUNK, CHUNKS_A_SERVER = 16, 16
FINE, SOME_FAILED, NOTHING, LEFT = 0, 1, 2, 3


def main(arguments: Sequence[str]) -> int:
    """The exit status of ``fleet`` with these arguments."""
    given = options.parse(arguments)
    try:
        return _run(given)
    except (Refused, Stopped, hosted.Unpriced) as refusal:
        print(f"{refusal}\nNothing was begun.", file=sys.stderr)
        return NOTHING
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on.", file=sys.stderr)
        return LEFT


def _run(given: argparse.Namespace) -> int:
    graph, rows = prepare.read_graph(given.graph), prepare.rows_of(given)
    check_format(graph)
    setup = prepare.setup_of(given, graph)
    known = prepare.ask(setup, graph)
    plan = make_plan(graph, known.nodes, rows, relative_to=prepare.place_of(given))
    usd = hosted.costs(graph, plan.jobs, known.prices) if hosted.nodes(graph) else {}
    progress = Progress(len(plan.jobs))
    progress.say(f"{len(plan.jobs)} rows, all of them checked; {hosted.in_words(usd)}")
    if given.dry_run:
        return FINE
    hosted.check_limit(usd, given.max_cost)
    began = time.monotonic()
    given.out = given.out.resolve()  # the ledger is another process, in another folder
    given.out.mkdir(parents=True, exist_ok=True)
    jobs = [hosted.bounded(graph, job, usd[job.id]) if usd else job for job in plan.jobs]
    with _alone(given.out), _cluster(given) as dashboard:
        crew = drive.crew_of(given.servers, gpu=not (given.cpu or usd), here=bool(usd))
        progress.say(f"servers: {crew.servers}" + (f"; Ray: {dashboard}" if dashboard else ""))
        order = drive.Order(
            given.out, _chunks(jobs, plan, crew.servers), usd, prepare.on(setup, crew), crew,
            given.max_cost, given.retry_failed,
        )  # fmt: skip
        try:
            drive.run(order, progress, lambda: _write_manifest(given.out, plan))
        except RuntimeError as error:
            progress.say(str(error))
    sweep(setup.session)
    return _close(given, plan, time.monotonic() - began, progress)


def _chunks(jobs: list[Job], plan: Plan, servers: int) -> list[list[Job]]:
    """Neighbours for one server at a time: few enough that all servers end together."""
    most = max(1, min(ROWS_A_CHUNK, len(jobs) // (servers * CHUNKS_A_SERVER)))
    return [jobs[part] for part in chunks(plan.jobs, plan.weights, most)]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One driver a folder. Raises Stopped."""
    place = folder / journal.FOLDER
    place.mkdir(exist_ok=True)
    try:
        with filelock.FileLock(place / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise Stopped(f"Another run puts its pictures into {folder} at this moment.") from None


@contextmanager
def _cluster(given: argparse.Namespace) -> Iterator[str]:
    try:
        with drive.cluster(given.address, given.servers, given.dashboard) as dashboard:
            yield dashboard
    except ConnectionError as error:
        raise Stopped(f"--address: no Ray cluster answers at {given.address}. {error}") from None


def _write_manifest(folder: Path, plan: Plan) -> None:
    """``manifest.parquet``: a row of the run each, in the table's order."""
    import pyarrow
    import pyarrow.parquet

    jobs = {job.id: job for job in plan.jobs}
    keys = {job.id: job.key for job in plan.jobs}
    table = pyarrow.table(
        {
            **ledger.columns(folder, plan.rows, keys),
            "inputs": [json.dumps(jobs[row].labels, ensure_ascii=False) for row in plan.rows],
        }
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    journal.write_atomically(folder / "manifest.parquet", sink.getvalue().to_pybytes())


def _close(given: argparse.Namespace, plan: Plan, seconds: float, progress: Progress) -> int:
    """The sheets, the last line, and the exit status."""
    keys = {job.id: job.key for job in plan.jobs}
    told = ledger.columns(given.out, plan.rows, keys)
    counts = {state: told["status"].count(state) for state in ("done", "failed", "not run")}
    sheets = _sheets(given, plan, told) if given.sheet else []
    summary = {
        "rows": len(plan.jobs),
        "done": counts["done"],
        "failed": counts["failed"],
        "left": counts["not run"],
        "pictures": sum(map(len, told["files"])),
        "seconds": round(seconds, 1),
        "cost_usd": round(sum(filter(None, told["cost_usd"])), 6),
        "manifest": str(given.out / "manifest.parquet"),
        "sheets": [str(path) for path in sheets],
    }
    print(json.dumps(summary), flush=True)
    if counts["not run"]:
        progress.say(f"{counts['not run']} rows are left; the same command goes on with them")
        return LEFT
    return SOME_FAILED if counts["failed"] else FINE


def _sheets(given: argparse.Namespace, plan: Plan, told: dict[str, list[Any]]) -> list[Path]:
    jobs = {job.id: job for job in plan.jobs}
    tiles = []
    for row, status, names in zip(told["row"], told["status"], told["files"], strict=True):
        labels = jobs[row].labels
        if not names:
            tiles.append(sheet.Tile(row, None, labels, status))
        tiles += [sheet.Tile(row, given.out / name, labels) for name in names]
    axes = [grid.partition("=")[0].strip() for grid in given.grid]
    return sheet.draw_sheets(tiles, axes, given.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

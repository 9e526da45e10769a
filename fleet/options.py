"""The command line, in a form that any Python can read before anything is set up."""

import argparse
from collections.abc import Sequence
from pathlib import Path

TABLES = (".csv", ".jsonl", ".parquet")
ABOUT = """\
A table of edits over many ComfyUIs: one graph, a row a picture (or several), on Ray.

  run      make the pictures of a table, a folder or a grid
  setup    make the environment with Ray in it, and stop
  ray      Ray's own command line in that environment: ./scripts/fleet ray start --head
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process with a sentence and status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/fleet",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|setup|ray")
    commands.add_parser("setup", help="make the environment, and stop")
    ray = commands.add_parser("ray", help="Ray's own command line", add_help=False)
    ray.add_argument("ray", nargs=argparse.REMAINDER)
    run = commands.add_parser("run", help="make the pictures", allow_abbrev=False)
    _describe(run)
    own, comfyui = _split(arguments)
    options = parser.parse_args(own)
    if options.command == "run":
        options.comfyui_arguments = comfyui
        _check(run, options)
    elif comfyui:
        options.ray = [*getattr(options, "ray", ()), "--", *comfyui]
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands behind ``--`` goes to each ComfyUI."""
    given = list(arguments)
    if "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


def _describe(run: argparse.ArgumentParser) -> None:
    run.add_argument("graph", type=Path, metavar="GRAPH.json", help="Workflow > Export (API)")
    rows = run.add_argument_group("rows (a table or a folder, a grid, or both: each with each)")
    rows.add_argument("--table", type=Path, metavar="FILE", help="a .csv, .jsonl or .parquet file")
    rows.add_argument("--folder", type=Path, metavar="DIR", help="a row for each picture in it")
    rows.add_argument(
        "--into",
        metavar="COLUMN",
        help="with --folder: the input that takes the picture; default: the graph's only one",
    )
    rows.add_argument(
        "--grid", action="append", default=[], metavar="COLUMN=A,B,C", help="may be given again"
    )
    out = run.add_argument_group("pictures")
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    out.add_argument("--sheet", action="store_true", help="labelled contact sheets at the end")
    out.add_argument("--retry-failed", action="store_true", help="try rows again that failed")
    out.add_argument("--dry-run", action="store_true", help="check all rows, tell the plan, stop")
    out.add_argument("--max-cost", type=float, metavar="USD", help="for all hosted rows together")
    where = run.add_argument_group("servers")
    where.add_argument("--servers", type=int, metavar="N", help="default: one a GPU, or one")
    where.add_argument("--address", metavar="auto|HOST:PORT", help="a Ray cluster that runs")
    where.add_argument("--dashboard", action="store_true", help="Ray's, also without a cluster")
    where.add_argument(
        "--comfyui",
        type=Path,
        metavar="DIR",
        help="yours; default: the pinned one, with toy models",
    )
    where.add_argument(
        "--base", type=Path, metavar="DIR", help="ComfyUI's base directory; default: --comfyui's"
    )
    where.add_argument("--cpu", action="store_true", help="without a GPU, also where there is one")
    where.add_argument(
        "--timeout", type=float, default=1800.0, metavar="S", help="seconds a row; default 1800"
    )
    run.epilog = "What stands behind -- goes to each ComfyUI: -- --lowvram"


def _check(run: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.graph.is_file():
        run.error(f"there is no file {options.graph}")
    if options.table and options.folder:
        run.error("--table and --folder: one of them; a table's columns can name pictures")
    if not (options.table or options.folder or options.grid):
        run.error("what to run: --table FILE, --folder DIR or --grid COLUMN=A,B")
    if options.table and not options.table.is_file():
        run.error(f"--table: there is no file {options.table}")
    if options.table and options.table.suffix.lower() not in TABLES:
        run.error(f"--table: {options.table.name} is none of {', '.join(TABLES)}")
    if options.folder and not options.folder.is_dir():
        run.error(f"--folder: there is no folder {options.folder}")
    if options.into and not options.folder:
        run.error("--into goes with --folder")
    if options.servers is not None and options.servers < 1:
        run.error("--servers: 1 or more")
    if options.max_cost is not None and not options.max_cost >= 0:
        run.error("--max-cost: 0 or more US dollars")
    if not options.timeout > 0:
        run.error("--timeout: more than 0 seconds")
    if options.comfyui and not (options.comfyui / "main.py").is_file():
        run.error(f"--comfyui: there is no main.py in {options.comfyui}")
    if options.base and not options.base.is_dir():
        run.error(f"--base: there is no folder {options.base}")
    if options.out.exists() and not options.out.is_dir():
        run.error(f"--out: {options.out} is a file")

"""Before the first picture: what is to be run, on what, and whether all of it can be."""

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from host.client import Client
from host.commands.fleet import BASE, GIVEN_PATH
from host.server import CPU, QUIET, ServerError, start

from . import hosted
from .drive import Crew
from .rows.table import Row, cross, read_folder, read_table
from .worker import SCRATCH, Setup

UNSEEN = (*QUIET, "--preview-method", "none")
"""How each ComfyUI is started: nobody looks on."""
PICTURE = "image"
"""The column of a folder's pictures: the input of that name, where there is one in the graph."""


class Stopped(Exception):
    """Nothing is begun; the text says why and what to do."""


class Known(NamedTuple):
    """What a server said before anything began: its nodes, and what RunComfy's prices are."""

    nodes: dict[str, Any]
    prices: dict[str, Any]


def read_graph(path: Path) -> dict[str, Any]:
    """The file's JSON object. Raises Stopped."""
    try:
        graph = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Stopped(f"{path} is no JSON file that can be read: {error}") from None
    if not isinstance(graph, dict):
        raise Stopped(f"{path} holds no graph.")
    return graph


def setup_of(given: argparse.Namespace, graph: dict[str, Any]) -> Setup:
    """The servers as the options and the environment want them."""
    comfyui = Path(os.environ["COMFYUI_PATH"])
    base = given.base or Path(os.environ.get(BASE) or comfyui)
    return Setup(
        session=secrets.token_hex(4),
        comfyui=str(comfyui),
        python=os.environ["COMFYUI_PYTHON"],
        base=str(base.resolve()),
        arguments=tuple(given.comfyui_arguments),
        defaults=(*UNSEEN, *CPU) if given.cpu else UNSEEN,
        # Ours leads Ray's processes to this room; ComfyUI has modules of the same names.
        environment={"PYTHONPATH": os.environ.get(GIVEN_PATH, "")},
        graph=graph,
        timeout=given.timeout,
    )


def on(setup: Setup, crew: Crew) -> Setup:
    """``setup`` for this crew: each has its part of the cores, unless the user has said more."""
    # Ray sets this one for its own processes.
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // crew.servers)
    own = {**setup.environment, "OMP_NUM_THREADS": str(threads)}
    # Apple's GPU is none that Ray knows; ComfyUI finds it.
    if crew.gpus or sys.platform == "darwin":
        return setup._replace(environment=own)
    return setup._replace(environment=own, defaults=tuple(dict.fromkeys((*UNSEEN, *CPU))))


def ask(setup: Setup, graph: Mapping[str, Any]) -> Known:
    """The nodes and files that the servers will have: one without a GPU tells them, and ends.

    Raises Stopped.
    """
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}ask-") as scratch:
        folders = ("--output-directory", scratch, "--temp-directory", scratch)
        try:
            with (
                start(
                    Path(setup.comfyui),
                    Path(setup.base),
                    python=setup.python,
                    arguments=(*folders, *setup.arguments),
                    defaults=tuple(dict.fromkeys((*setup.defaults, "--cpu"))),
                    environment=setup.environment,
                    log=Path(scratch) / "server.log",
                ) as server,
                Client(server.url) as client,
            ):
                prices = client.get("/flux2-lora-edit/prices") if hosted.nodes(graph) else {}
                return Known(client.get("/object_info"), prices)
        except (ServerError, OSError) as error:
            raise Stopped(f"ComfyUI does not start here.\n{error}") from None


def rows_of(given: argparse.Namespace) -> list[Row]:
    """What the table, the folder and the grids ask for. Raises Refused."""
    rows: list[Row] = []
    if given.table:
        rows = read_table(given.table)
    elif given.folder:
        rows = read_folder(given.folder, given.into or PICTURE)
    return cross(rows, given.grid) if given.grid else rows


def place_of(given: argparse.Namespace) -> Path:
    """What paths in a table are relative to: the table's own folder."""
    return given.table.resolve().parent if given.table else Path.cwd()

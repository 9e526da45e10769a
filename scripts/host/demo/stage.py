"""A ComfyUI with this pack and one trial's models, the runs on it, and what they leave behind."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .. import models, server
from ..client import Client
from ..environment import ROOT
from . import remote, series, sheet
from .trial import Trial

PACK = "flux2-lora-edit"
SHEET = "demo.jpg"


class Scene(NamedTuple):
    """A trial in its base directory; ``arguments`` are the server's; ``device`` is for people.

    ``patience``: seconds that one run may take.
    """

    trial: Trial
    arguments: Sequence[str] = ()
    gpu: bool = False
    device: str = "the CPU"
    patience: float = 1800.0


def perform(lay_out: Callable[[Path], Scene], output: Path, timeout: float | None = None) -> Path:
    """Everything from an empty base directory, which ``lay_out`` fills, to the sheet's path.

    timeout: seconds for one run, by default the scene's own.

    Raises what ``lay_out``, the server and the client raise.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PACK}-demo-") as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        scene = lay_out(base)
        models.link_nodes(ROOT, base, PACK)
        for note in scene.trial.notes:
            print(f"[demo] {note}")
        print(f"[demo] starting ComfyUI on {scene.device} ...", flush=True)
        shots = _on_a_server(scene, base, output, timeout or scene.patience)
        # Named as the run is over: the base directory and the photographs in it go with it.
        return _draw(scene.trial, base / "input", shots, output / SHEET)


def _on_a_server(scene: Scene, base: Path, output: Path, timeout: float) -> list[series.Shot]:
    defaults = [name for name in server.ARGUMENTS if not (scene.gpu and name in server.CPU)]
    arguments = ["--output-directory", str(output), *scene.arguments]
    with contextlib.ExitStack() as stack:
        variables = stack.enter_context(remote.environment())
        stack.callback(_keep_log, base / "server.log", output)
        running = stack.enter_context(
            server.start(
                Path(os.environ["COMFYUI_PATH"]),
                base,
                arguments=arguments,
                defaults=defaults,
                environment=variables,
            )
        )
        client = stack.enter_context(Client(running.url))
        _describe(scene.trial)
        shots = series.run(client, scene.trial, output, timeout)
        print(
            "[demo] the same edit through RunComfy's API, which a stand-in on this machine plays "
            "(nothing is sent, nothing is paid)",
            flush=True,
        )
        remote.edit(client, scene.trial.images[:2], output, timeout)
    return shots


def _keep_log(log: Path, output: Path) -> None:
    """Beside the pictures: the base directory goes with the run."""
    if log.exists():
        shutil.copyfile(log, output / "server.log")
        print(f"[demo] ComfyUI's log: {output / 'server.log'}")


def _describe(trial: Trial) -> None:
    print(f'[demo] editing {" and ".join(trial.images)}: "{trial.prompt}"')
    cfg = ", with a negative (CFG)" if trial.negative else ""
    print(
        f"[demo] by {trial.model}: {trial.steps} steps, guidance {trial.guidance:g}{cfg}, "
        f"seed {trial.seed}, size {trial.size}",
        flush=True,
    )


def _draw(trial: Trial, photos: Path, shots: Sequence[series.Shot], path: Path) -> Path:
    cells = [
        sheet.Cell(_loaded(photos / name), f"image {number}", "original")
        for number, name in enumerate(trial.images, 1)
    ]
    cells += [sheet.Cell(_loaded(shot.path), shot.title, shot.subtitle) for shot in shots]
    # The sheet's font has Latin letters only.
    heading = f'"{trial.prompt}"' if trial.prompt.isascii() else ""
    footing = f"{trial.model}; {trial.steps} steps, seed {trial.seed}, only the LoRA Stack differs"
    sheet.save(sheet.draw(cells, heading, footing), path)
    return path


def _loaded(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")

"""A models folder of the user's as a scene: ComfyUI is told of it, and nothing in it is touched."""

import json
from collections.abc import Sequence
from pathlib import Path

from .. import models
from . import machine
from .choose import Named, choose, roots
from .stage import Scene
from .survey import Candidate, models_folder, survey


def lay_out(folder: Path, named: Named, base: Path, device: machine.Device | None = None) -> Scene:
    """The base directory for the models in ``folder``. Raises LookupError with what is missing."""
    found = survey(models_folder(folder.resolve()))
    device = device or machine.look()
    trial = choose(found, named, device)
    models.copy_photos(base / "input")
    for name in ("models", "custom_nodes"):
        (base / name).mkdir(exist_ok=True)
    arguments = ["--extra-model-paths-config", str(_paths(found, base))]
    (model,) = [one for one in found if one.name == trial.models.unet and one.flux2][:1]
    if not device.gpu and model.bfloat16:
        # As it lies on the disk: ComfyUI would make float32 of it, twice the memory, no faster.
        arguments.append("--bf16-unet")
    return Scene(trial, arguments, device.gpu, device.title)


def _paths(found: Sequence[Candidate], base: Path) -> Path:
    """A configuration that adds the files' folders to ComfyUI's own."""
    file = base / "model_paths.yaml"
    folders = {kind: "\n".join(map(str, places)) for kind, places in roots(found).items()}
    # JSON is YAML, and quotes any name.
    file.write_text(json.dumps({"demo": folders}), "utf-8")
    return file

"""``--real``: klein 4B and a LoRA from the hub as a scene, once they are here."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import fetching, folder, machine, offer
from .choose import Named
from .stage import Scene
from .trial import PROMPT


def lay_out(
    base: Path,
    root: Path,
    yes: bool,
    *,
    files: Sequence[offer.HubFile] = offer.KLEIN_4B,
    access: Any = None,
    disk_usage: Callable[[Path], Any] = shutil.disk_usage,
    look: Callable[[], machine.Device] = machine.look,
    ask_person: Callable[[str], str] = input,
) -> Scene:
    """The base directory for the real model, which is fetched into ``root`` where it is not there.

    yes: nobody is asked. files: model, text encoder, autoencoder and LoRA. The rest is the world.

    Raises offer.Declined, RuntimeError, and LookupError.
    """
    root.mkdir(parents=True, exist_ok=True)
    device = look()
    estimate = offer.minutes(device)
    missing = [file for file in files if not fetching.present(file, root, access)]
    if missing:
        offer.describe(missing, root)
    else:
        print(f"[demo] FLUX.2 klein 4B and the LoRA are here already: {root}")
    need = sum(file.size - fetching.arrived(file, root) for file in missing)
    offer.check(need, disk_usage(root).free, root, device, estimate)
    if missing and not yes:
        offer.ask(ask_person)
    model, encoder, vae, lora = map(str, fetching.fetch(files, root, access))
    named = Named(model, encoder, vae, ((lora, 1.0),))
    scene = folder.lay_out(root, named, base, device)
    loras = [dataclasses.replace(one, title=offer.TITLE) for one in scene.trial.loras]
    trial = dataclasses.replace(
        scene.trial, loras=tuple(loras), prompt=f"{PROMPT}, {offer.TRIGGER}"
    )
    # Four times what was estimated, for one of the edits.
    return scene._replace(trial=trial, patience=max(scene.patience, estimate * 120))

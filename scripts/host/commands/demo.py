"""The main job from end to end, on this machine: edit two photographs, with and without LoRAs.

Starts a real ComfyUI with this pack in it, queues the graph with each LoRA and with both, queues
it again from a saved picture, makes the same edit through RunComfy's API, played by the bundled
stand-in, and puts all pictures on one sheet. Without --models it uses tiny models of its own.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..environment import ROOT

if TYPE_CHECKING:
    from ..demo.stage import Scene
    from ..demo.trial import Trial

SIZES = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")
SIDES = (64, 2048)
OUTPUT = ROOT / "output"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("real weights")
    own.add_argument(
        "--real",
        action="store_true",
        help="FLUX.2 klein 4B and a LoRA from Hugging Face (16.5 GB; you are asked first)",
    )
    own.add_argument("--yes", action="store_true", help="with --real: fetch without asking")
    own.add_argument("--models", type=Path, metavar="DIR", help="a ComfyUI models folder of yours")
    own.add_argument("--unet", default="", help="the diffusion model; found otherwise")
    own.add_argument("--clip", default="", help="the text encoder; found otherwise")
    own.add_argument("--vae", default="", help="the VAE; found otherwise")
    parser.add_argument(
        "--lora",
        action="append",
        type=_lora,
        metavar="NAME[:SCALE]",
        help="up to three; by default two that come with the tiny models, or fit the model of DIR",
    )
    parser.add_argument("--prompt")
    parser.add_argument(
        "--size",
        type=_size,
        help=f"{', '.join(SIZES)}, or the side of a square in pixels, {SIDES[0]} to {SIDES[1]}",
    )
    parser.add_argument("--steps", type=int, help="default: what the model is made for")
    parser.add_argument("--guidance", type=float, help="default: what the model is made for")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        metavar="DIR",
        help="where the pictures go; default: output/ of the checkout, which git ignores",
    )
    parser.add_argument("--timeout", type=float, help="seconds for one run; default: 1800 or more")
    options = parser.parse_args(arguments)
    if options.models and not options.models.is_dir():
        parser.error(f"--models: there is no folder {options.models}")
    if options.real and (options.models or options.unet or options.clip or options.vae):
        parser.error("--real fetches its own models; --models DIR uses yours")
    if options.real and options.lora:
        parser.error("--real brings a LoRA of its own; --lora goes with --models DIR")
    if len(options.lora or ()) > 3:
        parser.error("--lora: three are the most")
    return options


def _lora(text: str) -> tuple[str, float]:
    name, mark, scale = text.rpartition(":")
    if not mark or not name:
        return text, 1.0
    try:
        return name, float(scale)
    except ValueError:
        message = f"the scale after the colon must be a number: {text}"
        raise argparse.ArgumentTypeError(message) from None


def _size(text: str) -> str | int:
    if text in SIZES:
        return text
    if text.isascii() and text.isdigit() and SIDES[0] <= int(text) <= SIDES[1]:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"it must be one of {', '.join(SIZES)}, or the side of a square in pixels, "
        f"{SIDES[0]} to {SIDES[1]}: {text}"
    )


def run(options: argparse.Namespace) -> int:
    from ..client import PromptRefused
    from ..demo import stage
    from ..demo.offer import Declined
    from ..server import ServerError

    try:
        output = _output(options.output)
        sheet = stage.perform(lambda base: _lay_out(options, base), output, options.timeout)
    except (ServerError, PromptRefused, LookupError, RuntimeError, TimeoutError) as error:
        print(f"[demo] failed: {error}", file=sys.stderr)
        return 1
    except Declined as error:
        print(f"[demo] {error}")
        return 0
    except KeyboardInterrupt:
        print("\n[demo] stopped; what was fetched is kept for the next run", file=sys.stderr)
        return 130
    print(f"[demo] all of it on one sheet: {sheet}")
    return 0


def _output(folder: Path) -> Path:
    """``folder``, made and told. Raises RuntimeError where it cannot be."""
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(
            f"the folder for the pictures cannot be made ({error.strerror}). Name another with "
            f"--output DIR.\n{folder}"
        ) from error
    ignored = ", a folder that git ignores" if folder == OUTPUT.resolve() else ""
    print(f"[demo] pictures go to {folder}{ignored}", flush=True)
    return folder


def _lay_out(options: argparse.Namespace, base: Path) -> "Scene":
    """The base directory with the models that ``options`` ask for, and what to edit with them."""
    from .. import models
    from ..cache import cache_root
    from ..demo import folder, real, trial
    from ..demo.choose import Named
    from ..demo.stage import Scene

    if options.real:
        scene = real.lay_out(base, cache_root() / "real", options.yes)
        return scene._replace(trial=settled(scene.trial, options))
    if options.models:
        named = Named(options.unet, options.clip, options.vae, tuple(options.lora or ()))
        scene = folder.lay_out(options.models, named, base)
        return scene._replace(trial=settled(scene.trial, options))
    print("[demo] making the small models, unless an earlier run has ...", flush=True)
    models.make_base(base, [models.toy_dir(cache_root())])
    embedded = trial.EMBEDDED
    if options.lora:
        loras = tuple(trial.Lora(name, scale) for name, scale in options.lora)
        embedded = dataclasses.replace(embedded, loras=loras)
    return Scene(settled(embedded, options))


def settled(trial: "Trial", options: argparse.Namespace) -> "Trial":
    """``trial`` with the settings of the command line."""
    asked = {
        name: getattr(options, name)
        for name in ("prompt", "size", "steps", "guidance", "seed")
        if getattr(options, name) is not None
    }
    return dataclasses.replace(trial, **asked)

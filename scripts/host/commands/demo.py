"""The main job from end to end, on this machine: edit two photographs with two LoRAs.

Starts a real ComfyUI with this pack in it, queues the graph, saves the picture, and queues the
graph again from the saved file; then makes the same edit through RunComfy's API, played by the
bundled stand-in. Without --models it uses tiny random models: every step is real and the picture
is noise.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..environment import ROOT

if TYPE_CHECKING:
    from ..client import Client
    from ..demo_graph import Edit
    from ..events import Result
    from ..graph import Graph
    from ..server import Server

PACK = "flux2-lora-edit"
SIZES = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")
PHOTOS = ("astronaut.png", "chelsea.png")
TINY_LORAS = ("ai-toolkit.safetensors:1.0", "diffusers.safetensors:0.8")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("real weights")
    own.add_argument("--models", type=Path, metavar="DIR", help="a ComfyUI models folder")
    own.add_argument("--unet", default="", help="the diffusion model; found by name otherwise")
    own.add_argument("--clip", default="", help="the text encoder; found by name otherwise")
    own.add_argument("--vae", default="", help="the VAE; found by name otherwise")
    parser.add_argument(
        "--lora",
        action="append",
        metavar="NAME[:SCALE]",
        help="up to three; the default is two tiny ones, or none with --models",
    )
    parser.add_argument("--prompt", default="")
    parser.add_argument("--size", choices=SIZES, default="square")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "output", help="default: output/ of the checkout"
    )
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one run")
    options = parser.parse_args(arguments)
    if options.models and not options.models.is_dir():
        parser.error(f"--models: there is no folder {options.models}")
    options.loras = [
        _lora(parser, text) for text in options.lora or (() if options.models else TINY_LORAS)
    ]
    return options


def _lora(parser: argparse.ArgumentParser, text: str) -> tuple[str, float]:
    name, mark, scale = text.rpartition(":")
    if not mark or not name:
        return text, 1.0
    try:
        return name, float(scale)
    except ValueError:
        parser.error(f"--lora: the scale after the colon must be a number: {text}")


def run(options: argparse.Namespace) -> int:
    from .. import demo_remote, server
    from ..client import Client, PromptRefused

    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{PACK}-demo-") as scratch:
        try:
            base, arguments, defaults = _lay_out(options, Path(scratch) / "base")
            print("[demo] starting ComfyUI ...", flush=True)
            comfyui = Path(os.environ["COMFYUI_PATH"])
            with contextlib.ExitStack() as stack:
                variables = stack.enter_context(demo_remote.environment())
                running = stack.enter_context(
                    server.start(
                        comfyui,
                        base,
                        arguments=arguments,
                        defaults=defaults,
                        environment=variables,
                    )
                )
                stack.callback(_keep_log, running, options.output)
                client = stack.enter_context(Client(running.url))
                _local_edit(client, options)
                print("[demo] the same through RunComfy's API, played by the stand-in", flush=True)
                demo_remote.edit(client, PHOTOS, options.output, options.timeout)
        except (server.ServerError, PromptRefused, LookupError, RuntimeError) as error:
            print(f"[demo] failed: {error}", file=sys.stderr)
            return 1
    return 0


def _keep_log(running: "Server", output: Path) -> None:
    """Beside the pictures: the base directory goes with the run."""
    (output / "server.log").write_text(running.log(), "utf-8")
    print(f"[demo] ComfyUI's log: {output / 'server.log'}")


def _lay_out(options: argparse.Namespace, base: Path) -> tuple[Path, list[str], tuple[str, ...]]:
    """(base directory, the server's extra arguments, its default arguments)."""
    import torch

    from .. import models, server
    from ..cache import cache_root

    arguments = ["--output-directory", str(options.output)]
    defaults = server.ARGUMENTS
    if options.models:
        for folder in ("models", "custom_nodes"):
            (base / folder).mkdir(parents=True)
        models.copy_photos(base / "input")
        arguments += ["--extra-model-paths-config", str(_model_paths(options.models, base))]
        if torch.cuda.is_available() or torch.backends.mps.is_available():
            slow = ("--cpu", "--use-pytorch-cross-attention")
            defaults = tuple(name for name in defaults if name not in slow)
    else:
        print("[demo] tiny random models: every step is real, the picture is noise", flush=True)
        models.make_base(base, models.models_dir(cache_root()))
    models.link_nodes(ROOT, base, PACK)
    return base, arguments, defaults


def _model_paths(folder: Path, base: Path) -> Path:
    """A configuration that adds every folder of ``folder`` to ComfyUI's own."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    # JSON is YAML, and quotes any name.
    paths = {"base_path": str(folder.resolve()), **{name: name for name in names}}
    file = base / "model_paths.yaml"
    file.write_text(json.dumps({"demo": paths}), "utf-8")
    return file


def _local_edit(client: "Client", options: argparse.Namespace) -> None:
    from .. import demo_graph
    from ..stock import Models

    models = Models()
    if options.models:
        models = demo_graph.choose(client, options.unet, options.clip, options.vae)
    edit = demo_graph.Edit(
        models=models,
        images=PHOTOS,
        loras=options.loras,
        prompt=options.prompt or demo_graph.PROMPT,
        size=options.size,
        steps=options.steps,
        seed=options.seed,
        guidance=options.guidance,
    )
    _describe(edit)
    graph = demo_graph.build(edit)
    result = client.run(graph.prompt, options.timeout).check()
    _tell(graph, result)
    for image in result.images():
        path = options.output / image["subfolder"] / image["filename"]
        print(f"[demo] picture: {path}")
        _queue_again(client, path, options.timeout)


def _describe(edit: "Edit") -> None:
    loras = ", ".join(f"{name} x {scale:g}" for name, scale in edit.loras) or "none"
    print(f"[demo] model    {edit.models.unet}, {edit.models.clip}, {edit.models.vae}")
    print(f"[demo] images   {', '.join(edit.images)}")
    print(f"[demo] LoRAs    {loras}")
    print(f"[demo] size     {edit.size}, {edit.steps} steps, seed {edit.seed}", flush=True)


def _tell(graph: "Graph", result: "Result") -> None:
    """How long each node took, and what the LoRAs report."""
    for node, seconds in result.node_seconds.items():
        print(f"[demo]   {graph.prompt[node]['class_type']:<26}{seconds:8.2f} s")
    print(f"[demo]   {'in all':<26}{result.wall:8.2f} s")
    for node, output in result.outputs.items():
        if graph.prompt[node]["class_type"] == "PreviewAny":
            for lora in json.loads(output["text"][0])["loras"]:
                modules = f"{lora['matched']} of {lora['total']} modules"
                print(
                    f"[demo] LoRA     {lora['name']}: {modules}, scale {lora['scale']:g}, "
                    f"trained for {lora['trained_for']}"
                )


def _queue_again(client: "Client", path: Path, timeout: float) -> None:
    """Queue the graph that a saved picture carries. Raises RuntimeError if it does not run."""
    from PIL import Image

    with Image.open(path) as picture:
        size, text = picture.size, getattr(picture, "text", {})
    if "prompt" not in text:
        raise RuntimeError(f"the saved picture carries no graph: {path}")
    client.run(json.loads(text["prompt"]), timeout).check()
    print(f"[demo]   {size[0]} x {size[1]}; the graph inside it was loaded and queued again")

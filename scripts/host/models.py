"""A ComfyUI base directory with small models and photographs, cached by what makes them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image
from safetensors.torch import save_file
from toy import files as toy_files

from . import tiny, tiny_loras, tiny_vae
from .folders import link_or_copy

# Real photographs of three sizes (public domain and CC0: photos/SOURCES.md).
PHOTOS = {"astronaut.png": (512, 512), "chelsea.png": (451, 300), "coffee.png": (600, 400)}
# Of chelsea.png, to be seen at the size of the astronaut.
CAT = (75, 0, 375, 300)
Files = dict[str, tuple[tiny.Weights, dict[str, str]]]
FOLDERS = ("diffusion_models", "loras", "text_encoders", "vae", "vae_approx")


def tiny_dir(cache: Path) -> Path:
    """The cached directory with ``models/<folder>/*.safetensors`` of random weights, 700 MB."""
    return _cached(cache, f"tiny-{_fingerprint()}", _files)


def toy_dir(cache: Path) -> Path:
    """The cached directory with the models of a FLUX.2 that really edits, 400 MB."""
    return _cached(cache, f"toy-{toy_files.fingerprint().hex()[:12]}", toy_files.files)


def every_dir(cache: Path) -> tuple[Path, Path]:
    """Both, for servers that try everything."""
    return tiny_dir(cache), toy_dir(cache)


def _cached(cache: Path, name: str, files: Callable[[], Files]) -> Path:
    """Written once, in 10-20 s, and then shared: read-only. ``make_base`` makes a server's own."""
    target = cache / name
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    # A rename makes it complete or absent; a second process at the same work loses quietly.
    building = Path(tempfile.mkdtemp(prefix="models-building-", dir=cache))
    try:
        for name, (weights, metadata) in files().items():
            path = building / "models" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(weights, path, metadata)
        os.rename(building, target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def make_base(target: Path, sources: Iterable[Path], custom_nodes: Iterable[Path] = ()) -> Path:
    """Lay out a base directory of one server's own at ``target`` and return it.

    ``sources`` are of ``tiny_dir`` and ``toy_dir``; the photographs are among the inputs. LoRAs
    are copied, since tests write among them; the big files are hard links where the file system
    allows. ``custom_nodes`` are folders, put in under their own names; ``link_nodes`` adds one
    under another.
    """
    for folder in (*(f"models/{name}" for name in FOLDERS), "custom_nodes", "output"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for source in sources:
        for path in sorted((source / "models").rglob("*.safetensors")):
            place = target / "models" / path.relative_to(source / "models")
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.relative_to(target / "models").parts[0] == "loras":
                shutil.copyfile(path, place)
            else:
                _hard_link(path, place)
    copy_photos(target / "input")
    for folder in custom_nodes:
        link_nodes(folder, target)
    return target


def link_nodes(folder: Path, base: Path, name: str = "") -> Path:
    """Put a custom node folder into ``base`` under ``name``; its own name by default."""
    return link_or_copy(folder, base / "custom_nodes" / (name or folder.name))


def copy_photos(folder: Path) -> None:
    """Write the photographs into ``folder`` as PNG, with the pixels that they were taken from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        with Image.open(Path(__file__).parent / "photos" / f"{Path(name).stem}.webp") as photo:
            photo.save(folder / name)
    with Image.open(folder / "chelsea.png") as photo:
        photo.crop(CAT).resize((512, 512), Image.Resampling.LANCZOS).save(folder / "cat.png")


def _files() -> Files:
    """Path below ``models`` -> weights and header metadata."""
    weights = {
        "diffusion_models/flux2-dev-tiny.safetensors": tiny.transformer("dev"),
        "diffusion_models/flux2-klein-tiny.safetensors": tiny.transformer("klein-9b"),
        # Text width 512: what the 768-wide text encoder does not fit.
        "diffusion_models/flux2-narrow-text.safetensors": tiny.transformer(
            "dev", hidden=128, context=512, double=1, single=1
        ),
        "diffusion_models/flux1-dev-tiny.safetensors": tiny.flux1_transformer(),
        "text_encoders/clip-l-random.safetensors": tiny.clip_l(),
        "vae/flux2-vae-tiny.safetensors": tiny_vae.autoencoder_kl(),
        # For hosts that do not know the small decoder (before 0.20).
        "vae/flux2-vae-full-random.safetensors": tiny_vae.autoencoder_kl(decoder_width=128),
    }
    for part in ("encoder", "decoder"):
        weights[f"vae_approx/taef1_{part}.safetensors"] = tiny_vae.taef1(part)
    files = {name: (tensors, {"format": "pt"}) for name, tensors in weights.items()}
    for name, lora in {
        "ai-toolkit": tiny_loras.ai_toolkit(),
        "diffusers": tiny_loras.diffusers(),
        "kohya": tiny_loras.kohya(),
        "flux1": tiny_loras.flux1(),
        "klein-9b-width": tiny_loras.ai_toolkit(
            hidden=4096, double=1, single=0, rank=2, base="flux2_klein_9b"
        ),
    }.items():
        files[f"loras/{name}.safetensors"] = tuple(lora)
    return files


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for module in (tiny, tiny_vae, tiny_loras):
        digest.update(Path(module.__file__).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:12]


def _hard_link(path: Path, place: Path) -> None:
    if place.exists():
        return
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)

"""Server route of the LoRA picker: the installed LoRAs, and which of them fit the model at hand.

It tells names relative to the loras folders and what the files' headers say, no path of this disk.
"""

import asyncio
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...lora_loader.catalogue import VERSION, Catalogue, InstalledFile, Row, installed_files
from .. import host
from ..host import web
from ..lora_stack import installed_names
from .own_page import PREFIX, refuse_foreign

KEPT = "lora-files.json"
MODELS = ("diffusion_models", "checkpoints")
PREVIEW = "/experiment/models/preview/loras"
"""ComfyUI's own route for the picture beside a model's file."""


def register_routes(server: Any) -> None:
    """Add the route to ComfyUI's server; called once, when the extension is loaded."""
    catalogue = Catalogue(lambda: host.private_folder() / KEPT)

    @server.routes.get(f"{PREFIX}/lora-files")
    async def get_files(request: web.Request) -> web.Response:
        refuse_foreign(request)
        work = partial(_answer, catalogue, request.query.get("model", ""))
        known = request.headers.get("If-None-Match", "")
        tag, body = await asyncio.get_running_loop().run_in_executor(None, work, known)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}  # asked again each time, sent if new
        if body is None:
            return web.Response(status=304, headers=headers)
        return web.json_response(body, headers=headers)


def _answer(catalogue: Catalogue, name: str, known: str) -> tuple[str, dict[str, Any] | None]:
    """The list for a model's name, and what tells it from others; None where that is ``known``.

    It is read in a thread: a thousand headers take seconds.
    """
    model = catalogue.model(_model_path(name))
    files = installed_files(installed_names(), host.loras_folders())
    told = repr((VERSION, model and model.digest, [(*file[:2], *file[3:]) for file in files]))
    tag = f'"{blake2b(told.encode(errors="replace"), digest_size=12).hexdigest()}"'
    if tag in known:
        return tag, None
    rows = catalogue.rows(files, model)
    said = model and f"FLUX.2 {model.model.name or ''}".strip()
    return tag, {"model": said, "files": list(map(_shown, rows))}


def _model_path(name: str) -> Path | None:
    """The file of a model that the host lists by this name; None for any other."""
    for folder in MODELS:
        if name and name in host.folder_paths.get_filename_list(folder):
            path = host.folder_paths.get_full_path(folder, name)
            if path is not None and path.lower().endswith(".safetensors"):
                return Path(path)
    return None


def _shown(row: Row) -> dict[str, Any]:
    return {
        "name": row.file.name,
        "base": row.base,
        "fits": row.fits,
        "rank": row.rank,
        "trigger_words": row.trigger_words,
        "preview": _preview(row.file),
    }


def _preview(file: InstalledFile) -> str:
    if not file.picture:
        return ""
    name = file.name.replace("\\", "/")
    return f"{PREVIEW}/{file.folder}/{quote(name, errors='surrogateescape')}"

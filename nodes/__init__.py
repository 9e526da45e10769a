"""The extension: which nodes ComfyUI sees."""

from __future__ import annotations

from comfy.cli_args import args
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .edit_conditioning import Flux2EditConditioning
from .error_names import shorten_error_names
from .image_size import Flux2EditImageSize
from .lora import Flux2EditApplyLoraStack, Flux2EditLoraInfo, Flux2EditLoraStack
from .lora_files import Flux2EditDownloadLoras
from .runcomfy import hosted_nodes
from .runcomfy_routes import register_routes
from .sampler import Flux2EditSampler


class Flux2LoraEdit(ComfyExtension):
    async def on_load(self) -> None:
        if not args.disable_api_nodes:
            register_routes(PromptServer.instance)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            Flux2EditLoraStack,
            Flux2EditDownloadLoras,
            Flux2EditApplyLoraStack,
            Flux2EditLoraInfo,
            Flux2EditImageSize,
            Flux2EditConditioning,
            Flux2EditSampler,
            *hosted_nodes(args.disable_api_nodes),
        ]


async def comfy_entrypoint() -> Flux2LoraEdit:
    shorten_error_names()
    return Flux2LoraEdit()

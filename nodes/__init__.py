"""The extension: which nodes ComfyUI sees."""

from . import host
from .download_loras import Flux2EditDownloadLoras
from .edit_conditioning import Flux2EditConditioning
from .host import ComfyExtension, io
from .image_size import Flux2EditImageSize
from .lora import Flux2EditApplyLoraStack, Flux2EditLoraInfo
from .lora_stack import Flux2EditLoraStack
from .modifiers.region import Flux2EditLoraRegion
from .modifiers.schedule import Flux2EditLoraSchedule
from .region.crop import Flux2EditRegionCrop
from .region.paste import Flux2EditRegionPaste
from .routes import lora_files as files_routes
from .routes import runcomfy as runcomfy_routes
from .runcomfy import Flux2EditRunComfy
from .sampler import Flux2EditSampler


class Flux2LoraEdit(ComfyExtension):
    """The pack, as ComfyUI asks for it."""

    async def on_load(self) -> None:
        """Add the picker's route, and but under ``--disable-api-nodes`` the settings page's."""
        files_routes.register_routes(host.PromptServer.instance)
        if not host.args.disable_api_nodes:
            runcomfy_routes.register_routes(host.PromptServer.instance)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes in the order of ComfyUI's menu; those that need the internet where allowed."""
        return [
            Flux2EditLoraStack,
            Flux2EditLoraSchedule,
            Flux2EditLoraRegion,
            Flux2EditDownloadLoras,
            Flux2EditApplyLoraStack,
            Flux2EditLoraInfo,
            Flux2EditImageSize,
            Flux2EditConditioning,
            Flux2EditSampler,
            Flux2EditRegionCrop,
            Flux2EditRegionPaste,
            *([] if host.args.disable_api_nodes else [Flux2EditRunComfy]),
        ]


async def comfy_entrypoint() -> Flux2LoraEdit:
    """What ComfyUI calls once, after it has imported the pack."""
    host.shorten_error_names()
    return Flux2LoraEdit()

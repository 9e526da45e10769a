"""The extension: which nodes ComfyUI sees."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .edit_conditioning import Flux2EditConditioning
from .image_size import Flux2EditImageSize
from .lora import Flux2EditApplyLoraStack, Flux2EditLoraInfo, Flux2EditLoraStack
from .sampler import Flux2EditSampler


class Flux2LoraEdit(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            Flux2EditLoraStack,
            Flux2EditApplyLoraStack,
            Flux2EditLoraInfo,
            Flux2EditImageSize,
            Flux2EditConditioning,
            Flux2EditSampler,
        ]


async def comfy_entrypoint() -> Flux2LoraEdit:
    return Flux2LoraEdit()

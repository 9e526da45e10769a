"""Download LoRAs: a stack's files on disk, under names that any pack's loader knows."""

import os
from typing import Any

from ..lora_loader.sources import SourceError
from ..lora_loader.stack import combine
from . import host
from .host import LoraStackType, io
from .lora import locate
from .lora_stack import installed_name


class Flux2EditDownloadLoras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="Flux2EditDownloadLoras",
            display_name="Download LoRAs",
            description=(
                "Puts every LoRA of a stack on disk under the loras folder, so that any pack's "
                "loader can use it. A file that is there is not fetched again."
            ),
            search_aliases=[
                "download lora", "hugging face", "civitai", "lora from url", "fetch lora",
                "lora downloader", "lora stack",
            ],
            is_output_node=True,
            inputs=[
                LoraStackType.Input(
                    "lora_stack", optional=True,
                    tooltip="From FLUX.2 LoRA Stack; installed files pass through as they are.",
                )
            ],
            outputs=[
                LoraStackType.Output(
                    "lora_stack",
                    display_name="lora_stack",
                    tooltip="The same LoRAs under their names in the loras folders.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Nothing but the stack decides; a file that is on disk is never asked about again."""
        return os.fspath(host.loras_folders()[0]) if host.loras_folders() else ""

    @classmethod
    def execute(cls, lora_stack: object = None) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        files = [(entry, locate(node_id, entry)) for entry in combine(lora_stack, [])]
        fetched, lines = [], []
        for entry, path in files:
            name = installed_name(path)
            if name is None:
                raise SourceError(f"The file is in none of the loras folders.\n{path.name}")
            lines.append(f"{name}, {path.stat().st_size / 1e6:.1f} MB")
            # The source stays: a fetched LoRA can still go to RunComfy by its address.
            fetched.append(entry.with_(name=name))
        text = "\n".join(lines) or "the stack is empty"
        return io.NodeOutput(fetched, ui=host.show_text(text, node_id))

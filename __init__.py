"""FLUX.2 LoRA Edit, as ComfyUI imports it."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

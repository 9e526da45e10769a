"""Where the nodes stand in ComfyUI's menus."""

CATEGORY = "FLUX.2 LoRA Edit"

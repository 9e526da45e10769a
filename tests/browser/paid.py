"""What is run at RunComfy's stand-in by hand: the hosted node, and the settings that know of it."""

import time
from typing import Any

from browser.comfy_page import ComfyPage

from host.graph import Graph


def hosted(**inputs: Any) -> dict[str, Any]:
    """One picture from text, which no other test has paid, and its report below it.

    What is left out of a prompt, a page takes from the last node of the same id.
    """
    whole = {
        "prompt": "a lighthouse",
        "mode": "auto",
        "image_size": "square",
        "guidance_scale": 2.5,
        "num_inference_steps": 28,
        "seed": time.monotonic_ns() % 2**31,
        "output_format": "png",
        "batch_count": 1,
        "resume_request_id": "",
    }
    graph = Graph()
    node = graph.add("Flux2EditRunComfy", **(whole | inputs))
    graph.add("PreviewAny", source=node.out(3))
    return graph.prompt


def open_settings(page: ComfyPage) -> Any:
    """The dialog of the settings, at this pack's."""
    page.command("Comfy.ShowSettingsDialog")
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_text("FLUX.2 LoRA Edit").first.click()
    return dialog

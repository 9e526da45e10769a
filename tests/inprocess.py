"""ComfyUI imported into the test process, on the CPU, for tests that look inside a MODEL.

The path comes from ``COMFYUI_PATH``, which ``scripts/test`` sets to the pinned host.
"""

import os
import sys

import pytest


def import_comfy() -> None:
    """Put ComfyUI on ``sys.path`` and settle on the CPU before ``comfy`` first looks for a GPU."""
    path = os.environ.get("COMFYUI_PATH")
    if not path or not os.path.isfile(os.path.join(path, "comfy", "model_patcher.py")):
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")
    if path not in sys.path:
        sys.path.insert(0, path)
    # As the host's main.py does: before 0.27 another "utils" would be found first.
    import comfy.cli_args
    import utils.extra_config  # noqa: F401

    comfy.cli_args.args.cpu = True
    # The host's own loader does this before it reads a custom node.
    import comfy.model_management  # noqa: F401

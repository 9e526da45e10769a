"""The names of our exceptions as the page shows them."""

from __future__ import annotations

import sys

PACK = "flux2_lora_edit"


def shorten_error_names() -> None:
    """Let every exception of this pack say that it is the pack's, not where on the disk it lies.

    ComfyUI shows an error's class with its module, and names a pack's modules by their path.
    """
    root = __name__.rsplit(".", 2)[0]
    for name, module in list(sys.modules.items()):
        if not name.startswith(f"{root}."):
            continue
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, Exception):
                if value.__module__ == name:
                    value.__module__ = PACK

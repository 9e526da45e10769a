"""The pack's inner rooms, without ComfyUI: its own downloader and its own reading of files."""

import importlib
import sys
import types
from typing import Any

from ..environment import ROOT

PACKAGE = "flux2_lora_edit"


def room(name: str) -> Any:
    """The module ``name`` of the pack, such as "lora_loader.sources".

    Every import inside the pack is relative, and its root's module needs ComfyUI: an empty package
    of a fixed name stands in for it, as in the tests.
    """
    if PACKAGE not in sys.modules:
        package = types.ModuleType(PACKAGE)
        package.__path__ = [str(ROOT)]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{name}")

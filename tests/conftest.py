"""Makes the pack importable as ``flux2_lora_edit`` without a host.

ComfyUI imports the pack under a name made of its path, so every import inside is relative. Here an
empty package of a fixed name stands in for it: the rooms below it import as they do in ComfyUI,
and the root ``__init__`` (which needs ComfyUI) is not executed.
"""

import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

if "flux2_lora_edit" not in sys.modules:
    package = types.ModuleType("flux2_lora_edit")
    package.__path__ = [str(ROOT)]
    sys.modules["flux2_lora_edit"] = package

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from inprocess import import_comfy  # noqa: E402  (found through the path set above)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright's loop stays in the thread, and asyncio.run needs none."""
    folder = ROOT / "tests" / "browser"
    items.sort(key=lambda item: (folder in item.path.parents, "browser" in item.keywords))


@pytest.fixture(scope="session")
def comfy_inprocess() -> None:
    """ComfyUI imported into this process on the CPU; skips where ``COMFYUI_PATH`` names none."""
    import_comfy()

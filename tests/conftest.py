"""Makes the pack importable as ``flux2_lora_edit`` without a host.

ComfyUI imports the pack under a name made of its path, so every import inside is relative. Here an
empty package of a fixed name stands in for it: the rooms below it import as they do in ComfyUI,
and the root ``__init__`` (which needs ComfyUI) is not executed.
"""

import sys
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

if "flux2_lora_edit" not in sys.modules:
    package = types.ModuleType("flux2_lora_edit")
    package.__path__ = [str(ROOT)]
    sys.modules["flux2_lora_edit"] = package

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from inprocess import import_comfy  # noqa: E402  (found through the path set above)

# In a fresh clone on a busy machine the first example takes seconds: no clock decides a test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# What takes longest, and shares a server or a browser: a folder or a file is never divided.
LONG = ("tests/browser", "tests/host/test_runcomfy.py", "tests/host", "tests/test_archive.py")


def share_of(path: str) -> str:
    """The folder or file whose tests stay together in one process, for a path from the root."""
    return next((long for long in LONG if path == long or path.startswith(f"{long}/")), path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what imports ComfyUI. The browser comes last, or what is long first, where two
    processes share the tests."""

    def rank(item: pytest.Item) -> int:
        share = share_of(item.path.relative_to(ROOT).as_posix())
        if hasattr(config, "workerinput"):
            return LONG.index(share) if share in LONG else len(LONG)
        return share == "tests/browser"

    items.sort(key=rank)
    for item in items:
        if "comfy_inprocess" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.comfy)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hands out whole shares, in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid.partition("::")[0])

    return Shares(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def comfy_inprocess() -> None:
    """ComfyUI imported into this process on the CPU; skips where ``COMFYUI_PATH`` names none."""
    import_comfy()

"""What the fleet's real runs have in common: a base directory with small models and this pack."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from trial import ROOT, Fleet  # noqa: E402  (found through the path set above)

from host import models  # noqa: E402
from host.cache import cache_root  # noqa: E402


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with the small models, and this pack."""
    if not sys.platform.startswith("linux"):
        pytest.skip("finds processes in /proc")
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")
    base = tmp_path_factory.mktemp("fleet") / "base"
    models.make_base(base, models.every_dir(cache_root()))
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    return base


@pytest.fixture
def fleet_of(base: Path, tmp_path: Path) -> Iterator[Any]:
    """A fleet for a graph; nothing of it is left running."""
    made: list[Fleet] = []

    def make(graph: dict[str, Any]) -> Fleet:
        made.append(Fleet(tmp_path, base, graph))
        return made[-1]

    yield make
    for fleet in made:
        fleet.__exit__()

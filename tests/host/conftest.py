"""One real ComfyUI server for the whole suite, with tiny models and this pack in it.

The pack is linked in as ``custom_nodes/flux2-lora-edit``, dashes and all, as a user's git clone
is. Every folder of ``tests/host/custom_nodes`` goes beside it.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin_faults import Standin
from standin_server import Timing
from standin_server.state import Account

from host import models
from host import server as servers
from host.cache import cache_root
from host.client import Client
from host.stock import Models

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACK = "flux2-lora-edit"
TOKEN = "token-of-the-one-server"

sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of the ComfyUI under test."""
    path = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (path / "main.py").is_file():
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with tiny models, photographs, the pack and the test-only nodes."""
    target = tmp_path_factory.mktemp("host") / "base"
    probes = sorted(path for path in (HERE / "custom_nodes").iterdir() if path.is_dir())
    models.make_base(target, models.every_dir(cache_root()), probes)
    models.link_nodes(ROOT, target, PACK)
    return target


@pytest.fixture(scope="session")
def standin() -> Iterator[Standin]:
    """RunComfy to the one server."""
    with Standin(timing=Timing(0.1, 0.3), picture_side=32) as running:
        yield running


@pytest.fixture(scope="session")
def server(comfyui: Path, base: Path, standin: Standin) -> Iterator[servers.Server]:
    """The one server, without a hub. A test that needs another environment starts its own."""
    environment = {
        "RUNCOMFY_API_BASE": standin.origin,
        "RUNCOMFY_API_TOKEN": TOKEN,
        "HOME": str(base),  # no login of the machine's own user comes in
        "HF_HUB_OFFLINE": "1",
    }
    with servers.start(comfyui, base, environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def account(standin: Standin) -> Account:
    """The one server's, at RunComfy."""
    return standin.state.account(TOKEN)


@pytest.fixture
def client(server: servers.Server) -> Iterator[Client]:
    """A fresh page on the server."""
    with Client(server.url) as page:
        yield page


@pytest.fixture(scope="session")
def host_version(server: servers.Server) -> tuple[int, ...]:
    """ComfyUI's version, for the few things that older hosts cannot do."""
    with Client(server.url) as page:
        version = page.get("/system_stats")["system"]["comfyui_version"]
    return tuple(int(part) for part in version.split(".")[:3])


@pytest.fixture(scope="session")
def full_vae(host_version: tuple[int, ...]) -> str:
    """FLUX.2's real autoencoder class; the small decoder where the host knows it."""
    small = host_version >= (0, 20)
    return "flux2-vae-tiny.safetensors" if small else "flux2-vae-full-random.safetensors"


@pytest.fixture(scope="session")
def small_vae(host_version: tuple[int, ...], full_vae: str) -> str:
    """The cheapest VAE that the host takes for FLUX.2."""
    return "taef2" if host_version >= (0, 24) else full_vae


@pytest.fixture(scope="session")
def other_vae() -> str:
    """A VAE of FLUX.1: 16 latent channels."""
    return "taef1"


@pytest.fixture(scope="session")
def narrow_model() -> str:
    """A FLUX.2 model whose text width (512) is not the text encoder's (768)."""
    return "flux2-narrow-text.safetensors"


@pytest.fixture(scope="session")
def stock_models(small_vae: str) -> Models:
    """The three files of the stock graph in ``host.stock``."""
    return Models(vae=small_vae)

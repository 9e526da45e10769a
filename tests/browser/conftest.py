"""A real ComfyUI, its real page in a real Chromium, and a stand-in for RunComfy.

One server and few pages serve the whole suite; a test gets an empty graph. Screenshots go to
``artifacts/browser/`` in the checkout, those of failed tests too.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser.chromium import NoChromium, chromium
from browser.comfy_page import ComfyPage
from PIL import Image
from standin_server.server import Standin
from standin_server.state import Timing

from flux2_lora_edit.network.files import record_of, write_record
from host import models
from host import server as servers
from host.cache import cache_root
from host.client import Client

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from frontends import NEWEST, frontend_of  # noqa: E402
from shots import ARTIFACTS  # noqa: E402  (found through the path set above)
from tiny_names import FETCHED_LORAS, FOLDER, ITS_REPO, write_painted  # noqa: E402

ROOT = HERE.parents[1]
TOKEN = "browser-token-0000"
RENDERERS = ("classic", "nodes2")
# Small copies of the photographs: every token costs time on a CPU.
PICTURES = {"small-1.png": (96, 96), "small-2.png": (144, 96), "example.png": (96, 96)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def standin() -> Iterator[Standin]:
    """RunComfy's API, free and quick."""
    with Standin(timing=Timing(0.3, 0.3), picture_side=64) as running:
        yield running


@pytest.fixture(scope="session")
def site(standin: Standin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """The server, with this pack, tiny models and small pictures, and RunComfy's address bent."""
    comfyui = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (comfyui / "main.py").is_file():
        pytest.skip("COMFYUI_PATH names no ComfyUI; run ./scripts/test, which sets one up")
    base = tmp_path_factory.mktemp("browser") / "base"
    models.make_base(base, models.every_dir(cache_root()))
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    photos = [base / "input" / name for name in models.PHOTOS]
    for (name, size), photo in zip(PICTURES.items(), photos, strict=True):
        Image.open(photo).convert("RGB").resize(size).save(base / "input" / name)
    write_painted(base / "input")
    (base / "input" / FOLDER).mkdir()
    for name in ("small-1.png", "small-2.png"):
        shutil.copyfile(base / "input" / name, base / "input" / FOLDER / name)
    # As if it had been fetched: RunComfy's machines can have it from there.
    for name in FETCHED_LORAS:
        record = {"repo": ITS_REPO, "file": name, "commit": "0" * 40}
        write_record(record_of(base / "models" / "loras" / name), record)
    environment = {
        "RUNCOMFY_API_BASE": standin.origin,
        "RUNCOMFY_API_TOKEN": "",
        "RUNCOMFY_TOKEN": "",
        "YOUR_API_TOKEN": "",
        "HOME": str(base),
        "XDG_CONFIG_HOME": str(base),
    }
    with servers.start(comfyui, base, environment=environment) as running:
        yield running


@pytest.fixture
def client(site: servers.Server) -> Iterator[Client]:
    with Client(site.url) as client:
        yield client


@pytest.fixture
def token(site: servers.Server, client: Client) -> str:
    """A RunComfy token in the server's settings file."""
    set_token(client, TOKEN)
    return TOKEN


def set_token(client: Client, token: str) -> None:
    reply = client.http.put(
        f"{client.url}/flux2-lora-edit/token",
        json={"token": token},
        headers={"X-Flux2-Lora-Edit": "1"},
        timeout=60,
    )
    reply.raise_for_status()


# The browser and its pages, closed after this folder's last test and not only at the session's end:
# Playwright's event loop runs in this thread, where no later test could start one of its own.
OPEN = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or HERE not in Path(nextitem.path).parents:
        OPEN.close()


@pytest.fixture(scope="session")
def chromium_browser():
    """Chromium; without one every test here is skipped with the way to get it."""
    try:
        return OPEN.enter_context(chromium())
    except NoChromium as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pages(site: servers.Server, chromium_browser) -> "Pages":
    pages = Pages(site, chromium_browser)
    OPEN.callback(pages.close)
    return pages


class Pages:
    """Open pages by frontend, switched between the renderers instead of loaded anew.

    A frontend is "pinned" (what the host's requirements name), "newest", or a version.
    """

    def __init__(self, site: servers.Server, browser) -> None:
        self.site, self.browser = site, browser
        self._open: dict[str, ComfyPage] = {}

    def get(self, renderer: str, frontend: str = "pinned") -> ComfyPage:
        if frontend not in self._open:
            folder = None
            if frontend != "pinned":
                folder = frontend_of(frontend)
                if folder is None:
                    pytest.skip(f"frontend {frontend} cannot be had from the package index")
            page = ComfyPage(self.browser, self.site.url, frontend=folder)
            # Without it the old ones open no workflow at first.
            old = {} if frontend in ("pinned", NEWEST) else {"Comfy__Workflow__Persist": True}
            self._open[frontend] = page.open(vue=renderer == "nodes2", **old)
        page = self._open[frontend]
        page.reset(vue=renderer == "nodes2")
        return page

    def close(self, *frontends: str) -> None:
        """Those of some frontends, or all: a page that nobody looks at goes on drawing."""
        for frontend in frontends or [*self._open]:
            if frontend in self._open:
                self._open.pop(frontend).close()


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest) -> str:
    """The classic canvas, then Nodes 2.0."""
    return request.param


@pytest.fixture
def page(request: pytest.FixtureRequest, pages: Pages, renderer: str) -> Iterator[ComfyPage]:
    """An empty page of the pinned frontend, which must end without an error in its console."""
    page = pages.get(renderer)
    yield page
    _finish(request, page)


@pytest.fixture(params=["pinned", NEWEST])
def any_page(request: pytest.FixtureRequest, pages: Pages, renderer: str) -> Iterator[ComfyPage]:
    """An empty page of the pinned frontend, then of the newest."""
    page = pages.get(renderer, request.param)
    yield page
    _finish(request, page)


@pytest.fixture
def classic(request: pytest.FixtureRequest, pages: Pages) -> Iterator[ComfyPage]:
    """An empty page of the pinned frontend on the classic canvas."""
    page = pages.get("classic")
    yield page
    _finish(request, page)


def _finish(request: pytest.FixtureRequest, page: ComfyPage) -> None:
    errors, page.errors = page.errors, []
    if getattr(request.node, "failed_call", False):
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name)
        page.screenshot(ARTIFACTS / f"failed-{name}.png")
    else:
        assert not errors, "\n".join(error[:300] for error in errors[:5])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if report.when == "call" and report.failed:
        item.failed_call = True
    return report

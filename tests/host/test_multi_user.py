"""ComfyUI's ``--multi-user``: one RunComfy token, and what its users see of each other.

The host takes whatever name stands in a request's ``comfy-user`` header, without a password, and
keeps none of it with a prompt (0.18.2 to 0.30): who pressed Run is not known when a node runs. So
one token serves them all, which the settings say; nobody's prompt is shown to the others.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from standin_server import Standin
from test_runcomfy import QUICK, ROOT, graph

from host import models
from host import server as servers
from host.client import Client
from host.server import Server

pytestmark = pytest.mark.host
TOKEN = "token-of-many-users-9e14"
OURS = "/flux2-lora-edit"


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    with Standin(timing=QUICK, picture_side=32) as server:
        yield server


@pytest.fixture(scope="module")
def server(
    comfyui: Path, standin: Standin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("many") / "base"
    for folder in ("custom_nodes", "output", "input", "models/loras"):
        (base / folder).mkdir(parents=True)
    models.link_nodes(ROOT, base, "flux2-lora-edit")
    environment = {"RUNCOMFY_API_BASE": standin.origin, "HOME": str(base)}
    environment |= dict.fromkeys(("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "YOUR_API_TOKEN"), "")
    with servers.start(
        comfyui, base, arguments=["--multi-user"], environment=environment
    ) as running:
        yield running


def user(client: Client, name: str) -> dict[str, str]:
    """The headers of a new user's page."""
    made = client.http.post(f"{client.url}/users", json={"username": name}, timeout=60)
    made.raise_for_status()
    return {"Comfy-User": made.json(), "X-Flux2-Lora-Edit": "1"}


def test_one_token_serves_all_and_no_prompt_is_told(server: Server, standin: Standin) -> None:
    with Client(server.url) as client:
        ann, bob = user(client, "Ann"), user(client, "Bob")

        def ask(path: str, who: dict[str, str]) -> dict:
            answer = client.http.get(f"{server.url}{OURS}/{path}", headers=who, timeout=60)
            answer.raise_for_status()
            assert TOKEN not in answer.text and "heron" not in answer.text
            return answer.json()

        saved = client.http.put(
            f"{server.url}{OURS}/token", json={"token": TOKEN}, headers=ann, timeout=20
        )
        assert saved.json()["shared"] is True, "the page says it where the token is set"
        assert ask("token", bob) == saved.json()
        client.http.headers.update(bob)
        client.run(graph(1)).check()
        assert standin.state.account(TOKEN).submissions == 1, "Bob spent what Ann has set"
        for who in (ann, bob):
            (row,) = ask("history", who)["requests"]
            assert row["cost_usd"] == 0.021 and row["prompt"] == ""
            assert ask("open-requests", who)["open_requests"] == []
    served = [path for path in (server.base / "user").rglob("*") if path.is_file()]
    holding = [path for path in served if TOKEN.encode() in path.read_bytes()]
    assert [path.parent.name.startswith("__") for path in holding] == [True], "a system user's"

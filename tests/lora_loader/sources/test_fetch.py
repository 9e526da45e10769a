"""From a source to a file under the loras folders, against a loopback hub, CDN and Civitai."""

import hashlib
import json
import logging
import os
import random
import struct
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, strategies
from loopback import Authority, Exchange, Server, Stop, ranged, serving, stop_after
from loopback_hub import Hub

from flux2_lora_edit.lora_loader.sources import (
    Access,
    Fetched,
    FetchError,
    HubSource,
    InstalledSource,
    UrlSource,
    civitai,
    fetch,
    find_fetched,
    library,
    link,
    origin_of,
)
from flux2_lora_edit.lora_loader.sources.library import safe_lora_name, safe_name
from flux2_lora_edit.lora_loader.sources.link import name_of_header
from flux2_lora_edit.network.address import PUBLIC_ONLY, AddressPolicy
from flux2_lora_edit.network.client import HttpClient, Limits
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.network.errors import AddressRefused, NetworkError, TooLarge


def lora(seed: int, count: int = 50_000) -> bytes:
    """A valid one-tensor file."""
    header = {"a.lora_A.weight": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + random.Random(seed).randbytes(count)


INK, OIL, NEW = lora(1), lora(2), lora(3)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    with serving(authority) as running:
        yield running


@pytest.fixture
def cdn(authority: Authority) -> Iterator[Server]:
    with serving(authority) as running:
        yield running


@pytest.fixture
def hub(get: "Getter", server: Server, cdn: Server) -> Hub:
    get.env["HF_ENDPOINT"] = server.origin
    return Hub(server, cdn)


class Getter:
    """``fetch`` with the loopback servers in place of the world."""

    def __init__(self, tmp_path: Path, server: Server, cdn: Server, tls: Callable[[], Any]) -> None:
        self.root = tmp_path / "loras"
        self.server = server
        self.given: dict[str, Any] = {
            "policy": PUBLIC_ONLY.allowing(server.origin, cdn.origin),
            "client": HttpClient(transport=Transport(tls=tls), limits=Limits(backoff_s=0.01)),
            "login": lambda: None,
        }
        self.env: dict[str, str] = {}

    def __call__(
        self,
        source: Any,
        roots: list[Path] | None = None,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
        should_stop: Callable[[], None] = lambda: None,
        env: dict[str, str] | None = None,
        **changes: Any,
    ) -> Fetched:
        """env: on top of ``self.env``. changes: other fields of the access."""
        return fetch(
            source,
            [self.root] if roots is None else roots,
            progress=progress,
            should_stop=should_stop,
            access=Access(env={**self.env, **(env or {})}, **{**self.given, **changes}),
        )

    def files(self) -> list[str]:
        """All files under the root but locks."""
        found = (str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())
        return sorted(name for name in found if not name.endswith(".lock"))


@pytest.fixture
def get(tmp_path: Path, server: Server, cdn: Server, authority: Authority) -> Getter:
    return Getter(tmp_path, server, cdn, authority.tls)


def refusal(get: Getter, source: Any, **changes: Any) -> str:
    with pytest.raises(NetworkError) as caught:
        get(source, **changes)
    return str(caught.value)


# ---- the hub


def test_the_one_file_of_a_repository(get: Getter, hub: Hub) -> None:
    repo = hub.add("ann/ink", {"README.md": b"#", "ink.safetensors": INK})
    reports: list[tuple[int, int | None]] = []
    got = get(HubSource("ann/ink"), progress=lambda *report: reports.append(report))
    assert got.path == get.root / "flux2-lora-edit" / "ann--ink" / "ink.safetensors"
    assert got.path.read_bytes() == INK
    assert (got.sha256, got.revision, got.fetched) == (sha256(INK), repo.branches["main"], True)
    assert reports[-1] == (len(INK), len(INK))
    note = json.loads((got.path.parent / "ink.safetensors.json").read_text())
    assert (note["repo"], note["file"]) == ("ann/ink", "ink.safetensors")
    assert note["revision"] == repo.branches["main"]
    assert (note["sha256"], note["size"]) == (sha256(INK), len(INK))
    assert note["date"].startswith("20")
    assert "SIGNED" not in json.dumps(note)
    assert {seen.method for seen in hub.server.requests + hub.cdn.requests} == {"GET"}
    # the bytes come from the commit that was listed, not from a branch that may move meanwhile
    assert any(f"/resolve/{got.revision}/" in path for path in hub.asked())


def test_what_is_here_makes_no_request(get: Getter, hub: Hub) -> None:
    commit = hub.add("ann/ink", {"ink.safetensors": INK}).branches["main"]
    first = get(HubSource("ann/ink"))
    hub.forget()
    for source in (
        HubSource("ann/ink"),
        HubSource("ann/ink", "main"),
        HubSource("ann/ink", file="ink.safetensors"),
        HubSource("ann/ink", commit, "ink.safetensors"),
        UrlSource(f"{hub.endpoint}/ann/ink/resolve/main/ink.safetensors?download=true"),
        UrlSource(f"{hub.endpoint}/ann/ink/blob/{commit}/ink.safetensors"),
    ):
        for env in ({}, {"HF_HUB_OFFLINE": "1"}):
            got = get(source, env=env)
            assert (got.path, got.sha256, got.fetched) == (first.path, first.sha256, False)
        access = Access(env={"HF_ENDPOINT": hub.endpoint})
        assert find_fetched(source, [get.root], access=access) is not None
    assert hub.asked() == []


def test_offline_says_so_and_asks_nobody(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        said = refusal(get, HubSource("ann/ink"), env={name: "true"})
        assert "offline" in said.lower() and "ann--ink" in said
    assert hub.asked() == []
    # a file that was put there by hand is taken
    path = get.root / "flux2-lora-edit" / "ann--ink" / "ink.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(INK)
    assert get(HubSource("ann/ink"), env={"HF_HUB_OFFLINE": "1"}).path == path
    assert get(HubSource("ann/ink", file="ink.safetensors")).path == path
    assert hub.asked() == []


def test_a_cut_file_is_fetched_again(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    path = get(HubSource("ann/ink")).path
    path.write_bytes(INK[:100])
    assert get(HubSource("ann/ink")).path.read_bytes() == INK


def test_several_files(get: Getter, hub: Hub) -> None:
    files = {f"{name}.safetensors": INK for name in ("b", "a", "c")}
    hub.add("ann/many", files)
    said = refusal(get, HubSource("ann/many"))
    assert "ann/many:a.safetensors" in said
    assert [line for line in said.splitlines() if line in files] == sorted(files)
    hub.add("ann/canon", {**files, "pytorch_lora_weights.safetensors": OIL})
    assert get(HubSource("ann/canon")).path.name == "pytorch_lora_weights.safetensors"
    assert get(HubSource("ann/many", file="b.safetensors")).path.name == "b.safetensors"
    hub.add("ann/none", {"model.bin": b"x", "README.md": b"x"})
    assert "no .safetensors" in refusal(get, HubSource("ann/none"))
    hub.add("ann/lots", {f"{n:03}.safetensors": b"" for n in range(500)})
    assert "and 488 more" in refusal(get, HubSource("ann/lots"))


def test_the_three_404s_differ(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    good = {"HF_TOKEN": "good"}
    assert "no Hugging Face repository 'ann/nix'" in refusal(get, HubSource("ann/nix"), env=good)
    file = refusal(get, HubSource("ann/ink", file="nix.safetensors"), env=good)
    assert "no file 'nix.safetensors'" in file and "ink.safetensors" in file
    revision = refusal(get, HubSource("ann/ink", "v9"), env=good)
    assert "no branch, tag or commit 'v9'" in revision


def test_the_refusals_of_a_gated_repository_differ(get: Getter, hub: Hub) -> None:
    hub.add("bfl/gated", {"ink.safetensors": INK}, access="gated")
    source = HubSource("bfl/gated")
    none = refusal(get, source)
    assert "HF_TOKEN" in none and f"{hub.endpoint}/bfl/gated" in none and "gated" in none
    licence = refusal(get, source, env={"HF_TOKEN": "other"})
    assert "accept its licence" in licence and f"{hub.endpoint}/bfl/gated" in licence
    bad = refusal(get, source, env={"HF_TOKEN": "stale"})
    assert "does not accept your token" in bad and "settings/tokens" in bad
    assert len({none.split(".")[0], licence.split(".")[0], bad.split(".")[0]}) == 3
    assert get(source, env={"HF_TOKEN": "good"}).path.read_bytes() == INK


def test_a_private_repository(get: Getter, hub: Hub) -> None:
    hub.add("ann/own", {"ink.safetensors": INK}, access="private")
    source = HubSource("ann/own")
    assert "no such repository, or it is private" in refusal(get, source)
    assert "no Hugging Face repository" in refusal(get, source, env={"HF_TOKEN": "other"})
    assert "does not accept your token" in refusal(get, source, env={"HF_TOKEN": "stale"})
    assert get(source, login=lambda: "good").path.read_bytes() == INK


def test_a_stale_token_does_not_close_a_public_repository(
    get: Getter, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.add("ann/ink", {"ink.safetensors": INK})
    assert get(HubSource("ann/ink"), env={"HF_TOKEN": "EXPIRED"}).path.read_bytes() == INK
    assert "refused the token" in caplog.text
    assert "EXPIRED" not in caplog.text


def test_a_stale_token_is_not_blamed_for_other_things(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    stale = {"HF_TOKEN": "stale"}
    assert "no branch, tag" in refusal(get, HubSource("ann/ink", "v9"), env=stale)
    hub.cdn.routes["*"] = lambda e: e.answer(403)
    for env in ({}, stale, {"HF_TOKEN": "good"}):
        assert "storage" in refusal(get, HubSource("ann/ink"), env=env)


def test_a_renamed_repository_is_followed(get: Getter, hub: Hub) -> None:
    hub.add("ann/new", {"ink.safetensors": INK}, access="private")
    answer = hub.server.routes["*"]

    def moved(exchange: Exchange) -> None:
        if "ann/old" in exchange.seen.path:
            path = exchange.seen.path.replace("ann/old", "ann/new")
            exchange.answer(307, b"", Location=f"{path}?{exchange.seen.query}")
        else:
            answer(exchange)

    hub.server.routes["*"] = moved
    assert get(HubSource("ann/old"), env={"HF_TOKEN": "good"}).path.read_bytes() == INK


def test_the_token_goes_to_the_hub_alone(
    get: Getter, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.add("bfl/gated", {"ink.safetensors": INK, "adapter_config.json": b"{}"}, access="gated")
    get(HubSource("bfl/gated"), env={"HF_TOKEN": " good\n"})
    assert {seen.headers.get("authorization") for seen in hub.server.requests} == {"Bearer good"}
    assert hub.cdn.requests
    assert not any("authorization" in seen.headers for seen in hub.cdn.requests)
    assert "good" not in caplog.text and "SIGNED" not in caplog.text
    for path in get.root.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert "good" not in path.read_text() and "SIGNED" not in path.read_text()


@pytest.mark.parametrize(
    ("env", "sent"),
    [
        ({"HF_TOKEN": "good", "HUGGING_FACE_HUB_TOKEN": "other"}, "Bearer good"),
        ({"HUGGING_FACE_HUB_TOKEN": "good"}, "Bearer good"),
        ({}, "Bearer other"),  # from the login
        ({"HF_TOKEN": "good", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None),
        ({"HF_TOKEN": "t\u00f6ken"}, None),
        ({"HF_TOKEN": "go od\r\n"}, "Bearer good"),
    ],
)
def test_where_the_token_comes_from(
    get: Getter, hub: Hub, env: dict[str, str], sent: str | None
) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    get(HubSource("ann/ink"), env=env, login=lambda: "other")
    assert hub.server.requests[0].headers.get("authorization") == sent


def test_a_revision_gets_a_folder_of_its_own(get: Getter, hub: Hub) -> None:
    old = hub.add("ann/ink", {"ink.safetensors": INK}).branches["main"]
    new = hub.push("ann/ink", {"ink.safetensors": NEW})
    assert get(HubSource("ann/ink")).path.read_bytes() == NEW
    pinned = get(HubSource("ann/ink", old))
    assert pinned.path.read_bytes() == INK
    assert pinned.path.parent.name == f"ann--ink@{old[:12]}"
    hub.forget()
    assert get(HubSource("ann/ink")).path.read_bytes() == NEW
    assert get(HubSource("ann/ink", old)).path == pinned.path
    assert get(HubSource("ann/ink", new, "ink.safetensors")).revision == new
    assert hub.asked() == []


def test_another_name_of_the_same_file_is_learnt(get: Getter, hub: Hub) -> None:
    repo = hub.add("ann/ink", {"ink.safetensors": INK})
    first = get(HubSource("ann/ink"))
    repo.branches["v1"] = repo.branches["main"]
    hub.forget()
    got = get(HubSource("ann/ink", "v1"))
    assert (got.path, got.fetched) == (first.path, False)
    assert hub.asked() == ["/api/models/ann/ink/revision/v1"]
    hub.forget()
    assert get(HubSource("ann/ink", "v1")).path == first.path
    assert hub.asked() == []


def test_the_config_of_a_peft_file_comes_along(get: Getter, hub: Hub) -> None:
    config = b'{"lora_alpha": 8, "r": 4}'
    hub.add("ann/peft", {"adapter_model.safetensors": INK, "adapter_config.json": config})
    path = get(HubSource("ann/peft")).path
    assert path.with_name("adapter_config.json").read_bytes() == config
    # in a folder of the repository, and for the PEFT file among others
    hub.add(
        "ann/deep",
        {
            "v1/adapter_model.safetensors": INK,
            "v1/adapter_config.json": config,
            "v1/other.safetensors": OIL,
        },
    )
    path = get(HubSource("ann/deep", file="v1/adapter_model.safetensors")).path
    assert path.relative_to(get.root / "flux2-lora-edit").parts[:2] == ("ann--deep", "v1")
    assert path.with_name("adapter_config.json").read_bytes() == config


def test_the_config_of_another_file_does_not(get: Getter, hub: Hub) -> None:
    hub.add(
        "ann/mixed",
        {"adapter_model.safetensors": INK, "adapter_config.json": b"{}", "x.safetensors": OIL},
    )
    get(HubSource("ann/mixed", file="x.safetensors"))
    assert not any("adapter_config" in name for name in get.files())


def test_a_hostile_listing_cannot_choose_the_place(get: Getter, hub: Hub) -> None:
    for number, name in enumerate(
        (
            "../../../evil.safetensors",
            "/etc/evil.safetensors",
            "..\\..\\evil.safetensors",
            "C:\\evil.safetensors",
            "a/../../../../evil.safetensors",
            "CON.safetensors",
            "\x00.safetensors",
        )
    ):
        hub.add(f"ann/evil{number}", {name: INK})
        try:
            get(HubSource(f"ann/evil{number}"))
        except (NetworkError, ValueError):
            pass
    inside = [path for path in get.root.parent.rglob("*") if path.is_file()]
    assert all(get.root / "flux2-lora-edit" in path.parents for path in inside)
    assert not any(path.name.upper().startswith("CON.") for path in inside)


def test_bytes_that_are_not_the_listed_ones_are_refused(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    hub.cdn.routes["*"] = ranged(OIL)
    assert "sha256" in refusal(get, HubSource("ann/ink"))
    assert get.files() == []


def test_what_is_no_lora_is_refused(get: Getter, hub: Hub) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    hub.add("ann/pointer", {"ink.safetensors": pointer})
    hub.add("ann/cut", {"ink.safetensors": INK[:-1]})
    assert "git-lfs pointer" in refusal(get, HubSource("ann/pointer"))
    assert "usable LoRA" in refusal(get, HubSource("ann/cut"))
    assert get.files() == []


def test_passing_faults_of_the_hub_are_mended(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    answer = hub.server.routes["*"]
    script: list[Any] = [
        lambda e: e.answer(503),
        Exchange.break_off,
        answer,
        lambda e: e.answer(429),
    ]
    hub.server.routes["*"] = lambda e: (script.pop(0) if script else answer)(e)
    assert get(HubSource("ann/ink")).path.read_bytes() == INK
    assert not script


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b"null", b'{"sha": 3}', b"[" * 100_000, b"\xff", b'{"sha":"../x"}'],
)
def test_nonsense_from_the_hub_is_said_so(get: Getter, hub: Hub, body: bytes) -> None:
    hub.server.routes["*"] = lambda e: e.answer(200, body)
    with pytest.raises(FetchError):
        get(HubSource("ann/ink"))


def test_a_stop_while_the_hub_is_silent(get: Getter, hub: Hub) -> None:
    hub.server.routes["*"] = lambda e: e.pause(20)
    with pytest.raises(Stop):
        get(HubSource("ann/ink"), should_stop=stop_after(0.3))


def test_the_hub_must_be_public_too(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    with pytest.raises(AddressRefused):
        get(HubSource("ann/ink"), policy=None)
    assert hub.asked() == []


def test_the_endpoint_of_the_environment(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    env = {"HF_ENDPOINT": hub.endpoint + "/"}
    assert get(HubSource("ann/ink"), env=env).path.read_bytes() == INK
    assert hub.asked()[0] == "/api/models/ann/ink"


# ---- links


def test_a_link_with_a_name(get: Getter, server: Server) -> None:
    server.routes["/files/ink%20one.safetensors"] = ranged(INK)
    url = f"{server.origin}/files/ink%20one.safetensors?sig=SECRET"
    got = get(UrlSource(url))
    assert got.path == get.root / "flux2-lora-edit" / "127.0.0.1" / "ink one.safetensors"
    assert got.sha256 == sha256(INK)
    note = got.path.with_name(got.path.name + ".json").read_text()
    assert "SECRET" not in note
    server.requests.clear()
    assert get(UrlSource(url)).fetched is False
    assert not server.requests
    assert origin_of(got.path) is None  # its query is not in the note


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="ink.safetensors"', "ink.safetensors"),
        ("attachment; filename=ink.safetensors; size=3", "ink.safetensors"),
        ("attachment; filename*=UTF-8''t%C3%BCte.safetensors; filename=\"x\"", "tüte.safetensors"),
        ('attachment; filename="../../../etc/ink.safetensors"', "ink.safetensors"),
        ('attachment; filename="..\\\\..\\\\ink.safetensors"', "ink.safetensors"),
        ('attachment; filename="C:\\\\x\\\\ink.safetensors"', "ink.safetensors"),
        ('attachment; filename="/etc/passwd"', None),
        ('attachment; filename="ink.ckpt"', None),
        ('attachment; filename=".safetensors"', None),
        ("attachment", None),
        ("", None),
    ],
)
def test_a_link_whose_name_the_server_knows(
    get: Getter, server: Server, disposition: str, name: str | None
) -> None:
    named = {"Content-Disposition": disposition} if disposition else {}
    server.routes["/download/7"] = ranged(INK, **named)
    got = get(UrlSource(f"{server.origin}/download/7"))
    assert got.path.parent == get.root / "flux2-lora-edit" / "127.0.0.1"
    if name is None:
        assert got.path.name.startswith("lora-") and got.path.suffix == ".safetensors"
    else:
        assert got.path.name == name
    assert {seen.method for seen in server.requests} == {"GET"}
    assert origin_of(got.path) == UrlSource(f"{server.origin}/download/7")


def test_two_links_with_one_name_do_not_collide(get: Getter, server: Server) -> None:
    server.routes |= {"/a/x.safetensors": ranged(INK), "/b/x.safetensors": ranged(OIL)}
    first = get(UrlSource(f"{server.origin}/a/x.safetensors"))
    second = get(UrlSource(f"{server.origin}/b/x.safetensors"))
    assert first.path != second.path
    assert first.path.read_bytes() == INK
    assert second.path.read_bytes() == OIL
    assert get(UrlSource(f"{server.origin}/b/x.safetensors")).path == second.path


@pytest.mark.parametrize("status", [401, 403])
def test_a_link_that_wants_a_login(get: Getter, server: Server, status: int) -> None:
    server.routes["*"] = lambda e: e.answer(status)
    for path in ("/x.safetensors", "/download/7"):
        said = refusal(get, UrlSource(server.origin + path + "?sig=SECRET"))
        assert "login" in said and "SECRET" not in said


def test_a_link_to_a_web_page(get: Getter, server: Server) -> None:
    server.routes["*"] = lambda e: e.answer(200, b"<html>", Content_Type="text/html")
    for path in ("/x.safetensors", "/download/7"):
        assert "web page" in refusal(get, UrlSource(server.origin + path))
    server.routes["*"] = lambda e: e.answer(200, b"<!doctype html><html>")
    assert "web page" in refusal(get, UrlSource(server.origin + "/x.safetensors"))
    assert get.files() == []


def test_hub_links_are_hub_sources(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK, "b.safetensors": OIL})
    got = get(UrlSource(f"{hub.endpoint}/ann/ink/resolve/main/ink.safetensors?download=true"))
    assert got.path.parent.name == "ann--ink"
    assert got.revision == hub.repos["ann/ink"].branches["main"]
    assert origin_of(got.path) == HubSource("ann/ink", got.revision, "ink.safetensors")


@pytest.mark.parametrize(
    ("link", "is_hub"),
    [
        ("https://huggingface.co/ann/ink", True),
        ("https://hf.co/ann/ink", True),
        ("https://HuggingFace.co:443/ann/ink", True),
        ("https://mirror.example/hub/ann/ink", False),
        ("https://mirror.example/ann/ink", True),
        ("https://huggingface.co.evil.example/ann/ink", False),
        ("https://huggingface.co/spaces/ann/ink", False),
        ("https://huggingface.co/ann/ink/discussions", False),
    ],
)
def test_which_links_are_the_hubs(get: Getter, link: str, is_hub: bool) -> None:
    path = get.root / "flux2-lora-edit" / "ann--ink" / "ink.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(INK)
    access = Access(env={"HF_ENDPOINT": "https://mirror.example"})
    assert bool(find_fetched(UrlSource(link), [get.root], access=access)) is is_hub


def test_the_cap_is_an_argument(get: Getter, server: Server) -> None:
    server.routes["*"] = ranged(INK)
    with pytest.raises(TooLarge):
        get(
            UrlSource(server.origin + "/x.safetensors"),
            client=get.given["client"].within(max_bytes=1000),
        )


# ---- Civitai


def version(number: int, *files: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "trainedWords": ["ink style"], "files": list(files)}


def file(number: int, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "type": "Model",
        "hashes": {"SHA256": sha256(content).upper(), "AutoV2": "X"},
        "downloadUrl": "https://evil.example/",
        **more,
    }


class Civitai:
    """Serves versions and their files; ``token`` is wanted for downloads."""

    def __init__(self, server: Server, cdn: Server) -> None:
        self.token = ""
        self.server, self.cdn = server, cdn
        server.routes["*"] = self.answer
        self.json: dict[str, Any] = {}
        self.contents: dict[str, bytes] = {}

    def answer(self, exchange: Exchange) -> None:
        seen = exchange.seen
        if seen.path in self.json:
            exchange.answer(200, json.dumps(self.json[seen.path]).encode())
        elif seen.path.startswith("/api/download/models/"):
            if self.token and seen.headers.get("authorization") != f"Bearer {self.token}":
                exchange.answer(401, b'{"error":"Unauthorized"}')
                return
            self.cdn.routes["/blob"] = ranged(self.contents[seen.query])
            exchange.answer(307, b"", Location=f"{self.cdn.origin}/blob?X-Amz-Signature=SIGNED")
        else:
            exchange.answer(404, b'{"error":"No model"}')


@pytest.fixture
def civitai_site(get: Getter, server: Server, cdn: Server) -> Civitai:
    get.given["civitai_origins"] = {"civitai.com": server.origin, "civitai.red": cdn.origin}
    site = Civitai(server, cdn)
    site.json["/api/v1/models/11"] = {"modelVersions": [{"id": 22}, {"id": 21}]}
    site.json["/api/v1/model-versions/22"] = version(22, file(5, "ink.safetensors", INK))
    site.json["/api/v1/model-versions/21"] = version(
        21,
        file(6, "../../oil.safetensors", OIL, primary=True),
        file(7, "new.safetensors", NEW),
        file(8, "data.zip", b"x", type="Training Data"),
    )
    site.contents = {"fileId=5": INK, "fileId=6": OIL, "fileId=7": NEW}
    return site


@pytest.mark.parametrize(
    ("link", "content", "name"),
    [
        ("https://civitai.com/models/11", INK, "ink.safetensors"),
        ("https://civitai.com/models/11/some-name", INK, "ink.safetensors"),
        ("https://civitai.com/models/11?modelVersionId=21", OIL, "oil.safetensors"),
        ("https://civitai.com/models/11/x?modelVersionId=21&fileId=7", NEW, "new.safetensors"),
        (
            "https://civitai.com/api/download/models/22?type=Model&format=SafeTensor",
            INK,
            "ink.safetensors",
        ),
        ("https://civitai.com/api/download/models/21", OIL, "oil.safetensors"),
        ("https://civitai.com/model-versions/21", OIL, "oil.safetensors"),
    ],
)
def test_civitai_links(
    get: Getter, civitai_site: Civitai, link: str, content: bytes, name: str
) -> None:
    civitai_site.token = "key"
    got = get(UrlSource(link), env={"CIVITAI_API_TOKEN": "key"})
    assert got.path.read_bytes() == content
    assert got.path == get.root / "flux2-lora-edit" / "127.0.0.1" / name
    sent = {seen.headers.get("authorization") for seen in civitai_site.server.requests}
    assert sent == {"Bearer key"}
    assert not any("authorization" in seen.headers for seen in civitai_site.cdn.requests)
    note = json.loads(got.path.with_name(name + ".json").read_text())
    assert note["trigger_words"] == ["ink style"]
    assert "SIGNED" not in json.dumps(note) and '"key"' not in json.dumps(list(note.values()))
    civitai_site.server.requests.clear()
    assert get(UrlSource(link)).path == got.path
    assert not civitai_site.server.requests


def test_civitai_refusals_differ(get: Getter, civitai_site: Civitai) -> None:
    civitai_site.token = "key"
    source = UrlSource("https://civitai.com/models/11")
    assert "CIVITAI_API_TOKEN" in (none := refusal(get, source))
    assert "refuses your API key" in (bad := refusal(get, source, env={"CIVITAI_TOKEN": "x"}))
    assert none != bad
    assert "no such model" in refusal(get, UrlSource("https://civitai.com/models/99"))
    several = version(23, file(1, "a.safetensors", INK), file(2, "b.safetensors", OIL))
    civitai_site.json["/api/v1/model-versions/23"] = several
    said = refusal(get, UrlSource("https://civitai.com/api/download/models/23"))
    assert "fileId=1: a.safetensors" in said and "fileId=2: b.safetensors" in said
    civitai_site.json["/api/v1/model-versions/24"] = version(24, file(3, "a.zip", INK))
    assert "no .safetensors" in refusal(get, UrlSource("https://civitai.com/model-versions/24"))


def test_a_civitai_login_page_in_the_files_place(get: Getter, civitai_site: Civitai) -> None:
    civitai_site.server.routes["/api/download/models/22"] = lambda e: e.answer(
        200, b"<html>", Content_Type="text/html"
    )
    said = refusal(get, UrlSource("https://civitai.com/models/11"))
    assert "CIVITAI_API_TOKEN" in said


@pytest.mark.parametrize("answer", [None, [], {}, {"files": 3}, {"files": [3, {"id": "x"}]}])
def test_nonsense_from_civitai_is_said_so(get: Getter, civitai_site: Civitai, answer: Any) -> None:
    civitai_site.json["/api/v1/model-versions/22"] = answer
    with pytest.raises(FetchError):
        get(UrlSource("https://civitai.com/models/11"))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://civitai.com/models/1", "https://civitai.com"),
        ("https://www.civitai.com/models/1", "https://civitai.com"),
        ("https://civitai.green/models/1", "https://civitai.com"),
        ("https://civitai.red/models/1", "https://civitai.red"),
        ("https://CIVITAI.com:443/models/1", "https://civitai.com"),
        ("https://civitai.com.evil.example/models/1", None),
        ("https://evilcivitai.com/models/1", None),
        ("https://civitai.com:8443/models/1", None),
        ("https://civitai.com/user/1", None),
        ("https://civitai.com/models/x", None),
        ("https://civitai.com/models/1/a/b", None),
    ],
)
def test_which_links_are_civitais(url: str, origin: str | None) -> None:
    site = civitai.Civitai.behind(UrlSource(url), Access())
    assert (site and site.origin) == origin


# ---- places and names


def test_the_first_root_that_can_be_written(
    get: Getter, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is wanted")
    got = get(HubSource("ann/ink"), roots=[blocked, tmp_path / "second"])
    assert got.path.is_relative_to(tmp_path / "second")
    # and it is found there from then on, whatever comes first
    assert get(HubSource("ann/ink"), roots=[tmp_path / "new", tmp_path / "second"]).path == got.path
    said = refusal(get, HubSource("ann/ink"), roots=[blocked])
    assert str(blocked) in said
    assert "(none is configured)" in refusal(get, HubSource("ann/ink"), roots=[])


def test_a_proxy_that_is_written_wrongly_is_said_so(get: Getter) -> None:
    env = {"FLUX2_LORA_EDIT_PROXY": "socks5://me:SECRET@proxy:1"}
    said = refusal(get, HubSource("ann/ink"), policy=None, env=env)
    assert "FLUX2_LORA_EDIT_PROXY" in said and "SECRET" not in said


def test_the_operators_limits_hold_for_what_is_fetched(get: Getter, server: Server) -> None:
    server.routes |= {"/a.safetensors": ranged(INK), "/b.safetensors": ranged(OIL)}
    env = {"FLUX2_LORA_EDIT_QUOTA_GB": "0.00008"}  # one file and a half, of any site
    get(UrlSource(f"{server.origin}/a.safetensors"), env=env)
    said = refusal(get, UrlSource(f"{server.origin}/b.safetensors"), env=env)
    assert "FLUX2_LORA_EDIT_QUOTA_GB" in said
    assert said.endswith(f"\n{get.root / 'flux2-lora-edit'}")
    assert get(UrlSource(f"{server.origin}/a.safetensors"), env=env).fetched is False
    assert get(UrlSource(f"{server.origin}/b.safetensors")).fetched is True
    for name in ("FLUX2_LORA_EDIT_QUOTA_GB", "FLUX2_LORA_EDIT_MIN_KIB_PER_S"):
        said = refusal(get, UrlSource(f"{server.origin}/c.safetensors"), env={name: "much"})
        assert f"set up wrongly: {name} must be a number" in said


def test_a_disk_that_fails_is_said_so(get: Getter, hub: Hub) -> None:
    hub.add("ann/ink", {"ink.safetensors": INK})
    folder = get.root / "flux2-lora-edit"
    folder.mkdir(parents=True)
    (folder / "ann--ink").write_text("a file where the folder is wanted")
    assert "cannot be written" in refusal(get, HubSource("ann/ink"))


def test_an_installed_file_is_not_fetched(get: Getter) -> None:
    assert "installed" in refusal(get, InstalledSource("x.safetensors"))
    assert origin_of(get.root / "x.safetensors") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ink.safetensors", "ink.safetensors"),
        ("a/b\\c.safetensors", "c.safetensors"),
        ("..", ""),
        ("...safetensors", "safetensors"),
        ("nul", "_nul"),
        ("Com1.safetensors", "_Com1.safetensors"),
        ("a:b*c?.safetensors", "a_b_c_.safetensors"),
        ("x\x00\n.safetensors", "x__.safetensors"),
        ("a" * 300 + ".safetensors", "a" * 108 + ".safetensors"),
        (" .hidden. ", "hidden"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert os.sep not in name and len(name) <= 120


CJK = "\u5965" * 300
FLAGS = "\U0001d5d4" * 300


@pytest.mark.parametrize(
    "text", [CJK, FLAGS, "a" + CJK, "ab" + CJK, "e\u0301" * 300, "\ud800" * 300]
)
def test_a_name_is_cut_by_its_bytes_and_in_no_character(text: str) -> None:
    for ending in (".safetensors", ".SafeTensors", ""):
        name = safe_name(text + ending)
        assert name.endswith(ending) and len(name.encode()) <= 200
        assert set(name.removesuffix(ending)) <= {*unicodedata.normalize("NFC", text), "_"}
        assert len(name.removesuffix(ending)) >= 40, "as much as fits is kept"


def test_a_long_name_leaves_room_for_all_that_is_put_round_it(get: Getter, hub: Hub) -> None:
    hub.add("ann/long", {f"{FLAGS}/{CJK}.safetensors": INK})
    assert get(HubSource("ann/long")).path.read_bytes() == INK
    (folder,) = (get.root / "flux2-lora-edit" / "ann--long").iterdir()
    (kept,) = folder.glob("*.safetensors")
    hub.push("ann/long", {f"{FLAGS}/{CJK}1.safetensors": OIL})
    for name in (folder.name, kept.name):
        # what network.files puts round it for a moment, the longest of it the scratch of a note
        assert len(f".{name}".encode()) + len(".part.json.01234567.tmp") <= 255
    site = link.PlainLink(Access(), "ann--long", "?", None, UrlSource("https://a.example/x"))
    wanted, _ = replace(
        site, source=UrlSource(f"https://a.example/{quote(CJK)}.safetensors")
    ).resolve()
    there = library.Library([get.root]).place(folder, wanted)
    assert there.parent == kept.parent and there.name != kept.name, "another file of that name"
    assert len(f".{there.name}".encode()) + len(".part.json.01234567.tmp") <= 255


@pytest.mark.parametrize("name", ["a" * 300, CJK])
def test_a_name_that_no_disk_can_hold_is_looked_for_and_fetched(
    get: Getter, hub: Hub, name: str
) -> None:
    source = HubSource("ann/long", file=f"{name}.safetensors")
    assert find_fetched(source, [get.root], access=Access(env=get.env)) is None
    hub.add("ann/long", {f"{name}.safetensors": INK})
    (get.root / "flux2-lora-edit" / "ann--long").mkdir(parents=True)
    first = get(source)
    assert first.path.read_bytes() == INK
    assert get(source).path == first.path


@pytest.mark.parametrize("endpoint", ["https://[me:S3CRET@x", "https://me:S3CRET@x\u2100.example"])
def test_an_endpoint_that_is_written_wrongly_is_said_so(get: Getter, endpoint: str) -> None:
    said = refusal(get, HubSource("ann/ink"), env={"HF_ENDPOINT": endpoint})
    assert "HF_ENDPOINT" in said and "S3CRET" not in said
    said = refusal(get, UrlSource("https://a.example/x"), env={"HF_ENDPOINT": endpoint})
    assert "HF_ENDPOINT" in said and "S3CRET" not in said


def test_a_name_that_is_no_text_is_none_of_the_files(get: Getter, hub: Hub) -> None:
    """JSON can hold half of a character, which no address and no path can."""
    hub.add("ann/half", {"a\ud800.safetensors": OIL, "\udfff/adapter_config.json": b"{}"})
    assert "holds no .safetensors file" in refusal(get, HubSource("ann/half"))
    hub.add("ann/both", {"a\ud800.safetensors": OIL, "ink.safetensors": INK})
    assert get(HubSource("ann/both")).path.read_bytes() == INK
    said = refusal(get, HubSource("ann/half", file="b.safetensors"))
    assert said.encode() and "b.safetensors" in said


@given(strategies.text(max_size=300))
def test_any_text_makes_a_safe_name(text: str) -> None:
    name = safe_name(text)
    assert len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>|\0\r\n')
    assert name not in (".", "..") and len(name) <= 121
    assert name == name.strip(". ")
    lora_name = safe_lora_name(text)
    assert lora_name is None or lora_name.lower().endswith(".safetensors")
    name_of_header(text)


def test_names_that_are_no_loras() -> None:
    assert safe_lora_name(".safetensors") is None
    assert safe_lora_name("a.safetensors.exe") is None
    assert name_of_header(None) is None


def test_default_policy_is_public_only(get: Getter, server: Server) -> None:
    assert AddressPolicy.from_environment({}) == PUBLIC_ONLY
    with pytest.raises(AddressRefused):
        get(UrlSource(server.origin + "/x.safetensors"), policy=None)
    assert server.connections == 0

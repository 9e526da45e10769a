"""What goes to a machine without your tokens: the file's own address, and no secret."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, strategies
from loopback import Authority, Exchange, Server, Stop, ranged, serving
from loopback_hub import Hub

from flux2_lora_edit.lora_loader.sources import (
    Access,
    FetchError,
    HubSource,
    UrlSource,
    parse_hub,
    parse_url,
    site_for_others,
)
from flux2_lora_edit.lora_loader.sources.elsewhere import (
    ALONE,
    GATED,
    SIGNED_VARIABLE,
    looked_at,
    named,
    secret_in,
    within,
)
from flux2_lora_edit.network.client import HttpClient, Limits
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.network.errors import AddressRefused, NetworkError

HOSTS = ("huggingface.co", "cdn.example.com", "civitai.com", "files.example.com")
TOKENS = {"HF_TOKEN": "good", "CIVITAI_API_TOKEN": "CIVITAI-KEY-OF-MINE"}


class World:
    """The hosts by their real names, on loopback; the operator is logged in everywhere."""

    def __init__(self, servers: dict[str, Server], authority: Authority) -> None:
        self.servers, self.env = servers, dict(TOKENS)
        for host, server in servers.items():
            server.origin = f"https://{host}"
        self.hub = Hub(servers["huggingface.co"], servers["cdn.example.com"])
        self.down: set[str] = set()
        addresses = {host: f"8.8.8.{number}" for number, host in enumerate(HOSTS)}

        def resolve(host: str, port: int, **kind: Any) -> list[Any]:
            if host in self.down or host not in addresses:
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], port))]

        def dial(address: tuple[str, int], timeout: float) -> socket.socket:
            host = next(host for host, number in addresses.items() if number == address[0])
            return socket.create_connection(("127.0.0.1", servers[host].port), timeout)

        self.client = HttpClient(
            limits=Limits(backoff_s=0.01), transport=Transport(resolve, dial, authority.tls)
        )

    def __call__(self, source: Any, should_stop: Callable[[], None] = lambda: None) -> Any:
        """(what is sent, what is said)."""
        access = Access(env=self.env, client=self.client, login=lambda: "good")
        site = site_for_others(source, should_stop, access)
        address = named(site, access.env)
        return address, looked_at(site, address)

    def refusal(self, source: Any) -> str:
        with pytest.raises(NetworkError) as caught:
            self(source)
        return str(caught.value)

    def asked(self) -> list[str]:
        return [f"{seen.path}" for server in self.servers.values() for seen in server.requests]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def world(authority: Authority) -> Iterator[World]:
    with ExitStack() as stack:
        servers = {host: stack.enter_context(serving(authority, host)) for host in HOSTS}
        yield World(servers, authority)
        # Whatever was asked, nobody was told who asks.
        for server in servers.values():
            for seen in server.requests:
                assert "authorization" not in seen.headers and "cookie" not in seen.headers
                assert not any(token in str(seen) for token in TOKENS.values())


FILE = "https://huggingface.co/ann/ink/resolve/main/a%20b.safetensors"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://huggingface.co/ann/ink/blob/main/a%20b.safetensors", FILE),
        ("https://huggingface.co/ann/ink/resolve/main/a%20b.safetensors?download=true", FILE),
        ("https://hf.co/ann/ink/raw/main/a%20b.safetensors", FILE),
        ("https://huggingface.co/ann/ink/resolve/main/a%20b.safetensors?token=SECRET", FILE),
        ("https://huggingface.co/ann/ink", "ann/ink"),
        ("https://HF.co:443/ann/ink/", "ann/ink"),
        ("https://huggingface.co/ann/ink/tree/main", FILE),
        ("ann/ink", "ann/ink"),
        ("ann/ink:a b.safetensors", FILE),
        ("ann/ink@main", FILE),
    ],
)
def test_what_names_a_repository_is_sent_as_a_file_or_as_owner_and_repo(
    world: World, given: str, sent: str
) -> None:
    world.hub.add("ann/ink", {"README.md": b"#", "a b.safetensors": b"x"})
    source = parse_url(given) if "://" in given else parse_hub(given)
    assert world(source) == (sent, "")
    assert len(world.hub.server.requests) <= 2


def test_a_mirror_is_asked_but_the_hub_is_named(world: World) -> None:
    world.env["HF_ENDPOINT"] = "https://files.example.com"
    mirror = Hub(world.servers["files.example.com"], world.servers["cdn.example.com"])
    mirror.add("ann/ink", {"a b.safetensors": b"x"})
    link = "https://files.example.com/ann/ink/blob/main/a%20b.safetensors"
    assert world(UrlSource(link)) == (FILE, "")
    assert world(HubSource("ann/ink")) == ("ann/ink", "")
    # what a mirror lacks the hub may have
    for source in (HubSource("ann/new"), HubSource("ann/new", None, "x.safetensors")):
        assert "is not known (The mirror says HTTP 401)" in world(source)[1]
    assert world.servers["huggingface.co"].connections == 0


def test_a_gated_repository_is_said_before(world: World) -> None:
    world.hub.add("bfl/gated", {"ink.safetensors": b"x"}, access="gated")
    address = "https://huggingface.co/bfl/gated/resolve/main/ink.safetensors"
    assert world(HubSource("bfl/gated")) == ("bfl/gated", GATED)
    assert world(HubSource("bfl/gated", "main")) == (address, GATED)
    assert world(UrlSource("https://huggingface.co/bfl/gated/blob/main/ink.safetensors")) == (
        address,
        GATED,
    )
    assert "without your token" in GATED


@pytest.mark.parametrize(
    "source",
    [
        HubSource("ann/own"),
        HubSource("ann/own", None, "ink.safetensors"),
        HubSource("ann/own", "main"),
        UrlSource("https://huggingface.co/ann/own/blob/main/ink.safetensors"),
        HubSource("ann/absent"),
        HubSource("ann/absent", "main", "ink.safetensors"),
    ],
)
def test_what_your_token_alone_can_read_is_refused(world: World, source: Any) -> None:
    world.hub.add("ann/own", {"ink.safetensors": b"x"}, access="private")
    said = world.refusal(source)
    assert "no such repository, or it is private" in said and ALONE in said


def test_a_file_or_a_revision_that_is_not_there_is_refused(world: World) -> None:
    world.hub.add("ann/ink", {"ink.safetensors": b"x"})
    world.hub.add("ann/many", {"a.safetensors": b"x", "b.safetensors": b"x"})
    world.hub.add("ann/none", {"model.bin": b"x"})
    assert "no such file" in world.refusal(HubSource("ann/ink", None, "oil.safetensors"))
    said = world.refusal(HubSource("ann/ink", "v9"))
    assert "no branch, tag or commit 'v9'" in said and "ann/ink@v9:file.safetensors" in said
    for source in (HubSource("ann/many"), HubSource("ann/many", "main")):
        assert "ann/many" in (said := world.refusal(source)) and "Write which one" in said
    assert "holds no .safetensors file" in world.refusal(HubSource("ann/none"))


def test_offline_goes_on_and_asks_nobody(world: World) -> None:
    world.env["HF_HUB_OFFLINE"] = "1"
    link = UrlSource("https://huggingface.co/ann/ink/blob/main/a%20b.safetensors")
    assert world(link) == (FILE, "") and world(HubSource("ann/ink")) == ("ann/ink", "")
    assert "ann/ink@dev:file.safetensors" in world.refusal(HubSource("ann/ink", "dev"))
    assert world.asked() == []


@pytest.mark.parametrize("status", [403, 429, 451, 500, 503])
def test_what_cannot_be_asked_is_no_refusal(world: World, status: int) -> None:
    world.servers["huggingface.co"].routes["*"] = lambda e: e.answer(status, b"")
    world.servers["files.example.com"].routes["*"] = lambda e: e.answer(status, b"")
    link = "https://files.example.com/x.safetensors"
    for source, sent in (
        (HubSource("ann/ink"), "ann/ink"),
        (HubSource("ann/ink", None, "a b.safetensors"), FILE),
        (UrlSource(link), link),
    ):
        address, said = world(source)
        assert address == sent and f"is not known (HTTP {status})" in said


def test_who_is_offline_goes_on_too(world: World) -> None:
    world.down |= {*HOSTS}
    assert world(HubSource("ann/ink", None, "a b.safetensors"))[0] == FILE
    address, said = world(UrlSource("https://files.example.com/x.safetensors"))
    assert "is not known (files.example.com cannot be found; are you online?)" in said
    said = world.refusal(UrlSource("https://civitai.com/models/11"))
    assert said.startswith("Which file it means could not be asked. civitai.com cannot be found")


def test_a_name_that_leads_inside_only_here_is_no_refusal(world: World) -> None:
    """Behind a VPN with made-up addresses every name does; RunComfy's machines see others."""
    inside = lambda host, port, **kind: [(2, 1, 6, "", ("198.18.0.7", port))]  # noqa: E731
    world.client = replace(world.client, transport=Transport(inside))
    address, said = world(UrlSource("https://files.example.com/x.safetensors"))
    assert "is not known (files.example.com resolves to a non-public address" in said
    assert "FLUX2_LORA_EDIT_PROXY" in said and world.asked() == []


# ---- Civitai


def civitai(world: World, answer: Callable[[Exchange], None] | None = None) -> Server:
    server = world.servers["civitai.com"]
    version = {"id": 22, "files": [{"id": 5, "name": "ink.safetensors", "type": "Model"}]}
    for path, body in {
        "/api/v1/models/11": {"modelVersions": [{"id": 22}]},
        "/api/v1/model-versions/22": version,
    }.items():
        text = json.dumps(body).encode()
        server.routes[path] = lambda e, text=text: e.answer(200, text)
    server.routes["/api/download/models/22"] = answer or (
        lambda e: e.answer(307, b"", Location="https://cdn.example.com/blob?X-Amz-Signature=S")
    )
    world.servers["cdn.example.com"].routes["/blob"] = ranged(b"x")
    return server


DOWNLOAD = "https://civitai.com/api/download/models/22?fileId=5"


@pytest.mark.parametrize(
    ("link", "questions"),
    [
        ("https://civitai.com/models/11", 3),
        ("https://civitai.com/models/11/some-name?modelVersionId=22", 2),
        ("https://www.civitai.com/models/11?modelVersionId=22&fileId=5&token=SECRET", 1),
        ("https://civitai.com/api/download/models/22", 2),
        ("https://civitai.com/api/download/models/22?token=SECRET&type=Model", 2),
        (DOWNLOAD + "&token=CIVITAI-KEY-OF-MINE", 1),
    ],
)
def test_a_page_of_civitai_is_sent_as_its_download(world: World, link: str, questions: int) -> None:
    server = civitai(world)
    assert world(UrlSource(link)) == (DOWNLOAD, "")
    assert len(server.requests) == questions
    assert not any("SECRET" in seen.query for seen in server.requests)


def test_a_file_of_civitai_behind_a_login_is_refused(world: World) -> None:
    civitai(world, lambda e: e.answer(401, b'{"error":"Unauthorized"}'))
    said = world.refusal(UrlSource("https://civitai.com/models/11"))
    assert "asks for a login (HTTP 401)" in said and ALONE in said
    server = civitai(world)
    server.routes["/api/v1/models/11"] = lambda e: e.answer(401, b"{}")
    assert ALONE in world.refusal(UrlSource("https://civitai.com/models/11")), "a key is no help"
    page = {"Content_Type": "text/html; charset=utf-8"}
    civitai(world, lambda e: e.answer(200, b"<html>", **page))
    assert "web page" in world.refusal(UrlSource(DOWNLOAD))


def test_a_page_that_is_none_is_refused(world: World) -> None:
    civitai(world)
    assert "no such model" in world.refusal(UrlSource("https://civitai.com/models/99"))
    world.servers["civitai.com"].routes["*"] = lambda e: e.answer(500, b"")
    assert "HTTP 500" in world.refusal(UrlSource("https://civitai.com/models/98"))


# ---- other links


def test_a_plain_link_is_sent_as_it_is(world: World) -> None:
    world.servers["files.example.com"].routes["/a/ink"] = ranged(b"x" * 3_000_000)
    for link in ("https://files.example.com/a/ink", "https://files.example.com/a/ink?v=2&dl=1"):
        assert world(UrlSource(link)) == (link, "")
    assert {seen.method for seen in world.servers["files.example.com"].requests} == {"GET"}


def test_a_look_at_a_file_does_not_fetch_it(world: World) -> None:
    sent: list[int] = []

    def large(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": 600 << 20})
        while len(sent) < 600 * 16:
            exchange.send(bytes(65536))
            sent.append(65536)

    world.servers["files.example.com"].routes["*"] = large
    assert world(UrlSource("https://files.example.com/x.safetensors"))[1] == ""
    assert sum(sent) < 64 << 20


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda e: e.answer(200, b"<html>", Content_Type="text/html"), "web page"),
        (lambda e: e.answer(401, b""), "asks for a login"),
        (lambda e: e.answer(404, b""), "no such file"),
        (lambda e: e.answer(410, b""), "gone"),
    ],
)
def test_a_plain_link_that_gives_nobody_a_file_is_refused(
    world: World, answer: Any, said: str
) -> None:
    world.servers["files.example.com"].routes["*"] = answer
    refused = world.refusal(UrlSource("https://files.example.com/x.safetensors?v=HIDDEN"))
    assert said in refused and "HIDDEN" not in refused


@pytest.mark.parametrize(
    "link", ["https://10.0.0.1/x.safetensors", "https://nas.local/x", "https://localhost/x"]
)
def test_a_link_into_this_network_is_refused(world: World, link: str) -> None:
    with pytest.raises(AddressRefused):
        world(UrlSource(link))


SIGNED = """
token=S api_key=S key=S apikey=S API-KEY=S sig=S signature=S X-Amz-Signature=S x-amz-credential=S
X-Amz-Security-Token=S X-Goog-Signature=S X-Goog-Credential=S Policy=S Expires=1 Key-Pair-Id=S
access_token=S auth=S private_token=S se=1&sig=S rlkey=S resourcekey=S authkey=S password=S pw=S
OSSAccessKeyId=S q-sign-algorithm=S q-signature=S hdnts=S hm=S client_secret=S jwt=S sessionid=S
x=hf_abcdefghijklmnopqrstuvwxyz x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s x=ghp_0123456789abcdefghij
hf_abcdefghijklmnopqrstuvwxyz eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0 x=AKIAABCDEFGHIJKLMNOP
url=https%3A%2F%2Fa.example%2Fx%3Ftoken%3DS u=https%253A%252F%252Fa%252F%253Fsig%253DS a=1;sig=S
""".split()


@pytest.mark.parametrize("query", SIGNED)
def test_a_link_with_a_secret_is_refused_unless_the_operator_says_so(
    world: World, query: str
) -> None:
    world.servers["files.example.com"].routes["*"] = ranged(b"x")
    link = f"https://files.example.com/x.safetensors?v=1&{query}"
    said = world.refusal(UrlSource(link))
    assert "looks like a token" in said and f"{SIGNED_VARIABLE}=1" in said
    assert "hf_" not in said and "eyJ" not in said and "?" not in said
    assert world.asked() == [], "nor is it used to ask"
    world.env[SIGNED_VARIABLE] = "1"
    assert world(UrlSource(link)) == (link, "")


@pytest.mark.parametrize("where", ["?x={}", "/{}/x", "?{}", "?a=%41&b=1{}"])
@pytest.mark.parametrize("name", TOKENS)
def test_a_token_of_the_operators_is_never_sent(world: World, where: str, name: str) -> None:
    world.env[SIGNED_VARIABLE] = "1"
    token = world.env[name] = "mine+of/mine=" + name
    link = "https://files.example.com/x" + where.format(quote(token, safe=""))
    said = world.refusal(UrlSource(link))
    assert f"your {name}, which is never sent" in said
    assert "mine" not in said and "files.example.com" in said
    assert world.asked() == []


PLAIN = [pair[:-2] for pair in SIGNED if pair.endswith("=S") and pair.count("=") == 1]


@given(
    strategies.sampled_from([name for name in PLAIN if "%" not in name]),
    strategies.text("abcdefgh-_.", max_size=6),
    strategies.sampled_from([str, str.upper, str.title, lambda name: quote(quote(name, safe=""))]),
    strategies.lists(strategies.sampled_from(["v=1", "dl", "a=b=c", "", "name=ink"]), max_size=4),
    strategies.integers(0, 4),
)
@example("sig", "", str, [], 0)
def test_a_secret_is_found_by_its_name_wherever_it_stands(
    name: str, value: str, written: Callable[[str], str], others: list[str], at: int
) -> None:
    others.insert(at, f"{written(name)}={value}")
    assert secret_in("https://a.example/x.safetensors?" + "&".join(others))


@pytest.mark.parametrize(
    "link",
    [
        "https://a.example/x.safetensors",
        "https://a.example/x.safetensors?download=true&v=2&author=ann&design=1&keyword=ink&name=x",
        "https://a.example/keys/token/sig/x.safetensors",
        "https://a.example/get?fileId=5&type=Model&format=SafeTensor&size=full&fp=fp16&ref=main",
        "https://drive.example/uc?export=download&id=1AbCdEfGhIjKlMnOpQrStUvWxYz",
        "https://a.example/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_is_no_secret_passes(link: str) -> None:
    assert secret_in(link) == ""


def nobody(*asked: Any, **kind: Any) -> list[Any]:
    raise socket.gaierror(-2, "Name or service not known")


@given(
    strategies.sampled_from(
        ["https://a.example/", "https://huggingface.co/", "https://civitai.com/", "https://", "x"]
    ),
    strategies.text(max_size=40)
    | strategies.lists(
        strategies.sampled_from([*"/:@?#[]&=;", "%2F", "ann", "blob", "tree", "models", "1", "main",
                                 "api", "download", "token", "modelVersionId", "x.safetensors"]),
        max_size=14,
    ).map("".join),
)  # fmt: skip
@example("https://a.example/", "x?token=S")
def test_any_link_is_sent_harmless_or_refused_with_words(begin: str, rest: str) -> None:
    client = HttpClient(limits=Limits(backoff_s=0.0), transport=Transport(resolve=nobody))
    access = Access(env=TOKENS, client=client, login=lambda: "good")
    try:
        source = parse_url(begin + rest)
    except ValueError:
        return
    try:
        address = named(site_for_others(source, lambda: None, access), access.env)
    except NetworkError as error:
        assert str(error).isprintable() or "\n" in str(error)
        return
    assert "://" not in address or not secret_in(address)
    assert not any(token in address for token in ("CIVITAI-KEY-OF-MINE", "S3CRET"))


@pytest.mark.parametrize(
    "link", ["https://me:S3CRET@a.example/x", "http://a.example/x", "https://a.example:0/x", "x"]
)
def test_an_address_that_was_not_typed_is_held_to_the_same_rules(world: World, link: str) -> None:
    said = world.refusal(UrlSource(link))
    assert "S3CRET" not in said and world.asked() == []


# ---- time, and Stop


def test_the_time_for_all_of_it_is_bounded_and_silence_is_no_refusal(world: World) -> None:
    world.servers["files.example.com"].routes["*"] = lambda e: e.pause(60)
    link = "https://files.example.com/x.safetensors"
    address, said = world(UrlSource(link), within(lambda: None, 0.5))
    assert address == link and "is not known (There was no answer in time)" in said
    civitai(world)
    world.servers["civitai.com"].routes["/api/v1/models/11"] = lambda e: e.pause(60)
    with pytest.raises(FetchError, match="could not be asked. There was no answer in time"):
        world(UrlSource("https://civitai.com/models/11"), within(lambda: None, 0.5))


def test_a_stop_ends_the_question(world: World) -> None:
    asked = world.servers["files.example.com"]
    asked.routes["*"] = lambda e: e.pause(60)

    def stopped() -> None:
        if asked.requests:
            raise Stop

    with pytest.raises(Stop):
        world(UrlSource("https://files.example.com/x.safetensors"), within(stopped, 60.0))


def test_nothing_is_written(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    civitai(world)
    world(UrlSource("https://civitai.com/models/11"))
    assert list(tmp_path.iterdir()) == []

"""The settings page's routes on the real ComfyUI: other names for this machine, odd bodies."""

import pytest
import requests

pytestmark = pytest.mark.host
OWN = {"X-Flux2-Lora-Edit": "1"}
WAYS = (("GET", "token"), ("PUT", "token"), ("DELETE", "token"),
        ("GET", "open-requests"), ("DELETE", "open-requests"), ("PUT", "open-requests"),
        ("GET", "history"), ("GET", "prices"))  # fmt: skip
DEEP = b'{"token": ' + b"[" * 8000 + b"]" * 8000 + b"}"


def call(server, method, path, **headers):
    """As the page calls it, with or without the host's /api."""
    own = OWN | {"Content-Type": "application/json"} | headers
    body = b'{"token": "rebound-token-0123456789", "key": "none"}'
    return requests.request(method, f"{server.url}{path}", data=body, headers=own, timeout=60)


def test_a_rebound_name_reaches_no_route(server, client):
    before = client.get("/flux2-lora-edit/token")
    port = server.url.rpartition(":")[2]
    for method, path in WAYS:
        for prefix in ("", "/api"):
            for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
                rebound = {"Host": name, "Origin": f"http://{name}"}
                said = call(server, method, f"{prefix}/flux2-lora-edit/{path}", **rebound)
                assert said.status_code == 403 and "localhost" in said.text, (method, path, name)
    assert client.get("/flux2-lora-edit/token") == before
    for name in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        said = call(server, "GET", "/flux2-lora-edit/token", Host=name, Origin=f"http://{name}")
        assert said.json() == before


def test_a_body_that_no_page_sends_is_no_traceback(server):
    address, mark = f"{server.url}/flux2-lora-edit/token", len(server.log())
    for body in (DEEP, b"[" * 16_000, b'{"token": ' + b"9" * 16_000 + b"}", b"\xff"):
        headers = OWN | {"Content-Type": "application/json"}
        said = requests.put(address, data=body, headers=headers, timeout=60)
        assert said.status_code == 400 and "JSON" in said.text
    headers = OWN | {"Content-Type": "application/json; charset=none"}
    assert requests.put(address, data=b"{}", headers=headers, timeout=60).status_code == 400
    assert "Traceback" not in server.log()[mark:]

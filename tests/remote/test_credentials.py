"""Where the token is found, where it may go, and how it is kept."""

import json
import os
import stat
from pathlib import Path

import pytest

from flux2_lora_edit.remote.account import (
    DEFAULT_API,
    Credential,
    account_fingerprint,
    api_origin,
    clear_token,
    cli_file,
    find_credential,
    open_account,
    read_salt,
    save_token,
)
from flux2_lora_edit.remote.errors import CredentialError

ORDER = [
    ("RUNCOMFY_API_TOKEN", "RUNCOMFY_API_TOKEN"),
    ("RUNCOMFY_TOKEN", "RUNCOMFY_TOKEN"),
    ("settings", "settings"),
    ("cli", "RunComfy CLI"),
    ("YOUR_API_TOKEN", "YOUR_API_TOKEN"),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_order(tmp_path: Path, first: int) -> None:
    environ, folder = {"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path / "s"
    cli = cli_file(environ)
    cli.parent.mkdir()
    for place, _ in ORDER[first:]:
        if place == "settings":
            save_token(folder, "token-settings")
        elif place == "cli":
            cli.write_text(json.dumps({"access_token": "token-cli"}))
        else:
            environ[place] = f" token-{place}\n"
    found = find_credential(folder, environ)
    assert found is not None
    assert (found.token, found.source) == (f"token-{ORDER[first][0]}", ORDER[first][1])


def test_none_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    nowhere = {"XDG_CONFIG_HOME": str(tmp_path / "b")}
    assert find_credential(tmp_path / "a", nowhere) is None
    with pytest.raises(CredentialError, match="RUNCOMFY_API_TOKEN"):
        open_account(tmp_path / "a", {"RUNCOMFY_TOKEN": "  ", **nowhere})


@pytest.mark.parametrize("text", ["{", "[]", '{"token": 5}', "", "\x00", '{"token": " "}'])
def test_a_damaged_file_is_no_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "runcomfy.json").write_text(text)
    assert find_credential(tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "none")}) is None


@pytest.mark.parametrize("token", ["a b", "a\nb", "tok\u00e9n", "x" * 5000, "a\x7f"])
def test_a_token_that_no_header_can_carry_is_refused_unshown(tmp_path: Path, token: str) -> None:
    with pytest.raises(CredentialError) as caught:
        find_credential(tmp_path / "a", {"RUNCOMFY_TOKEN": token})
    assert token not in str(caught.value) and "RUNCOMFY_TOKEN" in str(caught.value)
    with pytest.raises(CredentialError):
        save_token(tmp_path, token)


def test_the_text_form_never_shows_the_token() -> None:
    credential = Credential("secret-token-0123456789", "settings")
    assert "secret" not in repr(credential) and credential.hint == "…6789"
    assert Credential("short-token", "settings").hint == "…"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_settings_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        file = tmp_path / "private" / "runcomfy.json"
        file.parent.mkdir(mode=0o755)  # of an older version, or made by hand
        save_token(file.parent, "token-one")
        save_token(file.parent, "token-two")
        salt = read_salt(tmp_path / "private" / "salt")
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((file.parent / "salt").stat().st_mode) == 0o600
    assert sorted(p.name for p in file.parent.iterdir()) == ["runcomfy.json", "salt"]
    assert read_salt(tmp_path / "private" / "salt") == salt and len(salt) == 64
    clear_token(file.parent)
    clear_token(file.parent)
    assert not file.exists()


def test_the_account_is_known_without_its_token() -> None:
    one = account_fingerprint(b"salt", DEFAULT_API, "token-a")
    assert one == account_fingerprint(b"salt", DEFAULT_API, "token-a")
    others = {
        account_fingerprint(b"other", DEFAULT_API, "token-a"),
        account_fingerprint(b"salt", "http://127.0.0.1:1", "token-a"),
        account_fingerprint(b"salt", DEFAULT_API, "token-b"),
    }
    assert one not in others and len(others) == 3 and "token" not in one


@pytest.mark.parametrize(
    ("text", "url", "loopback"),
    [
        ("", DEFAULT_API, False),
        ("https://model-api.runcomfy.net/", DEFAULT_API, False),
        ("https://API.example.com:8443", "https://api.example.com:8443", False),
        ("http://127.0.0.1:8199", "http://127.0.0.1:8199", True),
        ("http://localhost:8199/", "http://localhost:8199", True),
        ("http://[::1]:8199", "http://[::1]:8199", True),
    ],
)
def test_the_api_may_be_elsewhere(text: str, url: str, loopback: bool) -> None:
    assert api_origin({"RUNCOMFY_API_BASE": text}) == (url, loopback)


@pytest.mark.parametrize(
    "text",
    ["http://example.com", "http://10.0.0.1", "ftp://127.0.0.1", "https://a/path", "https://a?b=1",
     "https://u:p@a", "https://", "nonsense", "http://127.0.0.1.example.com", "https://a:99999",
     "http://localhost.example.com:80", "https://an api.example.com", "https://0x7f.1"],
)  # fmt: skip
def test_the_token_goes_nowhere_else(text: str) -> None:
    with pytest.raises(CredentialError, match="RUNCOMFY_API_BASE"):
        api_origin({"RUNCOMFY_API_BASE": text})


def test_the_cli_file_follows_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cli_file({}) == tmp_path / ".config" / "runcomfy" / "token.json"
    other = str(tmp_path / "x")
    assert cli_file({"XDG_CONFIG_HOME": other}).parent.parent == Path(other)

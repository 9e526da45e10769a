"""The account's token, where it is kept, and the one origin that it may be sent to.

The token is never an input of a node: it would travel in workflows, pictures and logs. It is read
afresh for every run, so that a token set in the settings page works at once.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..network.address import bracketed
from .errors import CredentialError
from .private_files import read_private, write_private

DEFAULT_API = "https://model-api.runcomfy.net"
BASE_VARIABLE = "RUNCOMFY_API_BASE"
TOKEN_URL = "https://www.runcomfy.com/profile"  # noqa: S105 (a page, not a password)
MAX_FILE = 64 * 1024

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True)
class Credential:
    """A token and where it was found; its text form never shows the token."""

    token: str = field(repr=False)
    source: str

    @property
    def hint(self) -> str:
        """The last four characters of a long token, to tell two tokens apart."""
        return f"…{self.token[-4:]}" if len(self.token) >= 16 else "…"


@dataclass(frozen=True)
class ApiOrigin:
    """Scheme, host and port of the API. ``loopback`` is true for a stand-in on this machine."""

    url: str
    loopback: bool


def find_credential(
    environ: Mapping[str, str], settings_file: Path, cli_file: Path
) -> Credential | None:
    """The first token of: two variables, the settings file, the CLI's file, the pages' placeholder.

    Raises CredentialError for a token that no header can carry, naming where it stands.
    """
    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN"):
        if value := environ.get(name, "").strip():
            return Credential(_checked(value, f"the variable {name}"), name)
    if value := _from_file(settings_file, "token"):
        return Credential(_checked(value, "the settings file"), "settings")
    if value := _from_file(cli_file, "access_token"):
        return Credential(_checked(value, "the RunComfy CLI's file"), "RunComfy CLI")
    if value := environ.get("YOUR_API_TOKEN", "").strip():
        return Credential(_checked(value, "the variable YOUR_API_TOKEN"), "YOUR_API_TOKEN")
    return None


def require_credential(
    environ: Mapping[str, str], settings_file: Path, cli_file: Path
) -> Credential:
    """``find_credential``, or a CredentialError that says how to set a token."""
    found = find_credential(environ, settings_file, cli_file)
    if found is None:
        raise CredentialError(
            "There is no RunComfy API token. Set it in ComfyUI's settings (RunComfy), or start "
            f"ComfyUI with RUNCOMFY_API_TOKEN set. Your token: {TOKEN_URL}"
        )
    return found


def save_token(settings_file: Path, token: str) -> None:
    """Keep a token in an owner-only file; raises CredentialError if it cannot be one."""
    write_private(settings_file, json.dumps({"token": _checked(token.strip(), "the text")}))


def clear_token(settings_file: Path) -> None:
    settings_file.unlink(missing_ok=True)


def api_origin(environ: Mapping[str, str]) -> ApiOrigin:
    """``RUNCOMFY_API_BASE`` or RunComfy's own address.

    Raises CredentialError unless it is an https origin, or http on this machine.
    """
    text = environ.get(BASE_VARIABLE, "").strip().rstrip("/") or DEFAULT_API
    wrong = CredentialError(
        f"{BASE_VARIABLE} must be an https origin such as {DEFAULT_API}, or http on this machine "
        "(http://127.0.0.1:8199), with no path, user name or query. The token is sent nowhere else."
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    host = (parts.hostname or "").lower()
    if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    loopback = _is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise wrong
    name = bracketed(host) + (f":{port}" if port else "")
    return ApiOrigin(f"{parts.scheme}://{name}", loopback)


def account_fingerprint(salt: bytes, origin: str, token: str) -> str:
    """Which account a request belongs to, without the token: HMAC-SHA256 under this user's salt."""
    return hmac.new(salt, f"{origin}\n{token}".encode(), hashlib.sha256).hexdigest()[:24]


def read_salt(path: Path) -> bytes:
    """This user's salt, made on first use. Two processes that meet here agree on the first one."""
    if (text := read_private(path, MAX_FILE)) is None:
        write_private(path, secrets.token_hex(32), replace=False)
        text = read_private(path, MAX_FILE)
    if text is None:
        raise CredentialError(
            f"The folder for RunComfy's records cannot be written.\n{path.parent}"
        )
    return text.strip().encode()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_file(path: Path, key: str) -> str:
    """A string in a JSON file; an absent, unreadable or damaged file has none."""
    try:
        text = read_private(path, MAX_FILE)
        found = json.loads(text) if text else {}
    except (OSError, ValueError):
        return ""
    value = found.get(key) if isinstance(found, dict) else None
    return value.strip() if isinstance(value, str) else ""


def _checked(token: str, where: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise CredentialError(
            f"The RunComfy token in {where} holds a space, a line break or another character that "
            f"a token never has. Copy it again from {TOKEN_URL}"
        )
    return token


def cli_file(home: Path, environ: Mapping[str, str]) -> Path:
    """Where RunComfy's own command line keeps its login."""
    base = environ.get("XDG_CONFIG_HOME", "").strip()
    folder = Path(base) if base and os.path.isabs(base) else home / ".config"
    return folder / "runcomfy" / "token.json"

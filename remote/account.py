"""Who pays: the token and where it is kept, the one origin it may go to, the journal of both.

The token is never an input of a node: it would travel in workflows, pictures and logs. It is read
afresh for every run, so that a token set in the settings page works at once.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..network.address import PUBLIC_ONLY, AddressPolicy, parse
from ..network.client import HttpClient
from ..network.errors import AddressRefused
from ..network.files import read_record, write_atomically
from .api.client import ModelApi
from .errors import CredentialError
from .journal import Journal, private_folder
from .sessions import Session, lives

DEFAULT_API = "https://model-api.runcomfy.net"
BASE_VARIABLE = "RUNCOMFY_API_BASE"
TOKEN_URL = "https://www.runcomfy.com/profile"  # noqa: S105 (a page, not a password)
MAX_SALT = 64 * 1024

# Names this process in the journal, so that running jobs are not shown as lost ones.
SESSION = Session()

_NO_RECORDS = "The folder for RunComfy's records cannot be written.\n{}"
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


class Account(NamedTuple):
    """The API as a token asks it, its requests' journal, the media's policy, and this process."""

    api: ModelApi
    journal: Journal
    policy: AddressPolicy
    session: Session


def open_account(folder: Path, environ: Mapping[str, str]) -> Account:
    """The account that jobs run on; ``folder`` is the pack's private one. Reads small files.

    Raises CredentialError.
    """
    found = find_credential(folder, environ)
    if found is None:
        raise CredentialError(
            "There is no RunComfy API token. Set it in Settings, FLUX.2 LoRA Edit, RunComfy, or "
            f"start ComfyUI with RUNCOMFY_API_TOKEN set. Your token: {TOKEN_URL}"
        )
    origin, loopback = api_origin(environ)
    salt, sessions = read_salt(folder / "salt"), folder / "sessions"
    try:
        SESSION.hold(sessions)
    except OSError:
        raise CredentialError(_NO_RECORDS.format(folder)) from None
    journal = Journal(
        folder, salt, account_fingerprint(salt, origin, found.token), SESSION.name,
        origin=account_fingerprint(salt, origin, ""), lives=partial(lives, sessions),
    )  # fmt: skip
    policy = AddressPolicy.from_environment(environ)
    if loopback:  # a proxy would look for this machine's stand-in on its own
        policy = PUBLIC_ONLY.allowing(origin)
    # The operator's word: the API may lie where pictures and links may not.
    api = ModelApi(HttpClient(policy.allowing(origin)), origin, found.token)
    return Account(api, journal, policy, SESSION)


def settings_file(folder: Path) -> Path:
    """Where the settings page keeps a token."""
    return folder / "runcomfy.json"


def find_credential(folder: Path, environ: Mapping[str, str]) -> Credential | None:
    """The first token of: two variables, the settings file, the CLI's file, the pages' placeholder.

    Raises CredentialError for a token that no header can carry, naming where it stands.
    """
    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN"):
        if value := environ.get(name, "").strip():
            return Credential(_checked(value, f"the variable {name}"), name)
    if value := _from_file(settings_file(folder), "token"):
        return Credential(_checked(value, "the settings file"), "settings")
    if value := _from_file(cli_file(environ), "access_token"):
        return Credential(_checked(value, "the RunComfy CLI's file"), "RunComfy CLI")
    if value := environ.get("YOUR_API_TOKEN", "").strip():
        return Credential(_checked(value, "the variable YOUR_API_TOKEN"), "YOUR_API_TOKEN")
    return None


def save_token(folder: Path, token: str) -> None:
    """Keep a token in an owner-only file; raises CredentialError if it cannot be one."""
    text = json.dumps({"token": _checked(token.strip(), "the text")})
    private_folder(folder)
    write_atomically(settings_file(folder), text.encode(), private=True)


def clear_token(folder: Path) -> None:
    """Forget the token of the settings page."""
    settings_file(folder).unlink(missing_ok=True)


def api_origin(environ: Mapping[str, str]) -> tuple[str, bool]:
    """``RUNCOMFY_API_BASE`` or RunComfy's own origin, and whether it is a stand-in on this machine.

    Raises CredentialError unless it is an https origin, or http on this machine.
    """
    text = environ.get(BASE_VARIABLE, "").strip().rstrip("/") or DEFAULT_API
    try:
        target, parts = parse(text), urlsplit(text)
        rest = parts.path or parts.query or parts.fragment
        if not rest and (target.scheme == "https" or target.loopback):
            return f"{target.scheme}://{parts.netloc.lower().rstrip(':')}", target.loopback
    except AddressRefused:
        pass
    raise CredentialError(
        f"{BASE_VARIABLE} must be an https origin such as {DEFAULT_API}, or http on this machine "
        "(http://127.0.0.1:8199), with no path, user name or query. The token is sent nowhere else."
    )


def account_fingerprint(salt: bytes, origin: str, token: str) -> str:
    """Which account a request belongs to, without the token: HMAC-SHA256 under this user's salt.

    An empty token stands for all accounts of the origin.
    """
    return hmac.new(salt, f"{origin}\n{token}".encode(), hashlib.sha256).hexdigest()[:24]


def read_salt(path: Path) -> bytes:
    """This user's salt, made on first use. Two processes that meet here agree on the first one."""
    if not path.exists():
        private_folder(path.parent)
        write_atomically(path, secrets.token_hex(32).encode(), private=True, replace=False)
    try:
        with open(path, "rb") as file:
            return file.read(MAX_SALT).strip()
    except FileNotFoundError:
        raise CredentialError(_NO_RECORDS.format(path.parent)) from None


def cli_file(environ: Mapping[str, str]) -> Path:
    """Where RunComfy's own command line keeps its login."""
    base = environ.get("XDG_CONFIG_HOME", "").strip()
    folder = Path(base) if base and os.path.isabs(base) else Path.home() / ".config"
    return folder / "runcomfy" / "token.json"


def _from_file(path: Path, key: str) -> str:
    """A string in a JSON file; an absent, unreadable or damaged file has none."""
    value = (read_record(path) or {}).get(key)
    return value.strip() if isinstance(value, str) else ""


def _checked(token: str, where: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise CredentialError(
            f"The RunComfy token in {where} holds a space, a line break or another character that "
            f"a token never has. Copy it again from {TOKEN_URL}"
        )
    return token

"""Where this ComfyUI keeps RunComfy's token and journal, and who is logged in."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths

from ..network.address import AddressPolicy
from ..network.client import HttpClient
from ..remote.client import ModelApi
from ..remote.credentials import (
    ApiOrigin,
    Credential,
    account_fingerprint,
    api_origin,
    cli_file,
    find_credential,
    read_salt,
    require_credential,
)
from ..remote.journal import Journal
from ..remote.media import storage_policy

# Names this process in the journal, so that its own running jobs are not shown as lost ones.
SESSION = secrets.token_hex(8)


def folder() -> Path:
    """The pack's private folder: a system user's, which ComfyUI serves to nobody."""
    return Path(folder_paths.get_system_user_directory("flux2_lora_edit"))


def settings_file() -> Path:
    return folder() / "runcomfy.json"


def credential() -> Credential | None:
    """The token in force, or None; raises CredentialError for an unusable one."""
    return find_credential(os.environ, settings_file(), cli_file(Path.home(), os.environ))


@dataclass(frozen=True)
class Account:
    """A token, the API's origin it goes to, the journal of its requests, and the media's policy."""

    credential: Credential
    origin: ApiOrigin
    journal: Journal
    policy: AddressPolicy

    @cached_property
    def http(self) -> HttpClient:
        """One for the whole run, so that the certificate authorities are read once."""
        port = urlsplit(self.origin.url).port or 443
        return HttpClient(replace(self.policy, ports=self.policy.ports | {port}))

    def api(self) -> ModelApi:
        """The API as this account asks it."""
        return ModelApi(self.http, self.origin.url, self.credential.token)


def open_account() -> Account:
    """The account that jobs run on. Reads small files. Raises CredentialError."""
    found = require_credential(os.environ, settings_file(), cli_file(Path.home(), os.environ))
    origin = api_origin(os.environ)
    salt = read_salt(folder() / "salt")
    fingerprint = account_fingerprint(salt, origin.url, found.token)
    policy = AddressPolicy.from_environment(os.environ)
    if origin.loopback:
        policy = AddressPolicy()  # a proxy would look for this machine's stand-in on its own
    return Account(
        found,
        origin,
        Journal(folder(), salt, fingerprint, SESSION),
        storage_policy(origin, policy),
    )

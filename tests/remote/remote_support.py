"""A stand-in, a desk at it and one whole job, as the tests of this room use them."""

import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from standin_server import Standin

from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.network.client import HttpClient
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.remote.client import ModelApi
from flux2_lora_edit.remote.credentials import ApiOrigin, account_fingerprint
from flux2_lora_edit.remote.decode import Picture
from flux2_lora_edit.remote.desk import Desk, Pace
from flux2_lora_edit.remote.job import follow
from flux2_lora_edit.remote.journal import Journal
from flux2_lora_edit.remote.media import fetch_pictures, storage_policy
from flux2_lora_edit.remote.payload import EDIT, TEXT_TO_IMAGE, Settings, build
from flux2_lora_edit.remote.submission import submit

MODEL = TEXT_TO_IMAGE.model_id
EDIT_MODEL = EDIT.model_id
PROMPT = "a secret garden, oil on canvas"
SALT = b"0123456789abcdef"

QUICK = Pace(
    poll_first=0.02,
    poll_longest=0.05,
    retry_first=0.02,
    retry_longest=0.1,
    settle_s=0.6,
    submit_s=1.5,
    call_s=1.2,
    missing_s=1.5,  # a busy machine must not make a short 404 look final
    download_s=1.0,
    idle_s=0.5,
)


def new_token() -> str:
    return f"token-{secrets.token_hex(12)}"


def settings(**changes: object) -> Settings:
    base = Settings(PROMPT, "square", 2.5, 28, "png")
    return base._replace(**changes)


def payload(seed: int = 7, **changes: object) -> dict:
    chosen = settings(**changes)
    return build(EDIT if chosen.images else TEXT_TO_IMAGE, chosen, seed)


def journal_of(folder: Path, token: str, session: str = "test", origin: str = "") -> Journal:
    return Journal(folder, SALT, account_fingerprint(SALT, origin, token), session)


def desk_at(
    standin: Standin,
    folder: Path,
    token: str,
    interrupted: Callable[[], bool] = lambda: False,
    seconds: float = 5.0,
    pace: Pace = QUICK,
    session: str = "test",
) -> Desk:
    api = api_at(standin.origin, token, connect_s=0.5, read_s=0.5, answer_s=0.5, total_s=1.0)
    journal = journal_of(folder, token, session, standin.origin)
    return Desk(api, journal, interrupted, time.monotonic() + seconds, pace=pace)


def api_at(
    origin: str, token: str, tls: Callable[[], ssl.SSLContext] | None = None, **limits: float
) -> ModelApi:
    """The API at a loopback origin."""
    transport = Transport() if tls is None else Transport(tls=tls)
    return ModelApi(
        HttpClient(PUBLIC_ONLY.allowing(origin), transport=transport), origin, token, **limits
    )


def policy_of(standin: Standin):
    return storage_policy(ApiOrigin(standin.origin, loopback=True), PUBLIC_ONLY)


async def whole_job(
    desk: Desk, standin: Standin, body: dict | None = None, max_bytes: int = 2 * 1024 * 1024
) -> list[Picture]:
    """Submit, follow, fetch and close, as the node does."""
    entry = await submit(desk, MODEL, body or payload())
    result = await follow(desk, entry)
    pictures = await fetch_pictures(desk, entry, result, policy_of(standin), max_bytes)
    desk.mark(entry, "delivered")
    return pictures


def renewed(desk: Desk) -> Desk:
    return replace(desk, api=replace(desk.api))

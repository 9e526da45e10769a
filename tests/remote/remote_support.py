"""A stand-in, a context at it and one whole job, as the tests of this room use them."""

import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from standin_server import Standin

from flux2_lora_edit.network.address import PUBLIC_ONLY, AddressPolicy
from flux2_lora_edit.network.client import HttpClient
from flux2_lora_edit.network.connection import Transport
from flux2_lora_edit.remote.account import account_fingerprint
from flux2_lora_edit.remote.api.client import ModelApi
from flux2_lora_edit.remote.api.models import EDIT, TEXT_TO_IMAGE
from flux2_lora_edit.remote.context import JobContext, Pace
from flux2_lora_edit.remote.job import Job
from flux2_lora_edit.remote.journal import Entry, Journal
from flux2_lora_edit.remote.pictures.media import Picture
from flux2_lora_edit.remote.plan import Settings, build

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
    submit_s=4.0,  # a busy machine must not make a good answer look lost
    call_s=1.2,
    missing_s=1.5,  # a busy machine must not make a short 404 look final
    download_s=1.0,
    idle_s=0.5,
)


def new_token() -> str:
    return f"token-{secrets.token_hex(12)}"


def settings(**changes: object) -> Settings:
    return replace(Settings(PROMPT, "square", 2.5, 28, "png"), **changes)


def payload(seed: int = 7, images: Sequence[str] = (), **changes: object) -> dict:
    return build(EDIT if images else TEXT_TO_IMAGE, settings(**changes), images, seed)


def journal_of(folder: Path, token: str, session: str = "test", origin: str = "") -> Journal:
    """Each token is an API of its own here, unless a test says otherwise: they share folders."""
    account = account_fingerprint(SALT, origin, token)
    return Journal(folder, SALT, account, session, origin=account)


def intent(journal: Journal, body: dict | None = None) -> Entry:
    """A request about to be submitted, one that was never seen before unless its body says so."""
    body = {"unlike all others": secrets.token_hex(8)} if body is None else body
    entry, is_new = journal.claim(MODEL, body, None)
    assert is_new
    return entry


def recorded(journal: Journal, state: str, request_id: str = "") -> Entry:
    """A request of its own in a state."""
    return journal.mark(intent(journal), state, request_id=request_id)


def context_at(
    standin: Standin,
    folder: Path,
    token: str,
    interrupted: Callable[[], bool] = lambda: False,
    seconds: float = 30.0,
    pace: Pace = QUICK,
    session: str = "test",
) -> JobContext:
    api = api_at(standin.origin, token, connect_s=2.0, read_s=0.5, answer_s=2.0, total_s=1.0)
    journal = journal_of(folder, token, session, standin.origin)
    deadline = time.monotonic() + seconds
    return JobContext(api, journal, policy_of(standin), interrupted, deadline, pace=pace)


def api_at(
    origin: str, token: str, tls: Callable[[], ssl.SSLContext] | None = None, **limits: float
) -> ModelApi:
    """The API at a loopback origin."""
    transport = Transport() if tls is None else Transport(tls=tls)
    return ModelApi(
        HttpClient(PUBLIC_ONLY.allowing(origin), transport=transport), origin, token, **limits
    )


def policy_of(standin: Standin) -> AddressPolicy:
    return PUBLIC_ONLY.allowing(standin.origin)


async def whole_job(
    context: JobContext, body: dict | None = None, max_bytes: int = 2 * 1024 * 1024
) -> list[Picture]:
    """Submit, follow, fetch and close, as a run does."""
    job = Job(context, MODEL, body or payload())
    await job.submit()
    pictures = await job.fetch(await job.follow(), max_bytes)
    job.write("delivered")
    return pictures


async def resumed(context: JobContext, entry: Entry) -> list[Picture]:
    """The pictures of a known request, for nothing."""
    job = Job(context)
    job.adopt(entry)
    return await job.fetch(await job.follow())

"""Server routes of the settings page: is a token set, set it, clear it; what is open.

The token goes in and never comes out. A foreign web page cannot reach the changing routes: they
want a header that a cross-origin page may not send without the browser asking first (which is
refused), a JSON body, and an Origin that is this server's own.
"""

import asyncio
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from ..remote import account
from ..remote.errors import RemoteError
from ..remote.report import open_row
from .host import private_folder, web

logger = logging.getLogger(__name__)

PREFIX = "/flux2-lora-edit"
HEADER = "X-Flux2-Lora-Edit"
MAX_BODY = 16 * 1024


def register_routes(server: Any) -> None:
    """Add the routes to ComfyUI's server; called once, when the extension is loaded."""
    routes = server.routes

    @routes.get(f"{PREFIX}/token")
    async def get_token(request: web.Request) -> web.Response:
        return await _answer(_status)

    @routes.put(f"{PREFIX}/token")
    async def put_token(request: web.Request) -> web.Response:
        body = await _own_json(request)
        token = body.get("token")
        if not isinstance(token, str) or not token.strip():
            raise web.HTTPBadRequest(text="The token is empty.")
        return await _answer(lambda: (account.save_token(private_folder(), token), _status())[1])

    @routes.delete(f"{PREFIX}/token")
    async def delete_token(request: web.Request) -> web.Response:
        await _own_json(request)
        return await _answer(lambda: (account.clear_token(private_folder()), _status())[1])

    @routes.get(f"{PREFIX}/open-requests")
    async def get_open(request: web.Request) -> web.Response:
        return await _answer(_open_requests)

    @routes.delete(f"{PREFIX}/open-requests")
    async def dismiss(request: web.Request) -> web.Response:
        key = (await _own_json(request)).get("key")
        return await _answer(lambda: (_dismiss(str(key)), _open_requests())[1])


def _status() -> dict[str, Any]:
    """Whether a token is in force, from where, and its last four characters."""
    found = account.find_credential(private_folder(), os.environ)
    return {
        "set": found is not None,
        "source": found.source if found else "",
        "hint": found.hint if found else "",
        "stored": account.settings_file(private_folder()).exists(),
    }


def _open_requests() -> dict[str, Any]:
    if account.find_credential(private_folder(), os.environ) is None:
        return {"open_requests": []}
    journal = account.open_account(private_folder(), os.environ).journal
    return {"open_requests": [open_row(entry) for entry in journal.open_requests()]}


def _dismiss(key: str) -> None:
    """Take a request off the list; it stays at RunComfy."""
    journal = account.open_account(private_folder(), os.environ).journal
    for entry in journal.open_requests():
        if entry.key == key:
            journal.mark(entry, "dismissed")


async def _answer(work: Any) -> web.Response:
    """The work's result as JSON, its error as text; files are read off the loop."""
    try:
        body = await asyncio.get_running_loop().run_in_executor(None, work)
    except RemoteError as error:
        return web.json_response({"error": str(error)}, status=400)
    except OSError as error:
        logger.warning("RunComfy settings: %s", type(error).__name__)
        return web.json_response({"error": "The settings file is unusable."}, status=500)
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def _own_json(request: web.Request) -> dict[str, Any]:
    """The body of a request that only this server's own pages can have sent."""
    if request.headers.get(HEADER) != "1" or request.content_type != "application/json":
        raise web.HTTPForbidden(text="Send it from ComfyUI's settings page.")
    foreign = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    if foreign or origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise web.HTTPForbidden(text="Other sites may not change this.")
    if request.content_length is None or request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    try:
        body = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="The body is no JSON.") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The body is no JSON object.")
    return body

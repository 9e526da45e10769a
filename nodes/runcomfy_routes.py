"""Server routes of the settings page: is a token set, set it, clear it; what is open, what was.

The token goes in and never comes out. A foreign web page reaches none of them: its Origin is not
this server's, and where its name has been made to resolve to this machine (DNS rebinding), the
Host is not this machine's. The changing routes also want a JSON body and a header that a
cross-origin page may not send without the browser asking first (which is refused).
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ..remote import account
from ..remote.api.client import is_request_id
from ..remote.errors import InvalidInput, RemoteError
from ..remote.journal import UNKNOWN, Entry, Journal
from ..remote.report import history_row
from .host import args, private_folder, web

logger = logging.getLogger(__name__)

PREFIX = "/flux2-lora-edit"
HEADER = "X-Flux2-Lora-Edit"
MAX_BODY = 16 * 1024


def register_routes(server: Any) -> None:
    """Add the routes to ComfyUI's server; called once, when the extension is loaded."""
    routes = server.routes

    @routes.get(f"{PREFIX}/token")
    async def get_token(request: web.Request) -> web.Response:
        _refuse_foreign(request)
        return await _answer(_status)

    @routes.put(f"{PREFIX}/token")
    async def put_token(request: web.Request) -> web.Response:
        token = _text(await _own_json(request), "token")
        return await _answer(lambda: (account.save_token(private_folder(), token), _status())[1])

    @routes.delete(f"{PREFIX}/token")
    async def delete_token(request: web.Request) -> web.Response:
        await _own_json(request)
        return await _answer(lambda: (account.clear_token(private_folder()), _status())[1])

    @routes.get(f"{PREFIX}/open-requests")
    async def get_open(request: web.Request) -> web.Response:
        _refuse_foreign(request)
        return await _answer(_open_requests)

    @routes.get(f"{PREFIX}/history")
    async def get_history(request: web.Request) -> web.Response:
        _refuse_foreign(request)
        return await _answer(_history)

    @routes.delete(f"{PREFIX}/open-requests")
    async def dismiss(request: web.Request) -> web.Response:
        key = _text(await _own_json(request), "key")
        return await _answer(lambda: (_dismiss(key), _open_requests())[1])

    @routes.put(f"{PREFIX}/open-requests")
    async def name(request: web.Request) -> web.Response:
        body = await _own_json(request)
        key, found = _text(body, "key"), _text(body, "request_id")
        return await _answer(lambda: (_name(key, found), _open_requests())[1])


def _status() -> dict[str, Any]:
    """Whether a token is in force, from where, its last four characters, and who spends it."""
    found = account.find_credential(private_folder(), os.environ)
    return {
        "set": found is not None,
        "source": found.source if found else "",
        "hint": found.hint if found else "",
        "stored": account.settings_file(private_folder()).exists(),
        "shared": args.multi_user,
    }


def _open_requests() -> dict[str, Any]:
    return {"open_requests": _rows(Journal.open_requests)}


def _history() -> dict[str, Any]:
    """The newest requests, and the sum of what they cost as far as that is known."""
    rows = _rows(Journal.history)
    return {"requests": rows, "sum_usd": round(sum(row["cost_usd"] or 0.0 for row in rows), 6)}


def _rows(of: Callable[[Journal], list[Entry]]) -> list[dict[str, Any]]:
    """The rows of some entries; prompts are shown where one person has the server to himself."""
    if account.find_credential(private_folder(), os.environ) is None:
        return []
    own = account.open_account(private_folder(), os.environ)
    prompts = {} if args.multi_user else own.session.prompts
    return [history_row(entry, prompts.get(entry.key, "")) for entry in of(own.journal)]


def _dismiss(key: str) -> None:
    """Take a request off the list; it stays at RunComfy."""
    journal = account.open_account(private_folder(), os.environ).journal
    for entry in journal.open_requests():
        if entry.key == key:
            journal.mark(entry, "dismissed")


def _name(key: str, request_id: str) -> None:
    """Write down the id that the user has found of a request whose answer was lost.

    Its outcome stays unknown until RunComfy shows a result under that id: a wrong one pays nothing.
    Raises InvalidInput.
    """
    if not is_request_id(request_id) or len(request_id.split()) > 1:
        raise InvalidInput("That is no id of a request.")
    journal = account.open_account(private_folder(), os.environ).journal
    for entry in journal.open_requests():
        if entry.key == key and not is_request_id(entry.request_id):
            journal.mark(entry, UNKNOWN, request_id=request_id)


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


def _refuse_foreign(request: web.Request) -> None:
    """Raise HTTPForbidden for what another site's page, or one under another name, may have sent.

    On a loopback socket the Host has to be loopback's: any site can let its own name resolve to
    127.0.0.1, and is then the same origin to the browser. On others no name can be told from that.
    """
    own = request.transport and request.transport.get_extra_info("sockname")
    local = not isinstance(own, tuple) or _is_loopback(own[0])  # a file's socket is local too
    name = request.headers.get("Host", "")
    try:
        host = urlsplit(f"//{name}").hostname or ""
        origin = urlsplit(request.headers.get("Origin", f"//{name}")).netloc
    except ValueError:
        host = origin = "no address"
    if local and not _is_loopback(host):
        raise web.HTTPForbidden(
            text="This name is not the machine's own. Open ComfyUI as http://localhost with its "
            "port; behind a proxy that keeps the public Host, set RUNCOMFY_API_TOKEN in the "
            "server's environment instead."
        )
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none") or origin.lower() != name.lower():
        raise web.HTTPForbidden(text="Other sites may neither read nor change this.")


def _is_loopback(host: str) -> bool:
    """Whether it is localhost, an address of 127.0.0.0/8 (mapped into IPv6 too) or ::1."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


async def _own_json(request: web.Request) -> dict[str, Any]:
    """The body of a request that only this server's own pages can have sent."""
    _refuse_foreign(request)
    if request.headers.get(HEADER) != "1" or request.content_type != "application/json":
        raise web.HTTPForbidden(text="Send it from ComfyUI's settings page.")
    if request.content_length is None or request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    if (request.charset or "utf-8").lower() != "utf-8" or "Content-Encoding" in request.headers:
        raise web.HTTPBadRequest(text="Send the body as UTF-8 and not compressed.")
    try:
        body = json.loads((await request.read()).decode())
    except (ValueError, RecursionError, OSError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="The body is no JSON.") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The body is no JSON object.")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    """A text of a body, without what a paste brings along; raises HTTPBadRequest."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise web.HTTPBadRequest(text=f"The {name} is empty.")
    return value.strip()

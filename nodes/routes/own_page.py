"""Who may ask what this pack serves to ComfyUI's page: that page, and no other.

A foreign web page reaches none of it: its Origin is not this server's, and where its name has been
made to resolve to this machine (DNS rebinding), the Host is not this machine's. The changing routes
also want a JSON body and a header that a cross-origin page may not send without the browser asking
first (which is refused).
"""

import asyncio
import json
import logging
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ...remote.errors import RemoteError
from ..host import web

logger = logging.getLogger(__name__)

PREFIX = "/flux2-lora-edit"
HEADER = "X-Flux2-Lora-Edit"
MAX_BODY = 16 * 1024


async def answer(work: Any) -> web.Response:
    """The work's result as JSON, its error as text; files are read off the loop."""
    try:
        body = await asyncio.get_running_loop().run_in_executor(None, work)
    except RemoteError as error:
        return web.json_response({"error": str(error)}, status=400)
    except OSError as error:
        logger.warning("RunComfy settings: %s", type(error).__name__)
        return web.json_response({"error": "The settings file is unusable."}, status=500)
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def refuse_foreign(request: web.Request) -> None:
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


async def own_json(request: web.Request) -> dict[str, Any]:
    """The body of a request that only this server's own pages can have sent."""
    refuse_foreign(request)
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


def text_of(body: dict[str, Any], name: str) -> str:
    """A text of a body, without what a paste brings along; raises HTTPBadRequest."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise web.HTTPBadRequest(text=f"The {name} is empty.")
    return value.strip()

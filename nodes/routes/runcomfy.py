"""Server routes of the page: is a token set, set it, clear it; what is open, what was, what a run
costs.

The token goes in and never comes out.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from ...remote import account
from ...remote.api.client import is_request_id
from ...remote.api.models import MODELS, read_price
from ...remote.errors import InvalidInput
from ...remote.journal import UNKNOWN, Entry, Journal
from ...remote.report import history_row
from ..host import args, private_folder, web
from .own_page import PREFIX, answer, own_json, refuse_foreign, text_of


def register_routes(server: Any) -> None:
    """Add the routes to ComfyUI's server; called once, when the extension is loaded."""
    routes = server.routes

    for name, work in _TOLD.items():
        routes.get(f"{PREFIX}/{name}")(partial(_tell, work))

    @routes.put(f"{PREFIX}/token")
    async def put_token(request: web.Request) -> web.Response:
        token = text_of(await own_json(request), "token")
        return await answer(lambda: (account.save_token(private_folder(), token), _status())[1])

    @routes.delete(f"{PREFIX}/token")
    async def delete_token(request: web.Request) -> web.Response:
        await own_json(request)
        return await answer(lambda: (account.clear_token(private_folder()), _status())[1])

    @routes.delete(f"{PREFIX}/open-requests")
    async def dismiss(request: web.Request) -> web.Response:
        key = text_of(await own_json(request), "key")
        return await answer(lambda: (_dismiss(key), _open_requests())[1])

    @routes.put(f"{PREFIX}/open-requests")
    async def name(request: web.Request) -> web.Response:
        body = await own_json(request)
        key, found = text_of(body, "key"), text_of(body, "request_id")
        return await answer(lambda: (_name(key, found), _open_requests())[1])


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


def _prices() -> dict[str, Any]:
    """What a request of each mode costs by RunComfy's catalogue; it is asked with a token alone."""
    if account.find_credential(private_folder(), os.environ) is None:
        return {"set": False, "prices": {}}
    api = account.open_account(private_folder(), os.environ).api
    prices = {mode: read_price(api, model.model_id)._asdict() for mode, model in MODELS.items()}
    return {"set": True, "prices": prices}


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


_TOLD = {
    "token": _status,
    "prices": _prices,
    "open-requests": _open_requests,
    "history": _history,
}
"""What the page may read, by the end of its address."""


async def _tell(work: Callable[[], dict[str, Any]], request: web.Request) -> web.Response:
    refuse_foreign(request)
    return await answer(work)


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

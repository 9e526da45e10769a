"""Faults of the one call that costs money."""

import gzip
import json
import secrets
import time
from collections.abc import Callable

from standin_server.exchange import Exchange

from .kinds import (
    Act,
    Fault,
    answer,
    broken_gzip,
    changed,
    cut_answer,
    cut_chunks,
    deep,
    error,
    garbage,
    huge,
    page,
    redirect,
    slow_headers,
)

_DETAIL = {
    "error_code": 422001,
    "detail": [
        {"loc": ["body", "loras", 0, "path"], "msg": "LoRA cannot be loaded", "type": "value_error"}
    ],
}


def _echo(x: Exchange) -> None:
    """A refusal that repeats the token and the whole request."""
    token = x.handler.headers.get("Authorization", "")
    x.json(400, {"error_code": 400001, "message": f"bad request from {token}: {x.job_payload}"})


def _slow(x: Exchange) -> None:
    time.sleep(0.2)
    x.json(x.status, x.body)


def _zipped(x: Exchange) -> None:
    data = gzip.compress(json.dumps(x.body).encode())
    x.bytes(x.status, data, "application/json", Content_Encoding="gzip")


def _named(make: Callable[[], object]) -> Act:
    """The job is known by another kind of id than RunComfy's."""

    def act(x: Exchange) -> None:
        given = make()
        if x.job is not None:
            x.job.id = str(given)
        x.json(x.status, {"request_id": given})

    return act


def _text(body: str) -> Act:
    return lambda x: x.bytes(200, body.encode(), "application/json")


def _continue_first(x: Exchange) -> None:
    x.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
    x.json(x.status, x.body)


_REFUSED = (
    Fault("submit_400_identifier", "submit", error(400, 400001, "no such model"), "refused"),
    Fault("submit_400_balance", "submit", error(400, 400002, "Insufficient balance"), "refused"),
    Fault("submit_400_account", "submit", error(400, 400004, "Invalid account"), "refused"),
    Fault("submit_400_echoes_secrets", "submit", _echo, "refused"),
    Fault("submit_401_token", "submit", error(401, 400004, "Invalid token"), "refused"),
    Fault("submit_401_page", "submit", page(401), "refused"),
    Fault("submit_402_balance", "submit", error(402, 400002, "Top up"), "refused"),
    Fault("submit_403_permission", "submit", error(403, 403001, "Not allowed"), "refused"),
    Fault("submit_404_model", "submit", error(404, 404001, "Not found"), "refused"),
    Fault("submit_422_detail", "submit", answer(422, _DETAIL), "refused"),
    Fault("submit_422_text", "submit", answer(422, {"detail": "prompt too long"}), "refused"),
    Fault("submit_422_list", "submit", answer(422, ["prompt too long"]), "refused"),
    Fault("submit_429_seconds", "submit", answer(429, {"message": "slow"}, Retry_After="1"),
          "refused"),
    Fault("submit_429_page", "submit", page(429), "refused"),
    Fault("submit_200_code_balance", "submit", error(200, 400002, "Top up"), "refused"),
    Fault("submit_200_code_account", "submit", error(200, 400004, "Invalid"), "refused"),
    Fault("submit_200_code_text", "submit", answer(200, {"error": {"code": "422001"}}), "refused"),
)  # fmt: skip

_UNKNOWN = (
    Fault("submit_422_empty", "submit", page(422, b""), "unknown"),
    Fault("submit_401_cut", "submit",
          lambda x: (x.raw(x.head(401, "application/json", 500) + b'{"err'), x.close())[1],
          "unknown"),
    Fault("submit_408", "submit", page(408), "unknown"),
    Fault("submit_409", "submit", answer(409, {"message": "conflict"}), "unknown"),
    Fault("submit_413_page", "submit", page(413), "unknown"),
    Fault("submit_500", "submit", error(500, 500001, "Internal"), "unknown"),
    Fault("submit_502_page", "submit", page(502), "unknown"),
    Fault("submit_503_retry_after", "submit", page(503, Retry_After="1"), "unknown"),
    Fault("submit_504_empty", "submit", page(504, b""), "unknown"),
    Fault("submit_301_elsewhere", "submit", redirect(301), "unknown"),
    Fault("submit_302_elsewhere", "submit", redirect(302), "unknown"),
    Fault("submit_303_elsewhere", "submit", redirect(303), "unknown"),
    Fault("submit_307_elsewhere", "submit", redirect(307), "unknown"),
    Fault("submit_308_elsewhere", "submit", redirect(308), "unknown"),
    Fault("submit_200_page", "submit", page(200), "unknown"),
    Fault("submit_200_empty", "submit", page(200, b""), "unknown"),
    Fault("submit_200_list", "submit", answer(200, []), "unknown"),
    Fault("submit_200_nested", "submit", deep, "unknown"),
    Fault("submit_200_code_500", "submit", error(200, 500001, "Internal"), "unknown"),
    Fault("submit_204", "submit", lambda x: x.raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "unknown"),
    Fault("submit_closed_early", "submit", lambda x: x.close(), "unknown"),
    Fault("submit_reset_early", "submit", lambda x: x.reset(), "unknown"),
    Fault("submit_garbage", "submit", garbage, "unknown"),
    Fault("submit_hang", "submit", lambda x: x.hang(), "unknown"),
)  # fmt: skip

_PAID_UNKNOWN = tuple(
    Fault(name, "submit", act, "unknown", creates=True)
    for name, act in (
        ("submit_500_after", error(500, 500001, "Internal")),
        ("submit_502_page_after", page(502)),
        ("submit_200_page_after", page(200)),
        ("submit_no_id_after", answer(200, {"status": "in_queue"})),
        ("submit_list_id_after", answer(200, {"request_id": ["a", 1]})),
        ("submit_dots_id_after", answer(200, {"request_id": ".."})),
        ("submit_digits_after", _text('{"request_id": ' + "7" * 5000 + "}")),
        ("submit_nested_after", _text('{"error":' * 900 + "1" + "}" * 900)),
        ("submit_endless_id_after", answer(200, {"request_id": "a" * 5000})),
        ("submit_closed_after", lambda x: x.close()),
        ("submit_reset_after", lambda x: x.reset()),
        ("submit_cut_after", cut_answer),
        ("submit_cut_chunks_after", cut_chunks),
        ("submit_broken_gzip_after", broken_gzip),
        ("submit_huge_after", huge),
        ("submit_slow_headers_after", slow_headers),
        ("submit_hang_after", lambda x: x.hang()),
        ("submit_307_after", redirect(307)),
    )
)

_WELL = tuple(
    Fault(name, "submit", act, "delivered", creates=True)
    for name, act in (
        ("submit_201", lambda x: x.json(201, x.body)),
        ("submit_202", lambda x: x.json(202, x.body)),
        ("submit_100_continue", _continue_first),
        ("submit_slow", _slow),
        ("submit_gzip", _zipped),
        ("submit_number_id", _named(lambda: secrets.randbelow(10**12))),
        ("submit_path_id", _named(lambda: f"../../v1/models/{secrets.token_hex(4)}?a=b#c")),
        ("submit_odd_id", _named(lambda: f"\u00e9 %2e%2e;,{secrets.token_hex(4)}")),
        ("submit_extra_keys", changed(lambda body, x: {**body, "new": {"deep": [1, None]}})),
        ("submit_id_alone", changed(lambda body, x: {"request_id": body["request_id"]})),
        (
            "submit_foreign_urls",
            changed(
                lambda body, x: {
                    "request_id": body["request_id"],
                    **{key: f"{x.elsewhere}/{key}" for key in body if key.endswith("_url")},
                }
            ),
        ),
    )
)

SUBMIT = (*_REFUSED, *_UNKNOWN, *_PAID_UNKNOWN, *_WELL)

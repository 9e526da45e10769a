"""Faults of the questions about a job, and of its cancel."""

import itertools
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from standin_server.exchange import Exchange

from .kinds import (
    Act,
    Fault,
    answer,
    broken_gzip,
    changed,
    cut_answer,
    cut_chunks,
    error,
    garbage,
    huge,
    page,
    redirect,
    slow_headers,
)


def _date_after(x: Exchange) -> None:
    when = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=1), usegmt=True)
    x.json(503, {"message": "soon"}, Retry_After=when)


def _state(name: str | None) -> Act:
    return changed(lambda body, x: {**body, "status": name})


def _renamed(**names: str) -> Act:
    return changed(lambda body, x: {**body, "status": names.get(body["status"], body["status"])})


_DIGITS = b'{"status": "completed", "error_code": "%b", "queue_position": %b}' % (
    (b"9" * 5000,) * 2
)
_NESTED = b'{"status": "in_queue", "output": ' + b"[" * 900 + b"]" * 900 + b"}"

_PASSING: tuple[tuple[str, Act], ...] = (
    ("500", error(500, 500001, "Internal")),
    ("502_page", page(502)),
    ("503_seconds", answer(503, {"message": "soon"}, Retry_After="0.1")),
    ("503_date", _date_after),
    ("429", answer(429, {"message": "slow down"})),
    ("429_nonsense", answer(429, {"message": "slow"}, Retry_After="nan")),
    ("408", page(408)),
    ("404_at_first", error(404, 404001, "Not found")),
    ("401_page", page(401)),
    ("404_page", page(404)),
    ("404_detail", answer(404, {"detail": "Not Found"})),
    ("403_message", answer(403, {"message": "Forbidden"})),
    ("200_digits", lambda x: x.bytes(200, _DIGITS, "application/json")),
    ("200_nested", lambda x: x.bytes(200, _NESTED, "application/json")),
    ("404_digits", lambda x: x.bytes(404, _DIGITS, "application/json")),
    ("200_page", page(200)),
    ("200_empty", page(200, b"")),
    ("200_list", answer(200, ["in_queue"])),
    ("200_code_500", error(200, 500001, "Internal")),
    ("302_elsewhere", redirect(302)),
    ("307_elsewhere", redirect(307)),
    ("closed", lambda x: x.close()),
    ("reset", lambda x: x.reset()),
    ("cut", cut_answer),
    ("cut_chunks", cut_chunks),
    ("broken_gzip", broken_gzip),
    ("garbage", garbage),
    ("huge", huge),
    ("hang", lambda x: x.hang()),
    ("slow_headers", slow_headers),
)

_FINAL = (
    ("400_always", error(400, 400004, "Invalid account"), "rejected"),
    ("401_always", error(401, 400004, "Invalid token"), "rejected"),
    ("403_always", error(403, 403001, "Not yours"), "rejected"),
    ("404_always", error(404, 404001, "Expired"), "rejected"),
    ("410_always", error(410, 404001, "Gone"), "rejected"),
    ("200_code_account_always", error(200, 400004, "Invalid account"), "rejected"),
    ("404_page_always", page(404), "timed_out"),
    ("500_always", error(500, 500001, "Internal"), "timed_out"),
    ("hang_always", lambda x: x.hang(), "timed_out"),
    ("429_far_always", answer(429, {}, Retry_After="1e9"), "timed_out"),
)

_flip = itertools.cycle((True, False))


def _flapping(x: Exchange) -> None:
    x.json(*((500, {"error_code": 500001}) if next(_flip) else (x.status, x.body)))


STATUS = (
    *(Fault(f"status_{name}", "status", act, "delivered") for name, act in _PASSING),
    *(Fault(f"status_{name}", "status", act, end, 0) for name, act, end in _FINAL),
    Fault("status_500_three_times", "status", error(500, 500001, "x"), "delivered", 3),
    Fault("status_flapping", "status", _flapping, "delivered", 0),
    Fault("status_upper_case", "status",
          changed(lambda body, x: {**body, "status": f" {body['status'].upper()} "}),
          "delivered", 0),
    Fault("status_other_words", "status",
          _renamed(in_queue="waiting", in_progress="processing", completed="succeeded"),
          "delivered", 0),
    Fault("status_unknown_word", "status", _state("warming_up"), "delivered", 0),
    Fault("status_missing", "status", _state(None), "delivered", 0),
    Fault("status_says_cancelled", "status", _renamed(completed="cancelled"), "delivered", 0),
    Fault("status_cancel_requested", "status", _state("cancellation_requested"), "delivered", 3),
    Fault("status_completed_early", "status", _state("completed"), "delivered", 0),
    Fault("status_odd_position", "status",
          changed(lambda body, x: {**body, "queue_position": "third"}), "delivered", 0),
    Fault("status_queue_for_ever", "status", _state("in_queue"), "timed_out", 0),
    Fault("status_runs_for_ever", "status", _state("in_progress"), "timed_out", 0),
)  # fmt: skip


def _ended(status: str, **more: object) -> Act:
    """A result that ended so, without output."""
    return changed(
        lambda body, x: {
            **{key: value for key, value in body.items() if key != "output"},
            "status": status,
            **more,
        }
    )


def _output(shape: object) -> Act:
    """The healthy result with another ``output``; ``shape`` is given the picture's address."""
    return changed(
        lambda body, x: (
            {**body, "output": shape(body["output"]["image"])}  # type: ignore[operator]
            if "output" in body
            else body
        )
    )


def _fails_with_secrets(x: Exchange) -> None:
    token = x.handler.headers.get("Authorization", "")
    text = f"worker of {token} failed at https://files.runcomfy.net/a.png?X-Signature=topsecret"
    x.json(200, {**x.body, "status": "failed", "output": None, "error": text})


RESULT = (
    *(Fault(f"result_{name}", "result", act, "delivered") for name, act in _PASSING),
    *(Fault(f"result_{name}", "result", act, end, 0) for name, act, end in _FINAL),
    Fault("result_failed", "result", _ended("failed", error="CUDA out of memory"), "failed", 0),
    Fault("result_failed_silently", "result", _ended("failed"), "failed", 0),
    Fault("result_failed_object", "result",
          _ended("failed", error={"code": 500001, "message": "LoRA shape"}), "failed", 0),
    Fault("result_failed_echoes_secrets", "result", _fails_with_secrets, "failed", 0),
    Fault("result_error_state", "result", _ended("ERROR"), "failed", 0),
    Fault("result_cancelled", "result", _ended("cancelled"), "cancelled", 0),
    Fault("result_canceled", "result", _ended("canceled"), "cancelled", 0),
    Fault("result_no_output", "result", _ended("succeeded"), "failed", 0),
    Fault("result_output_later", "result", _ended("succeeded"), "delivered", 2),
    Fault("result_output_null", "result", _ended("succeeded", output=None), "failed", 0),
    Fault("result_output_empty", "result", _output(lambda url: {"images": []}), "failed", 0),
    Fault("result_video_alone", "result", _output(lambda url: {"video": url}), "failed", 0),
    Fault("result_behind_status", "result", _ended("in_progress"), "delivered", 3),
    Fault("result_unknown_word", "result", _ended("finalising"), "delivered", 3),
    Fault("result_without_status", "result",
          changed(lambda body, x: {key: body[key] for key in body if key != "status"}),
          "delivered", 0),
    Fault("result_output_text", "result", _output(lambda url: url), "delivered", 0),
    Fault("result_output_list", "result", _output(lambda url: [url]), "delivered", 0),
    Fault("result_output_objects", "result", _output(lambda url: {"images": [{"url": url}]}),
          "delivered", 0),
    Fault("result_images", "result", _output(lambda url: {"images": [url]}), "delivered", 0),
    Fault("result_both_keys", "result", _output(lambda url: {"image": url, "images": [url]}),
          "delivered", 0),
    Fault("result_two_pictures", "result",
          _output(lambda url: {"images": [url, url.replace("/0.", "/1.")]}), "delivered", 0),
    Fault("result_4096_pictures", "result",
          _output(lambda url: {"images": [f"{url}&n={n}" for n in range(4096)]}), "delivered", 0),
    Fault("result_cost_text", "result", changed(lambda body, x: {**body, "cost": "0.02"}),
          "delivered", 0),
    Fault("result_cost_odd", "result", changed(lambda body, x: {**body, "cost": [1]}),
          "delivered", 0),
    Fault("result_no_cost", "result",
          changed(lambda body, x: {key: body[key] for key in body if key != "cost"}),
          "delivered", 0),
)  # fmt: skip

CANCEL = (
    *(
        Fault(f"cancel_{name}", "cancel", act, "stopped", 0)
        for name, act in (
            ("not_cancellable", changed(lambda body, x: {**body, "outcome": "not_cancellable"})),
            ("no_outcome", changed(lambda body, x: {"request_id": body["request_id"]})),
            ("500", error(500, 500001, "Internal")),
            ("404", error(404, 404001, "Not found")),
            ("401", error(401, 400004, "Invalid token")),
            ("page", page(200)),
            ("redirect", redirect(307)),
            ("closed", lambda x: x.close()),
            ("cut", cut_answer),
            ("hang", lambda x: x.hang()),
        )
    ),
)

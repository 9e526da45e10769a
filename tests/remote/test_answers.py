"""Reading what the API says: Retry-After, codes, messages, states, results."""

from unittest.mock import patch

import pytest

from flux2_lora_edit.remote.api.answers import (
    MAX_FOREIGN_TEXT,
    Answer,
    Phase,
    clean,
    explain,
    message_of,
    phase_of,
    queue_position,
    read_result,
)


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, {"error_code": 400002}, 400),
        (200, {"error_code": "403001"}, 403),
        (200, {"error": {"code": 500001}}, 500),
        (200, {"code": 200}, 200),
        (200, {"request_id": "a", "status": "failed", "error": {"code": 500001}}, 200),
        (400, {"error_code": 422001}, 400),
        (503, None, 503),
    ],
)
def test_an_error_code_in_a_good_answer_counts(status: int, body: dict, meaning: int) -> None:
    assert Answer(status, 1, body, None).meaning == meaning


def test_field_paths_are_shown_and_values_are_not() -> None:
    body = {
        "detail": [
            {"loc": ["body", "loras", 1, "path"], "msg": "not found", "input": "my prompt"},
            {"loc": ["body", "seed"], "msg": "too large"},
            "plain",
            7,
        ]
    }
    assert message_of(body) == "loras[1].path: not found; seed: too large; plain"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "no"}, "no"), ({"error": {"message": "deep"}}, "deep"), ({}, ""), (None, ""),
        ({"detail": "text"}, "text"), ({"detail": []}, ""), ({"error": 5}, ""),
        ({"error": {"error": {"error": "x"}}}, "x"),
    ],
)  # fmt: skip
def test_message(body: dict | None, words: str) -> None:
    assert message_of(body) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Bearer abc.def failed", "Bearer *** failed"),
        ("at https://a.b/c.png?X-Signature=1&b=2 now", "at https://a.b/c.png?*** now"),
        ("at https://a.b/c.png#frag", "at https://a.b/c.png?***"),
        ("https://me:pw@host/x", "https://***@host/x"),
        ("got data:image/png;base64,iVBORw0 here", "got data:*** here"),
        ("line\none\r\ttwo\x00\x1b[31m", "line one two [31m"),
        ("the tok-1234 leaks", "the *** leaks"),
        ("my \\u00e9l\\u00e9phant", "my ***"),
        (None, "None"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text, "tok-1234", "éléphant", "", " \n") == shown


def nested(levels: int, wrap, inside):
    for _ in range(levels):
        inside = wrap(inside)
    return inside


@pytest.mark.parametrize("levels", [900, 1500, 20_000])
def test_what_is_nested_deeper_than_python_follows_is_read_all_the_same(levels: int) -> None:
    """Newer Pythons read such JSON; what came of it once ended a paid run as a RecursionError."""
    error = nested(levels, lambda inner: {"error": inner, "detail": inner}, {"message": "x"})
    assert message_of(error) == ""
    lists = nested(levels, lambda inner: [inner], "https://a/b.png")
    objects = nested(levels, lambda inner: {"images": inner}, "https://a/b.png")
    assert read_result({"output": lists}).images == ("https://a/b.png",)
    assert read_result({"output": objects}).images == ("https://a/b.png",)
    odd = dict.fromkeys(("status", "error", "cost", "created_at", "request_id", "detail"), lists)
    result = read_result({**odd, "output": None})
    assert (result.message, result.cost, result.created_at) == ("", None, "")
    assert clean(lists) == "" and clean(objects) == ""
    assert "error" in explain(Answer(418, 1, {"detail": [{"loc": lists, "msg": lists}]}, None))


@pytest.mark.parametrize("code", ["9" * 5000, "4" * 7, "٤٠٤٠٠١", "²00000", True, 4.04001e5])
def test_only_six_digits_are_a_code(code: object) -> None:
    answer = Answer(404, 1, {"error_code": code}, None)
    assert answer.error_code == 0 and "HTTP 404" in explain(answer)


def test_all_addresses_are_told_however_many() -> None:
    many = [f"https://a/{n}.png" for n in range(4096)]
    assert read_result({"output": {"images": many}}).images == tuple(many)


def test_no_work_is_done_for_a_secret_that_fits_in_no_message() -> None:
    """Three pictures of 6 MiB inside a refused request took nine seconds."""
    with patch("flux2_lora_edit.remote.api.answers.json.dumps", side_effect=AssertionError):
        picture = "data:image/png;base64," + "A" * 8_000_000
        assert clean(f"no {picture}", picture) == "no data:***"


def test_clean_is_bounded() -> None:
    assert len(clean("x" * 10**6)) == MAX_FOREIGN_TEXT
    assert "secret" not in clean("a" * (MAX_FOREIGN_TEXT - 3) + "secret", "secret")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, 400002, "balance"), (402, 0, "balance"), (401, 0, "token"), (400, 400004, "token"),
        (403, 0, "may not use"), (404, 404001, "expired"), (422, 422001, "inputs invalid"),
        (429, 0, "slow down"), (413, 0, "too large"), (500, 500001, "fault of its own"),
        (302, 0, "redirects elsewhere"), (418, 0, "answered with an error"),
    ],
)  # fmt: skip
def test_one_sentence_for_each(status: int, code: int, words: str) -> None:
    body = {"error_code": code, "message": "because"} if code else None
    text = explain(Answer(status, 1, body, None))
    assert words in text and str(status) in text
    assert ("because" in text) == bool(code)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("in_queue", Phase.QUEUED), (" IN_QUEUE ", Phase.QUEUED), ("pending", Phase.QUEUED),
        ("waiting", Phase.QUEUED), ("starting", Phase.RUNNING), ("processing", Phase.RUNNING),
        ("in_progress", Phase.RUNNING), ("cancellation_requested", Phase.RUNNING),
        ("completed", Phase.SUCCEEDED), ("Succeeded", Phase.SUCCEEDED), ("failed", Phase.FAILED),
        ("cancelled", Phase.CANCELLED), ("canceled", Phase.CANCELLED), ("warming", Phase.UNKNOWN),
        (None, Phase.UNKNOWN), (5, Phase.UNKNOWN),
    ],
)  # fmt: skip
def test_states(status: object, phase: Phase) -> None:
    assert phase_of(status) is phase


@pytest.mark.parametrize(
    ("value", "position"), [(3, 3), (0, 0), (-1, None), ("3", None), (True, None), (10**9, None)]
)
def test_queue_position(value: object, position: int | None) -> None:
    assert queue_position({"queue_position": value}) == position


@pytest.mark.parametrize(
    ("output", "images", "videos"),
    [
        ({"image": "a"}, ("a",), 0), ({"images": ["a", "b", "a"]}, ("a", "b"), 0), ("a", ("a",), 0),
        (["a", {"image": "b"}], ("a", "b"), 0), ({"video": "v", "videos": ["w"]}, (), 2),
        ({"image": "a", "video": "v"}, ("a",), 1), (None, (), 0), ({"image": 5}, (), 0),
        ({"images": [" a ", "", None]}, ("a",), 0), (7, (), 0),
    ],
)  # fmt: skip
def test_output_in_every_shape(output: object, images: tuple, videos: int) -> None:
    result = read_result({"status": "succeeded", "output": output})
    assert (result.images, result.videos) == (images, videos)


@pytest.mark.parametrize(
    ("cost", "usd"),
    [(0.02, 0.02), ("0.02", 0.02), (0, 0.0), (None, None), ("free", None), (True, None), (-1, None),
     (float("nan"), None), ("9" * 5000, None), ("1" + "0" * 39, None), (10**400, None)],
)  # fmt: skip
def test_cost(cost: object, usd: float | None) -> None:
    assert read_result({"status": "succeeded", "cost": cost}).cost == usd

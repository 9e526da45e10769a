"""How long to wait: what the server asks for, or a doubling pause."""

from datetime import datetime, timezone

import pytest

from flux2_lora_edit.network.client import backoff
from flux2_lora_edit.network.errors import retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("nan", None), ("3", 3.0), ("0.5", 0.5),
        ("-2", 0.0), ("1e9", 60.0), ("inf", 60.0),
        ("Sat, 21 Nov 2026 12:00:07 GMT", 7.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:00:07 -0000", 7.0),
        ("Sat, 21 Nov 2099 12:00:00 GMT", 60.0),
        ("Sat, 41 Nov 2026 12:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_in_both_forms_capped(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("failures", "asked", "seconds"),
    [(1, None, 0.5), (2, None, 1.0), (5, None, 8.0), (6, None, 15.0), (10_000, None, 15.0),
     (1, 0.2, 0.5), (1, 7.0, 7.0), (6, 60.0, 60.0)],
)  # fmt: skip
def test_the_longer_of_the_own_pause_and_the_servers(
    failures: int, asked: float | None, seconds: float
) -> None:
    assert backoff(failures, 0.5, 15.0, asked) == seconds

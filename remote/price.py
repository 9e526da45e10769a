"""What a request costs, from the live catalogue; a help, never a condition.

Kept for a while in an owner-only file, so that a batch or a row of nodes asks once.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .client import ModelApi
from .errors import RemoteError, clean
from .private_files import read_private, write_private

logger = logging.getLogger(__name__)

KEPT_S = 900.0
MAX_FILE = 64 * 1024


class Price(NamedTuple):
    """US dollars a unit, the unit in the catalogue's words, and its note."""

    usd: float
    unit: str
    note: str

    @property
    def text(self) -> str:
        return f"${self.usd:g}" + (f" per {self.unit}" if self.unit else "")


def read_price(
    api: ModelApi, model_id: str, kept_in: Path, now: Callable[[], float] = time.time
) -> Price | None:
    """The model's price, None where the catalogue does not say or cannot be had. Blocking."""
    key = f"{api.origin} {model_id}"
    kept = _kept(kept_in)
    known = kept.get(key)
    if isinstance(known, dict) and 0 <= now() - _number(known.get("time")) < KEPT_S:
        return price_of(known)
    try:
        price = price_of(api.price(model_id))
    except RemoteError as error:
        logger.debug("RunComfy: no price for %s (%s)", model_id, error)
        return None
    if price is None:
        return None
    row = {"base_price_usd": price.usd, "price_unit": price.unit, "pricing_note": price.note}
    try:
        write_private(kept_in, json.dumps({**kept, key: {**row, "time": now()}}))
    except OSError as error:
        logger.debug("RunComfy: the price is not kept (%s)", type(error).__name__)
    return price


def price_of(entry: Mapping[str, Any]) -> Price | None:
    """A catalogue entry's price, None where it has no usable one."""
    usd = _number(entry.get("base_price_usd"))
    if not 0 <= usd < 10_000:
        return None
    unit, note = (clean(entry.get(key) or "") for key in ("price_unit", "pricing_note"))
    return Price(usd, unit[:40].removeprefix("per "), note)


def _kept(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(read_private(path, MAX_FILE) or "{}")
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and len(kept) < 50 else {}


def _number(value: object) -> float:
    """A finite number, or -1 for anything that is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return -1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return -1.0
    return float(value)

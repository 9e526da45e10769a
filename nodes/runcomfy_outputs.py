"""From finished requests to the node's outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from comfy_api.latest import ui

from ..remote.batch import Request
from ..remote.decode import Picture
from ..remote.journal import Entry
from ..remote.price import Price
from ..remote.states import Phase, Result


class Delivery(NamedTuple):
    """A request's result with its pictures."""

    result: Result
    pictures: list[Picture]


def as_batches(pictures: Iterable[Picture]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """IMAGE batches [n, height, width, 3] and their MASKs [n, height, width], in order.

    Neighbours of one size make one batch, so the usual run gives one batch as any node does, and a
    change of size begins the next one: nothing is resized, cropped or left out.
    """
    images, masks = [], []
    for _, group in groupby(pictures, key=lambda picture: picture.rgb.shape):
        members = list(group)
        images.append(torch.stack([torch.from_numpy(picture.rgb.copy()) for picture in members]))
        masks.append(torch.stack([_mask(picture) for picture in members]))
    return images, masks


def _mask(picture: Picture) -> torch.Tensor:
    if picture.mask is None:
        return torch.zeros(picture.rgb.shape[:2])
    return torch.from_numpy(picture.mask.copy())


def preview(batches: Sequence[torch.Tensor], text: str) -> dict[str, Any]:
    """The node's own pictures and summary in the page; written to ComfyUI's temp folder."""
    saved = [image for batch in batches for image in ui.PreviewImage(batch).as_dict()["images"]]
    return {"images": saved, "animated": (False,), "text": (text,)}


def progress_text(requests: Sequence[Request], elapsed: float, price: Price | None) -> str:
    """What the requests are doing, in one line; only what RunComfy said, no invented percent."""
    count = {phase: sum(r.phase is phase for r in requests) for phase in Phase}
    places = [r.position for r in requests if r.phase is Phase.QUEUED and r.position is not None]
    parts = []
    if len(requests) > 1:
        parts.append(f"{count[Phase.SUCCEEDED]} of {len(requests)} done")
    if count[Phase.RUNNING]:
        parts.append(f"{count[Phase.RUNNING]} running" if len(requests) > 1 else "Running")
    if count[Phase.QUEUED]:
        queued = f"{count[Phase.QUEUED]} queued" if len(requests) > 1 else "In queue"
        parts.append(queued + (f" (position {min(places)})" if places else ""))
    if count[Phase.FAILED]:
        parts.append(f"{count[Phase.FAILED]} failed")
    parts.append(f"{elapsed:.0f} s")
    if price is not None:
        parts.append(price.text)
    return " · ".join(parts)


def cost_of(requests: Sequence[Request]) -> float | None:
    """US dollars that RunComfy states for the finished requests; None where it states none."""
    costs = [r.outcome.result.cost for r in requests if r.outcome is not None]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 6) if known else None


def info_text(
    model: str,
    requests: Sequence[Request],
    open_requests: Sequence[Entry],
    price: Price | None,
    **more: Any,
) -> str:
    """The ``info`` output: JSON without prompt, pictures, addresses or account."""
    return json.dumps(
        {
            "model": model,
            **more,
            "cost_usd": cost_of(requests),
            "price": price.text if price else None,
            "requests": [_row(request) for request in requests],
            "open_requests": [open_row(entry) for entry in open_requests],
        },
        indent=2,
        ensure_ascii=False,
    )


def _row(request: Request) -> dict[str, Any]:
    result = request.outcome.result if request.outcome is not None else None
    return {
        "request_id": request.request_id,
        "seed": request.seed,
        "status": "succeeded" if result else "failed",
        "cost_usd": result.cost if result else None,
        "created_at": result.created_at if result else None,
        "finished_at": result.finished_at if result else None,
        "seconds": request.seconds,
        "pictures": len(request.outcome.pictures) if result else 0,
        "error": str(request.error) if request.error else None,
    }


def open_row(entry: Entry) -> dict[str, Any]:
    """An open request for a listing: what may be resumed, or looked for at RunComfy."""
    return {
        "key": entry.key,
        "request_id": entry.request_id,
        "state": entry.state,
        "model": entry.model,
        "started": round(entry.started),
    }

"""From the node's inputs to the requests of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..network.address import AddressPolicy
from ..remote import encode
from ..remote.errors import InvalidInput
from ..remote.payload import (
    EDIT,
    MAX_IMAGES,
    SIZES,
    TEXT_TO_IMAGE,
    Settings,
    batch_seeds,
    build,
    draw_seed,
    image_addresses,
    nearest_size,
)
from ..remote.peek import picture_size
from ..remote.schema import ModelSchema
from ..remote.worker import Interrupted
from .remote_loras import remote_loras

MODES = ("auto", "text to image", "edit")
AUTO = "auto"


class Chosen(NamedTuple):
    """The widgets and links of the node, as the host hands them over."""

    prompt: str
    mode: str
    image_size: str
    guidance_scale: float
    num_inference_steps: int
    seed: int
    output_format: str
    batch_count: int
    images: Sequence[torch.Tensor | None]
    image_urls: str
    lora_stack: object


class Plan(NamedTuple):
    """What will be sent: the model, one payload a seed, and what the user should know."""

    schema: ModelSchema
    payloads: list[dict]
    size: str
    notices: list[str]

    @property
    def seeds(self) -> list[int]:
        return [payload["seed"] for payload in self.payloads]


def make_plan(chosen: Chosen, policy: AddressPolicy, interrupted: Callable[[], bool]) -> Plan:
    """Everything checked and encoded, nothing sent; for a worker thread. Raises InvalidInput."""
    if chosen.mode not in MODES:
        raise InvalidInput("mode", f"mode is '{chosen.mode}'; it takes {', '.join(MODES)}.")
    urls = image_addresses(chosen.image_urls)
    pictures = _pictures(chosen.images, len(urls))
    edits = chosen.mode == "edit" or (chosen.mode == AUTO and bool(pictures or urls))
    schema = EDIT if edits else TEXT_TO_IMAGE
    encoded = [encode.encode(pixels.numpy(), name) for name, pixels in pictures]
    addresses = [picture.address for picture in encoded] + urls
    encode.check_request(addresses)
    notices = [picture.notice for picture in encoded if picture.notice]
    notices += _gap(chosen.images)
    size = chosen.image_size
    if size == AUTO:
        size, notice = _auto_size(schema, pictures, urls, policy, interrupted)
        notices += notice
    settings = Settings(
        chosen.prompt,
        size,
        chosen.guidance_scale,
        chosen.num_inference_steps,
        chosen.output_format,
        remote_loras(chosen.lora_stack),
        addresses,
    )
    first = draw_seed() if chosen.seed == -1 else chosen.seed
    payloads = [build(schema, settings, first)]  # checks the first seed before it is wrapped
    payloads += [{**payloads[0], "seed": s} for s in batch_seeds(first, chosen.batch_count)[1:]]
    return Plan(schema, payloads, size, notices)


def _pictures(
    images: Sequence[torch.Tensor | None], addresses: int
) -> list[tuple[str, torch.Tensor]]:
    """(name, [height, width, channels]) of every connected picture, batches spread, in order."""
    found = []
    for number, image in enumerate(images, start=1):
        if image is None:
            continue
        if image.ndim != 4:
            raise InvalidInput(f"image_{number}", f"image_{number} is no IMAGE.")
        for index, pixels in enumerate(image[: MAX_IMAGES + 1]):
            part = f" (picture {index + 1} of its batch)" if len(image) > 1 else ""
            found.append((f"image_{number}{part}", pixels.detach().cpu().float()))
    if len(found) + addresses > MAX_IMAGES:
        count = sum(len(image) for image in images if image is not None)
        raise InvalidInput(
            "image_urls" if addresses else "image_1",
            f"{count} connected pictures and {addresses} addresses in image_urls make "
            f"{count + addresses} pictures; {MAX_IMAGES} is the most that RunComfy takes. A batch "
            "counts each of its pictures.",
        )
    return found


def _gap(images: Sequence[torch.Tensor | None]) -> list[str]:
    """A notice where an empty socket stands before a used one: the prompt's numbers shift."""
    used = [number for number, image in enumerate(images, start=1) if image is not None]
    if used == list(range(1, len(used) + 1)):
        return []
    order = ", ".join(f"image_{number} is image {place}" for place, number in enumerate(used, 1))
    return [f"Pictures are numbered without gaps: in the prompt {order}."]


def _auto_size(
    schema: ModelSchema,
    pictures: list[tuple[str, torch.Tensor]],
    urls: list[str],
    policy: AddressPolicy,
    interrupted: Callable[[], bool],
) -> tuple[str, list[str]]:
    if pictures:
        height, width = pictures[0][1].shape[:2]
        return nearest_size(width, height), []
    if not urls:
        return schema.default("image_size"), []

    def should_stop() -> None:
        if interrupted():
            raise Interrupted

    found = picture_size(urls[0], policy, should_stop)
    if found:
        return nearest_size(*found), []
    size = schema.default("image_size")
    width, height = SIZES[size]
    return size, [
        f"The size of the first address could not be read, so image_size auto took {size} "
        f"({width} x {height})."
    ]

"""From the user's settings to what is sent: complete, and checked before it is paid.

The schema's defaults are samples (omitting ``loras`` may run the sample LoRA), so every key is
always sent. Everything that the API would refuse is refused here, naming the node's own input.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ..flux2.image_size import PRESETS
from ..flux2.references import gap_notice
from ..network.address import AddressPolicy
from .api import models
from .errors import InvalidInput
from .pictures.encode import check_request, encode
from .pictures.probe import picture_size

AUTO = "auto"
MODES = (AUTO, *models.MODELS)
MAX_BATCH = 8


class RemoteLora(NamedTuple):
    """A LoRA as the API names it (an https URL or ``owner/repo``), its scale, and its slot here.

    ``notice``: what the user should know of it before it is paid for.
    """

    path: str
    scale: float
    slot: str
    notice: str = ""


@dataclass(frozen=True)
class Settings:
    """What the user set on the node; the names are its inputs' and mostly the API's too.

    ``images``: float [pictures, height, width, channels] in 0..1 of each connected socket.
    """

    prompt: str = ""
    image_size: str = AUTO
    guidance_scale: float = models.EDIT.properties["guidance_scale"]["default"]
    num_inference_steps: int = models.EDIT.properties["num_inference_steps"]["default"]
    output_format: str = models.EDIT.properties["output_format"]["default"]
    seed: int | None = 0
    mode: str = AUTO
    batch_count: int = 1
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    image_urls: str = ""
    loras: Sequence[RemoteLora] = ()


class Plan(NamedTuple):
    """What will be sent: the model, one payload a seed, and what the user should know."""

    model: models.HostedModel
    payloads: list[dict[str, Any]]
    notices: list[str]


def make_plan(
    settings: Settings,
    policy: AddressPolicy,
    should_stop: Callable[[], None],
    encoded: dict[object, tuple[str, str]],
) -> Plan:
    """Everything checked and encoded, nothing sent; for a worker thread. Raises InvalidInput.

    ``encoded``: pictures that other items of a list have encoded, and room for more; the arrays of
    all of them live. ``should_stop`` raises to stop.
    """
    if settings.mode not in MODES:
        raise InvalidInput(f"mode is '{settings.mode}'; it takes {', '.join(MODES)}.")
    if not 1 <= settings.batch_count <= MAX_BATCH:
        raise InvalidInput(f"batch_count is {settings.batch_count}; it takes 1 to {MAX_BATCH}.")
    urls = image_addresses(settings.image_urls)
    pictures = _pictures(settings.images, len(urls))
    auto = models.EDIT if [*pictures, *urls] else models.TEXT_TO_IMAGE
    model = models.MODELS.get(settings.mode, auto)
    addresses, notices = [], [lora.notice for lora in settings.loras]
    for name, pixels in pictures:
        same = name, pixels.ctypes.data, pixels.shape, pixels.strides
        encoded[same] = encoded.get(same) or encode(pixels, name)
        addresses.append(encoded[same][0])
        notices.append(encoded[same][1])
    addresses += urls
    if pictures:
        check_request(addresses)
        notices.append(gap_notice([name for name, image in settings.images.items() for _ in image]))
    if settings.image_size == AUTO:
        size, unread = _auto_size(model, pictures, urls, policy, should_stop)
        settings = replace(settings, image_size=size)
        notices += unread
    asked: Any = settings.seed
    is_plain = isinstance(asked, int) and 0 <= asked <= models.MAX_SEED
    first, said = (asked, "") if is_plain else _own_seed(asked)
    notices.append(said)
    payload = build(model, settings, addresses, first)  # checks the seed before it is wrapped
    seeds = ((first + index) % (models.MAX_SEED + 1) for index in range(settings.batch_count))
    payloads = [{**payload, "seed": seed} for seed in seeds]
    return Plan(model, payloads, list(filter(None, notices)))


def _own_seed(asked: Any) -> tuple[Any, str]:
    """A seed for one left to chance or above the range, and what to say of it; others as they are.

    A drawn one is sent and reported, so that it can be repeated: the edit page's null is any seed,
    and nothing tells which it was. Other nodes' seeds reach 2^64, and stay the same at each run.
    """
    if isinstance(asked, int) and asked > models.MAX_SEED:
        seed = asked % (models.MAX_SEED + 1)
        return seed, f"seed {asked} was sent as {seed}: {models.MAX_SEED} is the most."
    if asked is not None and asked != -1:
        return asked, ""
    seed = secrets.randbelow(models.MAX_SEED + 1)
    return seed, (
        f"seed -1 drew {seed}. Run again shows this very picture for nothing, until an input "
        "changes or ComfyUI has forgotten it (a restart): then another one is drawn, and paid. For "
        "a new one at each run, set control after generate to randomize."
    )


def build(
    model: models.HostedModel, settings: Settings, addresses: Sequence[str], seed: int
) -> dict[str, Any]:
    """One request's body, every key of the model present. Raises InvalidInput."""
    values = {
        **vars(settings),
        "loras": [{"path": lora.path, "scale": lora.scale} for lora in settings.loras],
        "image_urls": list(addresses),
        "seed": seed,
    }
    payload = {name: values[name] for name in model.properties}
    if addresses and not model.edits:
        raise InvalidInput(
            f"mode is '{model.mode}', which takes no picture. Choose '{models.EDIT.mode}' or "
            f"'{AUTO}', or disconnect the images and empty image_urls."
        )
    if not isinstance(settings.prompt, str) or not settings.prompt.strip():
        raise InvalidInput("prompt is empty. Say what the picture should show.")
    if model.edits and not addresses:
        raise InvalidInput(
            f"mode is '{model.mode}', but there is no picture to edit. Connect image_1, write an "
            f"address in image_urls, or choose '{models.TEXT_TO_IMAGE.mode}'."
        )
    _check_loras(settings.loras)
    if problem := next(models.problems(payload, model.document), None):
        raise InvalidInput(f"{problem}.")
    if not 0 <= seed <= models.MAX_SEED:
        raise InvalidInput(f"seed is {seed}; it must be 0 to {models.MAX_SEED}.")
    return payload


def _check_loras(loras: Sequence[RemoteLora]) -> None:
    if len(loras) > models.MAX_LORAS:
        raise InvalidInput(
            f"lora_stack holds {len(loras)} enabled LoRAs; {models.MAX_LORAS} is the most that "
            "RunComfy takes. Disable the rest."
        )
    for lora in loras:
        if not 0 <= lora.scale <= models.MAX_SCALE:
            raise InvalidInput(
                f"{lora.slot}: its strength is {lora.scale:g}; RunComfy takes 0 to "
                f"{models.MAX_SCALE:g}. Change it, or run this LoRA locally."
            )
        if not lora.path.strip():
            raise InvalidInput(f"{lora.slot} has no address.")


def may_take_addresses_only(payload: dict[str, Any]) -> str:
    """A hint for a refused request that carries pictures inside; empty for any other.

    Data URIs are what RunComfy's own nodes send, but this model's page speaks of addresses only.
    """
    if not any(address.startswith("data:") for address in payload.get("image_urls", [])):
        return ""
    return (
        " The pictures were sent inside the request. If it is about image_urls: this model may "
        "take public https addresses only; put the picture on the web and write its address in "
        "image_urls."
    )


def image_addresses(text: str) -> list[str]:
    """The addresses in ``image_urls``, one a line; raises InvalidInput for what is not https."""
    addresses = []
    for number, line in enumerate(text.splitlines(), start=1):
        address = line.strip()
        if not address:
            continue
        try:
            parts = urlsplit(address)
            usable = parts.scheme.lower() == "https" and bool(parts.hostname)
            usable = usable and "@" not in parts.netloc and address.isprintable()
        except ValueError:
            usable = False
        if not usable or " " in address or len(address) > 4096:
            raise InvalidInput(
                f"Line {number} of image_urls is not a public https address. RunComfy's machines "
                "fetch it themselves, so a file or an address on this machine cannot work: load "
                "the picture with Load Image and connect it to image_1."
            )
        addresses.append(address)
    return addresses


def _pictures(images: Mapping[str, np.ndarray], addresses: int) -> list[tuple[str, np.ndarray]]:
    """(name, [height, width, channels]) of every connected picture, batches spread, in order."""
    found = []
    for name, image in images.items():
        if image.ndim != 4:
            raise InvalidInput(f"{name} is no IMAGE.")
        for index, pixels in enumerate(image[: models.MAX_IMAGES + 1]):
            part = f" (picture {index + 1} of its batch)" if len(image) > 1 else ""
            found.append((f"{name}{part}", pixels))
    if len(found) + addresses > models.MAX_IMAGES:
        count = sum(len(image) for image in images.values())
        raise InvalidInput(
            f"{count} connected pictures and {addresses} addresses in image_urls make "
            f"{count + addresses} pictures; {models.MAX_IMAGES} is the most that RunComfy takes. "
            "A batch counts each of its pictures."
        )
    return found


def _auto_size(
    model: models.HostedModel,
    pictures: list[tuple[str, np.ndarray]],
    urls: list[str],
    policy: AddressPolicy,
    should_stop: Callable[[], None],
) -> tuple[str, list[str]]:
    """The preset for ``auto``, and what the user should know of it."""
    if pictures:
        height, width = pictures[0][1].shape[:2]
        return nearest_size(width, height), []
    size = model.properties["image_size"]["default"]
    if not urls:
        return size, []
    if found := picture_size(urls[0], policy, should_stop):
        return nearest_size(*found), []
    width, height = PRESETS[size]
    return size, [
        f"The size of the first address could not be read, so image_size auto took {size} "
        f"({width} x {height})."
    ]


def nearest_size(width: int, height: int) -> str:
    """The preset whose shape is nearest to the picture's (by the ratio of the ratios).

    ``square`` (512 px) has the shape of ``square_hd`` (1024 px), which wins as the larger one.
    """
    if width < 1 or height < 1:
        raise InvalidInput(f"A picture of {width} x {height} pixels has no shape.")

    def distance(name: str) -> tuple[float, int]:
        w, h = PRESETS[name]
        return abs(math.log((width / height) / (w / h))), -w * h

    return min(PRESETS, key=distance)

"""What is sent: one request's inputs for either model, complete and checked before it is paid.

The schema's defaults are samples (omitting ``loras`` may run the sample LoRA), so every key is
always sent. Everything that the API would refuse is refused here, naming the node's own input.
"""

import math
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .errors import InvalidInput
from .schema import ModelSchema, Problem, load_schema

MAX_IMAGES = 3
MAX_LORAS = 3
MAX_SEED = 2**31 - 1
"""The API publishes no range for seeds; a signed 32-bit integer is safe everywhere."""

TEXT_TO_IMAGE = load_schema("text_to_image")
EDIT = load_schema("edit")
SIZES = EDIT.sizes()

# The names that the node gives to the API's keys where the two differ.
_OUR_NAMES = {"image_urls": "image_1..3 and image_urls", "loras": "lora_stack"}


class RemoteLora(NamedTuple):
    """A LoRA as the API names it (an https URL or ``owner/repo``) and its scale, 0.0 to 4.0."""

    path: str
    scale: float
    slot: str = ""


class Settings(NamedTuple):
    """What all requests of one run share; the seed alone differs between them."""

    prompt: str
    image_size: str
    guidance_scale: float
    num_inference_steps: int
    output_format: str
    loras: Sequence[RemoteLora] = ()
    images: Sequence[str] = ()


def build(schema: ModelSchema, settings: Settings, seed: int) -> dict[str, Any]:
    """One request's body, every key of the model present. Raises InvalidInput."""
    payload: dict[str, Any] = {
        "prompt": settings.prompt,
        "loras": [{"path": lora.path, "scale": lora.scale} for lora in settings.loras],
        "guidance_scale": settings.guidance_scale,
        "num_inference_steps": settings.num_inference_steps,
        "seed": seed,
        "image_size": settings.image_size,
        "output_format": settings.output_format,
    }
    if schema is EDIT:
        payload["image_urls"] = list(settings.images)
    elif settings.images:
        raise InvalidInput(
            "mode",
            "mode is 'text to image', which takes no picture. Choose 'edit' or 'auto', or "
            "disconnect the images and empty image_urls.",
        )
    _check(schema, payload, settings)
    return payload


def _check(schema: ModelSchema, payload: dict[str, Any], settings: Settings) -> None:
    if not isinstance(settings.prompt, str) or not settings.prompt.strip():
        raise InvalidInput("prompt", "prompt is empty. Say what the picture should show.")
    if schema is EDIT and not settings.images:
        raise InvalidInput(
            "image_1",
            "mode is 'edit', but there is no picture to edit. Connect image_1, write an address "
            "in image_urls, or choose 'text to image'.",
        )
    if problems := schema.problems(payload):
        first = problems[0]
        raise InvalidInput(_field(first.path), _sentence(first, settings))
    if not 0 <= payload["seed"] <= MAX_SEED:
        raise InvalidInput("seed", f"seed is {payload['seed']}; it must be 0 to {MAX_SEED}.")
    for lora in settings.loras:
        if not lora.path.strip():
            raise InvalidInput("lora_stack", f"{lora.slot or 'A LoRA'} has no address.")


def _field(path: str) -> str:
    name = path.partition("[")[0].partition(".")[0]
    return {"image_urls": "image_urls", "loras": "lora_stack"}.get(name, name)


def _sentence(problem: Problem, settings: Settings) -> str:
    name, bracket, rest = problem.path.partition("[")
    if name == "loras" and bracket:
        lora = settings.loras[int(rest.partition("]")[0])]
        key = rest.partition("]")[2].lstrip(".") or "entry"
        text = f"{lora.slot or 'A LoRA'}: its {key} {problem.message}."
        if key == "scale":
            text += " RunComfy takes 0.0 to 4.0; set another scale, or run this LoRA locally."
        return text
    if name == "image_urls" and bracket:
        return f"Picture {int(rest.partition(']')[0]) + 1} {problem.message}."
    text = f"{_OUR_NAMES.get(name, name)} {problem.message}."
    if name in ("loras", "image_urls"):
        text += " Remove or disable the rest: RunComfy would refuse or ignore them."
    return text


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


def draw_seed() -> int:
    """A seed for an input left to chance: drawn here, sent and reported, so it can be repeated."""
    return secrets.randbelow(MAX_SEED + 1)


def batch_seeds(first: int, count: int) -> list[int]:
    """``count`` seeds from ``first`` on, wrapping within 0 .. 2^31-1."""
    return [(first + index) % (MAX_SEED + 1) for index in range(count)]


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
                "image_urls",
                f"Line {number} of image_urls is not a public https address. RunComfy's machines "
                "fetch it themselves, so a file or an address on this machine cannot work: load "
                "the picture with Load Image and connect it to image_1.",
            )
        addresses.append(address)
    return addresses


def nearest_size(width: int, height: int) -> str:
    """The preset whose shape is nearest to the picture's (by the ratio of the ratios).

    ``square`` (512 px) has the shape of ``square_hd`` (1024 px), which wins as the larger one.
    """
    if width < 1 or height < 1:
        raise InvalidInput("image_1", f"A picture of {width} x {height} pixels has no shape.")

    def distance(name: str) -> tuple[float, int]:
        w, h = SIZES[name]
        return abs(math.log((width / height) / (w / h))), -w * h

    return min(SIZES, key=distance)

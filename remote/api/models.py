"""The hosted models: a table of their input schemas, a check against one, and their prices.

The files in ``schemas/`` are the input schemas that RunComfy publishes on the models' pages, as
valid JSON Schema 2020-12; ``x-oddities`` in each lists what had to be put right, and the names of
``image_size`` come from the one table of presets. The check knows the words that those files use
and refuses a schema with others, so a new word cannot go unchecked.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...flux2.image_size import PRESETS
from ..errors import RemoteError
from .answers import clean, number
from .client import ModelApi

logger = logging.getLogger(__name__)

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
# A word of the schema -> what is wrong with a value beyond that limit, or an empty text.
_LIMITS: dict[str, Callable[[Any, Any], str]] = {
    "enum": lambda value, names: "" if value in names else f"must be one of {', '.join(names)}",
    "minimum": lambda value, least: (
        f"is {value:g}; the least is {least:g}" if value < least else ""
    ),
    "maximum": lambda value, most: f"is {value:g}; the most is {most:g}" if value > most else "",
    "minItems": lambda value, least: (
        f"has {len(value)} entries; {least} is the least" if len(value) < least else ""
    ),
    "maxItems": lambda value, most: (
        f"has {len(value)} entries; {most} is the most" if len(value) > most else ""
    ),
    "pattern": lambda value, pattern: (
        "" if re.search(pattern, value) else "is not an address or a picture that the API takes"
    ),
}
_INSIDE = frozenset({"type", "properties", "required", "additionalProperties", "items"})
_ANNOTATIONS = frozenset({"$schema", "$id", "title", "description", "default"})


class HostedModel:
    """A hosted model: the word for it in ``mode``, its id at the API, its input schema."""

    def __init__(self, mode: str, file: str) -> None:
        self.mode = mode
        path = Path(__file__).parents[1] / "schemas" / file
        self.document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.properties: dict[str, Any] = self.document["properties"]
        self.properties["image_size"]["enum"] = list(PRESETS)
        self.model_id: str = self.document["x-model-id"]
        self.edits = "image_urls" in self.properties


TEXT_TO_IMAGE = HostedModel("text to image", "text_to_image.json")
EDIT = HostedModel("edit", "edit.json")
MODELS = {model.mode: model for model in (TEXT_TO_IMAGE, EDIT)}
"""A hosted model is a row here; ``mode`` of the node offers them all."""

_A_REQUEST = frozenset({"", "image", "picture", "request", "generation", "run", "call"})
"""Price units that are one request of these models, which give one picture each."""

MAX_IMAGES: int = EDIT.properties["image_urls"]["maxItems"]
MAX_LORAS: int = EDIT.properties["loras"]["maxItems"]
MAX_SCALE: float = EDIT.properties["loras"]["items"]["properties"]["scale"]["maximum"]
"""The least is 0."""
MAX_SEED = 2**31 - 1
"""The API publishes no range for seeds; a signed 32-bit integer is safe everywhere."""


def problems(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Everything that is wrong with a value at ``path`` (``loras[0].scale``) of a payload."""
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else types
    if names and not any(_is(value, name) for name in names):
        yield f"{path} must be {' or '.join(names)}, not {type(value).__name__}"
        return
    for word in schema.keys() - _INSIDE - _ANNOTATIONS - _LIMITS.keys():
        if not word.startswith("x-"):
            raise ValueError(f"the schema uses a word that is not checked: {word}")
    yield from _inside(value, schema, path)
    for word, wrong in _LIMITS.items():
        if word in schema and value is not None and (message := wrong(value, schema[word])):
            yield f"{path} {message}"


def _inside(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The problems of an object's members and of an array's items."""
    properties, within = schema.get("properties", {}), f"{path}." if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{within}{name} is missing"
    if schema.get("additionalProperties") is False:
        for name in value.keys() - properties.keys():
            yield f"{within}{name} is not an input of this model"
    for name, inner in properties.items():
        if name in value:
            yield from problems(value[name], inner, within + name)
    for index, item in enumerate(value if "items" in schema else ()):
        yield from problems(item, schema["items"], f"{path}[{index}]")


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):  # Python's bool is an int; JSON's is not a number
        return False
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no NaN
        return False
    return isinstance(value, _TYPES[name])


class Price(NamedTuple):
    """A catalogue price: in words (``$0.02 per image``), and US dollars a request if it tells."""

    text: str = ""
    usd: float | None = None


def read_price(api: ModelApi, model_id: str) -> Price:
    """The model's live price, empty where it cannot be had. Blocking."""
    try:
        entry = api.price(model_id)
    except RemoteError as error:
        logger.debug("RunComfy: no price for %s (%s)", model_id, error)
        return Price()
    usd = number(entry.get("base_price_usd"), 10_000)
    if usd is None:
        return Price()
    given = entry.get("price_unit") or ""
    unit = clean(given)[:40].removeprefix("per ")
    text = f"${usd:g}" + (f" per {unit}" if unit else "")
    return Price(text, usd if isinstance(given, str) and unit.lower() in _A_REQUEST else None)

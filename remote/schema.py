"""The API's two input schemas, shipped as data, and a check of a payload against one of them.

The files in ``schemas/`` are the input schemas that RunComfy publishes on the pages of the models
``blackforestlabs/flux-2/lora`` and ``blackforestlabs/flux-2/lora/edit``, written as valid JSON
Schema 2020-12; ``x-oddities`` in each lists what had to be put right. The check knows the words
that those two files use and refuses a schema with others, so a new word cannot go unchecked.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_ANNOTATIONS = frozenset({"$schema", "$id", "title", "description", "default"})
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class Problem(NamedTuple):
    """Where a value breaks the schema (``loras[0].scale``) and what is wrong with it."""

    path: str
    message: str


class ModelSchema:
    """One model's input schema."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.model_id: str = document["x-model-id"]

    def default(self, name: str) -> Any:
        return self.document["properties"][name].get("default")

    def sizes(self) -> dict[str, tuple[int, int]]:
        """The presets of ``image_size``: name -> (width, height) in pixels."""
        pixels = self.document["properties"]["image_size"]["x-pixels"]
        return {name: (width, height) for name, (width, height) in pixels.items()}

    def problems(self, payload: object) -> list[Problem]:
        """Everything that is wrong with a payload; an empty list when it is valid."""
        return list(_check(payload, self.document, ""))


def load_schema(name: str) -> ModelSchema:
    """``text_to_image`` or ``edit``."""
    path = Path(__file__).parent / "schemas" / f"{name}.json"
    return ModelSchema(json.loads(path.read_text(encoding="utf-8")))


def _check(value: object, schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else types
    if names and not any(_is(value, name) for name in names):
        yield Problem(path, f"must be {' or '.join(names)}, not {type(value).__name__}")
        return
    for word, limit in schema.items():
        yield from _check_word(word, limit, value, schema, path)


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):  # Python's bool is an int; JSON's is not a number
        return False
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no NaN
        return False
    return isinstance(value, _TYPES[name])


def _check_word(
    word: str, limit: Any, value: Any, schema: Mapping[str, Any], path: str
) -> Iterator[Problem]:
    if word in _ANNOTATIONS or word.startswith("x-") or word in ("type", "properties"):
        if word == "properties":
            for name in limit.keys() & value.keys():
                yield from _check(value[name], limit[name], f"{path}.{name}" if path else name)
    elif word == "required":
        for name in limit:
            if name not in value:
                yield Problem(f"{path}.{name}" if path else name, "is missing")
    elif word == "additionalProperties" and limit is False:
        for name in value.keys() - schema.get("properties", {}).keys():
            yield Problem(f"{path}.{name}" if path else name, "is not an input of this model")
    elif word == "items":
        for index, item in enumerate(value):
            yield from _check(item, limit, f"{path}[{index}]")
    elif word == "enum":
        if value not in limit:
            yield Problem(path, f"must be one of {', '.join(limit)}")
    elif word == "minimum":
        if value is not None and value < limit:
            yield Problem(path, f"is {value:g}; the least is {limit:g}")
    elif word == "maximum":
        if value is not None and value > limit:
            yield Problem(path, f"is {value:g}; the most is {limit:g}")
    elif word == "maxItems":
        if len(value) > limit:
            yield Problem(path, f"has {len(value)} entries; {limit} is the most")
    elif word == "minItems":
        if len(value) < limit:
            yield Problem(path, f"has {len(value)} entries; {limit} is the least")
    elif word == "pattern":
        if not re.search(limit, value):
            yield Problem(path, "is not an address or a picture that the API takes")
    else:
        raise ValueError(f"the schema uses a word that is not checked: {word}")

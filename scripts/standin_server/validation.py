"""The API's own check of a request, answered as it answers: 422 with ``detail``.

Written apart from the pack's check, so that the two can find each other's mistakes.
"""

import ast
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def load_models() -> dict[str, dict[str, Any]]:
    """Model id -> input schema, with the sizes of the presets in pixels."""
    models, presets = {}, _presets()
    for path in sorted((ROOT / "remote" / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        schema["properties"]["image_size"] |= {"enum": list(presets), "x-pixels": presets}
        models[schema["x-model-id"]] = schema
    return models


def _presets() -> dict[str, tuple[int, int]]:
    """The pack's table of presets, read as text: its module needs torch, the stand-in does not."""
    tree = ast.parse((ROOT / "flux2" / "image_size.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PRESETS":
            return ast.literal_eval(node.value)
    raise LookupError("flux2/image_size.py has no table PRESETS")


def faults_of(value: Any, schema: dict[str, Any], place: tuple[str | int, ...]) -> list[dict]:
    """Entries of ``detail`` for everything in ``value`` that ``schema`` does not take."""
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_fits(value, kind) for kind in kinds):
        return [_entry(place, f"Input should be a valid {kinds[0]}", f"{kinds[0]}_type", value)]
    found = []
    if isinstance(value, str):
        if "enum" in schema and value not in schema["enum"]:
            choices = ", ".join(schema["enum"])
            found.append(_entry(place, f"Input should be one of {choices}", "enum", value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            message = f"Input should be greater than or equal to {schema['minimum']}"
            found.append(_entry(place, message, "greater_than_equal", value))
        if value > schema.get("maximum", value):
            message = f"Input should be less than or equal to {schema['maximum']}"
            found.append(_entry(place, message, "less_than_equal", value))
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            message = f"List should have at most {schema['maxItems']} items"
            found.append(_entry(place, message, "too_long", value))
        for index, item in enumerate(value):
            found += faults_of(item, schema.get("items", {}), (*place, index))
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                found.append(_entry((*place, name), "Field required", "missing", None))
        for name, item in value.items():
            if name in properties:
                found += faults_of(item, properties[name], (*place, name))
            else:
                found.append(
                    _entry((*place, name), "Extra inputs are not permitted", "extra", item)
                )
    return found


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds = {"string": str, "integer": int, "number": int | float, "array": list, "object": dict}
    return value is None if kind == "null" else isinstance(value, kinds[kind])


def _entry(place: tuple[str | int, ...], message: str, kind: str, value: Any) -> dict:
    return {"loc": ["body", *place], "msg": message, "type": kind, "input": value}

"""The JSON Schema of a line, made from its shape."""

import json

from annotate.datasets.shapes import Free, Named, OrNull

DRAFT = "https://json-schema.org/draft/2020-12/schema"

TYPES = {
    "string": {"type": "string"},
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float64": {"type": "number"},
    "bool": {"type": "boolean"},
}


def json_schema(*, title: str, shape: dict) -> bytes:
    """The JSON Schema of a line of this shape, as it stands in its file."""
    defined: dict[str, dict] = {}
    schema = {"$schema": DRAFT, "title": title, **_of(shape, defined)}
    if defined:
        schema["$defs"] = defined
    return (json.dumps(schema, ensure_ascii=False, indent=2) + "\n").encode()


def _of(shape, defined: dict[str, dict]) -> dict:
    if isinstance(shape, Free):
        return _of_free(shape, defined)
    if isinstance(shape, Named):
        null = ["object", "null"] if shape.null else "object"
        return {"type": null, "additionalProperties": _of(shape.value, defined)}
    if isinstance(shape, dict):
        return {
            "type": ["object", "null"] if isinstance(shape, OrNull) else "object",
            "properties": {name: _of(inner, defined) for name, inner in shape.items()},
            "required": list(shape),
            "additionalProperties": False,
        }
    if isinstance(shape, list):
        return {"type": "array", "items": _of(shape[0], defined)}
    known = TYPES[shape.removesuffix("?")]
    return known | {"type": [known["type"], "null"]} if shape.endswith("?") else known


def _of_free(shape: Free, defined: dict[str, dict]) -> dict:
    """One with a name is written once, and refers to itself where it holds itself."""
    here = {"$ref": f"#/$defs/{shape.name}"}
    if shape.name in defined:
        return here
    if shape.name:
        defined[shape.name] = {}
    made = {
        "type": "object",
        "properties": {name: _of(inner, defined) for name, inner in shape.items()},
        "required": list(shape.needed),
    }
    if not shape.name:
        return made
    defined[shape.name] = made
    return here

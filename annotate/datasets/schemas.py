"""The JSON Schema of a line, made from its shape."""

import json

from annotate.datasets.shapes import OrNull

DRAFT = "https://json-schema.org/draft/2020-12/schema"

TYPES = {
    "string": {"type": "string"},
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float64": {"type": "number"},
    "bool": {"type": "boolean"},
}


def json_schema(*, title: str, shape: dict) -> bytes:
    """The JSON Schema of a line of this shape, as it stands in its file."""
    schema = {"$schema": DRAFT, "title": title, **_of(shape)}
    return (json.dumps(schema, ensure_ascii=False, indent=2) + "\n").encode()


def _of(shape) -> dict:
    if isinstance(shape, dict):
        return {
            "type": ["object", "null"] if isinstance(shape, OrNull) else "object",
            "properties": {name: _of(inner) for name, inner in shape.items()},
            "required": list(shape),
            "additionalProperties": False,
        }
    if isinstance(shape, list):
        return {"type": "array", "items": _of(shape[0])}
    known = TYPES[shape.removesuffix("?")]
    return known | {"type": [known["type"], "null"]} if shape.endswith("?") else known

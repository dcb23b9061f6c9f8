"""The shape of a line of each format, written once: the checker, the dataset card and the documentation keep to it.

A dict has exactly these keys, a list holds any number of its one item, a string names a type; `?` allows null, as
does `OrNull` for a dict.
"""

from collections.abc import Iterator

from annotate import derive

HELD_OUT = "held_out"
"""The split of what is near to two splits: left out of exports, unless one asks for exactly it."""

SPLITS = (*(name for name, _ in derive.SPLITS), HELD_OUT)
"""All splits, in the order in which they are listed."""


class OrNull(dict):
    """The shape of an object that may be null."""


MESSAGES = [{"role": "string", "content": "string"}]

SAMPLING = {"max_new_tokens": "int64?", "temperature": "float64?", "top_p": "float64?", "top_k": "int64?"}

COMPLETION = {
    "completion": MESSAGES,
    "rank": "int64",
    "rating": "int64?",
    "flags": ["string"],
    "original": "bool",
    "candidate_id": "int64",
    "shown_position": "int64?",
    "kind": "string",
    "policy": "string?",
    "model": "string?",
    "sampling": OrNull(SAMPLING),
    "template_hash": "string?",
    "finish_reason": "string?",
    "prompt_tokens": "int64?",
    "completion_tokens": "int64?",
}

RANKED = {
    "group_id": "int64",
    "comparison_id": "int64",
    "ranking_id": "int64?",
    "ranking_kind": "string",
    "rankings": "int64",
    "agreement": "float64?",
    "conversation_id": "int64",
    "source_id": "string",
    "trainer": "string?",
    "iteration": "int64?",
    "split": "string",
    "family": "string",
    "use_case": "string",
    "comparison_state": "string",
    "assignment_state": "string?",
    "active_seconds": "int64",
    "all_bad": "bool",
    "draw": OrNull(index="int64", size="int64"),
    "k": "int64",
    "context": MESSAGES,
    "completions": [COMPLETION],
}

PROVENANCE = {
    "chosen_rank": "int64",
    "rejected_rank": "int64",
    "group_id": "int64",
    "ranking_id": "int64?",
    "iteration": "int64?",
    "split": "string",
    "family": "string",
}

TURN = {
    "position": "int64",
    "source": "string",
    "policy": "string?",
    "completion_id": "int64?",
    "seed": "int64?",
    "sampling": OrNull(SAMPLING),
    "template_hash": "string?",
    "finish_reason": "string?",
    "suggestion": "string?",
    "hint": "string?",
    "edit_distance": "float64?",
    "active_seconds": "int64",
    "typed": "int64",
    "pasted": "int64",
    "taken": "int64",
    "passed": [{"completion_id": "int64", "text": "string"}],
}

WRITTEN = {
    "source": "string",
    "source_id": "string",
    "source_split": "string",
    "kind": "string",
    "conversation_id": "int64?",
    "project": "string",
    "iteration": "int64?",
    "guidelines": "int64?",
    "trainer": "string?",
    "alternates": "bool",
    "review_state": "string",
    "reviewer": "string?",
    "review_id": "int64?",
    "revises": "int64?",
    "forked_from": "int64?",
    "prompt_id": "int64?",
    "use_case": "string",
    "family": "string",
    "split": "string",
    "finished_at": "string?",
}

SHAPES = {
    "ranked": RANKED,
    "preference": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES} | PROVENANCE,
    "preference_implicit": {"chosen": MESSAGES, "rejected": MESSAGES} | PROVENANCE,
    "messages": {"messages": MESSAGES, "turns": [TURN]} | WRITTEN,
    "prompt_completion": {"prompt": MESSAGES, "completion": MESSAGES, "turn": TURN} | WRITTEN,
}

FORMATS = {
    "comparisons": ("ranked", "preference", "preference_implicit"),
    "demonstrations": ("messages", "prompt_completion"),
}
"""Which formats there are of what."""

TYPES = {"string": str, "int64": int, "float64": (int, float), "bool": bool}


def misfits(value, shape, path: str = "") -> Iterator[str]:
    """What is wrong with a value of this shape, a phrase each, naming the place by its path."""
    if isinstance(shape, dict):
        if value is None and isinstance(shape, OrNull):
            return
        if not isinstance(value, dict):
            yield f"{path or 'the line'} is not an object"
            return
        for key in shape.keys() - value.keys():
            yield f"{_join(path, key)} is missing"
        for key in value.keys() - shape.keys():
            yield f"{_join(path, key)} is no field of this format"
        for key in shape.keys() & value.keys():
            yield from misfits(value[key], shape[key], _join(path, key))
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is not a list"
            return
        for number, item in enumerate(value):
            yield from misfits(item, shape[0], f"{path}[{number}]")
    elif not _fits(value, shape):
        yield f"{path} is no {shape.removesuffix('?')}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _fits(value, shape: str) -> bool:
    if value is None:
        return shape.endswith("?")
    name = shape.removesuffix("?")
    # To Python a bool is an int.
    return isinstance(value, TYPES[name]) and (name == "bool") == isinstance(value, bool)


def features(shape: dict) -> list[dict]:
    """The shape as the `features` of a Hugging Face dataset card."""
    return [{"name": name, **_feature(inner)} for name, inner in shape.items()]


def _feature(shape) -> dict:
    if isinstance(shape, dict):
        return {"struct": features(shape)}
    if isinstance(shape, list):
        return {"list": features(shape[0]) if isinstance(shape[0], dict) else shape[0]}
    return {"dtype": shape.removesuffix("?")}

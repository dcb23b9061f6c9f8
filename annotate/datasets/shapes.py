"""The shape of a line of each format, written once: the checker, the dataset card and the documentation keep to it.

A dict has exactly these keys, a list holds any number of its one item, a string names a type; `?` allows null, as
does `OrNull` for a dict. Trees are no tables, and have looser shapes: `Free` and `Named`.
"""

from collections.abc import Iterator

from annotate import derive

HELD_OUT = "held_out"
"""The split of what is near to two splits: left out of exports, unless one asks for exactly it."""

SPLITS = (*(name for name, _ in derive.SPLITS), HELD_OUT)
"""All splits, in the order in which they are listed."""


class OrNull(dict):
    """The shape of an object that may be null."""


class Free(dict):
    """The shape of an object of which only the `needed` fields must be there, and which may have others.

    One with a `name` may hold itself.
    """

    def __init__(self, fields: dict, *, needed: tuple[str, ...] = (), name: str = ""):
        super().__init__(fields)
        self.needed, self.name = needed, name


class Named:
    """The shape of an object with any keys, the values of which have one shape; with `null` it may be null."""

    def __init__(self, value, *, null: bool = False):
        self.value, self.null = value, null


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
    "reasoning": "string?",
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
    "selection": "string",
    "draw": OrNull(index="int64", size="int64"),
    "k": "int64",
    "context": MESSAGES,
    "completions": [COMPLETION],
}

OF_GROUP = {
    "group_id": "int64",
    "ranking_id": "int64?",
    "agreement": "float64?",
    "iteration": "int64?",
    "selection": "string",
    "split": "string",
    "family": "string",
}

PROVENANCE = {"chosen_rank": "int64", "rejected_rank": "int64"} | OF_GROUP

VALUE = {"from": "string", "value": "string"}

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

PROMPT_ONLY = {
    "prompt": MESSAGES,
    "source": "string",
    "use_case": "string",
    "group_id": "int64?",
    "conversation_id": "int64?",
    "prompt_id": "int64?",
    "iteration": "int64?",
    "split": "string",
    "family": "string",
}

NODE = Free(
    {
        "message_id": "string",
        "parent_id": "string?",
        "user_id": "string?",
        "created_date": "string?",
        "text": "string",
        "role": "string",
        "lang": "string?",
        "review_count": "int64?",
        "review_result": "bool?",
        "deleted": "bool?",
        "rank": "int64?",
        "synthetic": "bool?",
        "model_name": "string?",
        "emojis": Named("int64", null=True),
        "replies": [],
        "labels": Named(Free({"value": "float64?", "count": "int64"}, needed=("value", "count")), null=True),
        "events": Named([Free({"type": "string", "user_id": "string?"}, needed=("type",))], null=True),
        "detoxify": Named("float64", null=True),
    },
    needed=("message_id", "text", "role", "replies"),
    name="node",
)
"""A message of an OASST tree. What is not known of one is left out, as OASST's own exporter does."""

NODE["replies"].append(NODE)

TREE = Free(
    {"message_tree_id": "string", "tree_state": "string?", "prompt": NODE, "origin": "string?"},
    needed=("message_tree_id", "tree_state", "prompt"),
)

SHAPES = {
    "ranked": RANKED,
    "preference": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES} | PROVENANCE,
    "preference_implicit": {"chosen": MESSAGES, "rejected": MESSAGES} | PROVENANCE,
    "unpaired": {"prompt": MESSAGES, "completion": MESSAGES, "label": "bool", "rank": "int64"} | OF_GROUP,
    "prompt_only": PROMPT_ONLY,
    "nemo_rl": {"context": MESSAGES, "completions": [{"rank": "int64", "completion": MESSAGES}], "group_id": "int64"},
    "hh": {"chosen": "string", "rejected": "string"} | PROVENANCE,
    "openai_dpo": {"input": {"messages": MESSAGES}, "preferred_output": MESSAGES, "non_preferred_output": MESSAGES},
    "llamafactory": {"conversations": [VALUE], "chosen": VALUE, "rejected": VALUE, "system": "string"} | PROVENANCE,
    "messages": {"messages": MESSAGES, "turns": [TURN]} | WRITTEN,
    "prompt_completion": {"prompt": MESSAGES, "completion": MESSAGES, "turn": TURN} | WRITTEN,
    "openai_sft": {"messages": MESSAGES},
    "oasst": TREE,
}

PAIRS = ("preference", "preference_implicit", "hh", "openai_dpo", "llamafactory")
"""The formats of which a line is a strict pair."""

MARGIN = ("preference", "preference_implicit", "hh")
"""Those that may hold a margin: their consumers read it."""

FORMATS = {
    "comparisons": (
        "ranked",
        "preference",
        "preference_implicit",
        "unpaired",
        "prompt_only",
        "nemo_rl",
        "hh",
        "openai_dpo",
        "llamafactory",
    ),
    "demonstrations": ("messages", "prompt_completion", "openai_sft"),
    "conversations": ("messages", "oasst"),
    "prompts": ("prompt_only",),
}
"""Which formats there are of what."""

UNFIT = {
    "oasst": (("parquet",), "a tree has no columns"),
    "llamafactory": (("jsonl.zst",), "LlamaFactory does not read it"),
}
"""Kinds of files that a format cannot be written in, and why."""


def of(format: str, margin: str | None = None) -> dict:
    """The shape of a line of this format, where pairs have this margin."""
    return SHAPES[format] if margin is None else SHAPES[format] | {"margin": "float64"}


def is_table(shape: dict) -> bool:
    """Whether all lines of this shape have the same columns."""
    return not isinstance(shape, Free)


def of_manifest(manifest: dict) -> dict:
    """The shape of the lines that a manifest describes, whatever its filters are."""
    filters = manifest.get("filters")
    margin = filters.get("margin") if isinstance(filters, dict) else None
    return of(manifest["format"], margin if manifest["format"] in MARGIN else None)


TYPES = {"string": str, "int64": int, "float64": (int, float), "bool": bool}


def misfits(value, shape, path: str = "") -> Iterator[str]:
    """What is wrong with a value of this shape, a phrase each, naming the place by its path."""
    if isinstance(shape, dict):
        if value is None and isinstance(shape, OrNull):
            return
        if not isinstance(value, dict):
            yield f"{path or 'the line'} is not an object"
            return
        free = isinstance(shape, Free)
        for key in (shape.needed if free else shape.keys()) - value.keys():
            yield f"{_join(path, key)} is missing"
        for key in () if free else value.keys() - shape.keys():
            yield f"{_join(path, key)} is no field of this format"
        for key in shape.keys() & value.keys():
            yield from misfits(value[key], shape[key], _join(path, key))
    elif isinstance(shape, Named):
        if value is None and shape.null:
            return
        if not isinstance(value, dict):
            yield f"{path} is not an object"
            return
        for key, inner in value.items():
            yield from misfits(inner, shape.value, _join(path, key))
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
    if not isinstance(value, TYPES[name]) or (name == "bool") != isinstance(value, bool):
        return False
    return name != "int64" or -(2**63) <= value < 2**63


def features(shape: dict) -> list[dict]:
    """The shape as the `features` of a Hugging Face dataset card."""
    return [{"name": name, **_feature(inner)} for name, inner in shape.items()]


def _feature(shape) -> dict:
    if isinstance(shape, dict):
        return {"struct": features(shape)}
    if isinstance(shape, list):
        return {"list": features(shape[0]) if isinstance(shape[0], dict) else shape[0]}
    return {"dtype": shape.removesuffix("?")}

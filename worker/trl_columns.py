"""What TRL itself makes of an exported file: how its trainers would take the columns."""

import importlib.util
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from annotate.datasets import shards

ROWS = 1000
"""Rows of each file that TRL is shown: its rules are about columns, which all rows share."""


def version() -> str | None:
    """The version of the installed TRL, None where there is none."""
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        return None
    import trl

    return trl.__version__


TYPES = {
    "preference": ("preference", {"prompt", "chosen", "rejected"}),
    "preference_implicit": ("preference", {"chosen", "rejected"}),
    "hh": ("preference", {"chosen", "rejected"}),
    "unpaired": ("unpaired preference", {"prompt", "completion", "label"}),
    "prompt_only": ("prompt-only", {"prompt"}),
    "messages": ("language modelling", {"messages"}),
    "openai_sft": ("language modelling", {"messages"}),
    "prompt_completion": ("prompt-completion", {"prompt", "completion"}),
}
"""By format, where TRL has a type for it: the type, and the columns by which it knows that."""

AS_TEXT = {"hh"}
"""Formats of which TRL takes the texts as they are; those of all others are conversational."""

TEMPLATED = {"tools", "chat_template_kwargs", "images", "image"}

OTHERWISE = {
    "preference": {"chosen_ids", "rejected_ids", "label"} | TEMPLATED,
    "unpaired preference": {"chosen", "rejected", "prompt_ids", "completion_ids", "KL_completion_ids"} | TEMPLATED,
    "prompt-only": {"completion", "completions", "completion_ids", "chosen", "rejected", "label"} | TEMPLATED,
    "language modelling": {"prompt", "completion"},
    "prompt-completion": {"messages", "label"},
}
"""By type: columns to which the trainers give a meaning of their own."""

OF_SFT = {
    "text",
    "conversations",
    "input_ids",
    "labels",
    "completion_mask",
    "assistant_masks",
    "seq_lengths",
} | TEMPLATED
"""The same for the trainer that takes the last two types."""


def problems(folder: Path, names: list[str], format: str = "preference") -> Iterator[tuple[str, str]]:
    """Where TRL would take files of this folder otherwise than meant: (file:line, what is wrong)."""
    from trl.data_utils import extract_prompt, is_conversational

    for name in names:
        rows = _beginning(folder / name)
        for number, row in enumerate(rows, 1):
            where = f"{name}:{number}"
            if is_conversational(row) == (format in AS_TEXT):
                yield where, f"TRL {'takes' if format in AS_TEXT else 'does not take'} it as conversational"
                continue
            implicit = format not in AS_TEXT and "chosen" in row and "prompt" not in row
            if implicit and extract_prompt(row)["prompt"] != row["chosen"][:-1]:
                yield where, "TRL finds another prompt that chosen and rejected share"
        yield from _columns(name, rows, *TYPES[format])


def _beginning(path: Path) -> list[dict]:
    with shards.opened(path) as lines:
        return [json.loads(data) for data in islice(lines, ROWS)]


def _columns(name: str, rows: list[dict], type: str, needed: set[str]) -> Iterator[tuple[str, str]]:
    """Take the beginning as the trainers' dataset, where the columns get one type each, and look at their names."""
    from datasets import Dataset
    from trl.data_utils import get_dataset_column_names

    try:
        columns = set(get_dataset_column_names(Dataset.from_list(rows)))
    except (TypeError, ValueError) as error:
        yield name, f"datasets cannot read it: {error}"
        return
    if not needed <= columns:
        yield name, f"TRL's {type} type needs the {_named(needed)}"
    # Where there is a margin, the collator looks for it in the first row and then takes it of all.
    elif "margin" in columns and not all(isinstance(row.get("margin"), float) for row in rows):
        yield name, "TRL takes the column margin as a number in every row or in none"
    reserved = OTHERWISE[type] | (OF_SFT if type in ("language modelling", "prompt-completion") else set())
    for column in sorted(columns & reserved):
        yield name, f"TRL takes the column {column} for something else"


def _named(columns: set[str]) -> str:
    return f"column{'s' if len(columns) > 1 else ''} {' and '.join(sorted(columns))}"

"""What TRL itself makes of an exported file: how its trainers would take the columns."""

import importlib.util
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

ROWS = 1000
"""Rows of each file that TRL is shown: its rules are about columns, which all rows share."""


def version() -> str | None:
    """The version of the installed TRL, None where there is none."""
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        return None
    import trl

    return trl.__version__


TYPES = {
    "preference": ("preference", {"chosen", "rejected"}),
    "preference_implicit": ("preference", {"chosen", "rejected"}),
    "messages": ("language modelling", {"messages"}),
    "prompt_completion": ("prompt-completion", {"prompt", "completion"}),
}
"""By format: the type of dataset that TRL takes it for, and the columns by which it knows that."""

OTHERWISE = {
    "preference": {"chosen_ids", "rejected_ids", "margin", "tools", "chat_template_kwargs", "images", "image"},
    "language modelling": {"prompt", "completion"},
    "prompt-completion": {"messages"},
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
    "tools",
    "chat_template_kwargs",
    "images",
    "image",
}
"""The same for the trainer that takes the last two types."""


def problems(folder: Path, names: list[str], format: str = "preference") -> Iterator[tuple[str, str]]:
    """Where TRL would take files of this folder otherwise than meant: (file:line, what is wrong)."""
    from trl.data_utils import extract_prompt, is_conversational

    for name in names:
        with (folder / name).open("rb") as file:
            for number, data in enumerate(islice(file, ROWS), 1):
                row = json.loads(data)
                where = f"{name}:{number}"
                if not is_conversational(row):
                    yield where, "TRL does not take it as conversational"
                elif "chosen" in row and "prompt" not in row and extract_prompt(row)["prompt"] != row["chosen"][:-1]:
                    yield where, "TRL finds another prompt that chosen and rejected share"
        yield from _columns(folder / name, *TYPES[format])


def _columns(path: Path, type: str, needed: set[str]) -> Iterator[tuple[str, str]]:
    """Read the beginning as the trainers' dataset, where the columns get one type each, and look at their names."""
    from datasets import Dataset
    from trl.data_utils import get_dataset_column_names

    with path.open("rb") as file:
        rows = [json.loads(data) for data in islice(file, ROWS)]
    try:
        columns = set(get_dataset_column_names(Dataset.from_list(rows)))
    except (TypeError, ValueError) as error:
        yield path.name, f"datasets cannot read it: {error}"
        return
    if not needed <= columns:
        yield path.name, f"TRL's {type} type needs the {_named(needed)}"
    reserved = OTHERWISE[type] | (OF_SFT if type != "preference" else set())
    for name in sorted(columns & reserved):
        yield path.name, f"TRL takes the column {name} for something else"


def _named(columns: set[str]) -> str:
    return f"column{'s' if len(columns) > 1 else ''} {' and '.join(sorted(columns))}"

"""The formats that conversations come in: their names, how they are recognised, and who reads each."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from annotate.datasets import openings
from annotate.datasets.incoming import (
    hh,
    instructions,
    messages,
    oasst,
    preference,
    sharegpt,
    transcripts,
)
from annotate.datasets.incoming.items import Bad, Item
from annotate.datasets.incoming.mends import MENDS
from annotate.datasets.incoming.options import Options
from annotate.errors import Invalid

__all__ = ["FORMATS", "MENDS", "Bad", "Format", "Item", "Options", "read", "recognise"]

PROMPTS = "prompts"
"""Openings without an answer. They are recognised here and read by `annotate.datasets.openings`."""

ANSWERS = ("answer", "chosen", "completion", "human_ref", "output", "rejected", "replies", "reply", "response")
"""How the names of fields begin that hold answers. Where no format reads them the row is no mere opening: they would be
lost without a word."""

SHOWN = 12
"""Fields that a refusal names."""


@dataclass(frozen=True)
class Format:
    """One format."""

    name: str
    about: str
    """What a row of it is."""
    read: Callable[[object, Options], Item]
    """One decoded value to what came of it; raises Bad."""


FORMATS = {
    one.name: one
    for one in (
        Format("oasst", "a message tree of OpenAssistant, with ranked replies", oasst.read),
        Format("hh", "two transcripts, chosen and rejected, as in HH-RLHF", hh.read),
        Format("instructions", "instruction, input and output, or prompt and completion", instructions.read),
        Format("sharegpt", "conversations, a list of {from, value}", sharegpt.read),
        Format("messages", "messages, a list of {role, content}", messages.read),
        Format("preference", "a chosen and a rejected answer, or answers with ranks", preference.read),
    )
}
"""All that a row can be read as."""


def read(rows: Iterable[tuple[int, object]], *, format: str, options: Options) -> Iterator[tuple[int, Item | Bad]]:
    """What came of each value of a file, or why nothing did, with the number of its line."""
    if format not in FORMATS:
        raise Invalid(f"There is no format {format}. Formats: {', '.join([*FORMATS, PROMPTS])}.")
    return _read(rows, FORMATS[format].read, options)


def _read(rows: Iterable[tuple[int, object]], reader: Callable, options: Options) -> Iterator[tuple[int, Item | Bad]]:
    for line, value in rows:
        if isinstance(value, Bad):
            yield line, value
            continue
        try:
            item = reader(value, options)
        except Bad as bad:
            yield line, bad
        except RecursionError:
            yield line, Bad("it is nested too deep")
        else:
            item.line = line
            yield line, item


def recognise(first_values: list, name: str) -> str:
    """The format that most of a file's first values are in, by their fields. See `_format` for the order of rules.

    Raises Invalid where none of them is in one, or as many are in one as in another.
    """
    if any(isinstance(value, dict) and oasst.is_flat(value) for value in first_values):
        raise Invalid(f"{name}: {oasst.FLAT}.")
    found = Counter(form for form in map(_format, first_values) if form).most_common(2)
    known = ", ".join([*FORMATS, PROMPTS])
    if not found:
        opened = any(_is_opening(value) for value in first_values if isinstance(value, dict))
        hint = f" The format {PROMPTS} takes the openings alone." if opened else ""
        raise Invalid(f"{name} is in none of the formats {known}: {_seen(first_values)}.{hint}")
    if len(found) > 1 and found[0][1] == found[1][1]:
        raise Invalid(f"{name} may be {found[0][0]} or {found[1][0]}: as many of its rows are. Name the format.")
    return found[0][0]


def _format(value) -> str | None:
    """The format that one value is in; the first rule that fits counts, so that the more telling ones come first.

    1. `prompt` is an object: oasst.
    2. A better and a worse side, or answers with ranks: hh where both are transcripts and no prompt stands beside
       them, sharegpt beside `conversations`, else preference.
    3. A list of `conversations` or `items`: sharegpt.
    4. A list of `messages`, or lists as `prompt` and `completion`: messages.
    5. `instruction` or `prompt` with an answer beside it, or `instances`: instructions.
    6. A text alone, or in `prompt`, `text` or `instruction`, or messages in `prompt`, without fields that look like
       answers: prompts.
    """
    if isinstance(value, str):
        return PROMPTS
    if not isinstance(value, dict):
        return None
    row = {key: one for key, one in value.items() if one is not None}
    if isinstance(row.get("prompt"), dict):
        return "oasst"
    if _is_ranked(row):
        if any(isinstance(row.get(key), list) for key in sharegpt.LISTS):
            return "sharegpt"
        sides = [row.get(key) for key in hh.SIDES]
        both = all(isinstance(side, str) and transcripts.is_transcript(side) for side in sides)
        return "hh" if both and not row.keys() & {"prompt", "instruction", "messages"} else "preference"
    if any(isinstance(row.get(key), list) for key in sharegpt.LISTS):
        return "sharegpt"
    if isinstance(row.get("messages"), list) or all(isinstance(row.get(key), list) for key in messages.PARTS):
        return "messages"
    asks = [row[key] for key in instructions.ASKS if key in row]
    if asks and isinstance(asks[0], str) and row.keys() & {"instances", *instructions.OUTPUTS}:
        return "instructions"
    return PROMPTS if _is_opening(row) and not any(map(_looks_like_an_answer, row, row.values())) else None


def _is_opening(row: dict) -> bool:
    return isinstance(row.get("prompt"), list) or any(isinstance(row.get(key), str) for key in openings.TEXT_KEYS)


def _looks_like_an_answer(key: str, value) -> bool:
    return key.lower().startswith(ANSWERS) and isinstance(value, str | list | dict) and bool(value)


def _is_ranked(row: dict) -> bool:
    if any(row.keys() >= set(keys) for keys in preference.SIDES) or row.keys() >= {"messages", "rejected_response"}:
        return True
    return any(
        row.keys() >= {beside, key} and isinstance(row[key], list)
        for beside, key in (("context", "completions"), ("prompt", "answers"))
    )


def _seen(values: list) -> str:
    """What the values are, as a phrase."""
    if not values:
        return "nothing in it could be read as JSON"
    names = list(dict.fromkeys(_on_one_line(key) for value in values if isinstance(value, dict) for key in value))
    if not names:
        return "its rows are no objects"
    first = values[0] if isinstance(values[0], dict) else {}
    inside = [key for key, one in first.items() if isinstance(one, list) and one and _format(one[0])]
    if len(values) == 1 and inside:
        return (
            f"it is one object; if the rows are in its list {_on_one_line(inside[0])!r}, give a file of that list alone"
        )
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"its fields are {', '.join(names[:SHOWN])}{more}"


def _on_one_line(name: str) -> str:
    return " ".join(name.split())[:40]

"""Prompts in: openings from files of JSON lines, a JSON list, or plain text with one on each line."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from django.conf import settings
from django.db import transaction

from annotate import families, projects
from annotate.errors import Invalid
from annotate.models import Project, Prompt
from annotate.projects import Opening

TEXT_KEYS = ("prompt", "text", "instruction")
"""Where the text of an opening may stand; the first one that is there counts."""

UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}
"""Unicode categories whose characters show nothing: controls, zero-width ones, blanks."""

SHOWN = 5
"""Bad lines that a refusal names; more are only counted."""


@dataclass
class Imported:
    """What an import did: openings added, openings that were there or came twice, and what is wrong by line."""

    added: int = 0
    duplicates: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)


class BadLine(Exception):
    """One line of the file that holds no opening; the message says why."""


def import_prompts(
    *, project: Project, lines: Iterable[bytes], source: str, use_case: str = "", skip_bad: bool = False
) -> Imported:
    """Add the openings of a file, given as its lines, to a project. `use_case` is for those that name none.

    Raises Invalid, and adds nothing, where a line is bad (with `skip_bad` it is left out), the file holds none or is
    a broken list, or `use_case` does not fit.
    """
    if len(use_case) > _longest("use_case"):
        raise Invalid(f"--use-case may have {_longest('use_case')} characters; this one has {len(use_case):,}.")
    done = Imported()
    with transaction.atomic():
        openings = _good(read(lines, source=source, use_case=use_case), done)
        done.added, done.duplicates = projects.insert_prompts(project=project, openings=openings)
        if done.bad and not skip_bad:
            raise Invalid(f"Nothing was imported: {told(done.bad)}. With --on-error skip the rest comes in.")
        if not done.added + done.duplicates:
            raise Invalid(f"{source} holds no prompt{': ' + told(done.bad) if done.bad else ''}.")
    families.join_pending(project=project)
    return done


def told(bad: list[tuple[int, str]]) -> str:
    """Bad lines as a phrase, the first ones with their reasons."""
    named = "; ".join(f"line {number}: {reason}" for number, reason in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    return f"{len(bad):,} bad {'line' if len(bad) == 1 else 'lines'} ({named}{more})"


def _good(found: Iterator[tuple[int, Opening | BadLine]], done: Imported) -> Iterator[Opening]:
    for number, opening in found:
        if isinstance(opening, BadLine):
            done.bad.append((number, str(opening)))
        else:
            yield opening


def read(lines: Iterable[bytes], *, source: str, use_case: str = "") -> Iterator[tuple[int, Opening | BadLine]]:
    """The openings of a file with the numbers of their lines, or what is wrong with the line.

    The first line that is not blank decides: `{` begins JSON lines, a file that begins with `[` and is JSON is a
    list whose items count as lines, all else is plain text, as is every file that is called `.txt`. A file that is
    called `.json` or `.jsonl` is never plain text. Raises Invalid where a `.json` file begins a list and is not JSON.
    """
    yield from read_values(_items(iter(lines), source), source=source, use_case=use_case)


def read_values(
    values: Iterable[tuple[int, object]], *, source: str, use_case: str = ""
) -> Iterator[tuple[int, Opening | BadLine]]:
    """The same of values that were decoded already, each with its number; one that could not be is an exception."""
    for number, item in values:
        try:
            if isinstance(item, Exception):
                raise BadLine(str(item))
            for text, row in _texts(item):
                yield number, _opening(text, row, source, use_case)
        except BadLine as bad:
            yield number, bad


def _items(lines: Iterator[bytes], source: str) -> Iterator[tuple[int, str | dict | BadLine]]:
    suffix = PurePath(source).suffix.lower()
    known, is_json = suffix == ".txt", suffix in (".json", ".jsonl")
    for number, data in enumerate(lines, 1):
        line = _decoded(data, first=number == 1)
        if not line:
            continue
        if not known and isinstance(line, str):
            known, is_json = True, is_json or line.startswith("{")
            if line.startswith("["):
                rest = [data, *lines]
                items = _json(b"".join(rest).decode("utf-8-sig", errors="replace"))
                if isinstance(items, list):
                    yield from enumerate(items, 1)
                    return
                if suffix == ".json":
                    # Its lines are no items: with `skip_bad` pieces of the list would come in.
                    raise Invalid(f"{source} begins a list and is not JSON: it is damaged or cut off.")
                yield number, _item(line, is_json)
                for later, data in enumerate(rest[1:], number + 1):
                    if found := _decoded(data):
                        yield later, _item(found, is_json)
                return
        yield number, _item(line, is_json)


def _item(line: str | BadLine, is_json: bool):
    return _json(line) if is_json and isinstance(line, str) else line


def _decoded(data: bytes, *, first: bool = False) -> str | BadLine:
    try:
        # The first three bytes may be the mark that some editors put there.
        return _clean(data.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError:
        return BadLine("it is not UTF-8")


def _clean(text: str) -> str:
    # PostgreSQL's text has no NUL.
    text = text.replace("\x00", "").strip()
    return text if any(unicodedata.category(character) not in UNSEEN for character in text) else ""


def _json(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return BadLine("it is not JSON")


def _texts(item) -> Iterator[tuple[str, dict]]:
    """The texts of one item, with what it says beside them. Several where one instruction has several inputs."""
    if isinstance(item, str):
        text = _clean(item)
        if not text:
            raise BadLine("it is empty")
        yield text, {}
        return
    if not isinstance(item, dict):
        raise BadLine("it is neither a text nor an object")
    key = next((key for key in TEXT_KEYS if item.get(key) is not None), None)
    if key is None:
        raise BadLine(f"it has none of the fields {', '.join(TEXT_KEYS)}")
    text = _text(item, key)
    if not text:
        raise BadLine(f"{key} is empty")
    holders = item.get("instances", [item]) if key == "instruction" else [{}]
    if not isinstance(holders, list) or not holders or not all(isinstance(one, dict) for one in holders):
        raise BadLine("instances is not a list of objects")
    for number, holder in enumerate(holders):
        given = _text(holder, "input")
        of_several = {"id": f"{item['id']}#{number}"} if len(holders) > 1 and "id" in item else {}
        # The input is what the instruction is about; a blank line parts them, as a person would type it.
        yield f"{text}\n\n{given}" if given else text, item | of_several


def _only_question(messages: list) -> str:
    """The text of the one message of the user that a prompt of messages has beside its system message."""
    if not all(isinstance(one, dict) for one in messages):
        raise BadLine("prompt is not a list of messages")
    spoken = [one for one in messages if one.get("role") not in ("system", "developer")]
    if len(spoken) != 1 or spoken[0].get("role") != "user":
        raise BadLine("prompt is a conversation; an opening is one message of the user")
    return _text(spoken[0], "content")


def _text(row: dict, key: str) -> str:
    value = row.get(key)
    if key == "prompt" and isinstance(value, list):
        return _only_question(value)
    if not isinstance(value, str | None):
        raise BadLine(f"{key} is not a text")
    return _clean(value or "")


def _opening(text: str, row: dict, source: str, use_case: str) -> Opening:
    name = _text(row, "use_case") or use_case
    source_id = "" if row.get("id") is None else _clean(str(row["id"]))
    if len(text) > settings.MESSAGE_CHARACTERS:
        raise BadLine(f"it has {len(text):,} characters; a message may have {settings.MESSAGE_CHARACTERS:,}")
    try:
        f"{text}{name}{source_id}".encode()
    except UnicodeEncodeError:
        raise BadLine("it holds half a character (a lone surrogate)") from None
    if len(name) > _longest("use_case"):
        raise BadLine(f"its use case has more than {_longest('use_case')} characters")
    if len(source_id) > _longest("source_id"):
        raise BadLine(f"id has more than {_longest('source_id')} characters")
    return Opening(text=text, use_case=name, source=source[: _longest("source")], source_id=source_id)


def _longest(name: str) -> int:
    return Prompt._meta.get_field(name).max_length

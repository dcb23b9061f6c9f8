"""Transcripts as one text, with `Human:` and `Assistant:` after a blank line, as in Anthropic's HH-RLHF."""

import re

from annotate.datasets.incoming import fields
from annotate.datasets.incoming.items import Turn
from annotate.datasets.incoming.mends import Mending

ROLES = {"Human": "user", "Assistant": "assistant"}

_TURN = re.compile(r"(?:\A\s*|\n[ \t\r]*\n[ \t\r]*)(Human|Assistant):")
_LINE = re.compile(r"^[ \t]*(Human|Assistant):", re.MULTILINE)


def is_transcript(text: str) -> bool:
    """Whether the text begins with one of the labels, or both stand in it."""
    labels = _TURN.findall(text)
    return len(set(labels)) == 2 or (bool(labels) and text.lstrip().startswith(tuple(ROLES)))


def turns(text: str, mends: Mending, *, is_open: bool = False) -> list[Turn]:
    """The turns of a transcript, not yet mended.

    What stands before the first label is the system message. Within a turn the other speaker's label parts it where
    it begins a line. Of an open transcript, a prompt, the last label may have no text.
    """
    marks = list(_TURN.finditer(text))
    found = [Turn("system", fields.clean(text[: marks[0].start()] if marks else text, mends))]
    for place, mark in enumerate(marks):
        end = marks[place + 1].start() if place + 1 < len(marks) else len(text)
        found += _parted(mark[1], text[mark.end() : end], mends)
    if is_open and found[-1].role == "assistant" and not found[-1].text:
        found.pop()
    return found


def _parted(speaker: str, said: str, mends: Mending) -> list[Turn]:
    parts, begin = [], 0
    for mark in _LINE.finditer(said):
        # A label right after the one that began the turn is on the same line: it begins no line of its own.
        if mark[1] != speaker and mark.start():
            mends.note("parted_turn")
            parts.append(Turn(ROLES[speaker], fields.clean(said[begin : mark.start()], mends)))
            speaker, begin = mark[1], mark.end()
    return [*parts, Turn(ROLES[speaker], fields.clean(said[begin:], mends))]

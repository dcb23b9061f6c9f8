"""The manuscript of somebody who writes both sides: the draft of a writing slot, read and made.

While a piece is open its draft is the one truth, `{"turns": [...], "at": 0, "system": "…"}`, kept with a version.
What a turn's text came of is kept beside it, counted in characters as Python counts them.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from annotate.errors import Invalid

ROLES = ("user", "assistant")

MOST_TURNS = 200

MOST = 2_000_000_000
"""The largest number that a count may have; PostgreSQL's integer holds it."""

Reference = tuple[int, int]
"""A suggestion: the id of its request and its index there."""


@dataclass(slots=True)
class Turn:
    """One turn as it stands. `came_from` is the suggestion that most of it was taken from."""

    role: str
    text: str = ""
    came_from: Reference | None = None
    opening: bool = False  # it began as the prompt that the piece was opened with
    shown: list[Reference] = field(default_factory=list)
    seconds: int = 0
    typed: int = 0
    pasted: int = 0
    taken: int = 0


@dataclass(slots=True)
class Manuscript:
    """All turns in their order, the index of the one that is open, and the system message where it was changed."""

    turns: list[Turn]
    at: int = 0
    system: str | None = None

    def kept(self) -> list[Turn]:
        """The turns that count: all but an empty one that is open at the end."""
        last_is_empty = bool(self.turns) and not self.turns[-1].text.strip()
        return self.turns[:-1] if last_is_empty else list(self.turns)

    def as_draft(self) -> dict:
        """The draft that `read` gives back as this manuscript."""
        draft: dict = {"turns": [_as_draft(turn) for turn in self.turns], "at": self.at}
        if self.system is not None:
            draft["system"] = self.system
        return draft


def _as_draft(turn: Turn) -> dict:
    draft = asdict(turn)
    draft["from"] = list(turn.came_from) if turn.came_from else None
    del draft["came_from"]
    draft["shown"] = [list(reference) for reference in turn.shown]
    return draft


def read(draft: dict) -> Manuscript:
    """The manuscript of a draft; an empty draft is one empty turn of the user. Raises Invalid where it is damaged.

    Keys that are not known are left out.
    """
    turns = draft.get("turns", [])
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _damaged()
    if len(turns) > MOST_TURNS:
        raise Invalid(f"A conversation may have {MOST_TURNS} turns; this one has {len(turns)}.")
    read_turns = [_turn(turn) for turn in turns] or [Turn("user")]
    system = draft.get("system")
    if system is not None and not isinstance(system, str):
        raise _damaged()
    return Manuscript(
        turns=read_turns, at=_at(draft, len(read_turns)), system=None if system is None else clean(system)
    )


def _at(draft: dict, turns: int) -> int:
    at = draft.get("at", turns - 1)
    if type(at) is not int or not 0 <= at < turns:
        raise _damaged()
    return at


def _turn(turn: dict) -> Turn:
    role, text, opening = turn.get("role"), turn.get("text", ""), turn.get("opening", False)
    if role not in ROLES or not isinstance(text, str) or type(opening) is not bool:
        raise _damaged()
    came_from = turn.get("from")
    return Turn(
        role=role,
        text=clean(text),
        came_from=None if came_from is None else _reference(came_from),
        opening=opening,
        shown=_shown(turn.get("shown", [])),
        **{name: _count(turn.get(name, 0)) for name in ("seconds", "typed", "pasted", "taken")},
    )


HALF = re.compile("[\ud800-\udfff]")
"""Half of a character beyond 16 bits, as a paste that was cut may end with."""


def clean(text: str) -> str:
    """Line ends of one kind, and nothing that PostgreSQL's text has not."""
    return HALF.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", ""))


def _shown(shown) -> list[Reference]:
    if not isinstance(shown, list) or len(shown) > 1000:
        raise _damaged()
    # Each once, in the order in which they were shown.
    return list(dict.fromkeys(map(_reference, shown)))


def _reference(pair) -> Reference:
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(type(part) is int and 0 <= part < 2**63 for part in pair)
    ):
        raise _damaged()
    return pair[0], pair[1]


def _count(value) -> int:
    if type(value) is not int or not 0 <= value <= MOST:
        raise _damaged()
    return value


def _damaged() -> Invalid:
    return Invalid("The draft is damaged. Reload the page; what was saved last is there.")


def problems(manuscript: Manuscript, *, alternate: bool, longest: int) -> list[str]:
    """What must be mended before a piece can be finished, a sentence each; turns are counted from 1.

    With `alternate` the user begins and the sides take turns. `longest` is in characters.
    """
    turns = manuscript.kept()
    if not turns:
        return ["Nothing is written yet."]
    found = [f"Turn {number} is empty: write it or delete it." for number in _empty(turns)]
    found += [
        f"Turn {number} has {len(turn.text):,} characters; a turn may have {longest:,}."
        for number, turn in enumerate(turns, start=1)
        if len(turn.text) > longest
    ]
    if alternate:
        found += _out_of_turn(turns)
    if turns[-1].role == "user":
        found.append("The last turn is the user's: write the assistant's answer, or delete it.")
    elif not any(turn.role == "user" for turn in turns):
        found.append("The user says nothing yet: write what they ask.")
    if manuscript.system is not None and not manuscript.system.strip():
        found.append("The system message is empty: write one, or undo its change.")
    return found


def _empty(turns: Iterable[Turn]) -> list[int]:
    return [number for number, turn in enumerate(turns, start=1) if not turn.text.strip()]


def _out_of_turn(turns: list[Turn]) -> list[str]:
    if turns[0].role != "user":
        return ["The first turn is the assistant's; here the user begins."]
    for number, (before, turn) in enumerate(itertools.pairwise(turns), start=2):
        if before.role == turn.role:
            return [f"Turn {number} is the {turn.role}'s like the one before it; here the sides take turns."]
    return []

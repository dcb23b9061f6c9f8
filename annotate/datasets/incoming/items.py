"""What the readers of all formats yield: conversations, and rankings of answers in them."""

from dataclasses import dataclass, field


class Bad(Exception):
    """One line that cannot come in; the message says why, without the line's number."""


@dataclass(slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    text: str
    """Cleaned; never empty."""
    source_id: str = ""
    """The message's own id in its source; empty where the format has none."""
    facts: dict | None = None
    """What its source says of it beside role and text."""


@dataclass(slots=True)
class Answer:
    """One of the answers that were ranked."""

    text: str
    rank: int
    """Dense, 0 is best, equal ranks are ties."""
    source_id: str = ""
    model: str = ""
    """The model that wrote it, where the source says so."""


@dataclass(slots=True)
class Judged:
    """One ranking of two or more different answers to the same context."""

    talk: int
    """Which of the item's conversations holds the context, from 0."""
    position: int
    """Which of its turns was ranked beside others; the turns before it are the context."""
    answers: list[Answer]
    """One of them is the turn at that position."""
    source_id: str = ""
    """Its id in its source; empty where it has none."""
    all_bad: bool = False
    uncertain: bool = False
    """Whether it was chosen because a reward model was uncertain of it, as our own exports say."""


@dataclass(slots=True)
class Talk:
    """One conversation: the file's own system message, if any, then at least one turn."""

    turns: list[Turn]
    source_id: str = ""
    """The row's id; `id#n` where one row gives several."""
    facts: dict | None = None
    """What the row says beside its turns."""
    split: str = ""
    """The file's own split, kept as metadata only."""
    use_case: str = ""


@dataclass(slots=True)
class Item:
    """What came of one line, item of a list, or row."""

    line: int
    """From 1; readers of single values leave 0, and whoever counts the lines fills it in."""
    talks: list[Talk]
    judged: list[Judged] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    """The names of the mends that were made on it, each once."""

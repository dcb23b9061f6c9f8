"""What an import did, counted: for people who ran it, and kept with the import."""

from collections import Counter
from dataclasses import dataclass, field

LISTED = 1_000
"""Bad lines that are listed with their reasons; all are counted."""


@dataclass
class Report:
    """What came of a file."""

    taken: bool = False
    """Whether it came in."""
    format: str = ""
    """The format that it was read as."""
    lines: int = 0
    """Lines, items of the list or rows of the table that were read, bad ones included."""
    conversations: int = 0
    messages: int = 0
    comparisons: int = 0
    prompts: int = 0
    there_already: int = 0
    """Conversations or prompts that the project had."""
    twice: int = 0
    """Conversations that the file has more than once."""
    changed_since: int = 0
    """Conversations that say something else than when the same id came in from the same source; the old ones stay."""
    comparisons_there_already: int = 0
    """Rankings that the project had, or that the file has more than once."""
    comparisons_without_message: int = 0
    """Rankings of messages of conversations that changed since, left out."""
    system_messages: int = 0
    """System messages that were added."""
    mends: Counter = field(default_factory=Counter)
    """How many lines were mended, by the name of the mend."""
    refused: int = 0
    """Bad lines."""
    refused_lines: list[tuple[int, str]] = field(default_factory=list)
    """The first LISTED of them with their reasons."""

    @property
    def found(self) -> int:
        """Conversations or prompts that the file has, new or not."""
        new = self.conversations + self.prompts
        return new + self.there_already + self.twice + self.changed_since

    def refuse(self, line: int, reason: str) -> None:
        """Count a bad line."""
        self.refused += 1
        if len(self.refused_lines) < LISTED:
            self.refused_lines.append((line, reason))

    def told_refused(self, most: int = LISTED) -> str:
        """The bad lines as a phrase, the first ones with their reasons."""
        shown = self.refused_lines[:most]
        named = "; ".join(f"line {line}: {reason}" for line, reason in shown)
        more = f"; and {self.refused - len(shown):,} more" if self.refused > len(shown) else ""
        return f"{self.refused:,} bad {'line' if self.refused == 1 else 'lines'} ({named}{more})"

    def nothing_came_in(self) -> "Report":
        """The same of a file that was refused."""
        return Report(
            format=self.format,
            lines=self.lines,
            mends=self.mends,
            refused=self.refused,
            refused_lines=self.refused_lines,
        )

    def as_json(self) -> dict:
        """As it is kept with the import."""
        return vars(self) | {"mends": dict(sorted(self.mends.items()))}

    @classmethod
    def from_json(cls, kept: dict) -> "Report":
        """As it was kept."""
        return cls(**kept | {"mends": Counter(kept["mends"]), "refused_lines": [*map(tuple, kept["refused_lines"])]})

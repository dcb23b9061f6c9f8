"""Personal data in what is exported: counted, and taken out where that is wanted. What it is, is in `personal`."""

import re
from collections import Counter, defaultdict
from functools import lru_cache

from annotate import personal

OURS = frozenset(
    {
        *("split", "family", "families", "trainer", "reviewer", "project", "source", "role", "kind", "selection"),
        *(
            "left_out",
            "review_state",
            "ranking_kind",
            "comparison_state",
            "assignment_state",
            "finish_reason",
            "finished_at",
        ),
        *("policy", "policies", "template_hash", "flags", "message_id", "parent_id", "message_tree_id", "created_date"),
    }
)
"""The fields of a whole line that hold no words of people, at any depth. All others do: what somebody said, and names
and facts that came with it from a file."""


class Scan:
    """Looks through the whole lines of one export. Can be pickled, and gone on with."""

    def __init__(self, redact: bool):
        self.redact = redact
        self.found: dict[str, Counter] = defaultdict(Counter)
        """By kind, how often it stands in the lines of each split."""
        self.lines: Counter = Counter()
        """By split, in how many lines something was found."""

    def line(self, line: dict) -> dict:
        """Count what is in a line; the line with its kind in the place of each, where that is wanted.

        The given line stays as it is: its parts may be those of other lines too.
        """
        kinds: Counter = Counter()
        looked = self._look(line, kinds)
        for kind, count in kinds.items():
            self.found[kind][line["split"]] += count
        if kinds:
            self.lines[line["split"]] += 1
        return looked

    def report(self) -> dict:
        """What was found, by kind and split, as the manifest keeps it. A text counts in every line that it is in."""
        names = [kind for kind in map(_name, (kind.name for kind in personal.KINDS)) if kind in self.found]
        return {
            "redacted": self.redact,
            "lines": dict(sorted(self.lines.items())),
            "found": {name: dict(sorted(self.found[name].items())) for name in names},
        }

    def _look(self, value, kinds: Counter):
        """The value, or where something in it is replaced a copy that has it."""
        if isinstance(value, dict):
            changed = {
                name: looked
                for name, one in value.items()
                if one and name not in OURS and (looked := self._look(one, kinds)) is not one
            }
            return value | changed if changed else value
        if isinstance(value, list):
            looked = [self._look(one, kinds) for one in value]
            return looked if any(new is not old for new, old in zip(looked, value, strict=True)) else value
        return self._text(value, kinds) if isinstance(value, str) else value

    def _text(self, text: str, kinds: Counter) -> str:
        found = _spans(text)
        if not found:
            return text
        kinds.update(_name(one.kind) for one in found)
        return redacted(text, found) if self.redact else text


def redacted(text: str, found: list[personal.Span] | None = None) -> str:
    """The text with the kind, in brackets, in the place of each thing that was found in it."""
    parts, end = [], 0
    for one in personal.spans(text) if found is None else found:
        parts += [text[end : one.start], f"[{_name(one.kind)}]"]
        end = one.end
    return "".join([*parts, text[end:]])


# The lines of one comparison hold the same texts, and a turn often says what was suggested for it.
@lru_cache(maxsize=256)
def _spans(text: str) -> list[personal.Span]:
    return personal.spans(text)


def _name(kind: str) -> str:
    """A kind without its article."""
    return kind.partition(" ")[2]


TAKEN_OUT = re.compile("|".join(re.escape(f"[{_name(kind.name)}]") for kind in personal.KINDS))
"""What stands where something was taken out."""

"""What was not as a dialogue should be and is put right, each under a name that the report counts."""

from annotate.datasets.incoming.items import Bad
from annotate.datasets.incoming.options import Options

MENDS = {
    "joined_turns": "neighbouring turns of one speaker became one, joined by a blank line",
    "dropped_empty_turn": "a turn without text was left out, in a tree with all that answers it",
    "dropped_leading_answer": "an answer before the first turn of the user was left out",
    "dropped_last_user_turn": "the last turn, of the user and without an answer, was left out",
    "parted_turn": "a turn in which the other speaker's label begins a line was taken apart there",
    "cut_to_first_answer": "where the two sides go on after they part, each was cut to its first answer",
    "dropped_duplicate_answer": "an answer with the text of another one was left out of the ranking or the list",
    "dropped_unanswered": "of several inputs or outputs those without an answer were left out",
    "dropped_deleted": "a message that its source calls deleted was left out, with all that answers it",
    "dropped_nul": "characters NUL, which the database cannot hold, were left out",
    "few_shot_apart": "a prompt's own examples (Q: … A: …) became turns",
    "few_shot_whole": "a prompt with labels like Q: and A: in it stayed one turn",
}
"""What each mend means."""

FAULTS = {
    "joined_turns": "two neighbouring turns are of one speaker",
    "dropped_empty_turn": "a turn has no text",
    "dropped_leading_answer": "it begins with an answer",
    "dropped_last_user_turn": "its last turn has no answer",
    "parted_turn": "a turn holds the other speaker's label at the beginning of a line",
    "cut_to_first_answer": "after the place where the two sides part, a side is not exactly one answer",
    "dropped_duplicate_answer": "two of its answers are the same",
    "dropped_unanswered": "one of its inputs or outputs has no answer",
}
"""What to say where the same is refused. Mends that are missing here are no sign of a broken line."""


class Mending:
    """The mends that are made on one item, or refused."""

    def __init__(self, options: Options):
        self._refuse = options.broken == "refuse"
        self._names: dict[str, None] = {}

    def note(self, name: str) -> None:
        """A mend is made. Raises Bad where the line is broken and broken lines are refused."""
        if self._refuse and name in FAULTS:
            raise Bad(FAULTS[name])
        self._names[name] = None

    @property
    def names(self) -> list[str]:
        return list(self._names)

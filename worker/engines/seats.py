"""Who sits in which row of keys and values, and what of an earlier text a new one takes over.

The first `writing` rows are of texts that are written, those up to `used` of texts whose tokens are being read; the
rest hold what earlier texts left, for one that begins alike.
"""

import itertools
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from worker.engines.base import Sampling
from worker.engines.detokeniser import Detokeniser
from worker.engines.rows import Rows
from worker.engines.thoughts import Thoughts

WORTH_TAKING = 8
"""Tokens that a beginning must have in common to be taken over."""
_numbers = itertools.count()


@dataclass(eq=False)
class Text:
    """One text in the making. `ids` are the tokens of its prompt and what was written so far."""

    key: Hashable
    ids: list[int]
    sampling: Sampling
    urgent: bool
    detokeniser: Detokeniser
    thoughts: Thoughts
    ends: set[int]  # tokens that end it
    number: int = field(default_factory=_numbers.__next__)  # by which it came
    prompt_tokens: int = 0

    def __post_init__(self):
        self.prompt_tokens = len(self.ids)

    @property
    def written(self) -> int:
        """Tokens written so far."""
        return len(self.ids) - self.prompt_tokens

    def needs(self) -> int:
        """Tokens of a row that it may fill."""
        return self.prompt_tokens + self.sampling.max_new_tokens


@dataclass(eq=False)
class Row:
    """What lies in one row of keys and values."""

    text: Text | None = None
    tokens: list[int] = field(default_factory=list)
    left_at: float = 0.0

    def rest(self) -> list[int]:
        """The tokens of its text that the model has not read yet."""
        return self.text.ids[len(self.tokens) :]


class Seats:
    """The rows of `cache`, and who sits where."""

    def __init__(self, cache: Rows):
        self.cache = cache
        self.rows: list[Row] = []
        self.writing = self.used = 0

    def texts(self) -> list[Text]:
        """All that have a row."""
        return [row.text for row in self.rows[: self.used]]

    def gains_by_waiting(self, text: Text) -> bool:
        """Whether the beginning of a text is being read for another one, so that it had better come after that."""
        read = max((_common(row.tokens, text.ids) for row in self.rows), default=0)
        # Bulk is not read while anything urgent is: for that nobody waits.
        reading = [one for one in self.texts()[self.writing :] if one.urgent >= text.urgent]
        to_come = max((_common(one.ids, text.ids) for one in reading), default=0)
        return min(to_come, len(text.ids) - 1) - read >= WORTH_TAKING

    def enter(self, text: Text, capacity: int) -> bool:
        """Give a text the row behind those in use, with what is there of its beginning; False: there is no room."""
        longest = max(one.needs() for one in [text, *self.texts()])
        if self.used >= capacity or not self.cache.fit(self.used + 1, longest):
            return False
        del self.rows[self.cache.count :]
        self.rows += [Row() for _ in range(self.cache.count - len(self.rows))]
        shared = [_common(row.tokens, text.ids) for row in self.rows]
        best = max(range(len(shared)), key=shared.__getitem__)
        # The last token is read in any case, for what follows it.
        taken = min(shared[best], len(text.ids) - 1)
        if taken < WORTH_TAKING:
            taken = 0
        if taken and best >= self.used:
            self._swap(best, self.used)
        else:
            oldest = min(range(self.used, len(self.rows)), key=lambda place: self.rows[place].left_at)
            # What lies in the row that is taken is younger, and stays in the place of the oldest.
            self._move(self.used, oldest)
            if taken:
                self.cache.copy(best, self.used, taken)
        self.rows[self.used] = Row(text, text.ids[:taken])
        self.used += 1
        return True

    def begin_writing(self, text: Text) -> None:
        """All of a text's tokens are read, but for the last one."""
        self._swap(self.place_of(text), self.writing)
        self.writing += 1

    def leave(self, text: Text) -> None:
        """Take a text out of its row and close the gap; what lies there stays for one that begins alike."""
        place = self.place_of(text)
        if place < self.writing:
            self.writing -= 1
            self._swap(place, self.writing)
            place = self.writing
        self.used -= 1
        self._swap(place, self.used)
        self.rows[self.used].text = None
        self.rows[self.used].left_at = time.monotonic()

    def spoil(self, text: Text) -> None:
        """Forget what lies in a text's row: it may be no number, which reaches the next text even through a mask."""
        place = self.place_of(text)
        self.cache.clear(place)
        self.rows[place].tokens = []

    def clear_all(self) -> None:
        """Nobody has a row any more, and no memory is held."""
        self.cache.release()
        self.rows = []
        self.writing = self.used = 0

    def place_of(self, text: Text) -> int:
        """The number of a text's row."""
        return next(place for place, row in enumerate(self.rows) if row.text is text)

    def _swap(self, one: int, other: int) -> None:
        rows = self.rows
        if one != other:
            self.cache.swap(one, other, max(len(rows[one].tokens), len(rows[other].tokens)))
            rows[one], rows[other] = rows[other], rows[one]

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self.cache.copy(source, target, len(self.rows[source].tokens))
            self.rows[target] = self.rows[source]


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    alike, differ = 0, min(len(one), len(other)) + 1
    while differ - alike > 1:
        middle = (alike + differ) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            differ = middle
    return alike

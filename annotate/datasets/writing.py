"""Writes the lines of an export into its working folder, group by group, so that it can stop and go on anywhere."""

import gc
import hashlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, groupby, islice
from pathlib import Path

import orjson

from annotate.datasets import checkpoint, shapes
from annotate.datasets.checkpoint import State
from annotate.datasets.columns import Column
from annotate.datasets.shards import Files, Split, Written
from annotate.datasets.what import Filters, What
from annotate.errors import Invalid
from annotate.models import Project

KEYS, KEPT, FAMILIES = "keys", "kept", "families"
"""The columns in the folder: pairs of group and key as they were found, those that came into it, and its families."""

CHUNK = 1000
"""The most keys whose lines are made at once."""

FIRST_CHUNK = 100
"""Keys with which it begins, while it is not known how long the lines are."""

CHUNK_BYTES = 8 * 2**20
"""About so many bytes of lines are made at once: the memory that an export takes, whatever its length."""

KEEP_SECONDS = 5
"""How often it is kept how far it is: what is written again at most after a crash."""

NUMBER_OF = {name: number for number, name in enumerate(shapes.SPLITS)}

Tell = Callable[[int], None]
"""Told how much is done. Raises where the work must not go on."""


def find(folder: Path, pairs: Iterable[tuple[int, int]], tell: Tell) -> int:
    """Write the pairs of group and key, in the order of the lines, into the folder; how many there are.

    From then on it is fixed what the export holds.
    """
    column = Column(folder / KEYS)
    column.cut(0)
    count = 0
    pairs = iter(pairs)
    while chunk := list(islice(pairs, 10_000)):
        column.append(chain.from_iterable(chunk))
        count += len(chunk)
        tell(count)
    column.flush()
    return count


class Writing:
    """One dataset version on its way to a folder."""

    def __init__(
        self, *, what: What, project: Project, format: str, filters: Filters, files: Files, folder: Path, state: State
    ):
        """Go on after what the state says is written. Raises ValueError where that is not there any more."""
        self.what, self.project, self.filters, self.folder, self.state = what, project, filters, folder, state
        self.make = what.formats[format]
        self.render = what.renderer(project, filters)
        self.files, self.shape = files, shapes.of(format, getattr(filters, "margin", None))
        self.keys = Column(folder / KEYS)
        if not self.keys.has(2 * state.keys):
            raise ValueError(f"{self.keys.path} is not as it was")
        self.kept, self.families = Column(folder / KEPT), Column(folder / FAMILIES)
        self.kept.cut(2 * state.kept)
        self.families.cut(state.families)
        self.chunk, self.made = min(FIRST_CHUNK, CHUNK), 0
        self.last_family: tuple[str, str] | None = None
        self.splits: dict[str, Split] = {}
        for name, written in state.splits.items():
            self._split(name, written)
        self.full = self._full()
        self.kept_at = time.monotonic()

    def _split(self, name: str, written: Written | None = None) -> Split:
        self.splits[name] = Split(folder=self.folder, name=name, files=self.files, shape=self.shape, written=written)
        self.state.splits[name] = self.splits[name].written
        return self.splits[name]

    def write(self, tell: Tell, tell_more: Tell) -> dict[str, Split]:
        """Write all lines; the splits, all of their shards full.

        Raises Invalid where a family has come into two splits, and whatever `tell` and `tell_more` raise; it can be
        gone on with then.
        """
        with ExitStack() as stack:
            stack.callback(lambda: [split.close() for split in self.splits.values()])
            stack.enter_context(_no_collector())
            for chunk in _chunks(self.keys, self.state.done, lambda: self.chunk):
                tell(self.state.done)
                self._chunk(chunk)
                self._keep(due=False)
            tell(self.state.done)
            if self.what.more:
                self._more(tell_more)
            for split in self.splits.values():
                split.close_shard()
            self._keep(due=True)
        straddling = _straddling(self.families)
        if straddling:
            raise Invalid(
                f"The export is refused: {straddling:,} {'family has' if straddling == 1 else 'families have'} lines "
                "in more than one split, so that what is tested would have been trained on."
            )
        return self.splits

    def _chunk(self, chunk: list[tuple[int, int]]) -> None:
        self.made = 0
        group_of = {key: group for group, key in chunk}
        with closing(self.what.rows([key for _, key in chunk])) as rows:
            for group, found in groupby(rows, key=lambda row: group_of[row["id"]]):
                keys, lines = [], []
                for row in found:
                    keys.append(row["id"])
                    lines.append(self.render(row))
                if self._group(lines):
                    self.state.own += 1
                    self.state.kept += len(keys)
                    self.kept.append(chain.from_iterable((group, key) for key in keys))
        self.state.done += len(chunk)
        # Where lines are long, fewer at a time.
        if self.made:
            self.chunk = max(1, min(CHUNK, CHUNK_BYTES * len(chunk) // self.made))

    def _more(self, tell: Tell) -> None:
        self.check_made_from()
        groups = self.what.more(self.project, self.filters, self.state.own)
        for number, lines in enumerate(groups or ()):
            # What was written before it stopped is made again and passed over: its order is always the same.
            if number < self.state.more:
                continue
            if number % CHUNK == 0:
                tell(number)
                self._keep(due=False)
            self._group(lines)
            self.state.more += 1

    def check_made_from(self) -> None:
        """Raises Invalid where what is mixed in is not what it was when that began, so that lines would not agree."""
        now = tuple(self.what.made_from(self.project, self.filters))
        if self.state.more and now != self.state.made_from:
            raise Invalid("What is mixed in was changed since the export began to. Put it back, or make a new export.")
        self.state.made_from = now

    def _group(self, lines: list[dict]) -> bool:
        """Write the lines that the format makes of those of one group; whether there were any."""
        state, name = self.state, lines[0]["split"]
        if self.filters.split is not None:
            if name != self.filters.split:
                return False
        elif name == shapes.HELD_OUT:
            state.held_out += len(lines)
            return False
        if state.scan is not None:
            lines = [state.scan.line(line) for line in lines]
        made = list(self.make(lines, self.filters))
        state.tally.add(lines, made)
        if not made:
            return False
        split = self.splits.get(name) or self._split(name)
        encoded = b"".join([orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in made])
        self.made += len(encoded)
        split.write(encoded, len(made))
        for line in lines:
            family = (line["family"], name)
            if family != self.last_family:
                self.last_family = family
                self.families.append([_digest(*family)])
                state.families += 1
        return True

    def _keep(self, *, due: bool) -> None:
        """Keep how far it is, where that is due: after a while, and when a shard is full."""
        full = self._full()
        if not due and full == self.full and time.monotonic() < self.kept_at + KEEP_SECONDS:
            return
        for split in self.splits.values():
            split.flush()
        self.kept.flush()
        self.families.flush()
        checkpoint.keep(self.folder, self.state)
        # Only what is young: there is little of it.
        gc.collect(1)
        for split in self.splits.values():
            split.forget_spent()
        self.full, self.kept_at = full, time.monotonic()

    def _full(self) -> int:
        return sum(len(split.written.full) for split in self.splits.values())


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without the collector of cycles: it would go through each chunk of rows many times, and there are none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _chunks(keys: Column, begin: int, size: Callable[[], int]) -> Iterator[list[tuple[int, int]]]:
    """The pairs from one on, about `size` at a time; never a part of a group."""
    chunk: list[tuple[int, int]] = []
    for numbers in keys.parts(2 * begin):
        for pair in zip(numbers[::2], numbers[1::2], strict=True):
            if len(chunk) >= size() and pair[0] != chunk[-1][0]:
                yield chunk
                chunk = []
            chunk.append(pair)
    if chunk:
        yield chunk


def _digest(family: str, split: str) -> int:
    """61 bits of the family and, in the two lowest ones, the split."""
    digest = int.from_bytes(hashlib.blake2b(family.encode(), digest_size=8).digest(), "little")
    return (digest >> 3) << 2 | NUMBER_OF[split]


def _straddling(families: Column) -> int:
    """How many families are in more than one split."""
    # Apart by their digests, so that no dict of all of them is ever in memory.
    buckets = [array("q") for _ in range(256)]
    for numbers in families.parts():
        for number in numbers:
            buckets[number >> 2 & 255].append(number)
    straddling = 0
    for bucket in buckets:
        splits_of = Counter(number >> 2 for number in set(bucket))
        straddling += sum(1 for splits in splits_of.values() if splits > 1)
    return straddling

"""Mixing in: conversations of another set, a file or an export, beside the demonstrations of a project.

What is drawn depends on the seed, the name of the set and the place in it, and on nothing else: the same few of a set
come into every export, and more of it are those and others. A set is read several times, and nothing of it is kept in
memory but a number for each conversation.
"""

import hashlib
import logging
import os
from array import array
from collections.abc import Iterator, Set
from itertools import islice
from pathlib import Path

from annotate import exports, families
from annotate.datasets import demonstration_rows, shapes, stored
from annotate.datasets.demonstration_formats import alternates
from annotate.datasets.filters import EXPORT, Demonstrations, Mix
from annotate.datasets.incoming import files, formats
from annotate.datasets.incoming.items import Talk
from annotate.errors import Invalid
from annotate.models import Export, Project

logger = logging.getLogger(__name__)

MIXED = ("demonstrations", "conversations")
"""Exports of what can be mixed in, in the format `messages`."""

CHUNK = 500
"""Conversations whose families are found at once."""

EMPTY = {"string": "", "int64": 0, "float64": 0.0, "bool": False}


def _empty(shape: dict) -> dict:
    """An object of this shape that says nothing."""
    return {name: [] if isinstance(one, list) else EMPTY.get(one) if isinstance(one, str) else None
            for name, one in shape.items()}  # fmt: skip


TURN = _empty(shapes.TURN) | {"source": "imported"}
LINE = {"messages": [], "turns": []} | _empty(shapes.WRITTEN) | {"kind": "imported", "review_state": "none"}


def drawn(project: Project, filters: Demonstrations, own: int) -> Iterator[list[dict]]:
    """The whole lines of what is mixed in, each a group of its own, set by set in the order of each.

    `own` is how many conversations the export has itself, which weights go by. What is near to two splits is out
    before the draw, what the export has itself, and what came of a set before. Raises Invalid where a set cannot be
    read or mixed in.
    """
    taken: set[tuple[str, int]] = set()
    several = sum(mix.export is not None for mix in filters.mix) > 1
    for mix in filters.mix:
        for line in _drawn_of(_opened(mix, project), project, filters, mix, own, taken):
            yield [line]
            if several and line["conversation_id"] is not None:
                taken.add((line["project"], line["conversation_id"]))


def made_from(project: Project, filters: Demonstrations) -> list[str]:
    """What the sets are at this moment: the SHA-256 of each file, the digest of each export."""
    return [_opened(mix, project).digest() for mix in filters.mix]


def parents(project: Project, filters: Demonstrations) -> list[dict]:
    """What is mixed in as the manifest lists it: the file or export, its digest, and how many conversations it has."""
    return [_opened(mix, project).parent() for mix in filters.mix]


# --- The draw --------------------------------------------------------------------------------------------------------


def _drawn_of(
    source: "_File | _Export",
    project: Project,
    filters: Demonstrations,
    mix: Mix,
    own: int,
    taken: Set[tuple[str, int]],
) -> Iterator[dict]:
    keys = array("Q", (_key(filters.mix_seed, source.name, place) for place, _ in enumerate(source.talks())))
    wanted = round(mix.weight * own) if mix.count is None else mix.count
    if not keys or not wanted:
        if keys and mix.weight:
            logger.warning("Nothing of %s is mixed in: %s of %s conversations is none.", source.name, mix.weight, own)
        return
    # What is drawn from this set itself is not among it: each is there once.
    taken = frozenset(taken)
    bound = _bound_of_kept(source, project, filters, keys, wanted, taken)
    for _, line in _kept(source, project, filters, keys, taken, low=-1, high=bound):
        yield line


def _bound_of_kept(
    source: "_File | _Export",
    project: Project,
    filters: Demonstrations,
    keys: array,
    wanted: int,
    taken: Set[tuple[str, int]],
) -> int:
    """The key up to which so many can be kept, all where there are not so many."""
    kept: array = array("Q")
    looked, low = min(wanted, len(keys)), -1
    while True:
        high = _smallest(keys, looked)
        kept.extend(key for key, _ in _kept(source, project, filters, keys, taken, low=low, high=high))
        if len(kept) >= wanted:
            return _smallest(kept, wanted)
        if looked == len(keys):
            logger.warning("%s has %s conversations to mix in; %s were wanted.", source.name, len(kept), wanted)
            return high
        # As many more as are missing, should the share that is kept stay what it was.
        missing = wanted - len(kept)
        looked, low = min(len(keys), looked + max(missing, 2 * missing * looked // (len(kept) + 1))), high


def _kept(
    source: "_File | _Export",
    project: Project,
    filters: Demonstrations,
    keys: array,
    taken: Set[tuple[str, int]],
    *,
    low: int,
    high: int,
) -> Iterator[tuple[int, dict]]:
    """Of the conversations whose keys are in this range those that may be mixed in, with their families and splits."""
    within = ((keys[place], talk) for place, talk in enumerate(source.talks()) if low < keys[place] <= high)
    while chunk := list(islice(within, CHUNK)):
        lines = source.joined([source.line(talk) for _, talk in chunk])
        ours = source.ours(lines, filters)
        for (key, _), line in zip(chunk, lines, strict=True):
            fits = line["split"] != shapes.HELD_OUT and filters.split in (None, line["split"])
            here = line["conversation_id"]
            if fits and here not in ours and (line["project"], here) not in taken:
                yield key, line


def _key(seed: int, name: str, place: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{place}:{name}".encode("utf-8", "surrogatepass"), digest_size=8, person=b"mix")
    return int.from_bytes(digest.digest(), "big")


def _smallest(keys: array, count: int) -> int:
    """The greatest of the `count` smallest keys, which are spread evenly."""
    if count >= len(keys):
        return max(keys)
    counts = [0] * 2**16
    for key in keys:
        counts[key >> 48] += 1
    bucket = 0
    while count > counts[bucket]:
        count -= counts[bucket]
        bucket += 1
    return sorted(key for key in keys if key >> 48 == bucket)[count - 1]


# --- The sets --------------------------------------------------------------------------------------------------------


def _opened(mix: Mix, project: Project) -> "_File | _Export":
    if mix.export is not None:
        return _Export(exports.named(mix.export), project)
    return _File(Path(mix.name), project)


class _File:
    """A file in any format in which conversations come in."""

    def __init__(self, path: Path, project: Project):
        self.path, self.project, self.name = path, project, path.name
        self.signature = self._signature()

    def _signature(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise Invalid(f"mix: {self.path} cannot be read: {error.strerror}.") from None
        if not self.path.is_file():
            raise Invalid(f"mix: {self.path} is no file, which can be read more than once.")
        return found.st_size, found.st_mtime_ns

    def talks(self) -> Iterator[Talk]:
        """Its conversations that can be mixed in, in their order."""
        if self._signature() != self.signature:
            raise Invalid(f"mix: {self.name} was changed while it was read. Try again.")
        with files.lines_of(self.path, name=self.name) as rows:
            form = formats.recognise(rows.first(), rows.name)
            if form == formats.PROMPTS:
                raise Invalid(f"mix: {self.name} holds openings without answers, so that there is nothing to mix in.")
            for number, found in formats.read(rows, format=form, options=formats.Options()):
                if isinstance(found, formats.Bad):
                    raise Invalid(f"mix: {self.name} cannot be mixed in: line {number}: {found}.")
                yield from (talk for talk in found.talks if _answered([turn.role for turn in talk.turns]))

    def line(self, talk: Talk) -> dict:
        """The whole line of one, without its family and split."""
        turns = talk.turns[: _answered([turn.role for turn in talk.turns])]
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        if messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.project.system_message})
        return LINE | {
            "messages": messages,
            "turns": [TURN | {"position": position} for position in range(len(messages))],
            "source": self.name,
            "source_id": talk.source_id,
            "source_split": talk.split,
            "project": self.project.slug,
            "alternates": alternates(messages),
            "use_case": talk.use_case,
        }

    def joined(self, lines: list[dict]) -> list[dict]:
        """The lines with the families of their openings, which are of this project from now on."""
        return _joined(self.project, lines)

    def ours(self, lines: list[dict], filters: Demonstrations) -> set[int]:
        """Which of them the export has itself: they are from elsewhere."""
        return set()

    def digest(self) -> str:
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def parent(self) -> dict:
        return {"kind": "file", "name": self.name, "sha256": self.digest(), "conversations": _count(self)}


class _Export:
    """An export of demonstrations or conversations, read from the storage."""

    def __init__(self, export: Export, project: Project):
        if export.state != Export.State.DONE:
            raise Invalid(f"mix: export {export.pk} is {export.state}; only one that is done can be mixed in.")
        if export.what not in MIXED or export.format != "messages":
            raise Invalid(
                f"mix: export {export.pk} is {export.what} as {export.format}; what can be mixed in are "
                f"{' and '.join(MIXED)} as messages."
            )
        self.export, self.project, self.name = export, project, f"{EXPORT}{export.digest[:12]}"
        self.own_project = export.project_id == project.pk

    def talks(self) -> Iterator[dict]:
        """Its lines that can be mixed in, in the order of its files."""
        for name, described in sorted(self.export.manifest["files"].items()):
            if "rows" in described:
                with stored.opened(self.export, name) as file, files.lines_of(file, name=name) as rows:
                    for number, row in rows:
                        if isinstance(row, formats.Bad):
                            raise Invalid(f"mix: {name} of export {self.export.pk}: line {number}: {row}.")
                        if _answered([message["role"] for message in row["messages"]]):
                            yield row

    def line(self, row: dict) -> dict:
        """The whole line of one. Those of another project have no family and split of this one yet."""
        messages = row["messages"][: _answered([message["role"] for message in row["messages"]])]
        line = LINE | {name: row[name] for name in LINE if name in row}
        line |= {
            "messages": messages,
            "turns": [TURN | turn for turn in row["turns"][: len(messages)]],
            "source": self.name,
            "alternates": alternates(messages),
        }
        if not self.own_project:
            line |= {"source_split": line["source_split"] or line["split"], "iteration": None, "guidelines": None}
        return line

    def joined(self, lines: list[dict]) -> list[dict]:
        """The lines with their families: those that they have, where they are of this project."""
        return lines if self.own_project else _joined(self.project, lines)

    def ours(self, lines: list[dict], filters: Demonstrations) -> set[int]:
        """Which of them the export has itself."""
        if not self.own_project:
            return set()
        ids = [line["conversation_id"] for line in lines if line["conversation_id"] is not None]
        counting = demonstration_rows.conversations(project=self.project, filters=filters)
        return set(counting.filter(pk__in=ids).values_list("pk", flat=True))

    def digest(self) -> str:
        return self.export.digest

    def parent(self) -> dict:
        one = self.export
        return {
            "kind": "export",
            "name": f"{one.what} {one.format}",
            "export": one.pk,
            "digest": one.digest,
            "conversations": _count(self),
        }


def _count(source: _File | _Export) -> int:
    """How many conversations a set has that can be mixed in."""
    return sum(1 for _ in source.talks())


def _joined(project: Project, lines: list[dict]) -> list[dict]:
    found = families.join(project=project, texts=[_opening(line) for line in lines])
    begun_by = families.begun_by(project, found)
    return [
        line | {"family": family, "split": families.split(project, family, begun_by.get(family))}
        for line, family in zip(lines, found, strict=True)
    ]


def _opening(line: dict) -> str:
    return next(message["content"] for message in line["messages"] if message["role"] == "user")


def _answered(roles: list[str]) -> int:
    """How many messages there are up to the last answer; 0 where nobody asked, or nobody answered."""
    while roles and roles[-1] != "assistant":
        roles.pop()
    return len(roles) if "user" in roles else 0

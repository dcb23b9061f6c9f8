"""Conversations and rankings into the record, by COPY: thousands of rows a statement, and no object of Django's.

Rows are made as lines of COPY's text format. What a conversation or a ranking is told by:

- A conversation by its digest, over role, text and id of its turns, or by its name in its source.
- A message by its id in its source. One without an id is given a digest of itself and of all before it, so that a
  beginning that several conversations share counts once.
- A ranking by its id in its source, or a digest of its context and of its answers in their order.

A system message that the file has not, and that is added, is no part of any digest: the same file brought in later
with another one brings nothing new.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import orjson
from django.db import connection
from django.utils import timezone

from annotate.datasets.incoming.items import Bad, Item, Judged, Talk, Turn
from annotate.datasets.incoming.reports import Report
from annotate.models import Import

MESSAGES, BYTES = 5_000, 8 * 2**20
"""Messages and bytes of text that are collected before they are written: enough that a statement costs little beside
its rows, few enough that memory stays small."""

PIECE = 128 * 1024
"""Bytes that are handed to COPY at once: the conversations of a tree may be many times as long as the tree."""

ANSWERS = 1_000
"""Answers that one ranking may have."""

COLUMNS = {
    "annotate_conversation": "id, project_id, kind, state, family, created_at, finished_at, imported_in_id, source_id, "
    "digest, facts",
    "annotate_message": "id, conversation_id, position, role, text, source, source_id, facts, created_at",
    "annotate_comparison": "id, message_id, source_id, k, selection, pool_id, project_id, imported_in_id, state, "
    "overlap, draw_seed, draw_size, draw_index, reason, created_at, opened_at, closed_at",
    "annotate_completion": "id, kind, text, source_id, model, rejected, created_at",
    "annotate_candidate": "id, comparison_id, completion_id, original",
    "annotate_ranking": "id, comparison_id, all_bad, kind, current, active_seconds, created_at",
    "annotate_rankedcandidate": "ranking_id, candidate_id, rank, flags",
}
"""What is copied into which table. All other columns have defaults in the database."""

SEQUENCES = "SELECT name, pg_get_serial_sequence(name, 'id') FROM unnest(%s::text[]) name"

# The planner knows nothing of the rows of this transaction. Left to itself it takes any index that begins with the
# project, and reads all of a project for each row that is wanted. So the looks below ask for rows in the order of the
# one index that is right, between equal bounds as an equality would do away with the order, and sorting is forbidden.
BY_INDEX = "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"

BY_DIGEST = """
SELECT there.digest, there.id, there.imported_in_id FROM unnest(%s::text[]) wanted(digest), LATERAL (
    SELECT digest, id, imported_in_id FROM annotate_conversation
    WHERE project_id = %s AND kind = 'imported' AND digest >= wanted.digest AND digest <= wanted.digest
    ORDER BY digest OFFSET 0) there
"""

# Ids tell what other imports of the same source brought. Within one file they say nothing: where two of its rows have
# the same id and differ, both come in.
BY_NAME = """
SELECT there.source_id, there.id FROM unnest(%s::text[]) wanted(name), LATERAL (
    SELECT source_id, id, imported_in_id FROM annotate_conversation
    WHERE project_id = %s AND kind = 'imported' AND source_id >= wanted.name AND source_id <= wanted.name
    ORDER BY source_id OFFSET 0) there, LATERAL (
    SELECT id FROM annotate_import
    WHERE id = there.imported_in_id AND source = %s AND id <> %s OFFSET 0) brought
"""

RANKED_ALREADY = """
SELECT there.source_id, import.source FROM unnest(%s::text[]) wanted(name), LATERAL (
    SELECT source_id, imported_in_id FROM annotate_comparison
    WHERE project_id = %s AND imported_in_id IS NOT NULL AND source_id >= wanted.name AND source_id <= wanted.name
    ORDER BY source_id OFFSET 0) there
JOIN annotate_import import ON import.id = there.imported_in_id
"""

MESSAGES_OF = """
SELECT wanted.conversation_id, wanted.name, there.id
FROM unnest(%s::bigint[], %s::text[]) wanted(conversation_id, name), LATERAL (
    SELECT id FROM annotate_message
    WHERE conversation_id = wanted.conversation_id AND source_id = wanted.name OFFSET 0) there
"""

NO_FACTS = rb"\N"


@dataclass(slots=True)
class _Said:
    """A conversation that waits to be written."""

    digest: str
    source_id: str
    facts: bytes
    turns: list[bytes]
    """Each the end of its line, from the role on."""
    names: list[str]
    """What each turn is called."""
    begins_with_system: bool
    twin: "_Said | None" = None
    """The same one that came before it and waits too."""
    conversation_id: int = 0
    message_ids: list[int] | None = None
    """Of its turns; None where it was there already."""


@dataclass(slots=True)
class _Ranked:
    """A ranking that waits to be written."""

    said: _Said
    message: str
    """What the selected turn is called."""
    names: list[str]
    """What it may be called itself; the second name is for where another source has given the first one away."""
    answers: list[tuple[bytes, int]]
    """Of each the end of its line and its place."""
    original: int
    all_bad: bool
    uncertain: bool
    message_id: int = 0


class Copying:
    """Writes items into the record, within the transaction that is open. `system` is added to talks without one."""

    def __init__(self, *, imported_in: Import, system: str, report: Report):
        self._import = imported_in
        self._report = report
        self._now = timezone.now().isoformat().encode()
        self._system = b"".join(self._line("system", _bytes(system), b"", NO_FACTS)) if system else b""
        self._said: list[_Said] = []
        self._ranked: list[_Ranked] = []
        self._messages = self._bytes = 0
        self._sequences = dict(_rows(SEQUENCES, [list(COLUMNS)]))
        self.only_checks = False
        """Whether items are only looked at, and nothing is written any more."""
        with connection.cursor() as cursor:
            # Checked by the statement, as the rows that they refer to are there first. Put off to the end, millions of
            # checks would fill the server's memory and make the commit long.
            cursor.execute(f"SET CONSTRAINTS ALL IMMEDIATE; {BY_INDEX}")

    def add(self, item: Item) -> None:
        """Take what came of one line. Raises Bad, and takes nothing of it, where the database cannot hold it."""
        shared: dict[int, tuple[bytes, bytes, bytes, bytes]] = {}
        said = [self._conversation(talk, shared) for talk in item.talks]
        ranked = [self._ranking(judged, item.talks[judged.talk], said[judged.talk]) for judged in item.judged]
        self._said += said
        self._ranked += ranked
        self._messages += sum(len(one.turns) for one in said) + sum(len(one.answers) for one in ranked)
        # What the conversations of a tree share is held once.
        self._bytes += sum(len(before) for _, before, _, _ in shared.values())
        self._bytes += sum(len(line) for one in ranked for line, _ in one.answers)
        if self._messages >= MESSAGES or self._bytes >= BYTES:
            self.flush()

    def finish(self) -> None:
        """Write what still waits, and leave the transaction as it was."""
        self.flush()
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")

    def flush(self) -> None:
        """Write what waits."""
        if not self.only_checks:
            self._write_conversations(self._new_conversations())
            self._write_rankings(self._new_rankings())
        self._said, self._ranked, self._messages, self._bytes = [], [], 0, 0

    # --- Lines -------------------------------------------------------------------------------------------------------

    def _conversation(self, talk: Talk, shared: dict[int, tuple[bytes, bytes, bytes, bytes]]) -> _Said:
        said = hashlib.sha256()
        turns, names = [], []
        for turn in talk.turns:
            known = shared.get(id(turn))
            if known is None:
                known = shared[id(turn)] = self._turn(turn)
            framed, before, after, line = known
            said.update(framed)
            if line:
                turns.append(line)
                names.append(turn.source_id)
            else:
                name = f"sha256:{said.copy().hexdigest()[:32]}"
                turns.append(b"%b%b%b" % (before, name.encode(), after))
                names.append(name)
        _bytes(talk.source_id)
        return _Said(
            digest=said.hexdigest(),
            source_id=talk.source_id,
            facts=_facts(_facts_of(talk)),
            turns=turns,
            names=names,
            begins_with_system=talk.turns[0].role == "system",
        )

    def _turn(self, turn: Turn) -> tuple[bytes, bytes, bytes, bytes]:
        """What of a turn goes into a digest, its line before and after its name, and its whole line if it has one."""
        text, source_id = _bytes(turn.text), _bytes(turn.source_id)
        framed = b"%b:%d:%b:%d:%b" % (turn.role.encode(), len(text), text, len(source_id), source_id)
        before, name, after = self._line(turn.role, text, source_id, _facts(turn.facts))
        return framed, before, after, before + name + after if source_id else b""

    def _line(self, role: str, text: bytes, source_id: bytes, facts: bytes) -> tuple[bytes, bytes, bytes]:
        before = b"%b\t%b\timported\t" % (role.encode(), _escaped(text))
        return before, _escaped(source_id), b"\t%b\t%b\n" % (facts, self._now)

    def _ranking(self, judged: Judged, talk: Talk, said: _Said) -> _Ranked:
        if len(judged.answers) > ANSWERS:
            raise Bad(f"it ranks {len(judged.answers):,} answers; {ANSWERS:,} may be ranked")
        selected = talk.turns[judged.position]
        answers, original = [], None
        for number, answer in enumerate(judged.answers):
            line = b"imported\t%b\t%b\t%b\t\t%b\n" % (
                *(_escaped(_bytes(told)) for told in (answer.text, answer.source_id, answer.model)), self._now
            )  # fmt: skip
            answers.append((line, answer.rank))
            if answer.text == selected.text:
                original = number
        if original is None:
            raise Bad("none of the ranked answers is the turn of the conversation")
        context = said.names[judged.position - 1] if judged.position else ""
        _bytes(judged.source_id)
        names = _names_of_ranking(judged, context, self._import.source)
        return _Ranked(said, said.names[judged.position], names, answers, original, judged.all_bad, judged.uncertain)

    # --- What is new -------------------------------------------------------------------------------------------------

    def _new_conversations(self) -> list[_Said]:
        """Those that the project has not. Of the others it is kept where they are, and they are counted."""
        job, report = self._import, self._report
        digests = _rows(BY_DIGEST, [[one.digest for one in self._said], job.project_id])
        by_digest = {digest: (pk, import_id) for digest, pk, import_id in digests}
        named = [one.source_id for one in self._said if one.source_id]
        rows = _rows(BY_NAME, [named, job.project_id, job.source, job.pk]) if named else []
        # Of several the first one, which is the last here.
        by_name = dict(sorted(rows, key=itemgetter(1), reverse=True))
        new: dict[str, _Said] = {}
        for one in self._said:
            if one.digest in by_digest:
                one.conversation_id, import_id = by_digest[one.digest]
                if import_id == job.pk:
                    report.twice += 1
                else:
                    report.there_already += 1
            elif one.digest in new:
                one.twin = new[one.digest]
                report.twice += 1
            elif one.source_id in by_name:
                one.conversation_id = by_name[one.source_id]
                report.changed_since += 1
            else:
                new[one.digest] = one
        return list(new.values())

    def _new_rankings(self) -> list[_Ranked]:
        """Those that the project has not, with the messages that they are of; the conversations are written."""
        if not self._ranked:
            return []
        wanted = [name for one in self._ranked for name in one.names]
        taken = dict(_rows(RANKED_ALREADY, [wanted, self._import.project_id]))
        new = []
        for one in self._ranked:
            name = next((name for name in one.names if taken.get(name, "") in ("", self._import.source)), one.names[-1])
            if name in taken:
                self._report.comparisons_there_already += 1
                continue
            one.names = [name]
            taken[name] = self._import.source
            new.append(one)
        return self._with_messages(new)

    def _with_messages(self, ranked: list[_Ranked]) -> list[_Ranked]:
        """Those whose message is in the record, each told which it is."""
        elsewhere: list[_Ranked] = []
        for one in ranked:
            said = one.said.twin or one.said
            if said.message_ids is None:
                elsewhere.append(one)
            else:
                one.message_id = said.message_ids[said.names.index(one.message)]
        if elsewhere:
            wanted = [(one.said.conversation_id, one.message) for one in elsewhere]
            ids, names = map(list, zip(*wanted, strict=True))
            found = {(pk, name): message_id for pk, name, message_id in _rows(MESSAGES_OF, [ids, names])}
            for one, place in zip(elsewhere, wanted, strict=True):
                one.message_id = found.get(place, 0)
        there = [one for one in ranked if one.message_id]
        self._report.comparisons_without_message += len(ranked) - len(there)
        return there

    # --- Rows --------------------------------------------------------------------------------------------------------

    def _write_conversations(self, new: list[_Said]) -> None:
        if not new:
            return
        job = self._import
        added = [0 if one.begins_with_system or not self._system else 1 for one in new]
        count = sum(len(one.turns) for one in new) + sum(added)
        ids = iter(self._ids("annotate_conversation", len(new)))
        message_ids = iter(self._ids("annotate_message", count))
        after = b"%d\timported\tfinished\t\t%b\t%b\t%d" % (job.project_id, self._now, self._now, job.pk)
        conversations = []
        for one in new:
            one.conversation_id = next(ids)
            conversations.append(
                b"%d\t%b\t%b\t%b\t%b\n"
                % (one.conversation_id, after, _escaped(one.source_id.encode()), one.digest.encode(), one.facts)
            )
        _copy("annotate_conversation", conversations)
        _copy("annotate_message", self._message_lines(new, added, message_ids))
        self._report.conversations += len(new)
        self._report.messages += count
        self._report.system_messages += sum(added)

    def _message_lines(self, new: list[_Said], added: list[int], message_ids: Iterator[int]) -> Iterator[bytes]:
        for one, first in zip(new, added, strict=True):
            conversation_id = one.conversation_id
            if first:
                yield b"%d\t%d\t0\t%b" % (next(message_ids), conversation_id, self._system)
            one.message_ids = []
            for position, line in enumerate(one.turns, first):
                message_id = next(message_ids)
                one.message_ids.append(message_id)
                yield b"%d\t%d\t%d\t%b" % (message_id, conversation_id, position, line)

    def _write_rankings(self, new: list[_Ranked]) -> None:
        if not new:
            return
        job, now = self._import, self._now
        count = sum(len(one.answers) for one in new)
        comparison_ids, ranking_ids = (self._ids(f"annotate_{name}", len(new)) for name in ("comparison", "ranking"))
        completion_ids, candidate_ids = (self._ids(f"annotate_{name}", count) for name in ("completion", "candidate"))
        comparisons, completions, candidates, rankings, places = [], [], [], [], []
        after = b"%d\t%d\tclosed\t1\t\t1\t0\t\t%b\t%b\t%b\n" % (job.project_id, job.pk, now, now, now)
        pairs = iter(zip(completion_ids, candidate_ids, strict=True))
        for one, comparison_id, ranking_id in zip(new, comparison_ids, ranking_ids, strict=True):
            name = _escaped(one.names[0].encode())
            # What was chosen from a pool makes a pool by itself.
            selected = b"uncertain\t%d" % comparison_id if one.uncertain else b"random\t\\N"
            comparisons.append(
                b"%d\t%d\t%b\t%d\t%b\t%b" % (comparison_id, one.message_id, name, len(one.answers), selected, after)
            )
            all_bad = b"t" if one.all_bad else b"f"
            rankings.append(b"%d\t%d\t%b\timported\tt\t0\t%b\n" % (ranking_id, comparison_id, all_bad, now))
            for number, (line, rank) in enumerate(one.answers):
                completion_id, candidate_id = next(pairs)
                original = b"t" if number == one.original else b"f"
                completions.append(b"%d\t%b" % (completion_id, line))
                candidates.append(b"%d\t%d\t%d\t%b\n" % (candidate_id, comparison_id, completion_id, original))
                places.append(b"%d\t%d\t%d\t{}\n" % (ranking_id, candidate_id, rank))
        _copy("annotate_comparison", comparisons)
        _copy("annotate_completion", completions)
        _copy("annotate_candidate", candidates)
        _copy("annotate_ranking", rankings)
        _copy("annotate_rankedcandidate", places)
        self._report.comparisons += len(new)

    def _ids(self, table: str, count: int) -> list[int]:
        rows = _rows("SELECT nextval(%s::regclass) FROM generate_series(1, %s)", [self._sequences[table], count])
        return [pk for (pk,) in rows]


def _copy(table: str, lines: Iterable[bytes]) -> None:
    with connection.wrap_database_errors, connection.cursor() as cursor:  # noqa: SIM117
        with cursor.copy(f"COPY {table} ({COLUMNS[table]}) FROM STDIN") as copy:
            piece, size = [], 0
            for line in lines:
                piece.append(line)
                size += len(line)
                if size >= PIECE:
                    copy.write(b"".join(piece))
                    piece, size = [], 0
            copy.write(b"".join(piece))


def _rows(sql: str, given: list) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, given)
        return cursor.fetchall()


def _bytes(text: str) -> bytes:
    """UTF-8. Raises Bad where the database could not hold it."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise Bad("it holds half a character (a lone surrogate)") from None
    if b"\x00" in data:
        raise Bad("it holds a character NUL")
    return data


def _escaped(data: bytes) -> bytes:
    """As a field of COPY's text format."""
    if b"\\" in data:
        data = data.replace(b"\\", rb"\\")
    return data.replace(b"\n", rb"\n").replace(b"\t", rb"\t").replace(b"\r", rb"\r")


def _facts(facts: dict | None) -> bytes:
    """As a field of type jsonb. Raises Bad where the database could not hold it."""
    if not facts:
        return NO_FACTS
    try:
        written = orjson.dumps(facts)
    except orjson.JSONEncodeError:
        raise Bad("what it says beside its text cannot be kept: it is nested too deep or no JSON") from None
    if rb"\u0000" in written:
        raise Bad("what it says beside its text holds a character NUL")
    return _escaped(written)


def _facts_of(talk: Talk) -> dict | None:
    """What a row says beside its turns, with the names of its split and its use case where they are told apart."""
    told = {"split": talk.split, "use_case": talk.use_case}
    told = {key: value for key, value in told.items() if value and value != (talk.facts or {}).get(key)}
    return (talk.facts or {}) | told if told else talk.facts


def _names_of_ranking(judged: Judged, context: str, source: str) -> list[str]:
    if judged.source_id:
        qualified = hashlib.sha256(f"{len(source)}:{source}:{judged.source_id}".encode())
        return [judged.source_id, f"sha256:{qualified.hexdigest()}"]
    digest = hashlib.sha256(context.encode())
    for rank, text in sorted((answer.rank, answer.text) for answer in judged.answers):
        data = text.encode()
        digest.update(b"%d:%d:%b" % (rank, len(data), data))
    return [f"sha256:{digest.hexdigest()}"]

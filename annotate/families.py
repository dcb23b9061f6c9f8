"""Families of openings. One decides the split of all that was made from it, for ever.

An opening is decided at first sight and never again, so that the same words cannot come into two splits: it joins the
family of an opening that it is near to, else the one that its prompt is of, else it begins its own. Families never
merge. What is near to openings of two splits is held out of all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from annotate import derive, likeness
from annotate.models import Conversation, FamilyMember, Project, Prompt, SplitBy, User

LOCK = 0x66616D69
"""The first half of the advisory lock under which new openings of a project are decided; its id is the second."""

CHUNK = 500
"""Openings that are joined in one transaction; people who finish something new wait for no more than one chunk."""

CHARACTERS = 200_000
"""Characters of openings after which a chunk ends: long ones that have much in common with others, yet are not near to
them, take long to compare."""

FEW = 1000
"""So many openings without a family are joined in passing."""

SHARERS = 50
"""How many members that share one key are looked at. More means boilerplate that everything shares."""

READ = 10
"""Of how many families an opening is compared with members."""

OF_EACH = 2
"""With how many members of each family, those that share most keys."""

# One look into the index a key, and OFFSET 0, as in likeness. Keys that several new openings have are looked for once.
SHARING = """
WITH wanted AS (SELECT * FROM unnest(%(places)s::int[], %(keys)s::bigint[]) wanted(place, key)),
sharer AS (
    SELECT one_key.key, one.id, one.family FROM (SELECT DISTINCT key FROM wanted) one_key, LATERAL (
        SELECT sharing.id, sharing.family FROM (
            SELECT id, family, project_id FROM annotate_familymember WHERE near @> ARRAY[one_key.key] OFFSET 0) sharing
        WHERE sharing.project_id = %(project)s
        LIMIT %(sharers)s) one
), counted AS (
    SELECT place, id, family, count(*) AS shared FROM wanted JOIN sharer USING (key) GROUP BY place, id, family
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY place, family ORDER BY shared DESC, id) AS of_family FROM counted
)
SELECT place, id, family, shared FROM numbered WHERE of_family <= %(of_each)s
ORDER BY place, shared DESC, id
"""

# Without a plan that is compiled: it costs more than these statements.
PLAIN = "SET LOCAL jit = off"


@dataclass(slots=True)
class Opening:
    """A new opening while it is decided."""

    member: str
    text: str
    near: list[int]
    family: str = ""
    apart: likeness.Apart | None = None


@dataclass(slots=True)
class Sharers:
    """Decided openings that share keys with a new one, by family: ids of stored ones, and new ones before it."""

    stored: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    new: dict[str, list[Opening]] = field(default_factory=lambda: defaultdict(list))
    shared: Counter = field(default_factory=Counter)


def join(*, project: Project, texts: list[str], nearest: str = "", author: User | None = None) -> list[str]:
    """The families of openings, in their order. One that is new and near to none joins `nearest` or begins its own.

    `author` is for whom they are joined: splits by author go by the one who began a family. While something new is
    decided others wait, so that of two that come at once and are alike only one begins a family.
    """
    members = [derive.family_of(text) for text in texts]
    known = _known(project, members)
    new = {member: text for member, text in zip(members, texts, strict=True) if member not in known}
    if new:
        known |= _decide(project, new, nearest, author)
    return [known[member] for member in members]


def stay(*, project: Project, text: str, family: str, author: User | None = None) -> str:
    """The family of what takes the place of a work of `family`, or branched from it, and begins with this text.

    Where the words are of another family whose split is another one, the work goes with neither: it is held out.
    """
    (found,) = join(project=project, texts=[text], nearest=family, author=author)
    authors = begun_by(project, [found, family])
    if split(project, found, authors.get(found)) == split(project, family, authors.get(family)):
        return found
    return derive.held_out(f"{found} {family}")


def split(project: Project, family: str, begun_by: int | None) -> str:
    """The split of a family. `begun_by` is the id of its first author, where it has one; it counts in splits by author.

    Imported families, and all in splits by family, go by the family's own name.
    """
    if project.split_by == SplitBy.AUTHOR and begun_by is not None and not family.startswith(derive.HELD_OUT):
        return derive.split_of_author(project.secret, begun_by)
    return derive.split_of(project.secret, family)


def _known(project: Project, members: Iterable[str]) -> dict[str, str]:
    return {member: family for member, family, _ in _members(project, members)}


# One look into the index a member, and OFFSET 0, so that it stays so: while thousands come in, the planner knows of
# few, and would read all that the project has.
MEMBERS = """
SELECT member.member, member.family, member.author_id FROM unnest(%(members)s::text[]) wanted(member), LATERAL (
    SELECT member, family, author_id FROM annotate_familymember
    WHERE project_id = %(project)s AND member = wanted.member OFFSET 0) member
"""


def _members(project: Project, members: Iterable[str]) -> list[tuple[str, str, int | None]]:
    with connection.cursor() as cursor:
        cursor.execute(MEMBERS, {"project": project.pk, "members": list(dict.fromkeys(members))})
        return cursor.fetchall()


def begun_by(project: Project, families: Iterable[str]) -> dict[str, int]:
    """The ids of those who began these families, as `split` wants them: where somebody did and it matters."""
    if project.split_by != SplitBy.AUTHOR:
        return {}
    return {member: author for member, _, author in _members(project, families) if author is not None}


# --- What is new -----------------------------------------------------------------------------------------------------


@transaction.atomic
def _decide(project: Project, new: dict[str, str], nearest: str, author: User | None) -> dict[str, str]:
    """Store the families of new openings, given by member. Call it with few: others wait meanwhile."""
    openings = [Opening(member, text, likeness.bands(text)) for member, text in new.items()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK, project.pk])
    known = _known(project, list(new))
    openings = [opening for opening in openings if opening.member not in known]
    if openings:
        _find_families(project, openings, nearest, author)
        _store(project, openings, author)
    return known | {opening.member: opening.family for opening in openings}


def _find_families(project: Project, openings: list[Opening], nearest: str, author: User | None) -> None:
    """Give each opening its family, in their order: what comes later may join what came before."""
    found = _sharers(project, openings)
    authors = begun_by(project, {family for sharers in found.values() for family in sharers.stored})
    by_key: dict[int, list[Opening]] = defaultdict(list)
    for place, opening, stored in _with_stored(openings, found):
        sharers = found.pop(place, None) or Sharers()
        for key in opening.near:
            for other in by_key[key]:
                sharers.new[other.family].append(other)
                sharers.shared[other.family] += 1
        near = _near(opening, sharers, stored)
        opening.family = _family(opening, near, nearest, lambda family: split(project, family, authors.get(family)))
        if author is not None and opening.family == opening.member and project.split_by == SplitBy.AUTHOR:
            authors[opening.member] = author.pk
        for key in opening.near:
            if len(by_key[key]) < SHARERS:
                by_key[key].append(opening)


def _sharers(project: Project, openings: list[Opening]) -> dict[int, Sharers]:
    """The stored openings that share keys with each, by its place."""
    pairs = [(place, key) for place, opening in enumerate(openings) for key in opening.near]
    found: dict[int, Sharers] = defaultdict(Sharers)
    if not pairs:
        return found
    places, keys = zip(*pairs, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(PLAIN)
        cursor.execute(
            SHARING,
            {
                "places": list(places),
                "keys": list(keys),
                "project": project.pk,
                "sharers": SHARERS,
                "of_each": OF_EACH,
            },
        )
        for place, pk, family, shared in cursor:
            sharers = found[place]
            if family in sharers.stored or len(sharers.stored) < READ:
                sharers.stored[family].append(pk)
                sharers.shared[family] += shared
    return found


def _with_stored(
    openings: list[Opening], found: dict[int, Sharers], step: int = 50
) -> Iterator[tuple[int, Opening, dict[int, likeness.Apart]]]:
    """Each opening with its place and the stored ones that it is compared with, read for a few at a time."""
    numbered = enumerate(openings)
    while batch := list(islice(numbered, step)):
        ids = {pk for place, _ in batch if place in found for pks in found[place].stored.values() for pk in pks}
        texts = FamilyMember.objects.filter(pk__in=ids).values_list("pk", "text") if ids else []
        stored = {pk: likeness.Apart(text) for pk, text in texts}
        for place, opening in batch:
            yield place, opening, stored


def _near(opening: Opening, sharers: Sharers, stored: dict[int, likeness.Apart]) -> dict[str, float]:
    """The families that the opening is near to, with how near it is to the first such member of each."""
    near: dict[str, float] = {}
    if not sharers.shared:
        return near
    opening.apart = likeness.Apart(opening.text)
    for family, _ in sharers.shared.most_common(READ):
        others = [stored[pk] for pk in sharers.stored.get(family, []) if pk in stored]
        new = list({other.member: other for other in sharers.new.get(family, [])}.values())[:OF_EACH]
        for other in [*others, *(one.apart or likeness.Apart(one.text) for one in new)]:
            if (alike := opening.apart.likeness(other)) >= likeness.LIKE:
                near[family] = alike
                break
    return near


def _family(opening: Opening, near: dict[str, float], nearest: str, split_of: Callable[[str], str]) -> str:
    if not near:
        return nearest or opening.member
    families = sorted(near, key=lambda family: (-near[family], family))
    if len({split_of(family) for family in families}) == 1:
        return families[0]
    # Near to what is held out already, it joins that.
    held_out = (family for family in families if family.startswith(derive.HELD_OUT))
    return next(held_out, None) or derive.held_out(opening.member)


def _store(project: Project, openings: list[Opening], author: User | None) -> None:
    author_id = author and author.pk
    copy = "COPY annotate_familymember (project_id, member, family, text, near, author_id) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(copy) as rows:
        for one in openings:
            text = one.text[: likeness.LONG]
            rows.write_row((project.pk, one.member, one.family, text, _array(one.near), author_id))


def _array(keys: list[int]) -> str:
    """Keys as PostgreSQL reads an array: a list that psycopg writes item by item takes ten times as long."""
    return f"{{{','.join(map(str, keys))}}}"


# --- What was brought in without a family ----------------------------------------------------------------------------

# Locked, so that two who join at once do not do the same work; the second one waits and goes on behind.
PENDING_CONVERSATIONS = """
SELECT pending.id, coalesce(opening.text, ''),
    CASE WHEN pending.near = '{}' THEN coalesce(said.text, '') END
FROM (
    SELECT id, near FROM annotate_conversation
    WHERE project_id = %(project)s AND kind = 'imported' AND family = '' AND id > %(after)s
    ORDER BY id LIMIT %(most)s FOR NO KEY UPDATE) pending
LEFT JOIN LATERAL (
    SELECT text FROM annotate_message
    WHERE conversation_id = pending.id AND role <> 'system' ORDER BY role <> 'user', position LIMIT 1) opening ON true
LEFT JOIN LATERAL (
    SELECT left(string_agg(left(text, %(long)s), E'\\n\\n' ORDER BY position), %(long)s) AS text
    FROM annotate_message WHERE conversation_id = pending.id AND role <> 'system') said ON true
ORDER BY pending.id
"""

PENDING_PROMPTS = """
SELECT id, text, CASE WHEN near = '{}' THEN left(text, %(long)s) END FROM annotate_prompt
WHERE project_id = %(project)s AND family = '' AND id > %(after)s
ORDER BY id LIMIT %(most)s FOR NO KEY UPDATE
"""

JOINED = """
UPDATE {table} pending SET family = given.family, near = coalesce(given.near::bigint[], pending.near)
FROM unnest(%(ids)s::bigint[], %(families)s::text[], %(near)s::text[]) given(id, family, near)
WHERE pending.id = given.id
"""


def join_pending(*, project: Project, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Find the families of imported conversations and prompts that have none yet. How many were joined.

    A chunk a transaction, so that what was done stays done. `progress` is told how many of how many are done. Keys
    that near-duplicates share are filled beside, where they are missing. Call it outside a transaction.
    """
    kinds = [(Prompt, PENDING_PROMPTS), (Conversation, PENDING_CONVERSATIONS)]
    total = sum(pending(table, project).count() for table, _ in kinds)
    done = 0
    for table, statement in kinds:
        # What another one who joins has not committed yet was passed by, or waited for and done.
        while pending(table, project).exists():
            after, most = 0, CHUNK
            while chunk := _join_chunk(project, table, statement, after, most):
                after, joined = chunk
                # Where they are long, no more are read than are likely to be joined.
                most = min(CHUNK, 2 * joined)
                done += joined
                progress(done, max(done, total))
    return done


def join_few() -> int:
    """Find the families of what was left without one, in projects where it is little. How many were joined."""
    joined = 0
    waits = Exists(pending(Prompt, OuterRef("pk"))) | Exists(pending(Conversation, OuterRef("pk")))
    for project in Project.objects.filter(waits):
        if sum(pending(table, project)[:FEW].count() for table in (Prompt, Conversation)) < FEW:
            joined += join_pending(project=project)
    return joined


def pending(table: type[Conversation] | type[Prompt], project: Project | OuterRef) -> QuerySet:
    """The rows of a project that wait for a family."""
    rows = table.objects.filter(project=project, family="")
    return rows.filter(kind=Conversation.Kind.IMPORTED) if table is Conversation else rows


@transaction.atomic
def _join_chunk(project: Project, table: type, statement: str, after: int, most: int) -> tuple[int, int] | None:
    """Join the next rows behind the id `after`: the last id and how many they were. None where none is left."""
    ids, openings, near, size = [], [], [], 0
    given = {"project": project.pk, "after": after, "most": most, "long": likeness.LONG}
    with connection.chunked_cursor() as cursor:
        # A few at a time: of each text only what is kept stays in memory.
        cursor.itersize = 10
        cursor.execute(statement, given)
        for pk, opening, whole in cursor:
            ids.append(pk)
            openings.append(opening)
            near.append(None if whole is None else _array(likeness.bands(whole)))
            size += min(len(opening), likeness.LONG)
            if size >= CHARACTERS:
                break
    if not ids:
        return None
    families = join(project=project, texts=openings)
    with connection.cursor() as cursor:
        cursor.execute(JOINED.format(table=table._meta.db_table), {"ids": ids, "families": families, "near": near})
    return ids[-1], len(ids)

"""Reads what the lines of conversations of every kind are made of, and what trees are made of."""

from array import array
from collections.abc import Iterator

import orjson
from django.db import connection
from django.db.models import QuerySet

from annotate.datasets import persons
from annotate.datasets.demonstration_rows import theirs
from annotate.datasets.filters import Conversations as Filters
from annotate.datasets.reading import as_array, read, streamed
from annotate.models import Conversation, Project


def conversations(*, project: Project, filters: Filters) -> QuerySet[Conversation]:
    """The finished conversations that are wanted; their split is left to the lines."""
    found = Conversation.objects.filter(project=project, state=Conversation.State.FINISHED)
    if filters.kinds is not None:
        found = found.filter(kind__in=filters.kinds)
    if filters.iteration is not None:
        found = found.filter(iteration__number=filters.iteration)
    if filters.since is not None:
        found = found.filter(finished_at__gte=filters.since)
    if filters.without:
        people = persons.named(project=project, pseudonyms=filters.without)
        found = found.exclude(pk__in=theirs(project, people))
    return found


def keys(project: Project, filters: Filters) -> Iterator[tuple[int, int]]:
    """The conversations by id, each a group of its own."""
    found = conversations(project=project, filters=filters).order_by("id")
    return streamed(found.values_list("id", "id"))


TREES = """
SELECT min(id) OVER (PARTITION BY name), id FROM (
    SELECT wanted.id, (
        SELECT first.source_id || ':' || md5(first.text)
        FROM annotate_message first
        WHERE first.conversation_id = wanted.id AND first.role <> 'system' ORDER BY first.position LIMIT 1
    ) AS name
    FROM ({wanted}) wanted
) named
ORDER BY 1, 2
"""
"""The conversations, each with the first one that has the same beginning: by the words of its first message, and by the
name of that in the file that it came from."""


def tree_keys(project: Project, filters: Filters) -> Iterator[tuple[int, int]]:
    """The conversations, those with one beginning together, in the order of the first of them."""
    wanted, given = conversations(project=project, filters=filters).values("id").query.sql_with_params()
    with connection.chunked_cursor() as cursor:
        cursor.execute(TREES.format(wanted=wanted), given)
        while rows := cursor.fetchmany(10_000):
            yield from rows


CONVERSATIONS = """
SELECT conversation.id, conversation.kind, conversation.trainer_id, conversation.family, iteration.number AS iteration,
    conversation.facts::text AS facts,
    CASE WHEN project.split_by = 'author' THEN (
        SELECT member.author_id FROM annotate_familymember member
        WHERE member.project_id = project.id AND member.member = conversation.family) END AS family_author_id
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY wanted(id, number)
JOIN annotate_conversation conversation ON conversation.id = wanted.id
JOIN annotate_project project ON project.id = conversation.project_id
LEFT JOIN annotate_iteration iteration ON iteration.id = conversation.iteration_id
ORDER BY wanted.number
"""

SAID = """
SELECT wanted.id, said.said
FROM unnest(%(ids)s::bigint[]) wanted(id)
CROSS JOIN LATERAL (
SELECT json_agg(json_build_object(
    'position', message.position, 'role', message.role, 'text', message.text, 'source', message.source,
    'source_id', message.source_id, 'facts', message.facts, 'created_at', message.created_at,
    'policy_id', request.policy_id) ORDER BY message.position)::text AS said
FROM annotate_message message
LEFT JOIN annotate_completion completion ON completion.id = message.completion_id
LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
WHERE message.conversation_id = wanted.id) said
"""
"""Looked up conversation by conversation, as in `demonstration_rows`."""

RANKED = """
SELECT wanted.id, ranked.ranked
FROM unnest(%(ids)s::bigint[]) wanted(id)
CROSS JOIN LATERAL (
SELECT json_agg(json_build_object(
    'position', message.position,
    'candidates', (
        SELECT json_agg(json_build_object(
            'id', candidate.id, 'original', candidate.original, 'text', completion.text, 'kind', completion.kind,
            'source_id', completion.source_id, 'model', completion.model, 'created_at', completion.created_at,
            'policy_id', request.policy_id) ORDER BY candidate.id)
        FROM annotate_candidate candidate
        JOIN annotate_completion completion ON completion.id = candidate.completion_id
        LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
        WHERE candidate.comparison_id = comparison.id),
    'rankings', (
        SELECT json_agg(json_build_array(ranking.trainer_id, (
            SELECT json_object_agg(place.candidate_id, place.rank)
            FROM annotate_rankedcandidate place WHERE place.ranking_id = ranking.id)) ORDER BY ranking.id)
        FROM annotate_ranking ranking
        LEFT JOIN annotate_assignment assignment ON assignment.id = ranking.assignment_id
        WHERE ranking.comparison_id = comparison.id AND ranking.current
            AND (ranking.kind = 'imported' OR assignment.state = 'submitted'))
    ) ORDER BY comparison.id)::text AS ranked
FROM annotate_message message
JOIN annotate_comparison comparison ON comparison.message_id = message.id AND comparison.state = 'closed'
WHERE message.conversation_id = wanted.id) ranked
"""


NAMED_TWICE = """
SELECT source_id, (array_agg(digest ORDER BY id))[1] FROM (
    SELECT conversation.id, first.source_id, md5(first.text) AS digest
    FROM annotate_conversation conversation
    CROSS JOIN LATERAL (
        SELECT source_id, text FROM annotate_message
        WHERE conversation_id = conversation.id AND role <> 'system' ORDER BY position LIMIT 1) first
    WHERE conversation.project_id = %s AND conversation.kind = 'imported' AND conversation.state = 'finished'
        AND first.source_id <> '' AND first.source_id NOT LIKE 'sha256:%%'
) named
GROUP BY source_id HAVING count(DISTINCT digest) > 1
"""


def named_twice(project: Project) -> dict[str, str]:
    """The names that several files gave to beginnings of different words, each with the MD5 of the words that had it
    first. There are none where all files name messages as OASST does."""
    with connection.cursor() as cursor:
        cursor.execute(NAMED_TWICE, [project.pk])
        return dict(cursor.fetchall())


RANKED_BY = """
SELECT comparison.id FROM annotate_ranking ranking
JOIN annotate_comparison comparison ON comparison.id = ranking.comparison_id AND comparison.state = 'closed'
JOIN annotate_message message ON message.id = comparison.message_id
WHERE ranking.trainer_id = %(user)s AND ranking.current AND message.conversation_id = ANY(%(keys)s::bigint[])
"""


def ranked_by(project: Project, keys: array, user_id: int) -> bool:
    """Whether this person ranked what was said in any of these conversations, so that trees hold their ranks."""
    return bool(persons.among(RANKED_BY, keys, user_id))


def tree_rows(keys: list[int]) -> Iterator[dict]:
    """The rows of these conversations, in their order, three statements for all: with what was said, and the closed
    comparisons over it with the rankings that count."""
    with connection.cursor() as cursor:
        found = read(cursor, CONVERSATIONS, keys)
        said, ranked = (_by_conversation(cursor, statement, keys) for statement in (SAID, RANKED))
    for row in found:
        row["facts"] = orjson.loads(row["facts"] or "null")
        row["said"], row["ranked"] = said.get(row["id"], []), ranked.get(row["id"], [])
        yield row


def _by_conversation(cursor, statement: str, keys: list[int]) -> dict[int, list]:
    cursor.execute(statement, {"ids": as_array(keys)})
    return {pk: orjson.loads(text) for pk, text in cursor.fetchall() if text}

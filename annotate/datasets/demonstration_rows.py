"""Reads what the lines of demonstrations are made of: which conversations count, and all that belongs to some."""

from array import array
from collections.abc import Iterator

import orjson
from django.db import connection
from django.db.models import Count, QuerySet

from annotate import demonstrations
from annotate.datasets import persons
from annotate.datasets.filters import OF_STATE
from annotate.datasets.filters import Demonstrations as Filters
from annotate.datasets.reading import as_array, read, streamed
from annotate.models import Conversation, Project

THEIRS = """
WITH RECURSIVE theirs AS (
    SELECT id FROM annotate_conversation WHERE project_id = %(project)s AND trainer_id = ANY(%(people)s)
    UNION
    SELECT review.edit_id FROM annotate_review review
    JOIN annotate_conversation edit ON edit.id = review.edit_id
    WHERE edit.project_id = %(project)s AND review.reviewer_id = ANY(%(people)s)
    UNION
    SELECT later.id FROM theirs
    JOIN annotate_conversation later ON later.revises_id = theirs.id OR later.forked_from_id = theirs.id
)
SELECT id FROM theirs
"""
"""The conversations that people wrote or, as reviewers, edited, and all that was made from these: it holds their words.
"""


def theirs(project: Project, people: list[int]) -> set[int]:
    """The conversations that these people wrote or, as reviewers, edited, and all that was made from them."""
    with connection.cursor() as cursor:
        cursor.execute(THEIRS, {"project": project.pk, "people": people})
        return {pk for (pk,) in cursor.fetchall()}


def _written(project: Project, filters: Filters) -> QuerySet[Conversation]:
    """What was written in the round and time that are wanted, whether it counts or not."""
    found = demonstrations.written(project)
    if filters.iteration is not None:
        found = found.filter(iteration__number=filters.iteration)
    if filters.since is not None:
        found = found.filter(finished_at__gte=filters.since)
    if filters.without:
        people = persons.named(project=project, pseudonyms=filters.without)
        found = found.exclude(pk__in=theirs(project, people))
    return found


def conversations(*, project: Project, filters: Filters) -> QuerySet[Conversation]:
    """The conversations that count under these filters; split and sources are left to the lines."""
    found = _written(project, filters).filter(review_state__in=filters.states(project))
    if "superseded" not in filters.include:
        found = found.filter(superseded=False)
    if "surplus" not in filters.include:
        found = found.filter(late=False)
    return found


def left_out(project: Project, filters: Filters) -> dict[str, int]:
    """How many conversations of the round and time that are wanted do not count, by the first reason that holds."""
    reasons = dict.fromkeys(("superseded", "surplus", "returned", "unreviewed", "other_review_state"), 0)
    states = filters.states(project)
    rows = _written(project, filters).order_by().values("superseded", "late", "review_state")
    for row in rows.annotate(count=Count("pk")):
        if row["superseded"] and "superseded" not in filters.include:
            reasons["superseded"] += row["count"]
        elif row["late"] and "surplus" not in filters.include:
            reasons["surplus"] += row["count"]
        elif row["review_state"] not in states:
            reasons[OF_STATE.get(row["review_state"], "other_review_state")] += row["count"]
    return reasons | {"other_sources": 0}


def keys(project: Project, filters: Filters) -> Iterator[tuple[int, int]]:
    """The conversations by id, each a group of its own."""
    found = conversations(project=project, filters=filters).order_by("id")
    return streamed(found.values_list("id", "id"))


CONVERSATIONS = """
SELECT conversation.id, conversation.iteration_id, conversation.trainer_id, conversation.review_state,
    conversation.revises_id, conversation.forked_from_id, conversation.prompt_id, conversation.family,
    conversation.finished_at, conversation.kind, conversation.source_id, conversation.facts ->> 'split' AS source_split,
    coalesce(prompt.use_case, conversation.facts ->> 'use_case') AS use_case,
    CASE WHEN project.split_by = 'author' THEN (
        SELECT member.author_id FROM annotate_familymember member
        WHERE member.project_id = project.id AND member.member = conversation.family) END AS family_author_id
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY wanted(id, number)
JOIN annotate_conversation conversation ON conversation.id = wanted.id
JOIN annotate_project project ON project.id = conversation.project_id
LEFT JOIN annotate_prompt prompt ON prompt.id = conversation.prompt_id
ORDER BY wanted.number
"""

SAID = """
SELECT wanted.id, said.said
FROM unnest(%(ids)s::bigint[]) wanted(id)
CROSS JOIN LATERAL (
    SELECT json_agg(json_build_array(
        role, text, position, source, completion_id, edit_distance, active_seconds, typed, pasted, taken, passed
        ) ORDER BY position)::text AS said
    FROM annotate_message message WHERE message.conversation_id = wanted.id) said
"""
"""One text of JSON a conversation: it takes less than a row a message. Looked up conversation by conversation: after a
large import the planner may not know yet how few messages belong to one, and would read all of them for every chunk."""

MESSAGE = (
    "role",
    "text",
    "position",
    "source",
    "completion_id",
    "edit_distance",
    "active_seconds",
    "typed",
    "pasted",
    "taken",
    "passed",
)
"""What each item of `said` is."""

COMPLETIONS = """
SELECT completion.id, completion.text, completion.seed, completion.finish_reason, request.policy_id,
    request.sampling::text AS sampling, request.template_hash, request.hint
FROM unnest(%(ids)s::bigint[]) wanted(id)
JOIN annotate_completion completion ON completion.id = wanted.id
LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
"""

REVIEWS = """
SELECT id, reviewer_id, conversation_id, edit_id FROM annotate_review
WHERE current AND (conversation_id = ANY(%(ids)s::bigint[]) OR edit_id = ANY(%(ids)s::bigint[])) ORDER BY id
"""


def rows(keys: list[int]) -> Iterator[dict]:
    """The rows of these conversations, in their order, four statements for all.

    `said` are their messages, each a list as MESSAGE says; `completions` are the suggestions that they name, by id;
    `review` is the review and the reviewer, or None. A finished conversation and its messages never change, so that
    it does not matter when they are read.
    """
    with connection.cursor() as cursor:
        found = read(cursor, CONVERSATIONS, keys)
        cursor.execute(SAID, {"ids": as_array(keys)})
        said = {pk: orjson.loads(text or "[]") for pk, text in cursor.fetchall()}
        named = {message[4] for messages in said.values() for message in messages}
        named.update(pk for messages in said.values() for message in messages for pk in message[10])
        named.discard(None)
        completions = {row["id"]: row for row in read(cursor, COMPLETIONS, named)}
        reviews = _reviews(cursor, keys)
    for row in found:
        row["said"], row["completions"] = said[row["id"]], completions
        row["review"] = reviews.get(row["id"])
        yield row


def _reviews(cursor, ids: list[int]) -> dict[int, tuple[int, int]]:
    """By conversation its review and reviewer: the verdict on it, else the one with which a reviewer made it."""
    cursor.execute(REVIEWS, {"ids": as_array(ids)})
    found: dict[int, tuple[int, int]] = {}
    for pk, reviewer, judged, made in cursor.fetchall():
        found[judged] = (pk, reviewer)
        found.setdefault(made, (pk, reviewer))
    return found


def made_by(project: Project, keys: array, user_id: int) -> set[int]:
    """The conversations among these that this person wrote or, as reviewer, edited, and those made from them."""
    return theirs(project, [user_id]).intersection(keys)

"""Reads what the lines of comparisons are made of: which rankings count, and all that belongs to some of them."""

from array import array
from collections.abc import Iterator

import orjson
from django.db import connection
from django.db.models import Q, QuerySet

from annotate.datasets import persons
from annotate.datasets.demonstration_rows import theirs
from annotate.datasets.filters import Comparisons as Filters
from annotate.datasets.reading import as_array, read, streamed
from annotate.models import Assignment, Comparison, Project, Ranking


def rankings(*, project: Project, filters: Filters) -> QuerySet[Ranking]:
    """The current rankings that count under these filters; `split` is left to the lines, as it is not stored.

    Imported ones were brought in whole with their comparison; they have no slot.
    """
    comparison_states = [Comparison.State.CLOSED]
    assignment_states = [Assignment.State.SUBMITTED]
    if "open" in filters.include:
        comparison_states.append(Comparison.State.OPEN)
    if "surplus" in filters.include:
        assignment_states.append(Assignment.State.SURPLUS)
    found = Ranking.objects.filter(
        current=True,
        comparison__project=project,
        comparison__state__in=comparison_states,
    ).filter(Q(kind=Ranking.Kind.IMPORTED) | Q(assignment__state__in=assignment_states))
    if filters.origins is not None:
        found = found.filter(kind__in=filters.origins)
    if filters.selection is not None:
        found = found.filter(comparison__selection=filters.selection)
    if filters.iteration is not None:
        found = found.filter(comparison__iteration__number=filters.iteration)
    if filters.since is not None:
        found = found.filter(created_at__gte=filters.since)
    if filters.without:
        people = persons.named(project=project, pseudonyms=filters.without)
        # What was imported has no trainer: NOT IN would leave it out.
        found = found.exclude(trainer_id__isnull=False, trainer_id__in=people)
        found = found.exclude(comparison__message__conversation__in=theirs(project, people))
    return found


def keys(project: Project, filters: Filters) -> Iterator[tuple[int, int]]:
    """Pairs of comparison and ranking, so that the rankings and pairs of one context stand together."""
    found = rankings(project=project, filters=filters).order_by("comparison_id", "id")
    return streamed(found.values_list("comparison_id", "id"))


RANKINGS = """
SELECT ranking.id, ranking.kind, ranking.comparison_id, ranking.trainer_id, ranking.all_bad, ranking.active_seconds,
    assignment.state AS assignment_state, assignment.shown_order,
    (SELECT json_agg(json_build_array(place.candidate_id, place.rank, place.rating, place.flags))::text
     FROM annotate_rankedcandidate place WHERE place.ranking_id = ranking.id) AS places
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY wanted(id, number)
JOIN annotate_ranking ranking ON ranking.id = wanted.id
LEFT JOIN annotate_assignment assignment ON assignment.id = ranking.assignment_id
ORDER BY wanted.number
"""

COMPARISONS = """
SELECT comparison.id, comparison.state AS comparison_state, iteration.number AS iteration, comparison.source_id,
    comparison.selection, comparison.draw_seed, comparison.draw_index, comparison.draw_size,
    message.conversation_id, conversation.family, conversation.trainer_id AS author_id,
    coalesce(prompt.use_case, conversation.facts ->> 'use_case') AS use_case,
    CASE WHEN project.split_by = 'author' THEN (
        SELECT member.author_id FROM annotate_familymember member
        WHERE member.project_id = project.id AND member.member = conversation.family) END AS family_author_id,
    (SELECT json_agg(json_build_object('role', said.role, 'content', said.text) ORDER BY said.position)::text
     FROM annotate_message said
     WHERE said.conversation_id = message.conversation_id AND said.position < message.position) AS context,
    (SELECT json_agg(json_build_object(
            'candidate_id', candidate.id, 'original', candidate.original, 'text', completion.text,
            'finish_reason', completion.finish_reason, 'prompt_tokens', completion.prompt_tokens,
            'completion_tokens', completion.completion_tokens, 'reasoning', completion.reasoning,
            'kind', completion.kind, 'model', completion.model, 'source_id', completion.source_id,
            'policy_id', request.policy_id, 'sampling', request.sampling,
            'template_hash', request.template_hash) ORDER BY candidate.id)::text
     FROM annotate_candidate candidate
     JOIN annotate_completion completion ON completion.id = candidate.completion_id
     LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
     WHERE candidate.comparison_id = comparison.id) AS candidates
FROM unnest(%(ids)s::bigint[]) wanted(id)
JOIN annotate_comparison comparison ON comparison.id = wanted.id
JOIN annotate_message message ON message.id = comparison.message_id
JOIN annotate_conversation conversation ON conversation.id = message.conversation_id
JOIN annotate_project project ON project.id = comparison.project_id
LEFT JOIN annotate_iteration iteration ON iteration.id = comparison.iteration_id
LEFT JOIN annotate_prompt prompt ON prompt.id = conversation.prompt_id
"""


def rows(keys: list[int]) -> Iterator[dict]:
    """The rows of these rankings, in their order, two statements for all.

    What belongs to a comparison is read once; its rankings share the same `context` and `candidates`. `places` are the
    rank, rating and flags by candidate.
    """
    with connection.cursor() as cursor:
        found = read(cursor, RANKINGS, keys)
        named = {row["comparison_id"] for row in found}
        comparisons = {row["id"]: row for row in read(cursor, COMPARISONS, named)}
    for comparison in comparisons.values():
        comparison["context"] = orjson.loads(comparison["context"] or "[]")
        comparison["candidates"] = orjson.loads(comparison["candidates"])
    for row in found:
        places = {place[0]: place[1:] for place in orjson.loads(row["places"])}
        yield comparisons[row["comparison_id"]] | row | {"places": places}


MADE_BY = """
SELECT ranking.id FROM annotate_ranking ranking
JOIN annotate_comparison comparison ON comparison.id = ranking.comparison_id
JOIN annotate_message message ON message.id = comparison.message_id
WHERE ranking.id = ANY(%(keys)s::bigint[])
    AND (ranking.trainer_id = %(user)s OR message.conversation_id = ANY(%(theirs)s::bigint[]))
"""


def made_by(project: Project, keys: array, user_id: int) -> set[int]:
    """The rankings among these that this person made, or that are over what is theirs or was made from it."""
    return persons.among(MADE_BY, keys, user_id, theirs=as_array(theirs(project, [user_id])))

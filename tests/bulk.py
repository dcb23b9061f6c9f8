"""Thousands of comparisons in a few statements, as the record would hold them."""

from django.db import connection

from annotate.models import Project, User
from tests import factory

INSERT = """
WITH conversation AS (
    INSERT INTO annotate_conversation
        (project_id, iteration_id, kind, state, trainer_id, family, created_at, finished_at)
    SELECT %(project)s, %(iteration)s, 'chat', 'finished', %(author)s, md5(number::text), now(), now()
    FROM generate_series(1, %(count)s) number RETURNING id
), reply AS (
    INSERT INTO annotate_generationrequest
        (project_id, policy_id, purpose, urgency, conversation_id, position, messages, template_hash, n, sampling,
         state, attempt, claimed_by, stop_asked, reason, created_at, ended_at)
    SELECT %(project)s, %(policy)s, 'reply', 0, id, 2, '[]', '', 1, '{}', 'done', 1, '', false, '', now(), now()
    FROM conversation RETURNING id, conversation_id
), said AS (
    INSERT INTO annotate_completion
        (request_id, index, kind, text, finish_reason, prompt_tokens, completion_tokens, rejected, created_at)
    SELECT id, 0, 'sampled', 'The reply of conversation ' || conversation_id, 'stop', 10, 10, '', now()
    FROM reply RETURNING id, request_id, text
), turns AS (
    INSERT INTO annotate_message (conversation_id, position, role, text, source, completion_id, created_at)
    SELECT id, 0, 'system', 'Be helpful.', 'written', NULL::bigint, now() FROM conversation
    UNION ALL
    SELECT id, 1, 'user', 'Question ' || id, 'written', NULL, now() FROM conversation
    UNION ALL
    SELECT reply.conversation_id, 2, 'assistant', said.text, 'reply', said.id, now()
    FROM said JOIN reply ON reply.id = said.request_id
    RETURNING id, conversation_id, position, completion_id
), comparison AS (
    INSERT INTO annotate_comparison
        (project_id, iteration_id, message_id, state, k, overlap, draw_seed, draw_size, draw_index, reason,
         created_at, opened_at)
    SELECT %(project)s, %(iteration)s, id, 'open', %(k)s, %(overlap)s, '00', 1, 0, '', now(), now()
    FROM turns WHERE position = 2 ORDER BY conversation_id RETURNING id, message_id
), alternatives AS (
    INSERT INTO annotate_generationrequest
        (project_id, policy_id, purpose, urgency, comparison_id, messages, template_hash, n, sampling,
         state, attempt, claimed_by, stop_asked, reason, created_at, ended_at)
    SELECT %(project)s, %(policy)s, 'alternatives', 2, id, '[]', '', %(k)s - 1, '{}', 'done', 1, '', false, '',
        now(), now()
    FROM comparison RETURNING id, comparison_id
), drawn AS (
    INSERT INTO annotate_completion
        (request_id, index, kind, text, finish_reason, prompt_tokens, completion_tokens, rejected, created_at)
    SELECT id, number, 'sampled', 'Alternative ' || number || ' of ' || comparison_id, 'stop', 10, 10, '', now()
    FROM alternatives, generate_series(0, %(k)s - 2) number RETURNING id, request_id
), candidates AS (
    INSERT INTO annotate_candidate (comparison_id, completion_id, original)
    SELECT comparison.id, turns.completion_id, true FROM comparison JOIN turns ON turns.id = comparison.message_id
    UNION ALL
    SELECT alternatives.comparison_id, drawn.id, false
    FROM drawn JOIN alternatives ON alternatives.id = drawn.request_id
    RETURNING comparison_id
)
INSERT INTO annotate_assignment
    (project_id, iteration_id, kind, state, priority, ordinal, author_id, comparison_id, shown_order, draft,
     draft_version, active_seconds, skip_reason, skip_note, created_at)
SELECT %(project)s, %(iteration)s, 'rank', 'free', 0, ordinal, %(author)s, comparison.id, '{}', '{}', 0, 0, '', '',
    now() - interval '1 hour'
FROM comparison, generate_series(1, %(overlap)s) ordinal ORDER BY comparison.id, ordinal
"""


def comparisons(project: Project, count: int, *, author: User | None = None) -> None:
    """`count` open comparisons of one-turn conversations, all their slots free and an hour old."""
    iteration = factory.current(project)
    with connection.cursor() as cursor:
        cursor.execute(
            INSERT,
            {
                "project": project.pk,
                "iteration": iteration.pk,
                "policy": iteration.reply_policy_id,
                "author": (author or factory.trainer(project)).pk,
                "k": iteration.k,
                "overlap": iteration.overlap,
                "count": count,
            },
        )


CHATS = """
WITH conversation AS (
    INSERT INTO annotate_conversation
        (project_id, iteration_id, kind, state, trainer_id, family, created_at, finished_at)
    SELECT %(project)s, %(iteration)s, 'chat', 'finished', %(author)s, md5(number::text), now(), now()
    FROM generate_series(1, %(count)s) number RETURNING id
), turn AS (
    SELECT id, number FROM conversation, generate_series(1, %(turns)s) number
), reply AS (
    INSERT INTO annotate_generationrequest
        (project_id, policy_id, purpose, urgency, conversation_id, position, messages, template_hash, n, sampling,
         state, attempt, claimed_by, stop_asked, reason, created_at, ended_at)
    SELECT %(project)s, %(policy)s, 'reply', 0, id, 2 * number, '[]', '', 1, '{}', 'done', 1, '', false, '',
        now(), now()
    FROM turn RETURNING id, conversation_id, position
), said AS (
    INSERT INTO annotate_completion
        (request_id, index, kind, text, finish_reason, prompt_tokens, completion_tokens, rejected, created_at)
    SELECT id, 0, 'sampled', 'A reply', 'stop', 10, 10, '', now() FROM reply RETURNING id, request_id
)
INSERT INTO annotate_message (conversation_id, position, role, text, source, completion_id, created_at)
SELECT id, 0, 'system', 'Be helpful.', 'written', NULL::bigint, now() FROM conversation
UNION ALL
SELECT id, 2 * number - 1, 'user', 'A question', 'written', NULL, now() FROM turn
UNION ALL
SELECT reply.conversation_id, reply.position, 'assistant', 'A reply', 'reply', said.id, now()
FROM said JOIN reply ON reply.id = said.request_id
"""


def chats(project: Project, count: int, *, turns: int) -> None:
    """`count` finished conversations of so many turns, nothing drawn from them yet."""
    iteration = factory.current(project)
    with connection.cursor() as cursor:
        cursor.execute(
            CHATS,
            {
                "project": project.pk,
                "iteration": iteration.pk,
                "policy": iteration.reply_policy_id,
                "author": factory.trainer(project).pk,
                "count": count,
                "turns": turns,
            },
        )


PIECES = """
WITH conversation AS (
    INSERT INTO annotate_conversation
        (project_id, iteration_id, kind, state, trainer_id, family, created_at, finished_at)
    SELECT %(project)s, %(iteration)s, 'write', 'finished', %(author)s, md5(number::text), now(), now()
    FROM generate_series(1, %(count)s) number RETURNING id
), asked AS (
    INSERT INTO annotate_generationrequest
        (project_id, policy_id, purpose, urgency, conversation_id, position, messages, template_hash, n, sampling,
         hint, state, attempt, claimed_by, stop_asked, reason, created_at, ended_at)
    SELECT %(project)s, %(policy)s, 'suggestion', 1, id, 2, '[]', repeat('0', 64), 2,
        '{"max_new_tokens": 256, "temperature": 0.8, "top_p": 0.95, "top_k": 0}', 'shorter', 'done', 1, '', false, '',
        now(), now()
    FROM conversation RETURNING id, conversation_id
), drawn AS (
    INSERT INTO annotate_completion
        (request_id, index, kind, text, finish_reason, prompt_tokens, completion_tokens, rejected, created_at)
    SELECT id, number, 'sampled', 'Suggestion ' || number || ' ' || repeat('with some more words ', 10), 'stop', 10, 10,
        '', now()
    FROM asked, generate_series(0, 1) number RETURNING id, request_id, index
), suggested AS (
    SELECT asked.conversation_id, min(drawn.id) FILTER (WHERE index = 0) AS taken,
        min(drawn.id) FILTER (WHERE index = 1) AS passed
    FROM drawn JOIN asked ON asked.id = drawn.request_id GROUP BY 1
)
INSERT INTO annotate_message
    (conversation_id, position, role, text, source, completion_id, edit_distance, passed, active_seconds, typed,
     created_at)
SELECT id, 0, 'system', 'Be helpful.', 'written', NULL::bigint, NULL::float, '{}'::bigint[], 0, 0, now()
FROM conversation
UNION ALL
SELECT id, 1, 'user', 'Question ' || id, 'written', NULL, NULL, '{}', 20, 15, now() FROM conversation
UNION ALL
SELECT conversation_id, 2, 'assistant', 'Answer ' || repeat('with some more words ', 10), 'edited', taken, 0.1,
    ARRAY[passed], 40, 30, now()
FROM suggested
UNION ALL
SELECT id, 3, 'user', 'And then?', 'written', NULL, NULL, '{}', 5, 9, now() FROM conversation
UNION ALL
SELECT id, 4, 'assistant', repeat('What a person wrote. ', 10), 'written', NULL, NULL, '{}', 60, 210, now()
FROM conversation
"""


def pieces(project: Project, count: int) -> None:
    """`count` finished written conversations of four turns, one edited from one of two suggestions."""
    iteration = factory.current(project)
    with connection.cursor() as cursor:
        cursor.execute(
            PIECES,
            {
                "project": project.pk,
                "iteration": iteration.pk,
                "policy": iteration.reply_policy_id,
                "author": factory.trainer(project).pk,
                "count": count,
            },
        )


def analyze() -> None:
    """Let the planner know what is there, as autovacuum would."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")

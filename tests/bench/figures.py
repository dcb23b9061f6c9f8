"""What an admin sees of the running site, and /metrics, beside 1,000,000 requests and 3,000,000 texts."""

import statistics
import time

from django.db import connection
from django.test import Client
from django.utils import timezone

from annotate import figures
from annotate.models import Comparison, Role
from tests import bulk, factory

REQUESTS = 1_000_000
LAST_HOUR = 20_000
WAITING = 50_000
SLOTS = 1_000_000
ROUNDS = 15

# One in 50 failed. The newest LAST_HOUR ended within the last hour, all others in the 30 days before.
ENDED = """
WITH request AS (
    INSERT INTO annotate_generationrequest
        (project_id, policy_id, purpose, urgency, conversation_id, position, comparison_id, messages, template_hash, n,
         sampling, state, attempt, claimed_by, stop_asked, reason, created_at, claimed_at, ended_at)
    SELECT %(project)s, (%(policies)s::bigint[])[1 + number %% 3],
        (ARRAY['reply', 'suggestion', 'alternatives'])[1 + kind], kind,
        CASE WHEN kind < 2 THEN %(conversation)s END, CASE WHEN kind < 2 THEN 2 END,
        CASE WHEN kind = 2 THEN %(comparison)s END, %(messages)s, '', CASE kind WHEN 0 THEN 1 WHEN 1 THEN 3 ELSE 5 END,
        '{}', CASE WHEN failed THEN 'failed' ELSE 'done' END, 1, 'bench', false,
        CASE WHEN failed THEN 'The worker host-' || number %% 30 || ' fell silent.' ELSE '' END,
        at - interval '9 seconds', at - interval '8 seconds', at
    FROM (
        SELECT number, (number / 3) %% 3 AS kind, number %% 50 = 0 AS failed,
            now() - CASE WHEN number > %(count)s - %(last_hour)s
                THEN interval '1 hour' * (%(count)s - number) / %(last_hour)s
                ELSE interval '1 hour' + interval '30 days' * (%(count)s - number) / %(count)s END AS at
        FROM generate_series(1, %(count)s) number
    ) made ORDER BY number
    RETURNING id, n, state, ended_at
)
INSERT INTO annotate_completion
    (request_id, index, kind, text, finish_reason, prompt_tokens, completion_tokens, first_token_ms, total_ms, rejected,
     created_at)
SELECT id, index, 'sampled', repeat('Some words of a text. ', 20), 'stop', 100, 120, 50 + (id * 7 + index) %% 900, 8000,
    '', ended_at
FROM request, generate_series(0, n - 1) index WHERE state = 'done'
"""
WAIT = """
INSERT INTO annotate_generationrequest
    (project_id, policy_id, purpose, urgency, comparison_id, messages, template_hash, n, sampling, state, attempt,
     claimed_by, stop_asked, reason, created_at)
SELECT %(project)s, (%(policies)s::bigint[])[1 + number %% 3], 'alternatives', 2, %(comparison)s, %(messages)s, '', 3,
    '{}', 'waiting', 0, '', false, '', now()
FROM generate_series(1, %(waiting)s) number
"""
FREE = """
INSERT INTO annotate_assignment
    (project_id, iteration_id, kind, state, priority, ordinal, shown_order, draft, draft_version, active_seconds,
     skip_reason, skip_note, created_at)
SELECT %(project)s, %(iteration)s, 'chat', 'free', 0, 1, '{}', '{}', 0, 0, '', '', now()
FROM generate_series(1, %(slots)s)
"""


def build() -> Client:
    """The rows, and a client with which an admin is signed in."""
    project = factory.project()
    conversation = factory.finished_chat(project)
    values = {
        "project": project.pk,
        "iteration": factory.current(project).pk,
        "policies": [factory.policy().pk for _ in range(3)],
        "conversation": conversation.pk,
        "comparison": Comparison.objects.get(message__conversation=conversation).pk,
        "messages": '[{"role": "user", "content": "How do I boil an egg?"}]',
        "count": REQUESTS,
        "last_hour": LAST_HOUR,
        "waiting": WAITING,
        "slots": SLOTS,
    }
    with connection.cursor() as cursor:
        for statement in (ENDED, WAIT, FREE):
            cursor.execute(statement, values)
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT count(*) FROM annotate_completion")
        print(f"\n{REQUESTS:,} requests that ended, {cursor.fetchone()[0]:,} texts, {LAST_HOUR:,} in the last hour,")
        print(f"{WAITING:,} that wait, {SLOTS:,} free slots; medians of {ROUNDS}, in ms")
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(factory.person(project, role=Role.ADMIN), backend="sesame.backends.ModelBackend")
    return client


def timed(name: str, act) -> None:
    """Print the median and the least of several."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        times.append((time.perf_counter() - began) * 1000)
    print(f"  {name}: {statistics.median(times):.0f} (least {min(times):.0f}, the first one {times[0]:.0f})")


def main() -> None:
    """Print the figures."""
    client = build()
    bulk.analyze()
    timed("the list of requests in the admin site", lambda: client.get("/admin/annotate/generationrequest/"))
    timed("the page /admin/serving/", lambda: client.get("/admin/serving/"))
    timed("/metrics", lambda: client.get("/metrics"))
    for name in ("queues", "recent", "failures", "jobs", "slots"):
        timed(f"of which {name}", getattr(figures, name))
    values = {"now": timezone.now(), "hours": figures.FAILED_HOURS}
    parts = {"waiting": (figures.WAITING, None), "slots": (figures.SLOTS, None)}
    parts["recent"] = (figures.RECENT, figures.MOST_ENDED)
    parts["failed"] = (figures.FAILED, figures.MOST_FAILED)
    with connection.cursor() as cursor:
        for name, (statement, most) in parts.items():
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", values | {"most": most})
            print(f"\n{name}", *(line for (line,) in cursor.fetchall()), sep="\n  ")

"""Exports, each beside a server-side cursor and `json.dumps` of the same rows in the same process.

BENCH_RANKINGS says of how many rankings, each with five strict pairs. BENCH_PIECES says of how many written
conversations, each of four turns, with one suggestion edited and one passed.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, groupby
from operator import itemgetter

import psutil
import psycopg
from django.db import connection
from psycopg.rows import dict_row

from annotate.datasets import comparison_formats, comparisons, demonstration_formats, filters, snapshots
from annotate.models import Conversation, Project
from tests import bulk, factory

RANKINGS = int(os.environ.get("BENCH_RANKINGS", "50000"))
PIECES = int(os.environ.get("BENCH_PIECES", "100000"))
OVERLAP = 4

RANK = """
WITH slot AS (
    UPDATE annotate_assignment assignment
    SET state = 'submitted', trainer_id = (%(trainers)s::bigint[])[ordinal], held_at = now(), ended_at = now(),
        shown_order = ARRAY(SELECT id FROM annotate_candidate candidate
                            WHERE candidate.comparison_id = assignment.comparison_id ORDER BY random())
    WHERE project_id = %(project)s RETURNING id, comparison_id, trainer_id, shown_order
), ranking AS (
    INSERT INTO annotate_ranking
        (comparison_id, assignment_id, trainer_id, current, all_bad, active_seconds, created_at)
    SELECT comparison_id, id, trainer_id, true, false, 60, now() FROM slot RETURNING id, assignment_id
)
INSERT INTO annotate_rankedcandidate (ranking_id, candidate_id, rank, flags)
SELECT ranking.id, place.candidate, greatest(place.number - 2, 0), '{}'
FROM ranking JOIN slot ON slot.id = ranking.assignment_id,
    unnest(slot.shown_order) WITH ORDINALITY AS place(candidate, number)
"""

CLOSE = "UPDATE annotate_comparison SET state = 'closed', closed_at = now() WHERE project_id = %s"


def ranked_project(rankings: int) -> Project:
    """A project with so many rankings, each four candidates with one tie, over closed comparisons."""
    project = factory.project(overlap=OVERLAP)
    trainers = [factory.trainer(project).pk for _ in range(OVERLAP)]
    with connection.cursor() as cursor:
        # Foreign keys are not checked row by row: the rows are right, and the check takes longer than they do.
        cursor.execute("SET session_replication_role = replica")
        bulk.comparisons(project, rankings // OVERLAP)
        cursor.execute(RANK, {"project": project.pk, "trainers": trainers})
        cursor.execute(CLOSE, [project.pk])
        cursor.execute("SET session_replication_role = DEFAULT")
    bulk.analyze()
    return project


@contextmanager
def bare_cursor() -> Iterator[psycopg.ServerCursor]:
    """A server-side cursor of psycopg's own, on a connection of its own."""
    parts = connection.get_connection_params()
    parts = {name: parts[name] for name in ("dbname", "user", "password", "host", "port") if parts.get(name)}
    with psycopg.connect(**parts) as bare, bare.cursor(name="floor", row_factory=dict_row) as cursor:
        cursor.itersize = 2000
        yield cursor


def floor(project: Project, format: str) -> float:
    """Seconds for the same rows through a cursor of psycopg's own, each dumped and thrown away."""
    rows = comparisons.whole_rows(comparisons.rankings(project=project, filters=filters.Comparisons()))
    sql, given = rows.query.sql_with_params()
    start = time.perf_counter()
    with bare_cursor() as cursor:
        cursor.execute(sql, given)
        for row in cursor:
            if format == "ranked":
                json.dumps(row, ensure_ascii=False)
                continue
            for one, other in combinations(row["judged"], 2):
                if one["rank"] != other["rank"]:
                    pair = {"prompt": row["context"], "chosen": one["text"], "rejected": other["text"]}
                    json.dumps(pair | {"group_id": row["comparison_id"]}, ensure_ascii=False)
    return time.perf_counter() - start


WRITTEN = """
SELECT conversation.id AS conversation_id, conversation.trainer_id, conversation.family, conversation.review_state,
    conversation.finished_at::text, message.position, message.role, message.text AS content, message.source,
    message.completion_id, message.edit_distance, message.active_seconds, message.typed, message.pasted, message.taken,
    completion.text AS suggestion, completion.seed, completion.finish_reason, request.policy_id, request.sampling,
    request.hint, request.template_hash,
    (SELECT array_agg(passed.text) FROM annotate_completion passed WHERE passed.id = ANY(message.passed)) AS passed
FROM annotate_conversation conversation
JOIN annotate_message message ON message.conversation_id = conversation.id
LEFT JOIN annotate_completion completion ON completion.id = message.completion_id
LEFT JOIN annotate_generationrequest request ON request.id = completion.request_id
WHERE conversation.project_id = %s AND conversation.kind = 'write' AND conversation.state = 'finished'
ORDER BY conversation.id, message.position
"""


def written_floor(project: Project, format: str) -> float:
    """Seconds of reading all that belongs to written conversations and making the JSON of each line, nothing more."""
    wanted = ("role", "content")
    start = time.perf_counter()
    with bare_cursor() as cursor:
        cursor.execute(WRITTEN, [project.pk])
        for pk, rows in groupby(cursor, itemgetter("conversation_id")):
            turns = list(rows)
            messages = [{name: turn[name] for name in wanted} for turn in turns]
            if format == "messages":
                json.dumps({"conversation_id": pk, "messages": messages, "turns": turns}, ensure_ascii=False)
                continue
            for number, turn in enumerate(turns):
                if turn["role"] == "assistant":
                    line = {"prompt": messages[:number], "completion": messages[number : number + 1], "turn": turn}
                    json.dumps(line, ensure_ascii=False)
    return time.perf_counter() - start


def ours(what: str, project: Project, format: str) -> tuple[float, int]:
    """Seconds of a whole export, and the most memory of the process while it ran, in megabytes."""
    process, peak = psutil.Process(), 0

    def watched(rows: Iterable[dict], total: int) -> Iterator[dict]:
        nonlocal peak
        for number, row in enumerate(rows):
            if number % 5000 == 0:
                peak = max(peak, process.memory_info().rss)
            yield row

    start = time.perf_counter()
    wanted = filters.parse(what, {})
    snapshots.export(snapshots.WHATS[what], project=project, format=format, filters=wanted, progress=watched)
    return time.perf_counter() - start, peak // 2**20


def told(unit: str, count: int, what: str, format: str, project: Project, bare: float) -> None:
    """Export and print what it took beside its floor."""
    seconds, megabytes = ours(what, project, format)
    print(
        f"export of {count:,} {unit} as {format}: {seconds:.1f} s, {count / seconds:,.0f} a second, "
        f"{seconds / bare:.2f} times a cursor and json.dumps ({bare:.1f} s), {megabytes} MB at most"
    )


def main() -> None:
    """Print rankings and conversations a second and memory of each format beside its floor."""
    project = ranked_project(RANKINGS)
    for format in comparison_formats.FORMATS:
        told("rankings", RANKINGS, "comparisons", format, project, floor(project, format))
    project = factory.project()
    bulk.pieces(project, PIECES)
    bulk.analyze()
    for format in demonstration_formats.FORMATS:
        told("written conversations", PIECES, "demonstrations", format, project, written_floor(project, format))
    assert Conversation.objects.filter(project=project, exported_at__isnull=False).count() == PIECES

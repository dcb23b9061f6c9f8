"""Exports, each beside a server-side cursor and `json.dumps` of the same rows.

BENCH_RANKINGS says of how many rankings, each with five strict pairs; BENCH_PIECES of how many written conversations,
each of four turns, one of them edited from two suggestions. Both may name several numbers. BENCH_FILES names the kinds
of files beside JSONL in which the first format of each is written too. An export runs in a process of its own, so that
its memory is its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, groupby
from operator import itemgetter

import psycopg
from django.db import connection
from psycopg.rows import dict_row

from annotate.models import Conversation, Export, Project
from tests import bulk, factory

RANKINGS = [int(count) for count in os.environ.get("BENCH_RANKINGS", "10000 1000000").split()]
PIECES = [int(count) for count in os.environ.get("BENCH_PIECES", "10000 1000000").split()]
KINDS = os.environ.get("BENCH_FILES", "jsonl.zst parquet").split()
OVERLAP = 4

RANK = """
UPDATE annotate_assignment assignment
SET state = 'submitted', trainer_id = (%(trainers)s::bigint[])[ordinal], held_at = now(), ended_at = now(),
    shown_order = ARRAY(SELECT id FROM annotate_candidate candidate
                        WHERE candidate.comparison_id = assignment.comparison_id ORDER BY random())
WHERE project_id = %(project)s;

INSERT INTO annotate_ranking (comparison_id, assignment_id, trainer_id, current, all_bad, active_seconds, created_at)
SELECT comparison_id, id, trainer_id, true, false, 60, now() FROM annotate_assignment
WHERE project_id = %(project)s ORDER BY id;

INSERT INTO annotate_rankedcandidate (ranking_id, candidate_id, rank, flags)
SELECT ranking.id, place.candidate, greatest(place.number - 2, 0), '{}'
FROM annotate_ranking ranking
JOIN annotate_assignment slot ON slot.id = ranking.assignment_id AND slot.project_id = %(project)s,
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
        bulk.analyze()
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


RANKED = """
SELECT ranking.id, ranking.comparison_id, ranking.trainer_id, ranking.all_bad, ranking.active_seconds,
    comparison.state AS comparison_state, comparison.draw_index, comparison.draw_size,
    assignment.state AS assignment_state, assignment.shown_order, iteration.number AS iteration,
    message.conversation_id, conversation.family, prompt.use_case,
    ARRAY(SELECT jsonb_build_object('role', said.role, 'content', said.text) FROM annotate_message said
          WHERE said.conversation_id = message.conversation_id AND said.position < message.position
          ORDER BY said.position) AS context,
    ARRAY(SELECT jsonb_build_object(
              'candidate_id', place.candidate_id, 'rank', place.rank, 'rating', place.rating, 'flags', place.flags,
              'original', candidate.original, 'text', completion.text, 'finish_reason', completion.finish_reason,
              'prompt_tokens', completion.prompt_tokens, 'completion_tokens', completion.completion_tokens,
              'reasoning', completion.reasoning,
              'kind', completion.kind, 'model', completion.model, 'policy_id', request.policy_id,
              'sampling', request.sampling, 'template_hash', request.template_hash)
          FROM annotate_rankedcandidate place
          JOIN annotate_candidate candidate ON candidate.id = place.candidate_id
          JOIN annotate_completion completion ON completion.id = candidate.completion_id
          JOIN annotate_generationrequest request ON request.id = completion.request_id
          WHERE place.ranking_id = ranking.id ORDER BY place.candidate_id) AS judged
FROM annotate_ranking ranking
JOIN annotate_assignment assignment ON assignment.id = ranking.assignment_id
JOIN annotate_comparison comparison ON comparison.id = ranking.comparison_id
JOIN annotate_iteration iteration ON iteration.id = comparison.iteration_id
JOIN annotate_message message ON message.id = comparison.message_id
JOIN annotate_conversation conversation ON conversation.id = message.conversation_id
LEFT JOIN annotate_prompt prompt ON prompt.id = conversation.prompt_id
WHERE comparison.project_id = %s AND comparison.state = 'closed' AND ranking.current AND assignment.state = 'submitted'
ORDER BY ranking.comparison_id, ranking.id
"""


def ranked_floor(project: Project, format: str) -> float:
    """Seconds for the same rows through a cursor of psycopg's own, each dumped and thrown away."""
    start = time.perf_counter()
    with bare_cursor() as cursor:
        cursor.execute(RANKED, [project.pk])
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


EXPORT = """
import re, sys, time, django
django.setup()
from pathlib import Path
from annotate.datasets import filters, shards, snapshots
from annotate.models import Project
what, slug, format, kind = sys.argv[1:]
project = Project.objects.get(slug=slug)
start = time.perf_counter()
files = shards.parse({"kind": kind})
snapshots.export(what, project=project, format=format, filters=filters.parse(what, {}), files=files)
seconds = time.perf_counter() - start
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(seconds, int(peak) // 1024)
"""


def ours(what: str, project: Project, format: str, kind: str) -> tuple[float, int]:
    """Seconds of a whole export in a process of its own, and the most memory of it, in megabytes."""
    # The servers' addresses are in the environment already.
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "annotate.settings"}
    run = subprocess.run(
        [sys.executable, "-c", EXPORT, what, project.slug, format, kind],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds, megabytes = run.stdout.split()
    return float(seconds), int(megabytes)


def told(unit: str, count: int, what: str, format: str, project: Project, bare: float, kind: str = "jsonl") -> None:
    """Export and print what it took beside its floor."""
    seconds, megabytes = ours(what, project, format, kind)
    print(
        f"export of {count:,} {unit} as {format} in {kind}: {seconds:.1f} s, {count / seconds:,.0f} a second, "
        f"{seconds / bare:.2f} times a cursor and json.dumps ({bare:.1f} s), {megabytes} MB at most",
        flush=True,
    )


def main() -> None:
    """Print rankings and conversations a second and memory of each format beside its floor."""
    for count in RANKINGS:
        project = ranked_project(count)
        for format in ("ranked", "preference"):
            bare = ranked_floor(project, format)
            for kind in ["jsonl", *(KINDS if format == "ranked" else ())]:
                told("rankings", count, "comparisons", format, project, bare, kind)
    for count in PIECES:
        project = factory.project()
        bulk.pieces(project, count)
        bulk.analyze()
        for format in ("messages", "prompt_completion"):
            bare = written_floor(project, format)
            for kind in ["jsonl", *(KINDS if format == "messages" else ())]:
                told("written conversations", count, "demonstrations", format, project, bare, kind)
        assert Conversation.objects.filter(project=project, exported_at__isnull=False).count() == count
    assert not Export.objects.exclude(state=Export.State.DONE).exists()

"""Claim and submit of a ranking, beside the same statements through bare psycopg in the same process."""

import os
import statistics
import time
from collections.abc import Callable

import psycopg
from django.db import connection

from annotate import assignments, queue, rankings
from annotate.errors import NothingLeft
from annotate.models import Assignment, Project, QueueCursor, User
from tests import bulk, factory

ROUNDS = 150
SIZES = [int(size) for size in os.environ.get("BENCH_SLOTS", "1000,100000").split(",")]


def median_ms(step: Callable[[], None], rounds: int = ROUNDS) -> float:
    """The median time of one step, in milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def ours(user: User, project: Project) -> Callable[[], None]:
    """One claim and one submit as pages and the API do it."""

    def step() -> None:
        slot = assignments.claim(user=user, project=project, kinds=["rank"])
        rankings.submit(assignment=slot, user=user, tiers=[[candidate] for candidate in slot.shown_order])

    return step


def bare(user: User, project: Project) -> Callable[[], None]:
    """The same statements without Django."""
    parts = connection.get_connection_params()
    parts = {name: parts[name] for name in ("dbname", "user", "password", "host", "port") if parts.get(name)}
    floor = psycopg.connect(**parts, autocommit=True)
    given = {
        "project": project.pk,
        "kind": "rank",
        "trainer": user.pk,
        "seat": 1,
        "own": False,
        "lease": "30 minutes",
        "few": queue.FEW,
        "young": queue.YOUNG,
    }

    def step() -> None:
        with floor.cursor() as cursor:
            with floor.transaction():
                cursor.execute(
                    "SELECT id FROM annotate_assignment WHERE project_id=%s AND trainer_id=%s AND state='held'",
                    [project.pk, user.pk],
                )
                cursor.fetchall()
                cursor.execute(queue.CLAIM, given)
                slot, priority, ordinal = cursor.fetchone()
                cursor.execute(
                    queue.PASSED,
                    given | {"claimed": slot, "claimed_priority": priority, "claimed_ordinal": ordinal},
                )
                cursor.execute(
                    "SELECT * FROM annotate_assignment a JOIN annotate_iteration i ON i.id = a.iteration_id "
                    "JOIN annotate_project p ON p.id = a.project_id WHERE a.id = %s",
                    [slot],
                )
                comparison, order = cursor.execute(
                    "SELECT comparison_id, shown_order FROM annotate_assignment WHERE id = %s", [slot]
                ).fetchone()
            with floor.transaction():
                cursor.execute("SELECT * FROM annotate_comparison WHERE id=%s FOR NO KEY UPDATE", [comparison])
                cursor.execute("SELECT id FROM annotate_candidate WHERE comparison_id=%s", [comparison])
                cursor.fetchall()
                cursor.execute(
                    "UPDATE annotate_assignment SET state='submitted', seat=NULL, lease_until=NULL, ended_at=now() "
                    "WHERE id=%s AND state='held' AND trainer_id=%s",
                    [slot, user.pk],
                )
                cursor.execute(
                    "INSERT INTO annotate_ranking (comparison_id, assignment_id, trainer_id, current, all_bad, "
                    "active_seconds, created_at) VALUES (%s,%s,%s,true,false,0,now()) RETURNING id",
                    [comparison, slot, user.pk],
                )
                ranking = cursor.fetchone()[0]
                cursor.execute(
                    "INSERT INTO annotate_rankedcandidate (ranking_id, candidate_id, rank, flags) "
                    "SELECT %s, id, place - 1, '{}' FROM unnest(%s::bigint[]) WITH ORDINALITY AS order_(id, place)",
                    [ranking, order],
                )
                cursor.execute("UPDATE annotate_assignment SET active_seconds=0 WHERE id=%s", [slot])
                cursor.execute(
                    "SELECT count(*) FROM annotate_assignment WHERE comparison_id=%s AND state='submitted'",
                    [comparison],
                )
                cursor.fetchone()

    return step


def rank_half(project: Project, user: User) -> None:
    """As if the user had ranked the first slot of every second comparison long ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotate_assignment SET state='submitted', trainer_id=%s, ended_at=now() "
            "WHERE project_id=%s AND state='free' AND ordinal=1 AND comparison_id %% 2 = 0",
            [user.pk, project.pk],
        )
        # And somebody else the other half, so that only second slots are left, half of them for nobody but others.
        cursor.execute(
            "UPDATE annotate_assignment SET state='submitted', trainer_id=%s, ended_at=now() "
            "WHERE project_id=%s AND state='free' AND ordinal=1",
            [factory.trainer(project).pk, project.pk],
        )


def nothing_left(project: Project) -> Callable[[], None]:
    """Claims of someone whose own conversations all of them are."""
    author = User.objects.get(pk=Assignment.objects.filter(project=project).values_list("author", flat=True)[0])

    def step() -> None:
        try:
            assignments.claim(user=author, project=project, kinds=["rank"])
        except NothingLeft:
            return
        raise AssertionError("there was something")

    return step


def main() -> None:
    """Print the table."""
    print(f"\nClaim and submit of a ranking, medians of {ROUNDS} in ms")
    print(f"{'open slots':>12} {'ours':>8} {'bare':>8} {'ratio':>6} {'ranked half':>12} {'nothing left':>13}")
    for size in SIZES:
        project = factory.project(overlap=2)
        bulk.comparisons(project, size // 2)
        bulk.analyze()
        first, second = factory.trainer(project), factory.trainer(project)
        steps = ours(first, project), bare(second, project)
        for step in steps:
            median_ms(step, 20)
        mine, floor = median_ms(steps[0]), median_ms(steps[1])
        veteran = factory.trainer(project)
        rank_half(project, veteran)
        bulk.analyze()
        step = ours(veteran, project)
        # The first claim moves the cursor past all that is done; it is timed with the others.
        half = median_ms(step)
        empty = median_ms(nothing_left(project))
        assert QueueCursor.objects.filter(project=project).exists() or size < 1000
        print(f"{size:>12,} {mine:>8.2f} {floor:>8.2f} {mine / floor:>6.2f} {half:>12.2f} {empty:>13.2f}")

"""The queue: which free slot is the next one for a person, found in a few index probes however long it is."""

from datetime import timedelta

from django.conf import settings
from django.db import connection

from annotate.models import Assignment, Project, QueueCursor, User

Kind = Assignment.Kind

# Free slots that anyone may take; the index of the queue has the same condition.
OPEN_TO_ALL = """free.state = 'free' AND free.reserved_for_id IS NULL
          AND free.project_id = %(project)s AND free.kind = %(kind)s"""

# The few (priority, ordinal) parts of the queue in their order, one index probe each.
PART = f"""part AS (
    (SELECT priority, ordinal FROM annotate_assignment free
     WHERE {OPEN_TO_ALL}
     ORDER BY priority, ordinal LIMIT 1)
    UNION ALL
    SELECT following.priority, following.ordinal FROM part, LATERAL (
        SELECT priority, ordinal FROM annotate_assignment free
        WHERE {OPEN_TO_ALL}
          AND (priority, ordinal) > (part.priority, part.ordinal)
        ORDER BY priority, ordinal LIMIT 1) following
)"""

# Whether a slot can be this trainer's: not their own conversation, and nothing that they had before. OFFSET 0 keeps
# the question for their own row a probe a slot, not a join.
THEIRS = """(%(own)s OR free.author_id IS DISTINCT FROM %(trainer)s)
          AND NOT EXISTS (
              SELECT FROM annotate_assignment mine
              WHERE mine.comparison_id = free.comparison_id AND mine.trainer_id = %(trainer)s OFFSET 0)
          AND NOT EXISTS (
              SELECT FROM annotate_assignment mine
              WHERE mine.subject_id = free.subject_id AND mine.kind = free.kind
                AND mine.trainer_id = %(trainer)s OFFSET 0)"""

# The claim walks the parts of the queue; in each the search begins where this trainer's cursor stands. The subquery
# of the cursor and the one of the slot are evaluated part by part, so that the first slot found ends the search. Two
# things keep the plan the same whatever the statistics say: the part is a range of the index's columns and not an
# equality, after which the primary key would have the wanted order too; and OFFSET 0, as above.
CLAIM = f"""
WITH RECURSIVE {PART}
UPDATE annotate_assignment
SET state = 'held', trainer_id = %(trainer)s, seat = %(seat)s, held_at = clock_timestamp(),
    lease_until = clock_timestamp() + %(lease)s,
    shown_order = ARRAY(
        SELECT candidate.id FROM annotate_candidate candidate
        WHERE candidate.comparison_id = annotate_assignment.comparison_id ORDER BY random())
WHERE id = (
    SELECT slot.id FROM part, LATERAL (
        SELECT free.id FROM annotate_assignment free
        WHERE {OPEN_TO_ALL}
          AND (free.priority, free.ordinal, free.id) > (part.priority, part.ordinal, coalesce((
              SELECT after FROM annotate_queuecursor cursor
              WHERE cursor.project_id = %(project)s AND cursor.trainer_id = %(trainer)s
                AND cursor.kind = %(kind)s AND cursor.priority = part.priority
                AND cursor.ordinal = part.ordinal), 0))
          AND (free.priority, free.ordinal) <= (part.priority, part.ordinal)
          AND {THEIRS}
        ORDER BY free.priority, free.ordinal, free.id LIMIT 1 FOR UPDATE SKIP LOCKED) slot
    LIMIT 1)
RETURNING id, priority, ordinal
"""

# How far a trainer's cursor may move in each part of the queue: to just before the first slot that could still be
# theirs, read without regard to locks, so that a slot that another claim is just giving back is not passed by.
# Slots younger than a transaction may last stay ahead of every cursor, because older ones may still be uncommitted.
# Only what the claim has just searched is looked at: the parts before the claimed slot's, and its own up to it.
PASSED = f"""
WITH RECURSIVE {PART}, reached AS (
    SELECT part.priority, part.ordinal, coalesce((
        SELECT after FROM annotate_queuecursor cursor
        WHERE cursor.project_id = %(project)s AND cursor.trainer_id = %(trainer)s AND cursor.kind = %(kind)s
          AND cursor.priority = part.priority AND cursor.ordinal = part.ordinal), 0) AS after,
        CASE WHEN (part.priority, part.ordinal) = (%(claimed_priority)s, %(claimed_ordinal)s)
             THEN %(claimed)s ELSE 9223372036854775807 END AS until
    FROM part
    WHERE (part.priority, part.ordinal) <= (%(claimed_priority)s, %(claimed_ordinal)s)
), crowded AS (
    SELECT reached.* FROM reached WHERE (
        SELECT count(*) FROM (
            SELECT FROM annotate_assignment free
            WHERE {OPEN_TO_ALL}
              AND (free.priority, free.ordinal, free.id) > (reached.priority, reached.ordinal, reached.after)
              AND (free.priority, free.ordinal, free.id) < (reached.priority, reached.ordinal, reached.until)
            ORDER BY free.priority, free.ordinal, free.id LIMIT %(few)s) ahead) = %(few)s
)
INSERT INTO annotate_queuecursor (project_id, trainer_id, kind, priority, ordinal, after)
SELECT %(project)s, %(trainer)s, %(kind)s, crowded.priority, crowded.ordinal, coalesce((
    SELECT free.id - 1 FROM annotate_assignment free
    WHERE {OPEN_TO_ALL}
      AND (free.priority, free.ordinal, free.id) > (crowded.priority, crowded.ordinal, crowded.after)
      AND (free.priority, free.ordinal) <= (crowded.priority, crowded.ordinal)
      AND (free.created_at > clock_timestamp() - %(young)s
           OR {THEIRS})
    ORDER BY free.priority, free.ordinal, free.id LIMIT 1), (
    SELECT free.id FROM annotate_assignment free
    WHERE {OPEN_TO_ALL}
      AND (free.priority, free.ordinal) <= (crowded.priority, crowded.ordinal)
    ORDER BY free.priority DESC, free.ordinal DESC, free.id DESC LIMIT 1), crowded.after)
FROM crowded
ON CONFLICT (project_id, trainer_id, kind, priority, ordinal)
DO UPDATE SET after = greatest(annotate_queuecursor.after, excluded.after)
"""

# Free slots for a person; what is read of those that are not for them is bounded.
FREE = f"""
SELECT count(*) FROM (
    SELECT FROM (
        SELECT free.comparison_id, free.subject_id, free.kind, free.author_id FROM annotate_assignment free
        WHERE {OPEN_TO_ALL}
          AND free.id > coalesce((
              SELECT min(after) FROM annotate_queuecursor cursor
              WHERE cursor.project_id = %(project)s AND cursor.trainer_id = %(trainer)s
                AND cursor.kind = %(kind)s AND cursor.priority = free.priority
                AND cursor.ordinal = free.ordinal), 0)
        ORDER BY free.priority, free.ordinal, free.id LIMIT 500) free
    WHERE {THEIRS}
    LIMIT %(most)s) counted
"""

FEW = 64
"""So many passed slots cost less than moving a cursor."""

YOUNG = timedelta(minutes=10)
"""Longer than any transaction that makes slots may last."""

BEHIND_ALL = {"claimed": 2**63 - 1, "claimed_priority": 2**15 - 1, "claimed_ordinal": 2**15 - 1}
"""Where a claim that found nothing has searched: everywhere."""


def take_next(*, user: User, project: Project, kind: str, seat: int) -> int | None:
    """Hold the next slot of a kind that is for this person in a seat; its id, None where there is none now.

    Call it inside a transaction. Raises IntegrityError where another tab has taken the seat at this moment.
    """
    given = {
        "project": project.pk,
        "kind": kind,
        "trainer": user.pk,
        "seat": seat,
        "own": project.authors_rank_own and kind == Kind.RANK,
        "lease": timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS),
        "few": FEW,
        "young": YOUNG,
    }
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, given)
        row = cursor.fetchone()
        if kind in (Kind.RANK, Kind.REVIEW):
            found = dict(zip(BEHIND_ALL, row, strict=True)) if row else BEHIND_ALL
            cursor.execute(PASSED, given | found)
    return row[0] if row else None


def free_up_to(*, user: User, project: Project, kind: str, most: int = 99) -> int:
    """How many slots of a kind are there for this trainer now, counted no further than `most`.

    An upper bound after a few hundred slots that are not for them: what it reads is bounded too.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            FREE,
            {
                "project": project.pk,
                "kind": kind,
                "trainer": user.pk,
                "own": project.authors_rank_own and kind == Kind.RANK,
                "most": most,
            },
        )
        return cursor.fetchone()[0]


def forget_cursors(*, project: Project) -> None:
    """Look through the whole queue again, as is needed where who may rank what has changed."""
    QueueCursor.objects.filter(project=project).delete()

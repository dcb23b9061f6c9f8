"""Slots of work: handed out, held, skipped, run out, and taken at the end.

The queue is one table. A claim is one statement on an index of what is free; a row that was held never becomes
free again, its place is taken by a new row. What must never happen is a constraint of the table.
"""

import json
import re
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from annotate import openings
from annotate.errors import Conflict, DraftConflict, Invalid, NothingLeft
from annotate.models import Assignment, Conversation, Iteration, Project, QueueCursor, SkipReason, User

State = Assignment.State

# The recursion walks the few (priority, ordinal) parts of the queue in their order, one index probe each; in each
# the search begins where this trainer's cursor stands. The subquery of the cursor and the one of the slot are
# evaluated part by part, so that the first slot found ends the search. Two things keep the plan the same whatever the
# statistics say: the part is a range of the index's columns and not an equality, after which the primary key would
# have the wanted order too; and OFFSET 0 keeps the question for the trainer's own row a probe a slot, not a join.
CLAIM = """
WITH RECURSIVE part AS (
    (SELECT priority, ordinal FROM annotate_assignment
     WHERE state = 'free' AND project_id = %(project)s AND kind = %(kind)s
     ORDER BY priority, ordinal LIMIT 1)
    UNION ALL
    SELECT following.priority, following.ordinal FROM part, LATERAL (
        SELECT priority, ordinal FROM annotate_assignment
        WHERE state = 'free' AND project_id = %(project)s AND kind = %(kind)s
          AND (priority, ordinal) > (part.priority, part.ordinal)
        ORDER BY priority, ordinal LIMIT 1) following
)
UPDATE annotate_assignment
SET state = 'held', trainer_id = %(trainer)s, seat = %(seat)s, held_at = clock_timestamp(),
    lease_until = clock_timestamp() + %(lease)s,
    shown_order = ARRAY(
        SELECT candidate.id FROM annotate_candidate candidate
        WHERE candidate.comparison_id = annotate_assignment.comparison_id ORDER BY random())
WHERE id = (
    SELECT slot.id FROM part, LATERAL (
        SELECT free.id FROM annotate_assignment free
        WHERE free.state = 'free' AND free.project_id = %(project)s AND free.kind = %(kind)s
          AND (free.priority, free.ordinal, free.id) > (part.priority, part.ordinal, coalesce((
              SELECT after FROM annotate_queuecursor cursor
              WHERE cursor.project_id = %(project)s AND cursor.trainer_id = %(trainer)s
                AND cursor.kind = %(kind)s AND cursor.priority = part.priority
                AND cursor.ordinal = part.ordinal), 0))
          AND (free.priority, free.ordinal) <= (part.priority, part.ordinal)
          AND (%(own)s OR free.author_id IS DISTINCT FROM %(trainer)s)
          AND NOT EXISTS (
              SELECT FROM annotate_assignment mine
              WHERE mine.comparison_id = free.comparison_id AND mine.trainer_id = %(trainer)s OFFSET 0)
        ORDER BY free.priority, free.ordinal, free.id LIMIT 1 FOR UPDATE SKIP LOCKED) slot
    LIMIT 1)
RETURNING id, priority, ordinal
"""

# How far a trainer's cursor may move in each part of the queue: to just before the first slot that could still be
# theirs, read without regard to locks, so that a slot that another claim is just giving back is not passed by.
# Slots younger than a transaction may last stay ahead of every cursor, because older ones may still be uncommitted.
# Only what the claim has just searched is looked at: the parts before the claimed slot's, and its own up to it.
PASSED = """
WITH RECURSIVE part AS (
    (SELECT priority, ordinal FROM annotate_assignment
     WHERE state = 'free' AND project_id = %(project)s AND kind = %(kind)s
     ORDER BY priority, ordinal LIMIT 1)
    UNION ALL
    SELECT following.priority, following.ordinal FROM part, LATERAL (
        SELECT priority, ordinal FROM annotate_assignment
        WHERE state = 'free' AND project_id = %(project)s AND kind = %(kind)s
          AND (priority, ordinal) > (part.priority, part.ordinal)
        ORDER BY priority, ordinal LIMIT 1) following
), reached AS (
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
            WHERE free.state = 'free' AND free.project_id = %(project)s AND free.kind = %(kind)s
              AND (free.priority, free.ordinal, free.id) > (reached.priority, reached.ordinal, reached.after)
              AND (free.priority, free.ordinal, free.id) < (reached.priority, reached.ordinal, reached.until)
            ORDER BY free.priority, free.ordinal, free.id LIMIT %(few)s) ahead) = %(few)s
)
INSERT INTO annotate_queuecursor (project_id, trainer_id, kind, priority, ordinal, after)
SELECT %(project)s, %(trainer)s, %(kind)s, crowded.priority, crowded.ordinal, coalesce((
    SELECT free.id - 1 FROM annotate_assignment free
    WHERE free.state = 'free' AND free.project_id = %(project)s AND free.kind = %(kind)s
      AND (free.priority, free.ordinal, free.id) > (crowded.priority, crowded.ordinal, crowded.after)
      AND (free.priority, free.ordinal) <= (crowded.priority, crowded.ordinal)
      AND (free.created_at > clock_timestamp() - %(young)s
           OR (%(own)s OR free.author_id IS DISTINCT FROM %(trainer)s)
              AND NOT EXISTS (
                  SELECT FROM annotate_assignment mine
                  WHERE mine.comparison_id = free.comparison_id AND mine.trainer_id = %(trainer)s OFFSET 0))
    ORDER BY free.priority, free.ordinal, free.id LIMIT 1), (
    SELECT free.id FROM annotate_assignment free
    WHERE free.state = 'free' AND free.project_id = %(project)s AND free.kind = %(kind)s
      AND (free.priority, free.ordinal) <= (crowded.priority, crowded.ordinal)
    ORDER BY free.priority DESC, free.ordinal DESC, free.id DESC LIMIT 1), crowded.after)
FROM crowded
ON CONFLICT (project_id, trainer_id, kind, priority, ordinal)
DO UPDATE SET after = greatest(annotate_queuecursor.after, excluded.after)
"""

DRAFT_CHARACTERS = 200_000
"""The longest draft as JSON; several times the longest message."""

ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

FEW = 64
"""So many passed slots cost less than moving a cursor."""

YOUNG = timedelta(minutes=10)
"""Longer than any transaction that makes slots may last."""

BEHIND_ALL = {"claimed": 2**63 - 1, "claimed_priority": 2**15 - 1, "claimed_ordinal": 2**15 - 1}
"""Where a claim that found nothing has searched: everywhere."""


def claim(*, user: User, project: Project, kinds: list[str] | None = None, ahead: bool = False) -> Assignment:
    """The slot that the trainer holds, else the next one for them, of those `kinds` that the project has, in order.

    With `ahead` the second seat: the next ranking while they are at one. Raises NothingLeft where there is no slot
    for them now. Two tabs that claim at once get the same slot: the constraint on seats turns the second one back,
    which then finds what the first has got.
    """
    wanted = [kind for kind in kinds or project.kinds if kind in project.kinds]
    for last in (False, True):
        try:
            with transaction.atomic():
                assignment = _claim(user, project, wanted, ahead)
            break
        except IntegrityError:
            if last:
                raise Conflict("Another tab of yours is taking work at this moment. Try again.") from None
    # Raised only here, because what the search has learnt is to be committed.
    if assignment is None:
        raise NothingLeft("There is nothing left for you here at the moment.")
    return assignment


def _claim(user: User, project: Project, kinds: list[str], ahead: bool) -> Assignment | None:
    held = {
        assignment.seat: assignment
        for assignment in Assignment.objects.filter(project=project, trainer=user, state=State.HELD)
    }
    if ahead:
        if 2 in held:
            return held[2]
        kinds = [kind for kind in kinds if kind == Assignment.Kind.RANK]
    elif held:
        assignment = held.get(1) or held[2]
        _lease(assignment, user)
        assignment.refresh_from_db()
        return assignment
    for kind in kinds:
        assignment_id = _claim_slot(user, project, kind, seat=2 if ahead else 1)
        if assignment_id is not None:
            assignment = Assignment.objects.select_related("iteration", "project").get(pk=assignment_id)
            if kind == Assignment.Kind.CHAT:
                openings.open_for(assignment=assignment)
            return assignment
    return None


def _claim_slot(user: User, project: Project, kind: str, *, seat: int) -> int | None:
    given = {
        "project": project.pk,
        "kind": kind,
        "trainer": user.pk,
        "seat": seat,
        "own": project.authors_rank_own,
        "lease": timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS),
        "few": FEW,
        "young": YOUNG,
    }
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, given)
        row = cursor.fetchone()
        if kind == Assignment.Kind.RANK:
            found = dict(zip(BEHIND_ALL, row, strict=True)) if row else BEHIND_ALL
            cursor.execute(PASSED, given | found)
    return row[0] if row else None


def _lease(assignment: Assignment, user: User) -> bool:
    """Renew the lease of a held slot and make it the one that is worked on."""
    return bool(
        Assignment.objects.filter(pk=assignment.pk, trainer=user, state=State.HELD).update(
            seat=1, lease_until=timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)
        )
    )


@transaction.atomic
def release_ahead(*, user: User, project: Project) -> bool:
    """Give back the slot that was fetched ahead and never looked at. Whether there was one.

    The row is withdrawn and forgets the trainer, who may get its comparison another time; a new one takes its place.
    """
    ahead = Assignment.objects.filter(project=project, trainer=user, state=State.HELD, seat=2).first()
    if ahead is None or not _end(ahead, State.HELD, State.WITHDRAWN, seat_is=2, trainer=None):
        return False
    _replace(ahead)
    return True


def take_seat(*, assignment: Assignment, user: User) -> Assignment:
    """The trainer opens the page of a slot that they hold: it is now what they work on. Others stay as they are."""
    if assignment.state == State.HELD:
        try:
            with transaction.atomic():
                _lease(assignment, user)
        except IntegrityError:
            # They look at what was fetched ahead while another slot is still theirs; its seat stays the second.
            renew(assignment=assignment, user=user)
        assignment.refresh_from_db(fields=["state", "seat", "lease_until"])
    return assignment


def renew(*, assignment: Assignment, user: User) -> None:
    """Renew the lease of a slot that is being worked on. Raises Conflict where it is no longer held."""
    renewed = Assignment.objects.filter(pk=assignment.pk, trainer=user, state=State.HELD).update(
        lease_until=timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)
    )
    if not renewed:
        raise Conflict("This task is no longer held by you.")


def save_draft(*, assignment: Assignment, user: User, draft: dict, version: int, active_seconds: int = 0) -> int:
    """Keep what was typed; the new version. `version` is the one that it was made from.

    Works on held and on expired slots. Raises Invalid for what cannot be stored, DraftConflict with the stored draft
    where another tab has saved a newer one, and Conflict where the work has been sent already.
    """
    _check_storable(draft)
    saved = Assignment.objects.filter(
        pk=assignment.pk, trainer=user, draft_version=version, state__in=[State.HELD, State.EXPIRED]
    ).update(
        draft=draft,
        draft_version=F("draft_version") + 1,
        active_seconds=max(active_seconds, 0) if active_seconds else F("active_seconds"),
    )
    if saved:
        Assignment.objects.filter(pk=assignment.pk, state=State.HELD).update(
            lease_until=timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)
        )
        return version + 1
    assignment.refresh_from_db(fields=["state", "draft", "draft_version"])
    if assignment.state in (State.HELD, State.EXPIRED):
        raise DraftConflict(
            "Another tab has saved a newer draft of this.",
            current=assignment.draft,
            version=assignment.draft_version,
        )
    raise Conflict(f"This task was {assignment.state} already.")


def _check_storable(draft: dict) -> None:
    """PostgreSQL's jsonb knows neither NUL, nor half a surrogate pair, nor a number without end (1e999)."""
    try:
        text = json.dumps(draft, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        raise Invalid("The draft is damaged and was not kept.") from None
    if len(text) > DRAFT_CHARACTERS:
        raise Invalid(f"A draft may have {DRAFT_CHARACTERS:,} characters; this one has {len(text):,}.")
    if ESCAPED_NUL.search(text):
        raise Invalid("The draft has a null character and was not kept.")


@transaction.atomic
def skip(*, assignment: Assignment, user: User, reason: str, note: str = "") -> None:
    """Pass a held slot on, with a reason. Its comparison does not come back to the same trainer."""
    if reason not in SkipReason.values:
        raise Invalid(f"Choose why you skip: {', '.join(SkipReason.values)}.")
    if not _end(assignment, State.HELD, State.SKIPPED, user=user, skip_reason=reason, skip_note=note[:2000]):
        assignment.refresh_from_db(fields=["state"])
        raise Conflict(f"This task was {assignment.state} already.")
    _replace(assignment)
    if assignment.conversation_id is not None:
        openings.abandon(conversation=assignment.conversation)


@transaction.atomic
def expire() -> int:
    """Held slots whose lease has run out: the row keeps its trainer and what they typed, a new one takes its place.

    A slot that was fetched ahead was never looked at: it is withdrawn and forgets its trainer.
    """
    late = list(
        Assignment.objects.select_for_update(skip_locked=True, no_key=True)
        .filter(state=State.HELD, lease_until__lt=timezone.now())
        .order_by("lease_until")[:500]
    )
    ended = 0
    for assignment in late:
        if assignment.seat == 2:
            done = _end(assignment, State.HELD, State.WITHDRAWN, trainer=None)
        else:
            done = _end(assignment, State.HELD, State.EXPIRED)
        if done:
            _replace(assignment)
            ended += 1
    return ended


def take_place(*, assignment: Assignment, user: User) -> str:
    """The slot's work is in: the state that it got, `submitted` or `surplus`. Call it inside a transaction.

    One whose lease ran out counts where its place is still free, which is then withdrawn; else it is kept as
    surplus. Raises Conflict where it was ended before.
    """
    if _end(assignment, State.HELD, State.SUBMITTED, user=user):
        return State.SUBMITTED
    current = Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)
    if current.state != State.EXPIRED:
        raise Conflict(f"This task was {current.state} already. Nothing was changed.")
    place = _standing_in(current)
    counts = place is not None and _end(place, State.FREE, State.WITHDRAWN)
    state = State.SUBMITTED if counts else State.SURPLUS
    _end(current, State.EXPIRED, state, user=user)
    return state


def _standing_in(assignment: Assignment) -> Assignment | None:
    """The row that holds this one's place now: the last of those that replaced one another."""
    place = Assignment.objects.filter(replaces=assignment).first()
    while place is not None and place.state not in Assignment.LIVE:
        place = Assignment.objects.filter(replaces=place).first()
    return place


def _end(assignment: Assignment, before: str, after: str, *, user=None, seat_is=None, **changes) -> bool:
    """One state to another, if it is still in the first. Whether it was."""
    rows = Assignment.objects.filter(pk=assignment.pk, state=before)
    if user is not None:
        rows = rows.filter(trainer=user)
    if seat_is is not None:
        rows = rows.filter(seat=seat_is)
    return bool(rows.update(state=after, seat=None, lease_until=None, ended_at=timezone.now(), **changes))


def _replace(assignment: Assignment) -> Assignment | None:
    """A new free slot in the place of one that ended, as long as its iteration is open."""
    if not Iteration.objects.filter(pk=assignment.iteration_id, state=Iteration.State.OPEN).exists():
        return None
    return Assignment.objects.create(
        project_id=assignment.project_id,
        iteration_id=assignment.iteration_id,
        kind=assignment.kind,
        priority=assignment.priority,
        ordinal=assignment.ordinal,
        comparison_id=assignment.comparison_id,
        author_id=assignment.author_id,
        replaces=assignment,
    )


@transaction.atomic
def open_chats(*, project: Project, count: int, priority: int = 0) -> int:
    """Make `count` free chat slots in the open iteration. Raises Invalid for a bad count, Conflict with none open."""
    if not 1 <= count <= 100_000:
        raise Invalid("Open between 1 and 100,000 slots at once.")
    iteration = Iteration.objects.filter(project=project, state=Iteration.State.OPEN).first()
    if iteration is None:
        raise Conflict(f"Project {project.slug} has no open iteration; open one first.")
    Assignment.objects.bulk_create(
        (
            Assignment(project=project, iteration=iteration, kind=Assignment.Kind.CHAT, priority=priority)
            for _ in range(count)
        ),
        batch_size=1000,
    )
    return count


def free_up_to(*, user: User, project: Project, kind: str, most: int = 99) -> int:
    """How many slots of a kind are there for this trainer now, counted no further than `most`.

    An upper bound after a few hundred slots that are not for them: what it reads is bounded too.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM (
                SELECT FROM (
                    SELECT free.comparison_id, free.author_id FROM annotate_assignment free
                    WHERE free.state = 'free' AND free.project_id = %(project)s AND free.kind = %(kind)s
                      AND free.id > coalesce((
                          SELECT min(after) FROM annotate_queuecursor cursor
                          WHERE cursor.project_id = %(project)s AND cursor.trainer_id = %(trainer)s
                            AND cursor.kind = %(kind)s AND cursor.priority = free.priority
                            AND cursor.ordinal = free.ordinal), 0)
                    ORDER BY free.priority, free.ordinal, free.id LIMIT 500) free
                WHERE (%(own)s OR free.author_id IS DISTINCT FROM %(trainer)s)
                  AND NOT EXISTS (
                      SELECT FROM annotate_assignment mine
                      WHERE mine.comparison_id = free.comparison_id AND mine.trainer_id = %(trainer)s OFFSET 0)
                LIMIT %(most)s) counted
            """,
            {
                "project": project.pk,
                "kind": kind,
                "trainer": user.pk,
                "own": project.authors_rank_own,
                "most": most,
            },
        )
        return cursor.fetchone()[0]


def forget_cursors(*, project: Project) -> None:
    """Look through the whole queue again, as is needed where who may rank what has changed."""
    QueueCursor.objects.filter(project=project).delete()


def abandon_old() -> int:
    """End the conversations of slots that expired long ago. Their words stay in the record."""
    before = timezone.now() - timedelta(hours=settings.ABANDON_AFTER_HOURS)
    old = Conversation.objects.filter(
        state=Conversation.State.OPEN, assignment__state=State.EXPIRED, assignment__ended_at__lt=before
    )[:100]
    for conversation in (found := list(old)):
        openings.abandon(conversation=conversation)
    return len(found)

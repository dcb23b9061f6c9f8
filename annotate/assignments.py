"""Slots of work: handed out, held, skipped, run out, and taken at the end.

The queue is one table. A claim is one statement on an index of what is free; a row that was held never becomes
free again, its place is taken by a new row. What must never happen is a constraint of the table.
"""

import json
import re
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from annotate import openings, queue
from annotate.errors import Conflict, DraftConflict, Invalid, NothingLeft
from annotate.models import Assignment, Conversation, Iteration, Project, SkipReason, User

Kind = Assignment.Kind
State = Assignment.State

DRAFT_CHARACTERS = 200_000
"""The longest draft as JSON; several times the longest message."""

ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def claim(
    *, user: User, project: Project, kinds: list[str] | None = None, ahead: bool = False, reserved: int | None = None
) -> Assignment:
    """The slot that the person holds, else the next one for them, of those `kinds` that the project has, in order.

    What is reserved for them comes before what is open to all; `reserved` names one of those by its id. Reviews are
    handed out where `kinds` says so. With `ahead` the second seat: the next ranking while they are at one.
    Raises NothingLeft where there is no slot for them now. Two tabs that claim at once get the same slot: the
    constraint on seats turns the second one back, which then finds what the first has got.
    """
    wanted = [kind for kind in kinds or project.kinds if kind in (*project.kinds, Kind.REVIEW)]
    for last in (False, True):
        try:
            with transaction.atomic():
                assignment = _claim(user, project, wanted, ahead=ahead, reserved=reserved)
            break
        except IntegrityError:
            if last:
                raise Conflict("Another tab of yours is taking work at this moment. Try again.") from None
    # Raised only here, because what the search has learnt is to be committed.
    if assignment is None:
        raise NothingLeft("There is nothing left for you here at the moment.")
    return assignment


def _claim(user: User, project: Project, kinds: list[str], *, ahead: bool, reserved: int | None) -> Assignment | None:
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
    seat = 2 if ahead else 1
    if reserved is not None:
        return _claim_reserved(user, project, kinds, pk=reserved)
    # Only writing is ever reserved.
    assignment = _claim_reserved(user, project, kinds) if Kind.WRITE in kinds and not ahead else None
    if assignment is not None:
        return assignment
    for kind in kinds:
        assignment_id = queue.take_next(user=user, project=project, kind=kind, seat=seat)
        if assignment_id is not None:
            return _held_now(assignment_id)
    return None


def _claim_reserved(user: User, project: Project, kinds: list[str], **which) -> Assignment | None:
    """Hold the first slot that waits for this person only."""
    waiting = (
        reserved_for(user=user, project=project)
        .filter(kind__in=kinds, **which)
        .select_for_update(skip_locked=True, no_key=True, of=["self"])
        .first()
    )
    if waiting is None:
        return None
    now = timezone.now()
    Assignment.objects.filter(pk=waiting.pk, state=State.FREE).update(
        state=State.HELD,
        trainer=user,
        seat=1,
        held_at=now,
        lease_until=now + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS),
    )
    return _held_now(waiting.pk)


def _held_now(pk: int) -> Assignment:
    assignment = Assignment.objects.select_related("iteration", "project", "subject").get(pk=pk)
    if assignment.kind in (Kind.CHAT, Kind.WRITE):
        openings.open_for(assignment=assignment)
    return assignment


def reserved_for(*, user: User, project: Project) -> QuerySet[Assignment]:
    """Free slots that wait for this person only: what came back, their branches and revisions; the first one first."""
    waiting = Assignment.objects.filter(project=project, reserved_for=user, state=State.FREE)
    return waiting.order_by("priority", "id")


def open_reservations() -> int:
    """Let anyone take what has waited for its own trainer long enough. How many slots were opened."""
    late = Assignment.objects.filter(state=State.FREE, personal=False, reserved_until__lt=timezone.now())
    return late.update(reserved_for=None, reserved_until=None)


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
    _replace(ahead, waits=False)
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


def keep_on(*, assignment: Assignment, user: User) -> None:
    """A step of the work was taken: renew its lease. One that has run out meanwhile may still come in late."""
    try:
        renew(assignment=assignment, user=user)
    except Conflict:
        return


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
    if assignment.conversation_id is not None:
        # Before its slot, as everybody who says or ends something in it: else two tabs wait for each other.
        conversation = Conversation.objects.select_for_update(no_key=True).get(pk=assignment.conversation_id)
    if not _end(assignment, State.HELD, State.SKIPPED, user=user, skip_reason=reason, skip_note=note[:2000]):
        assignment.refresh_from_db(fields=["state"])
        raise Conflict(f"This task was {assignment.state} already.")
    _replace(assignment, waits=False)
    if assignment.conversation_id is not None:
        openings.abandon(conversation=conversation)


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
            _replace(assignment, waits=True)
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
    if current.personal:
        # Nobody else was ever to have it; but its trainer may have begun the same revision once more.
        again = _live_revision(current)
        counts = current.iteration.state != Iteration.State.CLOSED
        counts = counts and (again is None or _end(again, State.FREE, State.WITHDRAWN))
    else:
        counts = place is not None and _end(place, State.FREE, State.WITHDRAWN)
    state = State.SUBMITTED if counts else State.SURPLUS
    _end(current, State.EXPIRED, state, user=user)
    return state


def still_count(expired: Iterable[Assignment]) -> set[int]:
    """Which of these expired slots would still count if their work came in now; their ids. See `take_place`.

    Personal ones do while their round goes on and the same was not begun once more, all others while nobody has taken
    their place. The queries grow with how often one place ran out again, not with the rows.
    """
    expired = list(expired)
    open_rounds = set(
        Iteration.objects.filter(pk__in={slot.iteration_id for slot in expired})
        .exclude(state=Iteration.State.CLOSED)
        .values_list("pk", flat=True)
    )
    personal = [slot for slot in expired if slot.personal and slot.iteration_id in open_rounds]
    begun_again = Assignment.objects.filter(
        subject__in={slot.subject_id for slot in personal}, kind=Kind.WRITE, state__in=[State.HELD, State.SUBMITTED]
    )
    taken = set(begun_again.values_list("subject_id", flat=True))
    counting = {slot.pk for slot in personal if slot.subject_id not in taken}
    first = {slot.pk: slot.pk for slot in expired if not slot.personal}
    while first:
        places = Assignment.objects.filter(replaces__in=first).values_list("pk", "replaces_id", "state")
        found = [(pk, first[replaced], state) for pk, replaced, state in places]
        counting |= {slot for _, slot, state in found if state == State.FREE}
        first = {pk: slot for pk, slot, state in found if state not in Assignment.LIVE}
    return counting


def _live_revision(assignment: Assignment) -> Assignment | None:
    """The row in which the same conversation is being revised, or was, if any."""
    if assignment.subject_id is None:
        return None
    live = Assignment.objects.filter(subject=assignment.subject_id, kind=Kind.WRITE, state__in=Assignment.LIVE)
    return live.first()


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


def _replace(assignment: Assignment, *, waits: bool) -> Assignment | None:
    """A new free slot in the place of one that ended, as long as its iteration hands out such work.

    With `waits` one that was reserved for somebody waits for them still.
    """
    states = [Iteration.State.OPEN]
    if assignment.kind == Kind.REVIEW:
        # A round that is closing still has its work reviewed.
        states.append(Iteration.State.CLOSING)
    if assignment.personal or not Iteration.objects.filter(pk=assignment.iteration_id, state__in=states).exists():
        return None
    return Assignment.objects.create(
        project_id=assignment.project_id,
        iteration_id=assignment.iteration_id,
        kind=assignment.kind,
        priority=assignment.priority,
        ordinal=assignment.ordinal,
        comparison_id=assignment.comparison_id,
        author_id=assignment.author_id,
        subject_id=assignment.subject_id,
        reserved_for_id=assignment.reserved_for_id if waits else None,
        reserved_until=assignment.reserved_until if waits else None,
        replaces=assignment,
    )


@transaction.atomic
def open_slots(*, project: Project, kind: str, count: int, priority: int = 0) -> int:
    """Make `count` free slots of chat or writing in the open iteration.

    Raises Invalid for a bad count or another kind, Conflict with no iteration open.
    """
    if kind not in (Kind.CHAT, Kind.WRITE):
        raise Invalid("Only slots for chats and for writing are opened by hand; the others come of what is finished.")
    if not 1 <= count <= 100_000:
        raise Invalid("Open between 1 and 100,000 slots at once.")
    iteration = Iteration.objects.filter(project=project, state=Iteration.State.OPEN).first()
    if iteration is None:
        raise Conflict(f"Project {project.slug} has no open iteration; open one first.")
    Assignment.objects.bulk_create(
        (Assignment(project=project, iteration=iteration, kind=kind, priority=priority) for _ in range(count)),
        batch_size=1000,
    )
    return count


def abandon_old() -> int:
    """End the conversations of slots that expired or were taken back long ago. Their words stay in the record."""
    before = timezone.now() - timedelta(hours=settings.ABANDON_AFTER_HOURS)
    old = Conversation.objects.filter(
        state=Conversation.State.OPEN,
        assignment__state__in=[State.EXPIRED, State.WITHDRAWN],
        assignment__ended_at__lt=before,
    )[:100]
    for conversation in (found := list(old)):
        openings.abandon(conversation=conversation)
    return len(found)

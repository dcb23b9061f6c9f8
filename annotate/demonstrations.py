"""Demonstrations: a trainer writes both sides of a conversation, with suggestions, and finishes it.

While a piece is open it is a manuscript in the draft of its slot, see `manuscripts`. At its end it becomes messages,
and here, not on the page, it is decided where each text came from.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from annotate import assignments, conversations, generation, likeness, personal, reviews
from annotate.errors import Conflict, DraftConflict, Invalid
from annotate.manuscripts import MOST_TURNS, ROLES, Manuscript, Reference, Turn, clean, problems, read
from annotate.models import (
    Assignment,
    Completion,
    Conversation,
    GenerationRequest,
    Iteration,
    Message,
    Project,
    TurnShape,
    User,
)

HINT_CHARACTERS = 500

MOST_WAITING = 20
"""Branches and revisions of one trainer in one project that may wait at once."""

ANCESTORS = 100


@dataclass(frozen=True, slots=True)
class Look:
    """The last look at a piece: what forbids to finish it, and what is only said."""

    manuscript: Manuscript
    problems: list[str]
    warnings: list[str]


def _open(assignment: Assignment, user: User, *, locked: bool) -> Conversation:
    """The open conversation of a writing slot that this trainer holds or held."""
    if assignment.kind != Assignment.Kind.WRITE or assignment.trainer_id != user.pk:
        raise Conflict("This task is not a piece of your writing.")
    found = Conversation.objects.select_related("iteration", "project", "prompt", "revises")
    if locked:
        found = found.select_for_update(of=["self"], no_key=True)
    conversation = found.get(pk=assignment.conversation_id)
    if conversation.state != Conversation.State.OPEN:
        raise Conflict(f"This conversation is {conversation.state} already.")
    return conversation


# --- Suggestions -----------------------------------------------------------------------------------------------------


@transaction.atomic
def suggest(
    *,
    assignment: Assignment,
    user: User,
    role: str,
    before: list[dict],
    system: str | None = None,
    hint: str = "",
    n: int | None = None,
) -> GenerationRequest:
    """Ask for 1 to 3 suggestions (the project's number unless `n` says) for the turn that follows `before`.

    `before` is a list of role and content, without the system message; `system` takes the place of the project's
    where trainers may change it. What was asked for this piece earlier and is not there yet is stopped. Raises
    Invalid for a bad input, Conflict where the piece has ended or its round is closed.
    """
    conversation = _open(assignment, user, locked=True)
    if conversation.iteration.state == Iteration.State.CLOSED:
        raise Conflict("This round is closed: there are no suggestions any more. What you wrote is kept.")
    if role not in ROLES:
        raise Invalid(f"Suggestions are for one of: {', '.join(ROLES)}.")
    hint = clean(hint).strip()
    if len(hint) > HINT_CHARACTERS:
        raise Invalid(f"A hint may have {HINT_CHARACTERS} characters; this one has {len(hint)}.")
    n = conversation.project.suggestions if n is None else n
    if type(n) is not int or not 1 <= n <= 3:
        raise Invalid("Ask for 1 to 3 suggestions.")
    turns = _before(before)
    _stop(conversation)
    if assignment.state == Assignment.State.HELD:
        assignments.keep_on(assignment=assignment, user=user)
    return generation.request_suggestions(
        conversation=conversation,
        assignment=assignment,
        role=role,
        position=len(turns) + 1,
        messages=[{"role": "system", "content": _system(conversation, system)}, *turns],
        hint=hint,
        n=n,
    )


def _before(before: list[dict]) -> list[dict]:
    manuscript = read({"turns": [{"role": turn.get("role"), "text": turn.get("content")} for turn in _dicts(before)]})
    turns = manuscript.turns if before else []
    for turn in turns:
        if len(turn.text) > settings.MESSAGE_CHARACTERS:
            raise Invalid(f"A turn may have {settings.MESSAGE_CHARACTERS:,} characters; one has {len(turn.text):,}.")
    return [{"role": turn.role, "content": turn.text} for turn in turns if turn.text.strip()]


def _dicts(before) -> list[dict]:
    if not isinstance(before, list) or not all(isinstance(turn, dict) for turn in before):
        raise Invalid("The turns before are a list of role and content.")
    return before


def _system(conversation: Conversation, system: str | None) -> str:
    """The system message of a piece. Raises Invalid where it may not be changed, or is too long."""
    own = first_system(conversation)
    if system is None or clean(system).strip() in ("", own.strip()):
        return own
    if not conversation.project.system_editable:
        raise Invalid("The system message of this project cannot be changed.")
    if len(system) > settings.MESSAGE_CHARACTERS:
        raise Invalid(f"The system message may have {settings.MESSAGE_CHARACTERS:,} characters.")
    return clean(system).strip()


def first_system(conversation: Conversation) -> str:
    """The system message that an open piece begins with: that of what it revises, else the project's."""
    before = conversation.revises
    message = before and before.messages.filter(role=Message.ChatRole.SYSTEM).first()
    return message.text if message else conversation.project.system_message


@transaction.atomic
def stop(*, assignment: Assignment, user: User) -> None:
    """Stop the suggestions that are being written; what is there of them stays. None is no error."""
    _stop(_open(assignment, user, locked=True))


def _stop(conversation: Conversation) -> None:
    for pending in generation.pending(conversation):
        generation.stop(request=pending)


def newest_suggestions(assignment: Assignment) -> GenerationRequest | None:
    """What was asked last for a piece, with its completions as far as they are there."""
    found = GenerationRequest.objects.filter(
        conversation=assignment.conversation_id, purpose=GenerationRequest.Purpose.SUGGESTION
    )
    return found.order_by("-id").prefetch_related("completions").first()


# --- The end ---------------------------------------------------------------------------------------------------------


def look(*, assignment: Assignment, user: User) -> Look:
    """What is saved of an open piece, with what is to be mended and what is only to be known before its end."""
    conversation = _open(assignment, user, locked=False)
    manuscript = read(assignment.draft)
    return Look(manuscript, _problems(conversation, manuscript), _warnings(conversation, manuscript))


def _problems(conversation: Conversation, manuscript: Manuscript) -> list[str]:
    found = problems(
        manuscript,
        alternate=conversation.project.turn_shape == TurnShape.ALTERNATE,
        longest=settings.MESSAGE_CHARACTERS,
    )
    try:
        _system(conversation, manuscript.system)
    except Invalid as error:
        found.append(error.message)
    return found


def _warnings(conversation: Conversation, manuscript: Manuscript) -> list[str]:
    turns = manuscript.kept()
    said = [
        f"Turn {number} has what looks like {one.kind}: {one.excerpt}. Take it out unless it is made up."
        for number, turn in enumerate(turns, start=1)
        for one in personal.find(turn.text)
    ]
    opening = next((turn for turn in turns if turn.role == "user"), None)
    if opening is None:
        return said
    lineage = ancestors(conversation)
    whole = likeness.whole(turn.text for turn in turns)
    for other in likeness.conversations_near(project=conversation.project, text=whole, besides=lineage):
        own = " of yours" if other.trainer_id == conversation.trainer_id else ""
        said.append(f"This is nearly the same as conversation {other.pk}{own}, which is finished already.")
    besides = {conversation.prompt_id} - {None}
    for prompt in likeness.prompts_near(project=conversation.project, text=opening.text, besides=besides):
        if not opening.opening:
            said.append(f"The first turn of the user is nearly the same as a prompt of the project: {str(prompt)!r}.")
    return said


def ancestors(conversation: Conversation) -> set[int]:
    """The ids of a conversation and of all that it revises or branched from, directly or not."""
    found, last = {conversation.pk}, {conversation.pk}
    for _ in range(ANCESTORS):
        rows = Conversation.objects.filter(pk__in=last).values_list("revises_id", "forked_from_id")
        last = {pk for row in rows for pk in row if pk is not None} - found
        if not last:
            break
        found |= last
    return found


@transaction.atomic
def finish(*, assignment: Assignment, user: User, version: int) -> Conversation:
    """End the piece as it was saved last: it becomes part of the record, and a seed decides whether it is reviewed.

    `version` is that of the draft that the trainer saw. Raises Invalid with what must be mended, DraftConflict where
    another tab has saved since, Conflict when it has ended already or the text of a suggestion is not stored yet.
    """
    conversation = _open(assignment, user, locked=True)
    if conversation.revises_id is not None:
        # As a verdict on it does, which may put a reviewer's edit in its place at this moment.
        Conversation.objects.select_for_update(no_key=True).get(pk=conversation.revises_id)
    saved = Assignment.objects.select_for_update(no_key=True).get(pk=assignment.pk)
    if saved.draft_version != version:
        raise DraftConflict(
            "Another tab has saved a newer draft of this. Look at it once more.",
            current=saved.draft,
            version=saved.draft_version,
        )
    manuscript = read(saved.draft)
    found = _problems(conversation, manuscript)
    if found:
        raise Invalid(" ".join(found))
    turns = manuscript.kept()
    completions = _completions(conversation, turns)
    _stop(conversation)
    state = assignments.take_place(assignment=assignment, user=user)
    messages = [_message(conversation, number, turn, completions) for number, turn in enumerate(turns, start=1)]
    system = Message(
        conversation=conversation,
        position=0,
        role=Message.ChatRole.SYSTEM,
        text=_system(conversation, manuscript.system),
        source=Message.Source.WRITTEN,
    )
    Message.objects.bulk_create([system, *messages])
    conversation.state, conversation.finished_at = Conversation.State.FINISHED, timezone.now()
    if not any(turn.opening for turn in turns):
        conversation.prompt = None
    before = conversation.revises
    if before is not None and state == Assignment.State.SUBMITTED:
        reviews.withdraw(conversation=before)
        # What a reviewer made of it meanwhile is what this one takes the place of, so that not both count.
        conversation.revises = standing_in(before) or before
    conversation.family = conversations.family(conversation, messages)
    conversation.near = likeness.bands(likeness.whole(message.text for message in messages))
    conversation.save(update_fields=["state", "finished_at", "prompt", "revises", "family", "near"])
    if state == Assignment.State.SUBMITTED:
        reviews.draw(conversation=conversation)
    return conversation


def completions_named(conversation: Conversation, references: Iterable[Reference]) -> dict[Reference, Completion]:
    """The suggestions of these names, as far as they were made for this piece or for one that it came of."""
    named = set(references)
    if not named:
        return {}
    completions = Completion.objects.filter(
        request__in={request for request, _ in named},
        request__purpose=GenerationRequest.Purpose.SUGGESTION,
        request__conversation__in=ancestors(conversation),
    )
    found = {(completion.request_id, completion.index): completion for completion in completions}
    return {reference: found[reference] for reference in named if reference in found}


def _completions(conversation: Conversation, turns: list[Turn]) -> dict[Reference, Completion]:
    """The suggestions that the turns name. Raises Conflict where one that was taken is still being written."""
    found = completions_named(
        conversation, (reference for turn in turns for reference in (*turn.shown, turn.came_from) if reference)
    )
    missing = {turn.came_from[0] for turn in turns if turn.came_from and turn.came_from not in found}
    still = GenerationRequest.objects.filter(
        pk__in=missing,
        purpose=GenerationRequest.Purpose.SUGGESTION,
        conversation__in=ancestors(conversation),
        state__in=[GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED],
    )
    if missing and still.exists():
        raise Conflict("A suggestion that you took is still being written. Stop it or wait, then finish.")
    for turn in turns:
        if turn.came_from not in found:
            # Its sampling failed after the page had shown it, so that its words are known from the page only.
            turn.came_from = None
    return found


def _message(
    conversation: Conversation, position: int, turn: Turn, completions: dict[Reference, Completion]
) -> Message:
    completion = completions.get(turn.came_from) if turn.came_from else None
    text = turn.text.strip()
    opening = conversation.prompt.text if turn.opening and conversation.prompt else None
    source, distance = conversations.source(text, suggestion=completion and completion.text, opening=opening)
    shown = [completions[reference].pk for reference in turn.shown if reference in completions]
    return Message(
        conversation=conversation,
        position=position,
        role=turn.role,
        text=text,
        source=source,
        completion=completion,
        edit_distance=distance,
        passed=[pk for pk in shown if completion is None or pk != completion.pk],
        active_seconds=turn.seconds,
        typed=turn.typed,
        pasted=turn.pasted,
        taken=turn.taken,
    )


# --- Branches and revisions ------------------------------------------------------------------------------------------


@transaction.atomic
def branch(*, assignment: Assignment, user: User, upto: int) -> Assignment:
    """Copy the saved piece up to the turn with this index, from 0; the copy waits for its trainer as work of its own.

    Raises Invalid for a turn that is not there, Conflict where no round is open or too much waits already.
    """
    conversation = _open(assignment, user, locked=True)
    manuscript = read(Assignment.objects.values_list("draft", flat=True).get(pk=assignment.pk))
    if not 0 <= upto < len(manuscript.turns):
        raise Invalid("There is no such turn to branch from.")
    iteration = _room_to_wait(conversation.project, user)
    spoken = [turn for turn in manuscript.turns if turn.text.strip()]
    if any(turn.role == "user" for turn in spoken):
        # Decided now, so that both are in one split however their openings are changed from here on.
        conversation.family = conversations.family(conversation, spoken)
        conversation.save(update_fields=["family"])
    copy = Conversation.objects.create(
        project=conversation.project,
        iteration=iteration,
        kind=Conversation.Kind.WRITE,
        trainer=user,
        prompt=conversation.prompt,
        family=conversation.family,
        forked_from=conversation,
    )
    turns = manuscript.turns[: upto + 1]
    if turns[-1].text.strip() and len(turns) < MOST_TURNS:
        turns.append(Turn("assistant" if turns[-1].role == "user" else "user"))
    return Assignment.objects.create(
        project=conversation.project,
        iteration=iteration,
        kind=Assignment.Kind.WRITE,
        priority=reviews.FIRST,
        conversation=copy,
        personal=True,
        reserved_for=user,
        draft=Manuscript(turns, at=len(turns) - 1, system=manuscript.system).as_draft(),
    )


def _room_to_wait(project: Project, user: User) -> Iteration:
    iteration = reviews.open_iteration(project.pk)
    if iteration is None:
        raise Conflict("No round is open at the moment, so that nothing new can be begun.")
    if assignments.reserved_for(user=user, project=project).filter(personal=True).count() >= MOST_WAITING:
        raise Conflict(f"{MOST_WAITING} branches and revisions of yours wait already. Finish or skip some first.")
    return iteration


def can_revise(*, conversation: Conversation, user: User) -> bool:
    """Whether this trainer may revise this piece now."""
    try:
        _check_revisable(conversation, user)
    except Conflict:
        return False
    return True


def _check_revisable(conversation: Conversation, user: User) -> None:
    own = conversation.kind == Conversation.Kind.WRITE and conversation.trainer_id == user.pk
    # What a reviewer made of a piece has no slot of its own.
    slot = Assignment.objects.filter(conversation=conversation).first()
    if not own or slot is None or conversation.state != Conversation.State.FINISHED:
        raise Conflict("Only a finished piece of your own can be revised.")
    if slot.state != Assignment.State.SUBMITTED:
        raise Conflict("This piece came in late and does not count, so that there is nothing to revise.")
    if conversation.exported_at is not None:
        raise Conflict("This piece is part of an export and cannot be revised any more.")
    if standing_in(conversation) is not None:
        raise Conflict("A newer version stands in the place of this piece. Revise that one.")
    if conversation.slots.filter(kind=Assignment.Kind.WRITE, state__in=Assignment.LIVE).exists():
        raise Conflict("A revision of this piece is under way already. You find it at home.")


def standing_in(conversation: Conversation) -> Conversation | None:
    """The finished version that stands in the place of this one, if any."""
    return reviews.superseding(conversation.revisions.all()).order_by("-id").first()


@transaction.atomic
def revise(*, conversation: Conversation, user: User) -> Assignment:
    """Begin a new version of one's own finished piece; the slot waits for its trainer. The old version stays.

    Raises Conflict where it is part of an export, a newer version stands in its place or is under way, or no round is
    open.
    """
    conversation = (
        Conversation.objects.select_for_update(of=["self"], no_key=True)
        .select_related("project")
        .get(pk=conversation.pk)
    )
    _check_revisable(conversation, user)
    iteration = _room_to_wait(conversation.project, user)
    return Assignment.objects.create(
        project=conversation.project,
        iteration=iteration,
        kind=Assignment.Kind.WRITE,
        priority=reviews.FIRST,
        subject=conversation,
        personal=True,
        reserved_for=user,
    )


# --- What counts -----------------------------------------------------------------------------------------------------


def written(project: Project) -> QuerySet[Conversation]:
    """The finished written conversations of a project, whether they count or not, with `superseded` and `late`."""
    found = Conversation.objects.filter(
        project=project, kind=Conversation.Kind.WRITE, state=Conversation.State.FINISHED
    )
    late = Assignment.objects.filter(conversation=OuterRef("pk"), state=Assignment.State.SURPLUS)
    newer = reviews.superseding(Conversation.objects.filter(revises=OuterRef("pk")))
    return found.annotate(superseded=Exists(newer), late=Exists(late))


def counting(project: Project) -> QuerySet[Conversation]:
    """The written conversations that count: in time, with no newer version, and under the project's review rule.

    What was returned never counts; what is still to be reviewed only where the project says so.
    """
    return written(project).filter(superseded=False, late=False, review_state__in=counting_states(project))


def counting_states(project: Project) -> list[str]:
    """The project's review rule: the review states with which a conversation counts."""
    ReviewState = Conversation.ReviewState  # noqa: N806
    states = [ReviewState.NONE, ReviewState.APPROVED]
    return [*states, ReviewState.WANTED] if project.counts_before_review else states

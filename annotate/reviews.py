"""Reviews: drawn when a piece of writing is finished, and what follows from their verdicts."""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from annotate import assignments, conversations, derive, families, likeness
from annotate.errors import Conflict, Invalid
from annotate.manuscripts import clean
from annotate.models import (
    Assignment,
    Conversation,
    Iteration,
    Membership,
    Message,
    Project,
    Prompt,
    Review,
    ReviewComment,
    User,
)

Verdict = Review.Verdict

COMMENT_CHARACTERS = 5_000

FIRST = -1
"""The priority of what came back, and of branches and revisions: before all new work."""


def open_iteration(project_id: int) -> Iteration | None:
    """The round in which new work of a project is made now, if any."""
    return Iteration.objects.filter(project=project_id, state=Iteration.State.OPEN).first()


def draw(*, conversation: Conversation) -> None:
    """Decide whether a piece that was just finished is reviewed, and make the slot for it.

    By a seed from the project's secret and the conversation's id. What stands in the place of a piece that was drawn
    is always reviewed. Call it inside the transaction that finishes the conversation.
    """
    project, before = conversation.project, conversation.revises
    drawn_before = before is not None and before.review_state != Conversation.ReviewState.NONE
    place = int(derive.keyed(project.secret, "review", conversation.pk)[:16], 16) / 2**64
    if not drawn_before and place >= project.review_share:
        return
    conversation.review_state = Conversation.ReviewState.WANTED
    conversation.save(update_fields=["review_state"])
    Assignment.objects.create(
        project_id=conversation.project_id,
        iteration_id=conversation.iteration_id,
        kind=Assignment.Kind.REVIEW,
        subject=conversation,
        author_id=conversation.trainer_id,
    )


@transaction.atomic
def submit(
    *,
    assignment: Assignment,
    user: User,
    verdict: str,
    note: str = "",
    comments: dict[int, str] | None = None,
    edits: dict[int, str] | None = None,
    active_seconds: int = 0,
) -> Review:
    """Store a verdict. `comments` and `edits` are texts by the position of a message, the system message being 0.

    Approved with edits makes a new conversation that stands in the place of the reviewed one. Returned goes back to
    its trainer first. Raises Invalid for an unknown verdict or position, for a return that says nothing, for a return
    with edits, and for edits of what a newer version has taken the place of; Conflict where the slot was ended before.
    A verdict that came in too late is kept, and changes nothing.
    """
    if assignment.kind != Assignment.Kind.REVIEW:
        raise Conflict("This task is not a review.")
    conversation = (
        Conversation.objects.select_for_update(of=["self"], no_key=True)
        .select_related("project", "iteration", "prompt")
        .get(pk=assignment.subject_id)
    )
    messages = list(conversation.messages.order_by("position"))
    said = _said(comments or {}, messages)
    note = clean(note).strip()
    if len(note) > COMMENT_CHARACTERS:
        raise Invalid(f"The note may have {COMMENT_CHARACTERS:,} characters; this one has {len(note):,}.")
    changed = _changed(edits or {}, messages)
    _check(verdict, note, said, changed)
    current = assignments.take_place(assignment=assignment, user=user) == Assignment.State.SUBMITTED
    if current and changed and superseding(conversation.revisions.all()).exists():
        raise Invalid(
            "A newer version of this piece was finished meanwhile and is reviewed by itself. Undo your edits here."
        )
    review = Review.objects.create(
        conversation=conversation,
        assignment=assignment,
        reviewer=user,
        verdict=verdict,
        note=note,
        current=current,
        edit=_edited(conversation, messages, changed, user) if changed and current else None,
    )
    ReviewComment.objects.bulk_create(
        ReviewComment(review=review, position=position, text=text) for position, text in sorted(said.items())
    )
    Assignment.objects.filter(pk=assignment.pk).update(active_seconds=max(active_seconds, 0))
    if current:
        conversation.review_state = verdict
        conversation.save(update_fields=["review_state"])
        if verdict == Verdict.RETURNED:
            _give_back(conversation)
    return review


def _said(comments: dict[int, str], messages: list[Message]) -> dict[int, str]:
    """The comments that say something. Raises Invalid for a turn that is not there or a text that is too long."""
    known = {message.position for message in messages}
    said = {position: clean(text).strip() for position, text in comments.items()}
    said = {position: text for position, text in said.items() if text}
    if said.keys() - known:
        raise Invalid("A comment names a turn that this conversation does not have.")
    for text in said.values():
        if len(text) > COMMENT_CHARACTERS:
            raise Invalid(f"A comment may have {COMMENT_CHARACTERS:,} characters; one has {len(text):,}.")
    return said


def _changed(edits: dict[int, str], messages: list[Message]) -> dict[int, str]:
    """The texts that differ from what is there. Raises Invalid for an empty or overlong one, or an unknown turn."""
    texts = {message.position: message.text for message in messages}
    if edits.keys() - texts.keys():
        raise Invalid("An edit names a turn that this conversation does not have.")
    changed = {}
    for position, edit in edits.items():
        text = clean(edit).strip()
        if text == texts[position].strip():
            continue
        if not text:
            raise Invalid(f"Turn {position} would be empty. Return the piece if the turn should go.")
        if len(text) > settings.MESSAGE_CHARACTERS:
            raise Invalid(f"A turn may have {settings.MESSAGE_CHARACTERS:,} characters; turn {position} has more.")
        changed[position] = text
    return changed


def _check(verdict: str, note: str, said: dict[int, str], changed: dict[int, str]) -> None:
    if verdict not in Verdict.values:
        raise Invalid(f"A verdict is one of: {', '.join(Verdict.values)}.")
    if verdict == Verdict.RETURNED and not note and not said:
        raise Invalid("Say what should be mended: write a note, or a comment at a turn.")
    if verdict == Verdict.RETURNED and changed:
        raise Invalid("A piece that goes back is mended by its trainer. Undo your edits, or approve it with them.")


def _edited(
    conversation: Conversation, messages: list[Message], changed: dict[int, str], reviewer: User
) -> Conversation:
    """The conversation with the reviewer's texts, finished and approved; the reviewed one stays as it is."""
    opening = next((message for message in messages if message.role == Message.ChatRole.USER), messages[-1])
    text = changed.get(opening.position, opening.text)
    edit = Conversation.objects.create(
        project=conversation.project,
        iteration=conversation.iteration,
        kind=Conversation.Kind.WRITE,
        state=Conversation.State.FINISHED,
        trainer=reviewer,
        prompt_id=conversation.prompt_id,
        revises=conversation,
        review_state=Conversation.ReviewState.APPROVED,
        family=families.stay(project=conversation.project, text=text, family=conversation.family, author=reviewer),
        near=likeness.bands(likeness.whole(changed.get(message.position, message.text) for message in messages[1:])),
        finished_at=timezone.now(),
    )
    completions = {
        message.completion_id: message.completion.text
        for message in conversation.messages.exclude(completion=None).select_related("completion")
    }
    copies = []
    for message in messages:
        copy = _copy(message, edit)
        if message.position in changed:
            _change(copy, changed[message.position], completions.get(message.completion_id), conversation.prompt)
        copies.append(copy)
    Message.objects.bulk_create(copies)
    return edit


def _copy(message: Message, conversation: Conversation) -> Message:
    kept = ("position", "role", "text", "source", "completion_id", "edit_distance", "passed")
    counted = ("active_seconds", "typed", "pasted", "taken")
    return Message(conversation=conversation, **{name: getattr(message, name) for name in (*kept, *counted)})


def _change(copy: Message, text: str, suggestion: str | None, prompt: Prompt | None) -> None:
    """What a reviewer changed was typed by a person: at least as many characters as the text grew by."""
    opening = None
    if copy.source == Message.Source.IMPORTED:
        opening = copy.text
    elif copy.source == Message.Source.EDITED and prompt is not None:
        opening = prompt.text
    copy.typed += max(0, len(text) - len(copy.text))
    copy.text = text
    copy.source, copy.edit_distance = conversations.source(text, suggestion=suggestion, opening=opening)


def _give_back(conversation: Conversation) -> None:
    """A slot in which a returned piece is mended; its own trainer is asked first. None while no round is open."""
    iteration = open_iteration(conversation.project_id)
    taken_up = Assignment.objects.filter(
        subject=conversation, kind=Assignment.Kind.WRITE, state__in=Assignment.LIVE
    ).exists()
    if iteration is None or taken_up or superseding(conversation.revisions.all()).exists():
        return
    there = Membership.objects.filter(
        project=conversation.project_id, user=conversation.trainer_id, user__is_active=True
    ).exists()
    hours = Project.objects.values_list("return_hours", flat=True).get(pk=conversation.project_id)
    Assignment.objects.create(
        project_id=conversation.project_id,
        iteration=iteration,
        kind=Assignment.Kind.WRITE,
        priority=FIRST,
        subject=conversation,
        reserved_for_id=conversation.trainer_id if there else None,
        reserved_until=timezone.now() + timedelta(hours=hours) if there else None,
    )


def give_back_again(*, project: Project) -> None:
    """A round opens: what came back in an earlier one and was not mended there is offered anew, its trainer first.

    Call it inside the transaction that opens the round.
    """
    returned = Conversation.objects.filter(project=project, review_state=Conversation.ReviewState.RETURNED)
    taken_up = Assignment.objects.filter(subject=OuterRef("pk"), kind=Assignment.Kind.WRITE, state__in=Assignment.LIVE)
    newer = superseding(Conversation.objects.filter(revises=OuterRef("pk")))
    left = returned.exclude(Exists(taken_up)).exclude(Exists(newer)).order_by("id")
    # Locked as by a revision that is begun at this moment.
    for conversation in left.select_for_update(no_key=True):
        _give_back(conversation)


def superseding(revisions: QuerySet[Conversation]) -> QuerySet[Conversation]:
    """Of these versions, those that take the place of what they revise: finished, and not too late."""
    late = Q(assignment__state=Assignment.State.SURPLUS)
    return revisions.filter(state=Conversation.State.FINISHED).exclude(late)


def standing(conversation: Conversation) -> Review | None:
    """The verdict that counts, with its comments; None where there is none yet."""
    found = conversation.reviews.filter(current=True).select_related("reviewer", "edit")
    return found.prefetch_related("comments").first()


def withdraw(*, conversation: Conversation) -> None:
    """Take back the free review of a piece in whose place another one stands now."""
    Assignment.objects.filter(subject=conversation, kind=Assignment.Kind.REVIEW, state=Assignment.State.FREE).update(
        state=Assignment.State.WITHDRAWN, ended_at=timezone.now()
    )

"""Conversations: a trainer talks to the policy, and finishes."""

import difflib

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotate import assignments, comparisons, families, generation, likeness
from annotate.errors import Conflict, Invalid
from annotate.manuscripts import Turn, clean
from annotate.models import Assignment, Conversation, GenerationRequest, Iteration, Message, User


def _open_and_locked(assignment: Assignment, user: User) -> Conversation:
    """The open conversation of a slot that this trainer holds or held, locked against a second tab."""
    if assignment.kind != Assignment.Kind.CHAT or assignment.trainer_id != user.pk:
        raise Conflict("This task is not a conversation of yours.")
    conversation = (
        Conversation.objects.select_for_update(of=["self"], no_key=True)
        .select_related("iteration", "project", "prompt")
        .get(pk=assignment.conversation_id)
    )
    if conversation.state != Conversation.State.OPEN:
        raise Conflict(f"This conversation is {conversation.state} already.")
    return conversation


def _round_not_closed(conversation: Conversation) -> None:
    """A closed iteration takes no new words; what was said before may still be finished, and is kept as surplus."""
    if conversation.iteration.state == Iteration.State.CLOSED:
        raise Conflict("This round is closed. Finish the conversation as it is; it is kept.")


def _no_reply_pending(conversation: Conversation) -> None:
    if generation.pending_reply(conversation) is not None:
        raise Conflict("A reply is being written. Wait for it, or stop it.")


def _request_reply(conversation: Conversation, assignment: Assignment) -> GenerationRequest:
    try:
        with transaction.atomic():
            return generation.request_reply(conversation=conversation, assignment=assignment)
    except IntegrityError:
        raise Conflict("A reply is being written. Wait for it, or stop it.") from None


@transaction.atomic
def say(*, assignment: Assignment, user: User, text: str) -> GenerationRequest:
    """The trainer's next message; a reply is asked for. Its draft is cleared.

    Raises Invalid for an empty or overlong text, Conflict while a reply is pending or when the conversation has ended.
    """
    text = text.replace("\r\n", "\n").replace("\x00", "").strip()
    if not text:
        raise Invalid("Write something first.")
    if len(text) > settings.MESSAGE_CHARACTERS:
        raise Invalid(f"A message may have {settings.MESSAGE_CHARACTERS:,} characters; this one has {len(text):,}.")
    conversation = _open_and_locked(assignment, user)
    _round_not_closed(conversation)
    _no_reply_pending(conversation)
    last = conversation.messages.order_by("-position").first()
    if last.role == Message.ChatRole.USER:
        raise Conflict("Your last message has no reply yet. Ask for it again first.")
    Message.objects.create(
        conversation=conversation,
        position=last.position + 1,
        role=Message.ChatRole.USER,
        text=text,
        source=Message.Source.WRITTEN,
    )
    _work_goes_on(assignment)
    return _request_reply(conversation, assignment)


@transaction.atomic
def ask_again(*, assignment: Assignment, user: User) -> GenerationRequest:
    """Have the last reply written again, or for the first time where it failed.

    The earlier text stays as a completion of its request, and is no message of the conversation any more.
    Raises Conflict while a reply is pending, Invalid where nothing was said yet.
    """
    conversation = _open_and_locked(assignment, user)
    _round_not_closed(conversation)
    _no_reply_pending(conversation)
    last = conversation.messages.order_by("-position").first()
    if last.role == Message.ChatRole.ASSISTANT:
        last.delete()
    elif last.role == Message.ChatRole.SYSTEM:
        raise Invalid("Write something first.")
    _work_goes_on(assignment)
    return _request_reply(conversation, assignment)


def _work_goes_on(assignment: Assignment) -> None:
    """A step was taken: the draft is used up, and the lease of a held slot begins anew."""
    Assignment.objects.filter(pk=assignment.pk).update(draft={})
    if assignment.state == Assignment.State.HELD:
        assignments.keep_on(assignment=assignment, user=assignment.trainer)


@transaction.atomic
def stop(*, assignment: Assignment, user: User) -> None:
    """Stop the reply that is being written; what is there of it stays. Nothing pending is no error."""
    conversation = _open_and_locked(assignment, user)
    pending = generation.pending_reply(conversation)
    if pending is not None:
        generation.stop(request=pending)


@transaction.atomic
def finish(*, assignment: Assignment, user: User) -> Conversation:
    """End the conversation: it becomes part of the record, and one of its replies is drawn for ranking.

    Raises Invalid while it has no reply, Conflict while one is pending or when it has ended already.
    """
    conversation = _open_and_locked(assignment, user)
    _no_reply_pending(conversation)
    messages = list(conversation.messages.order_by("position"))
    if not any(message.role == Message.ChatRole.ASSISTANT for message in messages):
        raise Invalid("There is no reply yet. Talk to the model first, or skip this.")
    state = assignments.take_place(assignment=assignment, user=user)
    conversation.state, conversation.finished_at = Conversation.State.FINISHED, timezone.now()
    conversation.family = family(conversation, messages)
    conversation.near = likeness.bands(likeness.whole(message.text for message in messages[1:]))
    conversation.save(update_fields=["state", "finished_at", "family", "near"])
    if state == Assignment.State.SUBMITTED:
        comparisons.select(conversation=conversation)
    return conversation


def family(conversation: Conversation, messages: list[Message] | list[Turn]) -> str:
    """The family of the opening; one that is new and near to none joins the prompt's where that was little changed.

    What revises another conversation, and what has a branch or is one, stays in its family where the opening is new.
    """
    project, author = conversation.project, conversation.trainer
    opening = next(message.text for message in messages if message.role == Message.ChatRole.USER)
    decided = conversation.family or (conversation.revises and conversation.revises.family)
    if decided:
        return families.stay(project=project, text=opening, family=decided, author=author)
    prompt, nearest = conversation.prompt, ""
    if prompt is not None:
        # Long texts are compared by their beginnings: the comparison takes time that grows with the square.
        alike = difflib.SequenceMatcher(None, prompt.text[:2000], opening[:2000], autojunk=False).ratio()
        if alike >= 0.5:
            # One that an import has just brought may have none yet.
            nearest = prompt.family or families.join(project=project, texts=[prompt.text])[0]
    return families.join(project=project, texts=[opening], nearest=nearest, author=author)[0]


def source(text: str, *, suggestion: str | None, opening: str | None) -> tuple[str, float | None]:
    """The source of a text that a person let stand, and how far it is from the suggestion or opening that it began as.

    Both are read as a draft is, with line ends of one kind and no white space around them.
    """
    start = opening if suggestion is None else suggestion
    if start is None:
        return Message.Source.WRITTEN, None
    start = clean(start).strip()
    whole = Message.Source.IMPORTED if suggestion is None else Message.Source.TAKEN
    return whole if text == start else Message.Source.EDITED, likeness.distance(text, start)

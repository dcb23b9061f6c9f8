"""How the conversation of a slot begins, and how one is given up."""

from collections.abc import Iterable

from django.db import connection, transaction

from annotate import generation
from annotate.errors import Conflict
from annotate.manuscripts import Manuscript, Turn
from annotate.models import Assignment, Completion, Conversation, Message, User, WriteFrom

# The least used prompt, counted at once; two claims that come together take two prompts.
NEXT_PROMPT = """
UPDATE annotate_prompt SET uses = uses + 1
WHERE id = (
    SELECT id FROM annotate_prompt WHERE project_id = %s AND active
    ORDER BY uses, id FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id
"""


def open_for(*, assignment: Assignment) -> None:
    """Begin the conversation of a slot of chat or writing that was just claimed. A branch has one already.

    Call it inside the transaction of the claim.
    """
    if assignment.conversation_id is not None:
        return
    if assignment.kind == Assignment.Kind.CHAT:
        _open_chat(assignment)
    else:
        _open_manuscript(assignment)


def _next_prompt(assignment: Assignment) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(NEXT_PROMPT, [assignment.project_id])
        row = cursor.fetchone()
    return row[0] if row else None


def _conversation(assignment: Assignment, kind: str, prompt_id: int | None, **more) -> Conversation:
    return Conversation.objects.create(
        project_id=assignment.project_id,
        iteration_id=assignment.iteration_id,
        kind=kind,
        trainer_id=assignment.trainer_id,
        prompt_id=prompt_id,
        **more,
    )


def _open_manuscript(assignment: Assignment) -> None:
    """A draft with the opening as the user's first turn, a blank page, or what is to be mended."""
    before = assignment.subject
    if before is not None:
        prompt_id, manuscript = before.prompt_id, _as_manuscript(before)
    elif assignment.project.write_from == WriteFrom.PROMPTS:
        prompt_id, manuscript = _next_prompt(assignment), Manuscript([Turn("user")])
    else:
        prompt_id, manuscript = None, Manuscript([Turn("user")])
    conversation = _conversation(assignment, Conversation.Kind.WRITE, prompt_id, revises=before)
    if before is None and conversation.prompt is not None:
        text = conversation.prompt.text
        manuscript.turns[0] = Turn("user", text, opening=True, taken=len(text))
    assignment.conversation, assignment.draft = conversation, manuscript.as_draft()
    assignment.save(update_fields=["conversation", "draft"])


def _as_manuscript(conversation: Conversation) -> Manuscript:
    """A finished piece as its trainer left it, to be written on."""
    messages = list(conversation.messages.select_related("completion").order_by("position"))
    said = [message for message in messages if message.role != Message.ChatRole.SYSTEM]
    shown = _references(pk for message in said for pk in message.passed)
    turns = [
        _as_turn(message, shown, begun=conversation.prompt_id is not None and not n) for n, message in enumerate(said)
    ]
    system = next((message.text for message in messages if message.role == Message.ChatRole.SYSTEM), None)
    return Manuscript(turns=turns, at=len(turns) - 1, system=system)


def _references(completion_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    found = Completion.objects.filter(pk__in=list(completion_ids)).values_list("pk", "request_id", "index")
    return {pk: (request_id, index) for pk, request_id, index in found}


def _as_turn(message: Message, shown: dict[int, tuple[int, int]], *, begun: bool) -> Turn:
    completion = message.completion
    came_from = None if completion is None else (completion.request_id, completion.index)
    seen = [shown[pk] for pk in message.passed if pk in shown]
    return Turn(
        role=message.role,
        text=message.text,
        came_from=came_from,
        opening=begun and completion is None and message.source != Message.Source.WRITTEN,
        shown=[*seen, came_from] if came_from else seen,
        seconds=message.active_seconds,
        typed=message.typed,
        pasted=message.pasted,
        taken=message.taken,
    )


def _open_chat(assignment: Assignment) -> None:
    """The system message, and an opening to start from."""
    conversation = _conversation(assignment, Conversation.Kind.CHAT, _next_prompt(assignment))
    Message.objects.create(
        conversation=conversation,
        position=0,
        role=Message.ChatRole.SYSTEM,
        text=assignment.project.system_message,
        source=Message.Source.WRITTEN,
    )
    assignment.conversation = conversation
    assignment.save(update_fields=["conversation"])


@transaction.atomic
def start_blank(*, assignment: Assignment, user: User) -> None:
    """Forget the opening that was offered, to write one's own. Raises Conflict once something was said."""
    conversation = Conversation.objects.select_for_update(no_key=True).get(pk=assignment.conversation_id, trainer=user)
    if conversation.state != Conversation.State.OPEN or conversation.messages.count() > 1:
        raise Conflict("The conversation has begun already.")
    conversation.prompt = None
    conversation.save(update_fields=["prompt"])


@transaction.atomic
def abandon(*, conversation: Conversation) -> None:
    """Give an open conversation up; a reply that is being written is stopped. Its words stay."""
    # Before its requests, as everybody who asks for one.
    conversation = Conversation.objects.select_for_update(no_key=True).get(pk=conversation.pk)
    for pending in generation.pending(conversation):
        generation.stop(request=pending)
    Conversation.objects.filter(pk=conversation.pk, state=Conversation.State.OPEN).update(
        state=Conversation.State.ABANDONED
    )

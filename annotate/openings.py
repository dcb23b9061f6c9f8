"""How the conversation of a slot begins, and how one is given up."""

from django.db import connection, transaction

from annotate import generation
from annotate.errors import Conflict
from annotate.models import Assignment, Conversation, Message, User

# The least used prompt, counted at once; two claims that come together take two prompts.
NEXT_PROMPT = """
UPDATE annotate_prompt SET uses = uses + 1
WHERE id = (
    SELECT id FROM annotate_prompt WHERE project_id = %s AND active
    ORDER BY uses, id FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id
"""


def open_for(*, assignment: Assignment) -> Conversation:
    """Begin the conversation of a chat slot that was just claimed: the system message, and an opening to start from.

    Call it inside the transaction of the claim.
    """
    with connection.cursor() as cursor:
        cursor.execute(NEXT_PROMPT, [assignment.project_id])
        row = cursor.fetchone()
    conversation = Conversation.objects.create(
        project_id=assignment.project_id,
        iteration_id=assignment.iteration_id,
        trainer_id=assignment.trainer_id,
        prompt_id=row[0] if row else None,
    )
    Message.objects.create(
        conversation=conversation,
        position=0,
        role=Message.ChatRole.SYSTEM,
        text=assignment.project.system_message,
        source=Message.Source.WRITTEN,
    )
    assignment.conversation = conversation
    assignment.save(update_fields=["conversation"])
    return conversation


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
    pending = generation.pending_reply(conversation)
    if pending is not None:
        generation.stop(request=pending)
    Conversation.objects.filter(pk=conversation.pk, state=Conversation.State.OPEN).update(
        state=Conversation.State.ABANDONED
    )

"""Comparisons: a message is selected, alternatives are sampled beside it, trainers rank them."""

from bisect import bisect_right, insort
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Case, CharField, Count, Exists, F, Min, OuterRef, QuerySet, When
from django.db.models.functions import Cast
from django.utils import timezone

from annotate import bell, derive, prompts
from annotate.errors import Conflict, Invalid
from annotate.models import (
    Assignment,
    Candidate,
    Comparison,
    Completion,
    Conversation,
    GenerationRequest,
    Iteration,
    Message,
    Project,
)

REDRAWS = 3
"""How often a missing place is drawn again."""

LETTERS = "ABCDEFGHI"

MESSAGES = ("any", "model")
"""Of which messages `sample` draws: also of those that were brought in, or of the policy's own replies only."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer as its trainer sees it: no word of where it came from."""

    letter: str
    candidate_id: int
    text: str


def eligible(messages: QuerySet[Message]) -> QuerySet[Message]:
    """Of these messages, the policy's own complete replies, in their order.

    Stopped ones are out; replies that were asked again are no messages any more.
    """
    return messages.filter(
        source=Message.Source.REPLY,
        completion__finish_reason__in=[Completion.FinishReason.STOP, Completion.FinishReason.LENGTH],
    )


def select(*, conversation: Conversation) -> Comparison | None:
    """Draw one eligible message of a finished conversation and ask for its alternatives.

    Uniform, by a seed from the project's secret and the conversation's id. None where no message is eligible or
    the iteration is no longer open. Call it inside the transaction that finishes the conversation.
    """
    messages = list(eligible(conversation.messages).order_by("position"))
    if not messages or conversation.iteration.state != Iteration.State.OPEN:
        return None
    seed, index = derive.draw(conversation.project.secret, "conversation", conversation.pk, len(messages))
    return _compare(messages[index], conversation.iteration, seed=seed, size=len(messages), index=index)


def _compare(message: Message, iteration: Iteration, *, seed: str, size: int, index: int) -> Comparison:
    comparison = Comparison.objects.create(
        project=iteration.project,
        iteration=iteration,
        message=message,
        k=iteration.k,
        overlap=iteration.overlap,
        draw_seed=seed,
        draw_size=size,
        draw_index=index,
    )
    if _request_alternatives(comparison, n=comparison.k - 1).state == GenerationRequest.State.FAILED:
        settle(comparison.pk)
        comparison.refresh_from_db()
    return comparison


def _request_alternatives(comparison: Comparison, *, n: int) -> GenerationRequest:
    request = GenerationRequest.objects.create(
        project_id=comparison.project_id,
        **GenerationRequest.beginning(comparison.iteration.reply_policy),
        purpose=GenerationRequest.Purpose.ALTERNATIVES,
        urgency=GenerationRequest.RANK_OF_PURPOSE[GenerationRequest.Purpose.ALTERNATIVES],
        comparison=comparison,
        messages=prompts.render_for_sampling(context(comparison), system=comparison.project.system_message),
        n=n,
        sampling=comparison.iteration.sampling,
    )
    bell.ring(request.policy_id)
    return request


@transaction.atomic
def sample(*, project: Project, count: int, messages: str = "any") -> list[Comparison]:
    """Up to `count` new comparisons over the messages of finished conversations that have none yet.

    Of chats the policy's complete replies are drawn from, of imported conversations all that the assistant says after
    the user; with `messages` "model" chats alone. A message that several imported conversations share counts once.
    Drawn uniformly without replacement in the order of their ids; each draw can be redone from its seed, the size of
    the set that was left and the index. Raises Conflict where no iteration is open.
    """
    if messages not in MESSAGES:
        raise Invalid(f"Draw of one of: {', '.join(MESSAGES)}.")
    iteration = (
        Iteration.objects.select_for_update(no_key=True).filter(project=project, state=Iteration.State.OPEN).first()
    )
    if iteration is None:
        raise Conflict(f"Project {project.slug} has no open iteration; open one first.")
    already = Comparison.objects.filter(project=project).count()
    draws: list[tuple[str, int, int]] = []
    places: list[int] = []
    with connection.cursor() as cursor:
        statement, given = _left(project, messages).query.sql_with_params()
        # The set is kept while it is drawn from: what is finished meanwhile is not in it.
        cursor.execute(NUMBERED.format(statement), given)
        size = cursor.rowcount
        drawn: list[int] = []
        for number in range(min(count, size)):
            label = f"{iteration.number}:{already + number}"
            seed, index = derive.draw(project.secret, "sample", label, size - number)
            draws.append((seed, size - number, index))
            places.append(_place(index, drawn, size))
            insort(drawn, places[-1])
        cursor.execute("SELECT place, id FROM drawn_from WHERE place = ANY(%s)", [places])
        picked = dict(cursor.fetchall())
        cursor.execute("DROP TABLE drawn_from")
    made = []
    for place, (seed, left, index) in zip(places, draws, strict=True):
        message = Message.objects.select_related("conversation__project").get(pk=picked[place])
        made.append(_compare(message, iteration, seed=seed, size=left, index=index))
    return made


NUMBERED = """
CREATE TEMPORARY TABLE drawn_from ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY id) - 1 AS place, id FROM ({}) eligible
"""


def _left(project: Project, messages: str) -> QuerySet:
    """The ids of all messages that may still be drawn."""
    finished = Message.objects.filter(conversation__project=project, conversation__state=Conversation.State.FINISHED)
    replies = eligible(finished.filter(comparisons__isnull=True)).exclude(
        conversation__assignment__state=Assignment.State.SURPLUS
    )
    if messages == "model":
        return replies.order_by().values("id")
    asked = Message.objects.filter(
        conversation=OuterRef("conversation"), position__lt=OuterRef("position"), role=Message.ChatRole.USER
    )
    imported = finished.filter(
        Exists(asked), conversation__kind=Conversation.Kind.IMPORTED, role=Message.ChatRole.ASSISTANT
    )
    # One that has no name in its source is like no other.
    name = Case(When(source_id="", then=Cast("id", CharField())), default=F("source_id"))
    once = imported.order_by().annotate(name=name).values("name")
    once = once.annotate(first=Min("id"), compared=Count("comparisons")).filter(compared=0)
    return replies.order_by().values("id").union(once.values("first"), all=True)


def _place(index: int, drawn: list[int], size: int) -> int:
    """The place, among all, of the one with this index among those that are left; `drawn` are the others, sorted."""
    low, high = index, size - 1
    while low < high:
        middle = (low + high) // 2
        if middle + 1 - bisect_right(drawn, middle) > index:
            high = middle
        else:
            low = middle + 1
    return low


def settle(comparison_id: int) -> None:
    """Open a comparison whose alternatives are all in, draw missing places again, or give it up.

    Its row is locked before its requests are counted: of two last results that arrive together the second one
    sees the first. Call it inside the transaction that closes a request.
    """
    comparison = Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)
    pending = [GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED]
    if comparison.state != Comparison.State.SAMPLING or comparison.requests.filter(state__in=pending).exists():
        return
    if comparison.iteration.state != Iteration.State.OPEN:
        _give_up(comparison, "Its iteration was closed while alternatives were being sampled.")
        return
    accepted = _accept(comparison)
    missing = comparison.k - 1 - len(accepted)
    draws = comparison.requests.count()
    off = comparison.iteration.reply_policy.off
    if missing and draws <= REDRAWS and not off:
        _request_alternatives(comparison, n=missing)
    elif accepted:
        _open(comparison, accepted)
    else:
        _give_up(comparison, off or f"No distinct alternative came in {draws} draws.")


def _accept(comparison: Comparison) -> list[Completion]:
    """The distinct alternatives so far; what is empty or a duplicate is marked with that reason."""
    seen = {comparison.message.text.strip()}
    accepted: list[Completion] = []
    drawn = Completion.objects.filter(request__comparison=comparison, rejected="").order_by("request", "index")
    for completion in drawn:
        text = completion.text.strip()
        if not text or text in seen:
            completion.rejected = "duplicate" if text else "empty"
            completion.save(update_fields=["rejected"])
        elif len(accepted) < comparison.k - 1:
            seen.add(text)
            accepted.append(completion)
    return accepted


def _open(comparison: Comparison, alternatives: list[Completion]) -> None:
    comparison.state, comparison.opened_at = Comparison.State.OPEN, timezone.now()
    comparison.save(update_fields=["state", "opened_at"])
    original = Candidate(comparison=comparison, completion=_completion_of(comparison.message), original=True)
    others = [Candidate(comparison=comparison, completion=completion) for completion in alternatives]
    Candidate.objects.bulk_create([original, *others])
    Assignment.objects.bulk_create(
        Assignment(
            project_id=comparison.project_id,
            iteration_id=comparison.iteration_id,
            kind=Assignment.Kind.RANK,
            ordinal=ordinal,
            comparison=comparison,
            author_id=comparison.message.conversation.trainer_id,
        )
        for ordinal in range(1, comparison.overlap + 1)
    )


def _completion_of(message: Message) -> Completion:
    """The message as a candidate; one that was brought in becomes a completion for it."""
    if message.completion is not None:
        return message.completion
    model = (message.facts or {}).get("model_name")
    return Completion.objects.create(
        kind=Completion.Kind.IMPORTED,
        text=message.text,
        source_id=message.source_id,
        model=model[:MODEL] if isinstance(model, str) else "",
    )


MODEL = Completion._meta.get_field("model").max_length


def _give_up(comparison: Comparison, reason: str) -> None:
    comparison.state, comparison.reason = Comparison.State.FAILED, reason
    comparison.save(update_fields=["state", "reason"])


def lock(comparison_id: int) -> Comparison:
    """Lock a comparison's row, as everything does that counts its rankings. Call it inside a transaction.

    No row lock here is stronger than NO KEY UPDATE: a new slot's foreign key takes KEY SHARE on this row, and would
    else deadlock with a submit that waits for the slot that is being replaced.
    """
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)


def close_if_ranked(comparison: Comparison) -> bool:
    """Close a locked comparison when all its rankings are in. Whether it closed now."""
    submitted = comparison.assignments.filter(state=Assignment.State.SUBMITTED).count()
    if comparison.state != Comparison.State.OPEN or submitted < comparison.overlap:
        return False
    comparison.state, comparison.closed_at = Comparison.State.CLOSED, timezone.now()
    comparison.save(update_fields=["state", "closed_at"])
    return True


def repair() -> int:
    """Settle or close what a crash between two steps left behind. How many were looked at."""
    pending = GenerationRequest.objects.filter(
        comparison=OuterRef("pk"), state__in=[GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED]
    )
    stuck = Comparison.objects.filter(~Exists(pending), state=Comparison.State.SAMPLING)
    stuck = stuck.values_list("id", flat=True)[:100]
    for comparison_id in (found := list(stuck)):
        with transaction.atomic():
            settle(comparison_id)
    return len(found)


def context(comparison: Comparison) -> list[Message]:
    """The messages before the selected one, the system message included."""
    message = comparison.message
    return list(
        Message.objects.filter(conversation_id=message.conversation_id, position__lt=message.position).order_by(
            "position"
        )
    )


def shown(assignment: Assignment) -> list[Shown]:
    """The candidates in the order in which this assignment shows them, lettered from A."""
    texts = dict(Candidate.objects.filter(comparison_id=assignment.comparison_id).values_list("id", "completion__text"))
    return [
        Shown(letter=letter, candidate_id=candidate_id, text=texts[candidate_id])
        for letter, candidate_id in zip(LETTERS, assignment.shown_order, strict=False)
    ]

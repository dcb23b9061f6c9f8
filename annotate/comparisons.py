"""Comparisons: a message is selected, alternatives are sampled beside it, trainers rank them."""

from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Case, CharField, Count, Exists, F, Min, OuterRef, QuerySet, When
from django.db.models.functions import Cast
from django.utils import timezone

from annotate import bell, derive, places, prompts
from annotate.errors import Conflict, Invalid
from annotate.models import (
    Assignment,
    Candidate,
    Comparison,
    Completion,
    Conversation,
    GenerationRequest,
    Iteration,
    IterationPolicy,
    Message,
    Policy,
    Project,
)

REDRAWS = 3
"""How often a policy's missing places are drawn again."""

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
    messages = list(eligible(conversation.messages).select_related("completion__request").order_by("position"))
    if not messages or conversation.iteration.state != Iteration.State.OPEN:
        return None
    seed, index = derive.draw(conversation.project.secret, "conversation", conversation.pk, len(messages))
    return _compare(messages[index], conversation.iteration, seed=seed, size=len(messages), index=index)


def _compare(
    message: Message,
    iteration: Iteration,
    *,
    seed: str,
    size: int,
    index: int,
    pool: Comparison | None = None,
    begins: bool = False,
    rung: set[int] | None = None,
) -> Comparison:
    """A comparison over this message, in a pool that others began, in one that it `begins`, or by itself. The policies
    in `rung` will hear of it in any case; those that are rung for come to them."""
    comparison = Comparison.objects.create(
        project=iteration.project,
        iteration=iteration,
        message=message,
        k=iteration.k,
        overlap=iteration.overlap,
        draw_seed=seed,
        draw_size=size,
        draw_index=index,
        pool=pool,
    )
    if begins:
        comparison.pool = comparison
        comparison.save(update_fields=["pool"])
    if not _ask(comparison, _places(comparison), set() if rung is None else rung):
        settle(comparison.pk)
        comparison.refresh_from_db()
    return comparison


def _places(comparison: Comparison) -> dict[int, int]:
    """How many texts each policy of the round is to give, always the same for one comparison."""
    iteration, completion = comparison.iteration, comparison.message.completion
    weights = IterationPolicy.objects.filter(iteration=iteration).values_list("policy_id", "weight")
    return places.allot(
        secret=comparison.project.secret,
        comparison_id=comparison.pk,
        k=comparison.k,
        weights=dict(weights),
        keeps_original=iteration.keeps_original,
        original=completion.request.policy_id if completion and completion.request else None,
    )


def _draw_missing(comparison: Comparison, missing: dict[int, int]) -> bool:
    """Ask the policies for the places that they have not filled; each is asked again REDRAWS times at most.

    What was too long for a policy stays so, and one that is switched off will not answer: these are not asked again.
    Returns whether any of them is to answer.
    """
    asked = list(comparison.requests.values_list("policy_id", "state", "policy__active"))
    draws = Counter(policy for policy, *_ in asked)
    in_vain = {policy for policy, state, active in asked if state == GenerationRequest.State.REFUSED or not active}
    again = {policy: n for policy, n in missing.items() if n and draws[policy] <= REDRAWS and policy not in in_vain}
    return bool(again) and _ask(comparison, again, set())


def _ask(comparison: Comparison, wanted: dict[int, int], rung: set[int]) -> bool:
    """A request to each of these policies for so many texts; those that are not in `rung` are rung for and join it.
    Whether any of them is to answer."""
    policies = Policy.objects.in_bulk(wanted)
    purpose = GenerationRequest.Purpose.ALTERNATIVES
    messages = prompts.render_for_sampling(context(comparison), system=comparison.project.system_message)
    requests = GenerationRequest.objects.bulk_create(
        GenerationRequest(
            project_id=comparison.project_id,
            **GenerationRequest.beginning(policies[policy]),
            purpose=purpose,
            urgency=GenerationRequest.RANK_OF_PURPOSE[purpose],
            comparison=comparison,
            messages=messages,
            n=n,
            sampling=comparison.iteration.sampling,
        )
        for policy, n in wanted.items()
    )
    waiting = {request.policy_id for request in requests if request.state == GenerationRequest.State.WAITING}
    for policy_id in sorted(waiting - rung):
        bell.ring(policy_id)
    rung |= waiting
    return bool(waiting)


@transaction.atomic
def sample(
    *, project: Project, count: int, messages: str = "any", pools: int = 0, pool_size: int = 4
) -> list[Comparison]:
    """Up to `count` new comparisons over the messages of finished conversations that have none yet.

    Of chats the policy's complete replies are drawn from, of imported conversations all that the assistant says after
    the user; with `messages` "model" chats alone. A message that several imported conversations share counts once.
    Drawn uniformly without replacement in the order of their ids; each draw can be redone from its seed, the size of
    the set that was left and the index. After them the messages of so many `pools` are drawn in the same way, of each
    of which `annotate.uncertain` lets one be ranked; a pool has two at least. Raises Conflict where no iteration is
    open.
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
    taken: list[int] = []
    with connection.cursor() as cursor:
        statement, given = _left(project, messages).query.sql_with_params()
        # The set is kept while it is drawn from: what is finished meanwhile is not in it.
        cursor.execute(NUMBERED.format(statement), given)
        size = cursor.rowcount
        drawn: list[int] = []
        for number in range(_how_many(size, count, pools, pool_size)):
            label = f"{iteration.number}:{already + number}"
            seed, index = derive.draw(project.secret, "sample", label, size - number)
            draws.append((seed, size - number, index))
            taken.append(_place(index, drawn, size))
            insort(drawn, taken[-1])
        cursor.execute("SELECT place, id FROM drawn_from WHERE place = ANY(%s)", [taken])
        picked = dict(cursor.fetchall())
        cursor.execute("DROP TABLE drawn_from")
    made: list[Comparison] = []
    # One bell a policy for all: where the broker does not answer each takes a second.
    rung: set[int] = set()
    for number, (place, (seed, left, index)) in enumerate(zip(taken, draws, strict=True)):
        message = Message.objects.select_related("conversation", "completion__request").get(pk=picked[place])
        pool = None if number < count else number - (number - count) % pool_size
        first = made[pool] if pool is not None and pool < number else None
        begins = pool == number
        made.append(
            _compare(message, iteration, seed=seed, size=left, index=index, pool=first, begins=begins, rung=rung)
        )
    return made


def _how_many(size: int, count: int, pools: int, pool_size: int) -> int:
    """How many of `size` messages are drawn: the last pool may be smaller, but one alone leaves no choice."""
    pooled = min(pools * pool_size, max(0, size - count))
    if pooled % pool_size == 1:
        pooled -= 1
    return min(count, size) + pooled


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
    """Open a comparison whose texts are all in, draw missing places again, or give it up.

    One of a pool does not open yet: with its candidates it waits for `uncertain.choose_ready`. The row is locked before
    its requests are counted: of two last results that arrive together the second one sees the first. Call it inside
    the transaction that closes a request.
    """
    comparison = Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)
    pending = [GenerationRequest.State.WAITING, GenerationRequest.State.CLAIMED]
    if comparison.state != Comparison.State.SAMPLING or comparison.requests.filter(state__in=pending).exists():
        return
    waits = comparison.pool_id is not None and comparison.candidates.exists()
    if comparison.iteration.state != Iteration.State.OPEN:
        doing = "one of its pool was being chosen" if waits else "alternatives were being sampled"
        _give_up(comparison, f"Its iteration was closed while {doing}.")
        return
    if waits:
        return
    wanted = _places(comparison)
    accepted = _accept(comparison, wanted)
    given = Counter(completion.request.policy_id for completion in accepted)
    if _draw_missing(comparison, {policy: n - given[policy] for policy, n in wanted.items()}):
        return
    if len(accepted) + comparison.iteration.keeps_original >= 2:
        _make_candidates(comparison, accepted)
        if comparison.pool_id is None:
            open_for_ranking(comparison)
    else:
        _give_up(comparison, _what_happened(comparison, wanted, given))


def _accept(comparison: Comparison, wanted: dict[int, int]) -> list[Completion]:
    """The distinct whole texts so far, of each policy as many as are wanted; what is none is marked with the reason.

    Of two policies that say the same the one that was asked first has said it, and which one that is was drawn.
    """
    seen = {comparison.message.text.strip()} if comparison.iteration.keeps_original else set()
    accepted: list[Completion] = []
    left = Counter(wanted)
    drawn = Completion.objects.filter(request__comparison=comparison, rejected="").select_related("request")
    for completion in drawn.order_by("request", "index"):
        text, policy = completion.text.strip(), completion.request.policy_id
        if wrong := _no_candidate(completion, seen):
            completion.rejected = wrong
            completion.save(update_fields=["rejected"])
        elif left[policy] > 0:
            left[policy] -= 1
            seen.add(text)
            accepted.append(completion)
    return accepted


def _no_candidate(completion: Completion, seen: set[str]) -> str:
    """Why a text is no candidate beside those that were `seen`; empty where it is one."""
    # Half a text is no more to be ranked than the reply of a chat that was stopped.
    if completion.finish_reason == Completion.FinishReason.STOPPED:
        return "stopped"
    text = completion.text.strip()
    if not text:
        return "empty"
    return "duplicate" if text in seen else ""


def _what_happened(comparison: Comparison, wanted: dict[int, int], given: Counter[int]) -> str:
    """Why there are too few candidates: of each policy how its last draw ended, cut to what the reason holds."""
    requests = comparison.requests.select_related("policy").order_by("id")
    draws = Counter(request.policy_id for request in requests)
    last = {request.policy_id: request for request in requests}
    told = []
    for policy, n in wanted.items():
        if (request := last.get(policy)) is None or given[policy] >= n:
            continue
        times = "1 draw" if draws[policy] == 1 else f"{draws[policy]} draws"
        happened = f"{request.policy} gave {given[policy]} of {n} in {times}."
        if request.state in (GenerationRequest.State.FAILED, GenerationRequest.State.REFUSED):
            happened = f"{request.policy} {request.state}: {request.reason}"
        told.append(request.policy.off or happened)
    reason = " ".join(["Too few distinct texts.", *told])
    return reason if len(reason) <= REASON else f"{reason[: REASON - 1]}…"


REASON = Comparison._meta.get_field("reason").max_length


def _make_candidates(comparison: Comparison, sampled: list[Completion]) -> None:
    candidates = [Candidate(comparison=comparison, completion=completion) for completion in sampled]
    if comparison.iteration.keeps_original:
        original = _completion_of(comparison.message)
        candidates.insert(0, Candidate(comparison=comparison, completion=original, original=True))
    Candidate.objects.bulk_create(candidates)
    if comparison.project.scored_by_id is not None:
        bell.ring_for_scores(comparison.project_id)


def open_for_ranking(comparison: Comparison, selection: str = Comparison.Selection.RANDOM) -> None:
    """Open a locked comparison that has its candidates, with its slots. Call it inside a transaction."""
    comparison.state, comparison.opened_at, comparison.selection = Comparison.State.OPEN, timezone.now(), selection
    comparison.save(update_fields=["state", "opened_at", "selection"])
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


def pool_has_opened(comparison: Comparison) -> bool:
    """Whether one of its pool was chosen, so that it can no longer be."""
    opened = [Comparison.State.OPEN, Comparison.State.CLOSED]
    return (
        comparison.pool_id is not None
        and Comparison.objects.filter(pool=comparison.pool_id, state__in=opened).exclude(pk=comparison.pk).exists()
    )


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
    # Those of a pool wait for their scores, however many they are.
    in_pool = Candidate.objects.filter(comparison=OuterRef("pk"), comparison__iteration__state=Iteration.State.OPEN)
    stuck = Comparison.objects.filter(~Exists(pending), ~Exists(in_pool), state=Comparison.State.SAMPLING)
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


def thoughts(comparison: Comparison) -> dict[int, str]:
    """What was thought before its candidates, by candidate. Not for those who are still to rank it: it may tell them
    which policy an answer is from, and it is no part of what they judge."""
    found = Candidate.objects.filter(comparison=comparison).exclude(completion__reasoning="")
    return dict(found.values_list("id", "completion__reasoning"))


def shown(assignment: Assignment) -> list[Shown]:
    """The candidates in the order in which this assignment shows them, lettered from A."""
    texts = dict(Candidate.objects.filter(comparison_id=assignment.comparison_id).values_list("id", "completion__text"))
    return [
        Shown(letter=letter, candidate_id=candidate_id, text=texts[candidate_id])
        for letter, candidate_id in zip(LETTERS, assignment.shown_order, strict=False)
    ]

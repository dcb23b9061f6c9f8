"""Sampling jobs: asked for by pages and by the record's rules, claimed and closed by workers.

waiting → claimed → done, failed, cancelled or refused. A worker's word counts only with its claim token, so
that a late twin of a job that went to another worker changes nothing.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from annotate import bell, comparisons, prompts, streams
from annotate.errors import BothsidesError, Conflict
from annotate.models import Assignment, Comparison, Completion, Conversation, GenerationRequest, Message

State = GenerationRequest.State
Purpose = GenerationRequest.Purpose
FinishReason = Completion.FinishReason


@dataclass(frozen=True, slots=True)
class Sampled:
    """One text as an engine made it; times are in milliseconds from the claim.

    `reasoning` is what a model that thinks wrote before it. The first token may be one of that.
    """

    index: int
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: int | None = None
    total_ms: int | None = None
    seed: int | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews: jobs that are no longer its own, and jobs to stop."""

    lost: set[int]
    cancelled: set[int]


def request_reply(*, conversation: Conversation, assignment: Assignment) -> GenerationRequest:
    """Ask for the next message of an open conversation. A second one while one is pending breaks a constraint.

    Of a policy that is switched off it has failed at once.
    """
    messages = list(conversation.messages.order_by("position"))
    request = GenerationRequest.objects.create(
        project_id=conversation.project_id,
        **GenerationRequest.beginning(conversation.iteration.reply_policy),
        purpose=Purpose.REPLY,
        urgency=GenerationRequest.RANK_OF_PURPOSE[Purpose.REPLY],
        conversation=conversation,
        position=messages[-1].position + 1,
        assignment=assignment,
        messages=prompts.render(messages),
        sampling=conversation.iteration.sampling,
    )
    bell.ring(request.policy_id)
    return request


def request_suggestions(
    *,
    conversation: Conversation,
    assignment: Assignment,
    role: str,
    position: int,
    messages: list[dict],
    hint: str,
    n: int,
) -> GenerationRequest:
    """Ask for `n` (1 to 3) texts for the message at `position`, of the user or the assistant.

    `messages` is the context, the system message first, as a list of role and content.
    """
    request = GenerationRequest.objects.create(
        project_id=conversation.project_id,
        **GenerationRequest.beginning(conversation.iteration.reply_policy),
        purpose=Purpose.SUGGESTION,
        urgency=GenerationRequest.RANK_OF_PURPOSE[Purpose.SUGGESTION],
        conversation=conversation,
        position=position,
        assignment=assignment,
        role=role,
        hint=hint,
        messages=prompts.render_suggestion(
            messages, role=role, hint=hint, topic="" if conversation.prompt_id else conversation.project.topic
        ),
        n=n,
        sampling=conversation.iteration.sampling,
    )
    bell.ring(request.policy_id)
    return request


def pending(conversation: Conversation) -> list[GenerationRequest]:
    """All that is being written for a conversation and that nobody has asked to stop, the oldest first."""
    found = conversation.requests.filter(state__in=[State.WAITING, State.CLAIMED], stop_asked=False)
    return list(found.order_by("id"))


def pending_reply(conversation: Conversation) -> GenerationRequest | None:
    """The reply that is waited for, if any."""
    return conversation.requests.filter(purpose=Purpose.REPLY, state__in=[State.WAITING, State.CLAIMED]).first()


def told_reason(request: GenerationRequest) -> str:
    """Why a request ended, as far as trainers are told: of what went wrong inside they need only know that it did."""
    if request.state == State.REFUSED or (request.state == State.FAILED and request.reason == request.policy.off):
        return request.reason
    return ""


def last_failure(conversation: Conversation) -> GenerationRequest | None:
    """The newest job of this conversation where it failed, was refused, or was stopped before a word came."""
    newest = conversation.requests.order_by("-id").first()
    if newest is None or newest.state not in (State.FAILED, State.REFUSED, State.CANCELLED):
        return None
    if newest.state == State.CANCELLED and conversation.messages.filter(completion__request=newest).exists():
        return None
    return newest


def most_urgent(*, policy_id: int) -> int | None:
    """The urgency of what a policy would be asked first of all that waits; None where nothing does."""
    waiting = GenerationRequest.objects.filter(policy=policy_id, state=State.WAITING).order_by("urgency", "id")
    return waiting.values_list("urgency", flat=True).first()


CLAIM = """
WITH picked AS (
    SELECT id FROM annotate_generationrequest
    WHERE state = 'waiting' AND policy_id = %(policy)s AND urgency >= %(from)s AND urgency < %(below)s
      AND n <= %(most)s
    ORDER BY urgency, id
    FOR UPDATE SKIP LOCKED LIMIT 1
)
UPDATE annotate_generationrequest request
SET state = 'claimed', claim_token = %(token)s, claimed_by = %(worker)s, attempt = attempt + 1,
    claimed_at = clock_timestamp(), lease_until = clock_timestamp() + %(lease)s, reason = ''
FROM picked WHERE request.id = picked.id
RETURNING request.id
"""

BULK = GenerationRequest.RANK_OF_PURPOSE[Purpose.ALTERNATIVES]


def claim(
    *, policy_id: int, worker: str, limit: int, bulk_limit: int, retries_apart: bool = False
) -> list[GenerationRequest]:
    """Claim waiting jobs of a policy, replies first, up to `limit` texts of which bulk takes `bulk_limit`.

    With `retries_apart` one that was tried before is the last: the caller will run it with nothing beside it.
    """
    claimed, room, bulk_room = [], limit, min(limit, bulk_limit)
    for first, below in ((0, BULK), (BULK, BULK + 1)):
        while True:
            most = room if first < BULK else min(room, bulk_room)
            if most < 1:
                break
            request = _claim_one(policy_id=policy_id, worker=worker, urgency=(first, below), most=most)
            if request is None:
                break
            claimed.append(request)
            if retries_apart and request.attempt > 1:
                return claimed
            room -= request.n
            if first == BULK:
                bulk_room -= request.n
    return claimed


def _claim_one(*, policy_id: int, worker: str, urgency: tuple[int, int], most: int) -> GenerationRequest | None:
    with connection.cursor() as cursor:
        cursor.execute(
            CLAIM,
            {
                "policy": policy_id,
                "worker": worker,
                "from": urgency[0],
                "below": urgency[1],
                "most": most,
                "token": uuid.uuid4(),
                "lease": timedelta(seconds=settings.SAMPLING_LEASE_SECONDS),
            },
        )
        row = cursor.fetchone()
    return GenerationRequest.objects.get(pk=row[0]) if row else None


RENEW = """
UPDATE annotate_generationrequest request
SET lease_until = clock_timestamp() + %(lease)s
FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[]) AS held(id, token)
WHERE request.id = held.id AND request.claim_token = held.token AND request.state = 'claimed'
RETURNING request.id, request.stop_asked
"""


def renew(*, held: dict[int, uuid.UUID]) -> Renewal:
    """Renew the leases of jobs, given with their claim tokens, in one statement."""
    if not held:
        return Renewal(lost=set(), cancelled=set())
    with connection.cursor() as cursor:
        cursor.execute(
            RENEW,
            {
                "lease": timedelta(seconds=settings.SAMPLING_LEASE_SECONDS),
                "ids": list(held),
                "tokens": list(held.values()),
            },
        )
        ours = dict(cursor.fetchall())
    return Renewal(lost=set(held) - set(ours), cancelled={pk for pk, stop in ours.items() if stop})


IDLE_AT_MOST = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"
IDLE_AS_BEFORE = "SET LOCAL idle_in_transaction_session_timeout TO DEFAULT"


def _letting_go(act):
    """In one transaction, in which PostgreSQL waits for a silent process no longer than its lease.

    Else a worker that hangs in the middle would keep its locks: those who talk wait for them, and the sweep passes over
    what is locked.
    """

    @wraps(act)
    def acted(**what):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(IDLE_AT_MOST, [f"{settings.SAMPLING_LEASE_SECONDS}s"])
            done = act(**what)
            # What it is part of may take its time.
            cursor.execute(IDLE_AS_BEFORE)
            return done

    return acted


def _close(request_id: int, token: uuid.UUID, state: str, **changes) -> GenerationRequest | None:
    """Claimed → `state` under the token; None where the job is no longer the caller's."""
    ended = None if state == State.WAITING else timezone.now()
    changed = GenerationRequest.objects.filter(pk=request_id, state=State.CLAIMED, claim_token=token).update(
        state=state, claim_token=None, lease_until=None, ended_at=ended, **changes
    )
    return GenerationRequest.objects.get(pk=request_id) if changed else None


def _store(request: GenerationRequest, sampled: list[Sampled]) -> list[Completion]:
    return Completion.objects.bulk_create(
        Completion(
            request=request,
            index=one.index,
            # PostgreSQL's text has no NUL.
            text=one.text.replace("\x00", ""),
            reasoning=one.reasoning.replace("\x00", "").strip(),
            finish_reason=one.finish_reason,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.completion_tokens,
            first_token_ms=one.first_token_ms,
            total_ms=one.total_ms,
            seed=one.seed,
        )
        for one in sampled
    )


THOUGHT_TO_THE_END = (
    "The longest length of {} tokens was used up by thinking, before the first word. Raise the project's field max new "
    "tokens for its next iteration, or sample from a policy that does not think."
)


def _lock_conversation(request_id: int) -> None:
    """Of a reply, before its request, as everybody who talks does: else a stop and a result wait for each other."""
    talked = Conversation.objects.filter(requests=request_id, requests__purpose=Purpose.REPLY)
    talked.select_for_update(of=["self"], no_key=True).first()


def _place_reply(request: GenerationRequest, completion: Completion) -> None:
    """The reply becomes the conversation's next message, unless the conversation has ended meanwhile."""
    conversation = Conversation.objects.select_for_update(no_key=True).get(pk=request.conversation_id)
    if conversation.state != Conversation.State.OPEN or conversation.messages.count() != request.position:
        return
    Message.objects.create(
        conversation=conversation,
        position=request.position,
        role=Message.ChatRole.ASSISTANT,
        text=completion.text,
        source=Message.Source.REPLY,
        completion=completion,
    )


@_letting_go
def complete(*, request_id: int, token: uuid.UUID, sampled: list[Sampled], template_hash: str) -> State | None:
    """Store all texts of a job. DONE, or FAILED where this attempt has failed; None, and nothing changed, where the job
    is no longer the caller's.

    A reply, or suggestions, without a word are a failure that is tried again, unless the model thought until its
    longest length was used up, as it would the next time.
    """
    if not any(one.text.strip() for one in sampled):
        request = GenerationRequest.objects.get(pk=request_id)
        if request.purpose != Purpose.ALTERNATIVES:
            # Texts that ended without a token are not among them.
            if sampled and all(one.reasoning and one.finish_reason == FinishReason.LENGTH for one in sampled):
                reason, again = THOUGHT_TO_THE_END.format(sampled[0].completion_tokens), False
            else:
                reason, again = "The model ended before its first word.", True
            return State.FAILED if fail(request_id=request_id, token=token, reason=reason, again=again) else None
    _lock_conversation(request_id)
    request = _close(request_id, token, State.DONE, template_hash=template_hash)
    if request is None:
        return None
    stored = _store(request, sampled)
    if request.purpose == Purpose.REPLY:
        _place_reply(request, stored[0])
    elif request.purpose == Purpose.ALTERNATIVES:
        comparisons.settle(request.comparison_id)
    return State.DONE


@_letting_go
def close_cancelled(*, request_id: int, token: uuid.UUID, sampled: list[Sampled], template_hash: str) -> bool:
    """Close a job that a person stopped, with what was written so far (`[]`: nothing). False if not the caller's."""
    if sampled:
        _lock_conversation(request_id)
    request = _close(request_id, token, State.CANCELLED, template_hash=template_hash)
    if request is None:
        return False
    stored = _store(request, [one for one in sampled if one.text.strip()])
    if request.purpose == Purpose.REPLY and stored:
        _place_reply(request, stored[0])
    elif request.purpose == Purpose.ALTERNATIVES:
        comparisons.settle(request.comparison_id)
    return True


@_letting_go
def fail(*, request_id: int, token: uuid.UUID, reason: str, again: bool) -> bool:
    """A job did not work. With `again` it waits once more until its attempts are used up. False if not the caller's."""
    request = GenerationRequest.objects.get(pk=request_id)
    if again and request.attempt < settings.GENERATION_ATTEMPTS:
        closed = _close(request_id, token, State.WAITING, reason=reason)
        if closed is not None:
            bell.ring(closed.policy_id)
        return closed is not None
    closed = _close(request_id, token, State.FAILED, reason=reason)
    if closed is None:
        return False
    if closed.purpose == Purpose.ALTERNATIVES:
        comparisons.settle(closed.comparison_id)
    return True


@_letting_go
def refuse(*, request_id: int, token: uuid.UUID, reason: str) -> bool:
    """The context does not fit the model. A chat's last message goes back to the box. False if not the caller's."""
    _lock_conversation(request_id)
    request = _close(request_id, token, State.REFUSED, reason=reason)
    if request is None:
        return False
    if request.purpose == Purpose.ALTERNATIVES:
        comparisons.settle(request.comparison_id)
    if request.purpose != Purpose.REPLY:
        return True
    conversation = Conversation.objects.select_for_update(no_key=True).get(pk=request.conversation_id)
    last = conversation.messages.order_by("-position").first()
    if conversation.state == Conversation.State.OPEN and last.position == request.position - 1:
        Assignment.objects.filter(conversation=conversation).update(
            draft={"text": last.text}, draft_version=F("draft_version") + 1
        )
        last.delete()
    return True


@_letting_go
def release(*, held: dict[int, uuid.UUID]) -> None:
    """Give jobs back unfinished, as a worker does that ends. It does not count as an attempt."""
    for request_id, token in held.items():
        closed = _close(request_id, token, State.WAITING, attempt=F("attempt") - 1)
        if closed is not None:
            bell.ring(closed.policy_id)


def stop(*, request: GenerationRequest) -> None:
    """Ask that a job end. One that waits ends at once; the worker that holds one closes it with its text so far."""
    ended = GenerationRequest.objects.filter(pk=request.pk, state=State.WAITING).update(
        state=State.CANCELLED, ended_at=timezone.now(), stop_asked=True
    )
    if not ended:
        GenerationRequest.objects.filter(pk=request.pk, state=State.CLAIMED).update(stop_asked=True)
        bell.ring(request.policy_id)


@transaction.atomic
def try_again(*, request: GenerationRequest) -> None:
    """A failed job waits once more, with all its attempts.

    Raises Conflict where it no longer applies, and while its policy is switched off.
    """
    _let_wait_again(request)
    bell.ring(request.policy_id)


@transaction.atomic
def _let_wait_again(request: GenerationRequest) -> None:
    if request.policy.off:
        raise Conflict(request.policy.off)
    if request.purpose == Purpose.REPLY:
        conversation = Conversation.objects.select_for_update(no_key=True).get(pk=request.conversation_id)
        current = conversation.state == Conversation.State.OPEN
        if not current or pending_reply(conversation) or conversation.messages.count() != request.position:
            raise Conflict("The conversation has gone on without this reply.")
    elif request.purpose == Purpose.SUGGESTION:
        if request.conversation.state != Conversation.State.OPEN:
            raise Conflict("The conversation has ended without these suggestions.")
    else:
        comparison = comparisons.lock(request.comparison_id)
        if comparison.state == Comparison.State.PASSED_OVER or comparisons.pool_has_opened(comparison):
            raise Conflict("Another comparison of its pool has opened.")
        if comparison.state not in (Comparison.State.SAMPLING, Comparison.State.FAILED):
            raise Conflict("The comparison has opened without these alternatives.")
        if comparison.iteration.state != "open":
            raise Conflict("The iteration is no longer open.")
        if comparison.candidates.exists():
            raise Conflict("The comparison has its candidates without these alternatives.")
        comparison.state, comparison.reason = Comparison.State.SAMPLING, ""
        comparison.save(update_fields=["state", "reason"])
    changed = GenerationRequest.objects.filter(pk=request.pk, state=State.FAILED).update(
        state=State.WAITING, attempt=0, ended_at=None, stop_asked=False, reason=""
    )
    if not changed:
        raise Conflict("Only a failed request can be tried again.")


def try_all_again(*, requests: Iterable[GenerationRequest], most: int) -> tuple[int, list[str]]:
    """Try failed jobs again, each by itself, until `most` of them wait once more.

    How many do, and a sentence for each that could not. A policy's bell rings once, because a slow broker would take a
    second for each job.
    """
    policies, refusals = [], []
    for request in requests:
        try:
            _let_wait_again(request)
            policies.append(request.policy_id)
        except BothsidesError as error:
            refusals.append(f"Request {request.pk}: {error.message}")
        if len(policies) == most:
            break
    for policy_id in sorted(set(policies)):
        bell.ring(policy_id)
    return len(policies), refusals


@transaction.atomic
def expire_leases() -> int:
    """Jobs whose worker fell silent: wait again, fail after the last attempt, or end where a stop was asked."""
    late = GenerationRequest.objects.select_for_update(skip_locked=True, no_key=True).filter(
        state=State.CLAIMED, lease_until__lt=timezone.now()
    )
    # Several may be of one comparison, whose row is locked at the end of each: two sweeps lock them in one order.
    late = late.order_by("comparison_id", "id")[:200]
    for request in (found := list(late)):
        if request.stop_asked:
            close_cancelled(request_id=request.pk, token=request.claim_token, sampled=[], template_hash="")
        else:
            reason = f"The worker {request.claimed_by} fell silent."
            fail(request_id=request.pk, token=request.claim_token, reason=reason, again=True)
    return len(found)


def fail_switched_off() -> int:
    """What waits for policies that are switched off fails, with that reason. How many did."""
    failed = 0
    waiting = GenerationRequest.objects.filter(state=State.WAITING, policy__active=False)
    for request in waiting.select_related("policy").order_by("id"):
        with transaction.atomic():
            changed = GenerationRequest.objects.filter(pk=request.pk, state=State.WAITING).update(
                state=State.FAILED, reason=request.policy.off, ended_at=timezone.now()
            )
            if changed and request.purpose == Purpose.ALTERNATIVES:
                comparisons.settle(request.comparison_id)
        if changed and request.assignment_id:
            told = {"kind": "failed", "request": request.pk, "attempt": request.attempt, "reason": request.policy.off}
            streams.publish(request.assignment_id, [told])
        failed += changed
    return failed

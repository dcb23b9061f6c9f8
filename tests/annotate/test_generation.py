"""Sampling jobs: claimed, renewed, closed under their token."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotate import conversations, generation
from annotate.errors import Conflict
from annotate.models import Comparison, Completion, GenerationRequest, Iteration
from tests import factory

pytestmark = pytest.mark.django_db

State = GenerationRequest.State


@pytest.fixture
def project():
    return factory.project()


@pytest.fixture
def slot(project):
    return factory.held_chat(project, factory.trainer(project))


def say(slot, text="Hello"):
    return conversations.say(assignment=slot, user=slot.trainer, text=text)


def take(request, **limits):
    given = {"limit": 64, "bulk_limit": 48} | limits
    return generation.claim(policy_id=request.policy_id, worker="w", **given)


def test_it_claims_and_completes(slot):
    request = say(slot)
    (claimed,) = take(request)
    assert (claimed.pk, claimed.state, claimed.attempt, claimed.claimed_by) == (request.pk, State.CLAIMED, 1, "w")
    assert [message["role"] for message in claimed.messages] == ["system", "user"]
    assert generation.complete(
        request_id=claimed.pk, token=claimed.claim_token, sampled=factory.sampled("Hi."), template_hash="ab"
    )
    reply = slot.conversation.messages.last()
    assert (reply.text, reply.source, reply.completion.request_id) == ("Hi.", "reply", request.pk)
    request.refresh_from_db()
    assert (request.state, request.claim_token, request.template_hash) == (State.DONE, None, "ab")


def test_a_claimed_request_is_not_claimed_twice(slot):
    request = say(slot)
    assert len(take(request)) == 1
    assert take(request) == []


def test_replies_come_before_alternatives_which_keep_to_their_share(project, slot):
    first = Comparison.objects.get(message__conversation=factory.finished_chat(project)).requests.get()
    factory.finished_chat(project)
    reply = say(slot)
    taken = take(first, limit=7, bulk_limit=4)
    assert [request.pk for request in taken] == [reply.pk, first.pk]


def test_a_late_twin_is_thrown_away(slot):
    request = say(slot)
    (twin,) = take(request)
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert generation.expire_leases() == 1
    (second,) = take(request)
    assert second.attempt == 2
    late = {"request_id": request.pk, "token": twin.claim_token}
    assert not generation.complete(**late, sampled=factory.sampled("late"), template_hash="")
    assert not generation.fail(**late, reason="late", again=True)
    assert not generation.refuse(**late, reason="late")
    assert not generation.close_cancelled(**late, sampled=factory.sampled("late"), template_hash="")
    assert Completion.objects.count() == 0
    assert generation.renew(held={request.pk: twin.claim_token}) == generation.Renewal({request.pk}, set())
    assert generation.complete(
        request_id=request.pk, token=second.claim_token, sampled=factory.sampled("good"), template_hash=""
    )
    assert slot.conversation.messages.last().text == "good"


def test_renewing_tells_what_to_stop(slot):
    request = say(slot)
    (claimed,) = take(request)
    before = claimed.lease_until
    held = {claimed.pk: claimed.claim_token}
    assert generation.renew(held=held) == generation.Renewal(set(), set())
    conversations.stop(assignment=slot, user=slot.trainer)
    assert generation.renew(held=held) == generation.Renewal(set(), {claimed.pk})
    claimed.refresh_from_db()
    assert claimed.lease_until > before
    assert generation.renew(held={}) == generation.Renewal(set(), set())


def test_a_stopped_reply_keeps_its_words(slot):
    (claimed,) = take(say(slot))
    conversations.stop(assignment=slot, user=slot.trainer)
    assert generation.close_cancelled(
        request_id=claimed.pk,
        token=claimed.claim_token,
        sampled=factory.sampled("Half a", finish_reason="stopped"),
        template_hash="",
    )
    assert slot.conversation.messages.last().completion.finish_reason == "stopped"
    assert generation.last_failure(slot.conversation) is None


def test_one_that_waits_is_stopped_at_once(slot):
    request = say(slot)
    conversations.stop(assignment=slot, user=slot.trainer)
    request.refresh_from_db()
    assert request.state == State.CANCELLED
    assert generation.last_failure(slot.conversation) == request


def test_it_fails_after_its_attempts(slot, settings):
    settings.GENERATION_ATTEMPTS = 2
    request = say(slot)
    for state in (State.WAITING, State.FAILED):
        (claimed,) = take(request)
        assert generation.fail(request_id=request.pk, token=claimed.claim_token, reason="out of memory", again=True)
        request.refresh_from_db()
        assert (request.state, request.reason) == (state, "out of memory")
    assert generation.last_failure(slot.conversation) == request


@pytest.mark.parametrize("texts", [["  \n"], []], ids=["blank", "without a token"])
def test_an_empty_reply_is_tried_again(slot, texts):
    request = say(slot)
    (claimed,) = take(request)
    assert generation.complete(
        request_id=request.pk, token=claimed.claim_token, sampled=factory.sampled(*texts), template_hash=""
    )
    request.refresh_from_db()
    assert request.state == State.WAITING
    assert Completion.objects.count() == 0


def test_a_refused_message_returns_to_the_box(slot):
    request = say(slot, "far too long")
    (claimed,) = take(request)
    assert generation.refuse(request_id=request.pk, token=claimed.claim_token, reason="It is 9 tokens too long.")
    slot.refresh_from_db()
    assert slot.draft == {"text": "far too long"}
    assert [message.role for message in slot.conversation.messages.all()] == ["system"]
    assert generation.last_failure(slot.conversation).reason == "It is 9 tokens too long."
    say(slot, "shorter")


def test_release_gives_back_without_counting_the_attempt(slot):
    request = say(slot)
    (claimed,) = take(request)
    generation.release(held={claimed.pk: claimed.claim_token, claimed.pk + 1000: uuid.uuid4()})
    request.refresh_from_db()
    assert (request.state, request.attempt, request.lease_until) == (State.WAITING, 0, None)


def test_a_failed_one_can_be_tried_again(slot):
    request = say(slot)
    (claimed,) = take(request)
    generation.fail(request_id=request.pk, token=claimed.claim_token, reason="broken", again=False)
    request.refresh_from_db()
    generation.try_again(request=request)
    factory.answer(request, "At last")
    assert slot.conversation.messages.last().text == "At last"
    with pytest.raises(Conflict):
        generation.try_again(request=request)


def test_alternatives_of_a_failed_comparison_can_be_tried_again(project):
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    while comparison.state == Comparison.State.SAMPLING:
        request = factory.claimed(comparison.requests.get(state=State.WAITING))
        generation.fail(request_id=request.pk, token=request.claim_token, reason="broken", again=False)
        comparison.refresh_from_db()
    assert (comparison.state, comparison.requests.count()) == (Comparison.State.FAILED, 4)
    request = comparison.requests.first()
    generation.try_again(request=request)
    factory.answer(request)
    comparison.refresh_from_db()
    assert (comparison.state, comparison.candidates.count()) == (Comparison.State.OPEN, 4)


def test_a_silent_worker_loses_its_last_attempt(slot, settings):
    settings.GENERATION_ATTEMPTS = 1
    request = say(slot)
    take(request)
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    generation.expire_leases()
    request.refresh_from_db()
    assert (request.state, request.reason) == (State.FAILED, "The worker w fell silent.")


def test_a_silent_worker_with_a_stop_ends_the_request(slot):
    request = say(slot)
    take(request)
    conversations.stop(assignment=slot, user=slot.trainer)
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    generation.expire_leases()
    request.refresh_from_db()
    assert request.state == State.CANCELLED


def test_a_reply_to_an_abandoned_conversation_is_kept_but_no_message(slot):
    (claimed,) = take(say(slot))
    from annotate import assignments

    assignments.skip(assignment=slot, user=slot.trainer, reason="broken")
    assert generation.complete(
        request_id=claimed.pk, token=claimed.claim_token, sampled=factory.sampled("Hi."), template_hash=""
    )
    assert Completion.objects.count() == 1
    assert slot.conversation.messages.count() == 2


def test_alternatives_of_a_closed_iteration_open_nothing(project):
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    Iteration.objects.update(state=Iteration.State.CLOSING)
    factory.answer(comparison.requests.get())
    comparison.refresh_from_db()
    assert (comparison.state, comparison.assignments.count()) == (Comparison.State.FAILED, 0)


def test_a_worker_that_hangs_amid_storing_keeps_its_locks_no_longer_than_its_lease(slot, settings, monkeypatch):
    settings.SAMPLING_LEASE_SECONDS = 7
    store, seen = generation._store, []

    def idle_at_most() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            return cursor.fetchone()[0]

    def stored(*what):
        seen.append(idle_at_most())
        return store(*what)

    monkeypatch.setattr(generation, "_store", stored)
    before = idle_at_most()
    factory.answer(conversations.say(assignment=slot, user=slot.trainer, text="Hello"))
    assert seen == ["7s"]
    # What this is a part of may take its time.
    assert idle_at_most() == before

"""Policies that are switched off: what waits for them ends, and says why."""

import pytest

from annotate import conversations, demonstrations, generation, iterations, policies, streams, sweep
from annotate.errors import Conflict
from annotate.models import Comparison, GenerationRequest, Iteration, Policy
from tests import factory

pytestmark = pytest.mark.django_db

State = GenerationRequest.State


@pytest.fixture
def policy():
    return factory.policy(name="first")


@pytest.fixture
def project(policy):
    return factory.project(served_by=policy)


@pytest.fixture
def chat(project):
    return factory.held_chat(project, factory.trainer(project))


OFF = "The policy first is switched off."


def say(slot):
    return conversations.say(assignment=slot, user=slot.trainer, text="Hello")


def suggest(slot):
    return demonstrations.suggest(assignment=slot, user=slot.trainer, role="user", before=[], n=2)


def now(request):
    request.refresh_from_db()
    return request.state, request.reason


def test_what_waits_fails_when_it_is_switched_off(policy, project, chat):
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    reply, suggestions = say(chat), suggest(factory.held_piece(project))
    others = say(factory.held_chat(other := factory.project(), factory.trainer(other)))
    assert policies.switch_off(policy=policy) == 3
    for request in (reply, suggestions, comparison.requests.get()):
        assert now(request) == (State.FAILED, OFF)
        assert request.ended_at is not None
    comparison.refresh_from_db()
    assert (comparison.state, comparison.reason) == ("failed", f"Too few distinct texts. {OFF}")
    assert now(others) == (State.WAITING, "")
    assert policies.state(policy) == ("off", OFF)
    told = [streams.json.loads(fields["e"]) for _, fields in streams.client().xrange(streams.key_of(chat.pk))]
    assert told == [{"kind": "failed", "request": reply.pk, "attempt": 0, "reason": OFF}]


def test_what_is_asked_while_it_is_off_fails_at_once(policy, project, chat):
    finished = factory.held_chat(project, factory.trainer(project))
    factory.turn(finished)
    policies.switch_off(policy=policy)
    assert now(say(chat)) == (State.FAILED, OFF)
    assert now(suggest(factory.held_piece(project))) == (State.FAILED, OFF)
    conversations.finish(assignment=finished, user=finished.trainer)
    comparison = Comparison.objects.get()
    assert (comparison.state, comparison.reason) == ("failed", f"Too few distinct texts. {OFF}")
    assert comparison.requests.get().state == State.FAILED


def test_what_is_given_back_later_fails_with_the_sweep(policy, project, chat):
    request = factory.claimed(say(chat))
    again = factory.claimed(suggest(factory.held_piece(project)))
    assert policies.switch_off(policy=policy) == 0
    generation.release(held={request.pk: request.claim_token})
    generation.fail(request_id=again.pk, token=again.claim_token, reason="The engine broke.", again=True)
    assert now(request) == (State.WAITING, "")
    sweep.run()
    assert now(request) == now(again) == (State.FAILED, OFF)


def test_what_was_begun_is_finished(policy, chat):
    request = say(chat)
    factory.claimed(request)
    policies.switch_off(policy=policy)
    request.refresh_from_db()
    assert generation.complete(
        request_id=request.pk, token=request.claim_token, sampled=factory.sampled("Hi."), template_hash=""
    )
    assert chat.conversation.messages.last().text == "Hi."


def test_a_comparison_opens_with_what_is_there(policy, project):
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    # One of the three is a duplicate, and would be drawn again.
    first = comparison.requests.get()
    factory.answer(first, "One", "Two", "Two")
    assert comparison.requests.count() == 2
    policies.switch_off(policy=policy)
    comparison.refresh_from_db()
    assert (comparison.state, comparison.candidates.count()) == ("open", 3)


def test_after_switching_on_all_of_them_can_be_tried_again(policy, project, chat):
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(project))
    say(chat)
    suggest(factory.held_piece(project))
    policies.switch_off(policy=policy)
    with pytest.raises(Conflict, match=OFF):
        generation.try_again(request=GenerationRequest.objects.filter(state=State.FAILED).first())
    Policy.objects.update(active=True)
    for request in GenerationRequest.objects.filter(state=State.FAILED):
        generation.try_again(request=request)
    waiting = GenerationRequest.objects.filter(state=State.WAITING)
    assert {request.purpose for request in waiting} == {"reply", "suggestion", "alternatives"}
    comparison.refresh_from_db()
    assert comparison.state == "sampling"


def test_a_closing_round_closes(policy, project):
    factory.finished_chat(project)
    iteration = factory.current(project)
    iterations.close(iteration=iteration)
    sweep.run()
    assert Iteration.objects.get(pk=iteration.pk).state == "closing"
    policies.switch_off(policy=policy)
    sweep.run()
    assert Iteration.objects.get(pk=iteration.pk).state == "closed"


def test_trainers_are_told_this_reason_and_no_other(policy, chat):
    request = say(chat)
    assert generation.told_reason(request) == ""
    policies.switch_off(policy=policy)
    request = GenerationRequest.objects.get()
    assert generation.told_reason(request) == OFF
    request.reason = "Out of memory at 0x7f"
    assert generation.told_reason(request) == ""

"""What a model thought before an answer, in the record: kept beside the answer, and no part of anything else."""

import pytest

from annotate import conversations, generation
from annotate.models import Comparison, Completion, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db

State = GenerationRequest.State
THOUGHT = "They greet, so I greet."


@pytest.fixture
def slot():
    project = factory.project()
    return factory.held_chat(project, factory.trainer(project))


def say(slot, text="Hello"):
    return conversations.say(assignment=slot, user=slot.trainer, text=text)


def complete(request, *texts, **how):
    """Whether a worker could close it with these texts."""
    factory.claimed(request)
    sampled = factory.sampled(*texts, **how)
    return generation.complete(request_id=request.pk, token=request.claim_token, sampled=sampled, template_hash="ab")


def test_a_reply_keeps_its_thought_beside_it(slot):
    assert complete(say(slot), "Hi.", reasoning=f"\n{THOUGHT}\x00\n")
    message = slot.conversation.messages.last()
    assert (message.text, message.completion.text, message.completion.reasoning) == ("Hi.", "Hi.", THOUGHT)


def test_the_model_does_not_read_it_again(slot):
    assert complete(say(slot), "Hi.", reasoning=THOUGHT)
    assert [one["content"] for one in say(slot, "And?").messages[1:]] == ["Hello", "Hi.", "And?"]


def test_a_stopped_reply_keeps_it(slot):
    request = factory.claimed(say(slot))
    stopped = factory.sampled("Half a", finish_reason="stopped", reasoning=THOUGHT)
    how = {"request_id": request.pk, "token": request.claim_token, "template_hash": ""}
    assert generation.close_cancelled(sampled=stopped, **how)
    assert slot.conversation.messages.last().completion.reasoning == THOUGHT


def test_a_reply_that_was_stopped_while_it_was_thought_of_is_none(slot):
    request = factory.claimed(say(slot))
    stopped = factory.sampled("", finish_reason="stopped", reasoning=THOUGHT)
    how = {"request_id": request.pk, "token": request.claim_token, "template_hash": ""}
    assert generation.close_cancelled(sampled=stopped, **how)
    assert slot.conversation.messages.last().role == "user"
    assert generation.last_failure(slot.conversation).state == State.CANCELLED


def test_a_reply_that_was_thought_to_its_longest_length_fails_at_once(slot):
    request = say(slot)
    assert complete(request, "", finish_reason="length", reasoning=THOUGHT)
    request.refresh_from_db()
    assert (request.state, request.attempt) == (State.FAILED, 1)
    assert "used up by thinking" in request.reason
    assert "max new tokens" in request.reason
    assert slot.conversation.messages.last().role == "user"


def test_one_that_ended_without_a_word_is_tried_again(slot):
    request = say(slot)
    assert complete(request, " ", reasoning=THOUGHT)
    request.refresh_from_db()
    assert (request.state, request.reason) == (State.WAITING, "The model ended before its first word.")


def test_an_alternative_that_is_nothing_but_a_thought_is_no_candidate():
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(factory.project()))
    request = comparison.requests.get()
    assert complete(request, "One.", "", "Two.", finish_reason="length", reasoning=THOUGHT)
    empty = Completion.objects.get(request=request, text="")
    assert (empty.rejected, empty.reasoning) == ("empty", THOUGHT)
    assert not comparison.candidates.filter(completion=empty).exists()


def test_candidates_that_differ_in_their_thoughts_only_are_one():
    comparison = Comparison.objects.get(message__conversation=factory.finished_chat(factory.project()))
    request = comparison.requests.get()
    original = comparison.message.text
    assert complete(request, original, "One.", "Two.", reasoning=THOUGHT)
    assert Completion.objects.get(request=request, text=original).rejected == "duplicate"

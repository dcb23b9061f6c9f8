"""Chats: said, asked again, stopped, finished."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments, conversations, derive, openings, projects
from annotate.errors import Conflict, Invalid
from annotate.models import Assignment, Comparison, Completion, Conversation, GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project()


@pytest.fixture
def slot(project):
    return factory.held_chat(project, factory.trainer(project))


def test_saying_something_asks_for_a_reply(slot):
    assignments.save_draft(assignment=slot, user=slot.trainer, draft={"text": "Hel"}, version=0)
    request = conversations.say(assignment=slot, user=slot.trainer, text="  Hello\r\nthere\x00 ")
    assert (request.purpose, request.urgency, request.position, request.n) == ("reply", 0, 2, 1)
    assert request.messages[-1] == {"role": "user", "content": "Hello\nthere"}
    assert request.sampling == slot.iteration.sampling
    slot.refresh_from_db()
    assert slot.draft == {}


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_message_is_refused(slot, text):
    with pytest.raises(Invalid):
        conversations.say(assignment=slot, user=slot.trainer, text=text)


def test_an_overlong_message_is_refused(slot, settings):
    settings.MESSAGE_CHARACTERS = 5
    with pytest.raises(Invalid, match="this one has 6"):
        conversations.say(assignment=slot, user=slot.trainer, text="abcdef")


def test_one_reply_at_a_time(slot):
    conversations.say(assignment=slot, user=slot.trainer, text="One")
    for again in (
        lambda: conversations.say(assignment=slot, user=slot.trainer, text="Two"),
        lambda: conversations.ask_again(assignment=slot, user=slot.trainer),
        lambda: conversations.finish(assignment=slot, user=slot.trainer),
    ):
        with pytest.raises(Conflict, match="being written"):
            again()
    assert GenerationRequest.objects.count() == 1


def test_asking_again_replaces_the_message_and_keeps_the_text(slot):
    first = factory.turn(slot, reply="First try")
    request = conversations.ask_again(assignment=slot, user=slot.trainer)
    assert request.position == first.position
    factory.answer(request, "Second try")
    assert [message.text for message in slot.conversation.messages.all()][-1] == "Second try"
    assert set(Completion.objects.values_list("text", flat=True)) == {"First try", "Second try"}


def test_asking_again_before_anything_was_said_is_refused(slot):
    with pytest.raises(Invalid):
        conversations.ask_again(assignment=slot, user=slot.trainer)


def test_after_a_failure_one_asks_again_and_does_not_repeat(slot):
    request = conversations.say(assignment=slot, user=slot.trainer, text="Hello")
    conversations.stop(assignment=slot, user=slot.trainer)
    with pytest.raises(Conflict, match="no reply yet"):
        conversations.say(assignment=slot, user=slot.trainer, text="Hello?")
    again = conversations.ask_again(assignment=slot, user=slot.trainer)
    assert again.messages == request.messages


def test_stopping_nothing_is_no_error(slot):
    conversations.stop(assignment=slot, user=slot.trainer)


def test_finishing_draws_a_message_and_asks_for_alternatives(project, slot):
    for _ in range(3):
        factory.turn(slot)
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    slot.refresh_from_db()
    assert (conversation.state, slot.state) == (Conversation.State.FINISHED, Assignment.State.SUBMITTED)
    comparison = Comparison.objects.get()
    seed, index = derive.draw(project.secret, "conversation", conversation.pk, 3)
    assert (comparison.draw_seed, comparison.draw_size, comparison.draw_index) == (seed, 3, index)
    assert comparison.message.position == 2 + 2 * index
    request = comparison.requests.get()
    assert (request.purpose, request.urgency, request.n) == ("alternatives", 2, 3)
    assert len(request.messages) == comparison.message.position


def test_stopped_and_rewritten_replies_are_not_drawn(project, slot):
    factory.turn(slot, finish_reason="stopped")
    kept = factory.turn(slot, reply="Thrown away")
    factory.answer(conversations.ask_again(assignment=slot, user=slot.trainer), "Kept")
    kept = slot.conversation.messages.last()
    factory.turn(slot, finish_reason="stopped")
    conversations.finish(assignment=slot, user=slot.trainer)
    comparison = Comparison.objects.get()
    assert (comparison.message, comparison.draw_size) == (kept, 1)


def test_a_chat_of_stopped_replies_only_is_finished_without_a_comparison(slot):
    factory.turn(slot, finish_reason="stopped")
    conversations.finish(assignment=slot, user=slot.trainer)
    assert not Comparison.objects.exists()


def test_finishing_needs_a_reply(slot):
    with pytest.raises(Invalid):
        conversations.finish(assignment=slot, user=slot.trainer)


def test_finishing_twice_is_refused(slot):
    factory.turn(slot)
    conversations.finish(assignment=slot, user=slot.trainer)
    for late in (
        lambda: conversations.finish(assignment=slot, user=slot.trainer),
        lambda: conversations.say(assignment=slot, user=slot.trainer, text="More"),
        lambda: conversations.stop(assignment=slot, user=slot.trainer),
    ):
        with pytest.raises(Conflict):
            late()
    assert Comparison.objects.count() == 1


def test_a_stranger_cannot_speak(slot):
    with pytest.raises(Conflict):
        conversations.say(assignment=slot, user=factory.trainer(), text="Hi")


def test_late_surplus_chats_are_kept_and_not_compared(project, slot):
    factory.turn(slot)
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    assignments.claim(user=factory.trainer(project), project=project)
    slot.refresh_from_db()
    factory.turn(slot)
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    slot.refresh_from_db()
    assert (slot.state, conversation.state) == (Assignment.State.SURPLUS, Conversation.State.FINISHED)
    assert not Comparison.objects.exists()


def test_a_closed_round_takes_no_new_words(project, slot):
    factory.turn(slot)
    project.iterations.update(state="closed", closed_at=timezone.now())
    for late in (
        lambda: conversations.say(assignment=slot, user=slot.trainer, text="More"),
        lambda: conversations.ask_again(assignment=slot, user=slot.trainer),
    ):
        with pytest.raises(Conflict, match="round is closed"):
            late()
    assert slot.conversation.messages.count() == 3


def test_the_family_is_the_prompts_where_it_was_kept(project):
    projects.add_prompts(project=project, openings=[projects.Opening("Write a poem about the sea.")])
    prompt = project.prompts.get()
    for opening, family in (
        ("Write a poem about the sea!", prompt.family),
        ("Write a short poem about the sea.", prompt.family),
        ("How do I file my taxes in Norway?", derive.family_of("how do i file my taxes in norway")),
    ):
        slot = factory.held_chat(project, factory.trainer(project))
        factory.turn(slot, opening)
        assert conversations.finish(assignment=slot, user=slot.trainer).family == family


def test_the_same_opening_is_in_one_family_however_it_came(project):
    projects.add_prompts(project=project, openings=[projects.Opening("Hello there")])
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "Hello")
    near = conversations.finish(assignment=slot, user=slot.trainer).family
    assert near == project.prompts.get().family
    slot = factory.held_chat(project, factory.trainer(project))
    openings.start_blank(assignment=slot, user=slot.trainer)
    factory.turn(slot, "hello!")
    slot.refresh_from_db()
    assert conversations.finish(assignment=slot, user=slot.trainer).family == near
    projects.add_prompts(project=project, openings=[projects.Opening("HELLO")])
    assert project.prompts.get(text="HELLO").family == near


def test_one_can_start_blank(project):
    projects.add_prompts(project=project, openings=[projects.Opening("Write a poem.")])
    slot = factory.held_chat(project, factory.trainer(project))
    openings.start_blank(assignment=slot, user=slot.trainer)
    assert Conversation.objects.get(pk=slot.conversation_id).prompt is None
    factory.turn(slot)
    with pytest.raises(Conflict):
        openings.start_blank(assignment=slot, user=slot.trainer)

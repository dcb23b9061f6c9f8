"""The chat page, and every step of a chat."""

import json

import pytest
from django.urls import reverse

from annotate import assignments, conversations, generation, streams
from annotate.models import Assignment, Comparison, Conversation, GenerationRequest, Message, Prompt
from annotate.policies import switch_off
from annotate.projects import Opening, add_prompts
from tests import factory
from tests.trainers_ui.conftest import HTMX

STEPS = ("say", "again", "stop", "blank", "finish")


@pytest.fixture
def step(browser, trainer, chat):
    """Posts a step of the chat in place, as htmx does."""
    client = browser(trainer)

    def posted(name, headers=HTMX, client=client, **fields):
        return client.post(reverse(name, args=[chat.pk]), fields, **headers)

    return posted


@pytest.fixture
def shown(browser, html, trainer, chat):
    """The page as it is now."""
    client = browser(trainer)
    return lambda: html(client.get(reverse("work", args=[chat.pk])))


@pytest.fixture
def ready(chat):
    """A worker says that it holds the policy."""
    policies = {str(chat.iteration.reply_policy_id): {"state": "ready", "reason": ""}}
    streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))


def pending() -> GenerationRequest:
    return GenerationRequest.objects.get(state="waiting")


def test_it_opens_with_a_prompt(browser, html, project, trainer):
    add_prompts(project=project, openings=[Opening(text="Why is bread <flat>?")])
    factory.chat_slot(project)
    slot = assignments.claim(user=trainer, project=project, kinds=["chat"])

    page = html(browser(trainer).get(reverse("work", args=[slot.pk])))

    assert "An opening to start from" in page
    assert ">Why is bread &lt;flat&gt;?</textarea>" in page
    assert "Write my own instead" in page
    assert 'data-finish data-dialog="finish" aria-keyshortcuts="Alt+F" disabled' in page


def test_writing_ones_own_puts_the_prompt_aside(browser, html, project, trainer):
    add_prompts(project=project, openings=[Opening(text="Why is bread flat?")])
    factory.chat_slot(project)
    slot = assignments.claim(user=trainer, project=project, kinds=["chat"])
    client = browser(trainer)

    response = client.post(reverse("blank", args=[slot.pk]))

    page = html(client.get(response.headers["Location"]))
    assert "Why is bread flat?" not in page
    assert "Your message" in page


def test_saying_asks_for_a_reply(step, html, chat, ready):
    response = step("say", text="Hello *there*")

    page = html(response)
    assert "Hello <em>there</em>" in page
    assert f'data-pending="{pending().pk}"' in page
    assert 'data-streams="yes"' in page
    assert "Stop" in page
    assert "<html" not in page


def test_without_scripts_the_page_comes_back(step, shown, chat, ready):
    response = step("say", headers={}, text="Hello")

    assert response.headers["Location"] == reverse("work", args=[chat.pk])
    assert '<noscript><meta http-equiv="refresh"' in shown()


def test_a_reply_is_shown_rendered(step, shown, html, browser, trainer, chat, ready):
    step("say", text="Hello")
    factory.answer(pending(), "Good *day*")

    part = html(browser(trainer).get(reverse("conversation", args=[chat.pk]), **HTMX))

    for page in (part, shown()):
        assert "Good <em>day</em>" in page
        assert '<pre class="raw" dir="auto" hidden>Good *day*</pre>' in page
        assert "Ask again" in page
        assert 'data-finishes="yes"' in page
        assert "data-pending" not in page


def test_the_conversation_alone_leads_to_the_page(browser, trainer, chat):
    response = browser(trainer).get(reverse("conversation", args=[chat.pk]))

    assert response.headers["Location"] == reverse("work", args=[chat.pk])


def test_an_empty_message(step, html):
    response = step("say", text="  \n")

    assert response.status_code == 422
    assert html(response) == '<p class="notice" role="alert">Write something first.</p>'


def test_a_message_that_is_too_long_is_not_lost(step, html, settings, chat):
    settings.MESSAGE_CHARACTERS = 10

    response = step("say", headers={}, text="Many, many words")

    assert response.status_code == 422
    assert "Many, many words</textarea>" in html(response)
    assert chat.conversation.messages.count() == 1


def test_while_a_reply_is_written(step, html):
    step("say", text="Hello")

    response = step("say", text="And another thing")

    assert response.status_code == 409
    assert "A reply is being written" in html(response)
    assert Message.objects.filter(role="user").count() == 1


def test_asking_again(step, html, chat, ready):
    factory.turn(chat, reply="First try")

    page = html(step("again"))

    assert "First try" not in page
    assert "data-pending" in page


def test_asking_again_before_anything_was_said(step):
    assert step("again").status_code == 422


def test_stopping_a_waiting_reply(step, html):
    step("say", text="Hello")

    page = html(step("stop"))

    assert "Stopped before the first word." in page
    assert "Ask for the reply" in page
    assert 'data-blocked="yes"' in page


def test_a_stopped_reply_says_so(step, shown, chat):
    step("say", text="Hello")
    request = factory.claimed(pending())
    generation.close_cancelled(
        request_id=request.pk,
        token=request.claim_token,
        sampled=factory.sampled("Half a", finish_reason="stopped"),
        template_hash="",
    )

    assert '<span class="from">stopped</span>' in shown()


def test_a_reply_that_failed(step, shown):
    step("say", text="Hello")
    request = factory.claimed(pending())
    generation.fail(request_id=request.pk, token=request.claim_token, reason="Out of memory at 0x7f", again=False)

    page = shown()

    assert "No reply could be written." in page
    assert "Ask for the reply" in page
    assert "0x7f" not in page


def test_a_message_that_the_model_cannot_read_returns_to_the_box(step, shown, html, browser, trainer, chat):
    step("say", text="Far too long")
    request = factory.claimed(pending())
    generation.refuse(request_id=request.pk, token=request.claim_token, reason="5000 tokens")

    part = html(browser(trainer).get(reverse("conversation", args=[chat.pk]), **HTMX))

    assert "longer than the model can read" in part
    assert 'tabindex="-1">Far too long</textarea>' in part
    assert 'data-version="1"' in part
    assert 'placeholder="Write to the model">Far too long</textarea>' in shown()


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("loading", "is being loaded"),
        ("failed", "could not be loaded"),
        ("waiting", "another model is being served first; this one comes next"),
        (None, "no worker is running"),
    ],
)
def test_replies_are_not_available(step, html, shown, chat, state, word):
    if state:
        policies = {str(chat.iteration.reply_policy_id): {"state": state, "reason": "secret path"}}
        streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))

    before, part = shown(), html(step("say", text="Hello"))

    for page in (before, part):
        assert "Replies are not available now" in page
        assert word in page
        assert "secret path" not in page
    assert "Your message is kept" in part
    assert "every 5s" in part
    assert "data-streams" not in part
    assert pending().purpose == "reply"


def test_a_model_that_rests_is_brought_in_when_it_is_asked(step, html, shown, chat):
    policies = {str(chat.iteration.reply_policy_id): {"state": "asleep", "reason": ""}}
    streams.client().set(f"{streams.HEARTBEAT}test", json.dumps({"policies": policies}))

    assert "Replies are not available now" not in shown()
    assert "the model rested while others were used, and is being brought in." in html(step("say", text="Hello"))


def test_a_policy_that_is_switched_off(step, html, shown, chat, ready):
    policy = chat.iteration.reply_policy
    step("say", text="Hello")
    switch_off(policy=policy)
    page, again = shown(), html(step("again"))

    for part in (page, again):
        assert f"No reply could be written: The policy {policy.name} is switched off." in part
        assert "Your message is kept: ask for the reply again, now or later." in part
        assert "Replies are not available now: the model is switched off." in part
        assert "Ask for the reply" in part
        assert "as soon as the model is there" not in part


def test_finishing(browser, html, trainer, chat, step):
    factory.turn(chat)

    response = step("finish", headers={})

    assert response.headers["Location"] == f"/?after={chat.pk}"
    assert Conversation.objects.get().state == "finished"
    assert Comparison.objects.get().state == "sampling"


def test_finishing_says_what_comes_next(browser, html, trainer, chat):
    page = html(browser(trainer).get(reverse("finish", args=[chat.pk])))

    assert "drawn at random" in page
    assert Conversation.objects.get().state == "open"


def test_finishing_without_a_reply(step):
    assert step("finish").status_code == 422


def test_a_finished_one_is_shown_to_look_at(shown, trainer, chat):
    factory.turn(chat, "Hello", "Good *day*")
    conversations.finish(assignment=chat, user=trainer)

    page = shown()

    assert "Good <em>day</em>" in page
    assert "Submitted" in page
    assert "<chat-task" not in page
    assert "<textarea" not in page


@pytest.mark.parametrize("name", STEPS)
def test_after_the_end(step, trainer, chat, name):
    factory.turn(chat)
    conversations.finish(assignment=chat, user=trainer)

    assert step(name, text="More").status_code == 409


def test_one_that_ran_out_goes_on(step, shown, chat, ready):
    Assignment.objects.filter(pk=chat.pk).update(lease_until=chat.held_at)
    assignments.expire()

    assert "has run out" in shown()
    assert step("say", text="Hello").status_code == 200


def test_hostile_messages_are_shown_and_do_nothing(shown, chat):
    factory.turn(chat, "<script>alert(1)</script>", "[x](javascript:alert(2)) <img src=x onerror=alert(3)>")

    page = shown()

    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert 'href="javascript' not in page


def test_a_draft_in_the_box(shown, trainer, chat):
    assignments.save_draft(assignment=chat, user=trainer, draft={"text": "</textarea><b>x"}, version=0)

    assert "&lt;/textarea&gt;&lt;b&gt;x</textarea>" in shown()


@pytest.mark.parametrize("draft", [{}, {"text": 5}, {"text": None}, {"text": ["x"]}, {"order": "A"}])
def test_a_draft_from_elsewhere(shown, trainer, chat, draft):
    assignments.save_draft(assignment=chat, user=trainer, draft=draft, version=0)

    assert 'placeholder="Write to the model"></textarea>' in shown()


def test_the_system_message_is_there_to_read(shown, project):
    assert project.system_message in shown()


def test_opening_it_changes_nothing(browser, trainer, chat):
    before = (list(Assignment.objects.values()), list(Prompt.objects.values()))

    browser(trainer).get(reverse("work", args=[chat.pk]))

    assert (list(Assignment.objects.values()), list(Prompt.objects.values())) == before


@pytest.mark.parametrize("name", STEPS)
def test_a_stranger(step, browser, stranger, chat, name):
    assert step(name, client=browser(stranger), text="Hello").status_code == 404
    assert chat.conversation.messages.count() == 1


@pytest.mark.parametrize("name", ["work", "conversation", "finish"])
def test_a_stranger_sees_nothing(browser, stranger, chat, name):
    assert browser(stranger).get(reverse(name, args=[chat.pk]), **HTMX).status_code == 404


@pytest.mark.parametrize("name", STEPS)
def test_signed_out_in_place(step, browser, html, name):
    response = step(name, client=browser(), text="Hello")

    assert response.status_code == 401
    assert "what you typed is kept here" in html(response)


@pytest.mark.parametrize("name", STEPS)
def test_signed_out(step, browser, chat, name):
    response = step(name, client=browser(), headers={}, text="Hello")

    assert response.headers["Location"] == f"/accounts/login/?next=/work/{chat.pk}/"


@pytest.mark.parametrize("name", ["say", "again", "stop", "blank"])
def test_get_changes_nothing(browser, trainer, chat, name):
    assert browser(trainer).get(reverse(name, args=[chat.pk])).status_code == 405


@pytest.mark.parametrize("name", STEPS)
def test_a_ranking_is_no_chat(browser, trainer, ranking, name):
    assert browser(trainer).post(reverse(name, args=[ranking.pk]), {"text": "Hello"}, **HTMX).status_code == 404


def test_queries_do_not_grow(browser, count_queries, trainer, chat, ready):
    client, url = browser(trainer), reverse("work", args=[chat.pk])
    factory.turn(chat)
    few = count_queries(client, url)
    for _ in range(6):
        factory.turn(chat)

    assert count_queries(client, url) == few

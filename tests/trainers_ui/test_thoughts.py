"""What a model thought first: under its answers, for those who ask; never on the page of a ranking."""

import re

import pytest
from django.urls import reverse

from annotate import assignments, rankings
from annotate.models import Role
from tests import factory

THOUGHT = "They **greet**, so I greet. <script>alert(1)</script>"
SUMMARY = "<summary>What the model thought first</summary>"


@pytest.fixture
def comparison(project):
    return factory.open_comparison(project, reasoning=THOUGHT)


def shown(page: str) -> int:
    """How many thoughts a page has, each closed and as safe Markdown."""
    found = re.findall(r'<details class="thought">(.*?)</details>', page)
    for one in found:
        assert SUMMARY in one
        assert "They <strong>greet</strong>" in one
    assert "<script>alert" not in page
    return len(found)


def test_the_chat_has_it_under_the_reply(browser, html, trainer, chat):
    factory.turn(chat, reasoning=THOUGHT)
    factory.turn(chat, "And now?")
    client = browser(trainer)
    assert shown(html(client.get(reverse("work", args=[chat.pk])))) == 1
    part = client.get(reverse("conversation", args=[chat.pk]), HTTP_HX_REQUEST="true")
    assert shown(html(part)) == 1


def test_so_has_a_finished_chat_of_ones_own(browser, html, trainer, chat):
    from annotate import conversations

    factory.turn(chat, reasoning=THOUGHT)
    conversations.finish(assignment=chat, user=trainer)
    assert shown(html(browser(trainer).get(reverse("work", args=[chat.pk])))) == 1


def test_reviewers_read_it_in_the_chat_and_with_all_answers(browser, html, reviewer, comparison):
    client = browser(reviewer)
    conversation = reverse("review_conversation", args=[comparison.message.conversation_id])
    assert shown(html(client.get(conversation))) == 1
    assert shown(html(client.get(reverse("review_comparison", args=[comparison.pk])))) == 4


@pytest.fixture
def ranking(project, trainer, comparison):
    return assignments.claim(user=trainer, project=project, kinds=["rank"])


def test_who_ranks_sees_none_before(browser, trainer, ranking):
    page = browser(trainer).get(reverse("work", args=[ranking.pk])).content.decode()
    assert "greet" not in page
    assert "thought" not in page


def test_and_all_after(browser, html, trainer, ranking):
    rankings.submit(assignment=ranking, user=trainer, tiers=[ranking.shown_order])
    assert shown(html(browser(trainer).get(reverse("work", args=[ranking.pk])))) == 4


def test_who_skipped_it_sees_none(browser, trainer, ranking):
    assignments.skip(assignment=ranking, user=trainer, reason="other", note="Later")
    page = browser(trainer).get(reverse("work", args=[ranking.pk])).content.decode()
    assert "greet" not in page


def test_a_context_has_none(browser, trainer, project, monkeypatch):
    from annotate import conversations, derive

    monkeypatch.setattr(derive, "draw", lambda *given: ("seed", 1))
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "First", "First reply", reasoning=THOUGHT)
    factory.turn(slot, "Second", "Second reply")
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    factory.answer(project.comparisons.get(message__conversation=conversation).requests.get())
    mine = assignments.claim(user=trainer, project=project, kinds=["rank"])
    page = browser(trainer).get(reverse("work", args=[mine.pk])).content.decode()
    assert "First reply" in page
    assert "greet" not in page


def test_suggestions_come_without(browser, trainer, project):
    slot = factory.held_piece(project, trainer)
    factory.suggested(slot, "Eight minutes.").completions.update(reasoning=THOUGHT)
    client = browser(trainer)
    said = client.get(reverse("suggestions", args=[slot.pk]), HTTP_ACCEPT="application/json").content.decode()
    assert "Eight minutes." in said
    assert "greet" not in said + client.get(reverse("work", args=[slot.pk])).content.decode()


def test_the_admin_site_has_it_with_the_text(browser, html, project, comparison):
    request = comparison.requests.get()
    client = browser(factory.person(project, role=Role.ADMIN))
    page = html(client.get(reverse("admin:annotate_generationrequest_change", args=[request.pk])))
    assert page.count("<summary>Show</summary>") == 3
    assert "They **greet**" in page
    assert "<script>alert" not in page

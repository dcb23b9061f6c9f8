"""Finished chats of a project, and one of them."""

import pytest
from django.urls import reverse

from annotate import conversations
from annotate.models import Message
from tests import factory
from trainers_ui import lists

LIST = "/projects/bread/chats/"


@pytest.fixture
def finished(project, trainer):
    slot = factory.held_chat(project, trainer)
    factory.turn(slot, "Why is my bread flat?", "It *rose* too long.", finish_reason="length")
    return conversations.finish(assignment=slot, user=trainer)


@pytest.fixture
def url(finished) -> str:
    return reverse("review_conversation", args=[finished.pk])


def test_the_list(browser, html, reviewer, trainer, finished, url):
    page = html(browser(reviewer).get(LIST))

    assert "Why is my bread flat?" in page
    assert "2 messages" in page
    assert str(trainer) in page
    assert url in page


def test_open_ones_are_not_listed(browser, html, reviewer, chat):
    assert "No chat is finished yet" in html(browser(reviewer).get(LIST))


def test_pages_hold_everything_once(browser, monkeypatch, project, reviewer):
    monkeypatch.setattr(lists, "PAGE", 3)
    monkeypatch.setattr(lists.one_page, "__defaults__", (3,))
    made = [factory.finished_chat(project).pk for _ in range(7)]
    client, seen, url = browser(reviewer), [], LIST

    while url:
        response = client.get(url)
        seen += [row.pk for row in response.context["rows"]]
        url = f"{LIST}?before={response.context['older']}" if response.context["older"] else None

    assert seen == made[::-1]


def test_a_page_after_the_last_one(browser, html, reviewer, finished):
    assert "There are no older ones" in html(browser(reviewer).get(LIST, {"before": finished.pk}))


@pytest.mark.parametrize("before", ["x", "-1", "1.5", "9" * 20])
def test_a_broken_address(browser, reviewer, before):
    assert browser(reviewer).get(LIST, {"before": before}).status_code == 422


def test_one_with_where_its_replies_came_from(browser, html, reviewer, finished, url):
    page = html(browser(reviewer).get(url))

    policy = finished.iteration.reply_policy
    assert "It <em>rose</em> too long." in page
    assert f"{policy} · temperature 0.8 · top-p 0.95" in page
    assert "cut at the longest length" in page
    assert finished.project.system_message in page
    comparison = Message.objects.get(role="assistant").comparisons.get()
    assert f"Drawn for ranking: comparison {comparison.pk}, sampling" in page


def test_not_for_the_trainer_who_held_it(browser, trainer, url):
    assert browser(trainer).get(url).status_code == 403
    assert browser(trainer).get(LIST).status_code == 403


def test_a_stranger(browser, stranger, url):
    outside = factory.person(factory.project(), role="reviewer")

    for user in (stranger, outside):
        assert browser(user).get(LIST).status_code == 404
    assert browser(outside).get(url).status_code == 404


def test_one_that_is_not_there(browser, reviewer):
    assert browser(reviewer).get("/read/chats/123456/").status_code == 404


def test_signed_out(browser, url):
    assert browser().get(url).headers["Location"] == f"/accounts/login/?next={url}"
    assert browser().get(LIST).headers["Location"] == f"/accounts/login/?next={LIST}"


def test_queries_do_not_grow(browser, count_queries, project, reviewer, finished, url):
    client = browser(reviewer)
    few_listed, few_read = count_queries(client, LIST), count_queries(client, url)
    for _ in range(5):
        factory.finished_chat(project, turns=2)
    long = factory.finished_chat(project, turns=6)

    assert count_queries(client, LIST) == few_listed
    assert count_queries(client, reverse("review_conversation", args=[long.pk])) == few_read

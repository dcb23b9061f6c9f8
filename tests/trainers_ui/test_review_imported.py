"""What was brought in from files: its list, one conversation, and a comparison that came with its ranking."""

import pytest
from django.urls import reverse

from tests import factory

LIST = "/projects/bread/imported/"


@pytest.fixture
def brought_in(project):
    set_of_them = factory.imported_in(project, "baking-forum")
    turns = ("system", "Be brief."), ("user", "Why is my crust pale?"), ("assistant", "The oven is too *cold*.")
    return factory.imported(project, *turns, imported_in=set_of_them, source_id="thread-7")


def test_the_list(browser, html, reviewer, brought_in):
    page = html(browser(reviewer).get(LIST))

    assert "Why is my crust pale?" in page
    assert "2 messages" in page
    assert "baking-forum" in page
    assert reverse("review_conversation", args=[brought_in.pk]) in page


def test_empty(browser, html, reviewer, project):
    assert "Nothing was brought in from files yet" in html(browser(reviewer).get(LIST))


def test_chats_are_elsewhere(browser, reviewer, brought_in):
    assert not browser(reviewer).get("/projects/bread/chats/").context["rows"]


def test_one(browser, html, reviewer, brought_in):
    page = html(browser(reviewer).get(reverse("review_conversation", args=[brought_in.pk])))

    assert f"Imported conversation {brought_in.pk}" in page
    assert "baking-forum · thread-7" in page
    assert "<em>cold</em>" in page


def test_one_that_came_with_its_ranking(browser, html, reviewer, project):
    comparison = factory.imported_comparison(project, ("Hotter.", "Longer."), ("Give up.",))
    client = browser(reviewer)

    conversation = html(client.get(reverse("review_conversation", args=[comparison.message.conversation_id])))
    page = html(client.get(reverse("review_comparison", args=[comparison.pk])))

    assert f"Brought in with its ranking: comparison {comparison.pk}" in conversation
    assert "A and B tied for first, then C." in page
    assert "1 of 1 ranking" in page
    assert "Imported" in page
    assert "the original" in page


def test_more_answers_than_letters(browser, reviewer, project):
    texts = [(f"Answer {number}",) for number in range(30)]
    comparison = factory.imported_comparison(project, *texts)

    answers = browser(reviewer).get(reverse("review_comparison", args=[comparison.pk])).context["answers"]

    assert [one["letter"] for one in answers][24:29] == ["Y", "Z", "27", "28", "29"]


def test_the_list_of_comparisons(browser, reviewer, project):
    comparison = factory.imported_comparison(project)

    (row,) = browser(reviewer).get(reverse("review_comparisons", args=["bread"])).context["rows"]

    assert (row.pk, row.ranked) == (comparison.pk, 1)


def test_not_for_trainers(browser, trainer, project):
    assert browser(trainer).get(LIST).status_code == 403


def test_a_stranger(browser, stranger, brought_in):
    assert browser(stranger).get(LIST).status_code in (403, 404)


def test_queries_do_not_grow(browser, count_queries, project, reviewer, brought_in):
    client = browser(reviewer)
    few = count_queries(client, LIST)
    for _ in range(3):
        factory.imported(project)
    assert count_queries(client, LIST) == few

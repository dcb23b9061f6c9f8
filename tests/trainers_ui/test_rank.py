"""The page of a ranking."""

import re

import pytest
from django.urls import reverse

from annotate import assignments, comparisons, rankings
from annotate.models import Assignment
from tests import factory


@pytest.fixture
def url(ranking) -> str:
    return reverse("work", args=[ranking.pk])


def test_it_shows_the_context_and_the_answers(browser, html, trainer, ranking, url):
    page = html(browser(trainer).get(url))

    assert "Rank four answers" in page
    assert "Hello there" in page
    assert "The next answer is the one to rank" in page
    texts = [one.text for one in comparisons.shown(ranking)]
    assert len(texts) == 4
    # In the order in which they are lettered.
    places = [page.index(f"<p>{text}</p>") for text in texts]
    assert places == sorted(places)
    assert [page.index(f'id="answer-{letter}"') for letter in "ABCD"] == sorted(
        page.index(f'id="answer-{letter}"') for letter in "ABCD"
    )


def test_it_is_blind(browser, trainer, ranking, url):
    page = browser(trainer).get(url).content.decode().lower()

    assert ranking.iteration.reply_policy.name not in page
    assert "original" not in page
    assert "policy" not in page
    # The seven marks that one can give are numbers too, and so is the end of an encoding's name.
    page = re.sub(r'name="rating-\w" value="\d"|utf-8', "", page)
    # Numbers of candidates grow in the order in which they were sampled: the lowest one is the original.
    for candidate in ranking.shown_order:
        assert f'"{candidate}"' not in page
        assert f"-{candidate}" not in page


def test_what_comes_after_the_selected_message_is_not_shown(browser, html, project, trainer, monkeypatch):
    from annotate import conversations, derive

    monkeypatch.setattr(derive, "draw", lambda *given: ("seed", 0))
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "First question", "First reply")
    factory.turn(slot, "Second question", "Second reply")
    conversation = conversations.finish(assignment=slot, user=slot.trainer)
    comparison = project.comparisons.get(message__conversation=conversation)
    factory.answer(comparison.requests.get())
    mine = assignments.claim(user=trainer, project=project, kinds=["rank"])

    page = html(browser(trainer).get(reverse("work", args=[mine.pk])))

    assert "First question" in page
    assert "First reply" in page
    assert "Second" not in page


def test_nine_answers(browser, html, trainer):
    project = factory.project(k=9, authors_rank_own=True)
    user = factory.trainer(project)
    factory.open_comparison(project)
    mine = assignments.claim(user=user, project=project, kinds=["rank"])

    page = html(browser(user).get(reverse("work", args=[mine.pk])))

    assert "Rank nine answers" in page
    assert 'id="answer-I"' in page


def test_hostile_answers_are_shown_and_do_nothing(browser, html, project, trainer):
    slot = factory.held_chat(project, trainer)
    bad = '<script>alert(1)</script> "><img src=x onerror=alert(2)>'
    factory.turn(slot, bad, bad)
    from annotate import conversations

    conversations.finish(assignment=slot, user=trainer)
    comparison = project.comparisons.get()
    factory.answer(comparison.requests.get(), *(f"{bad} {number}" for number in range(3)))
    mine = assignments.claim(user=trainer, project=project, kinds=["rank"])

    page = html(browser(trainer).get(reverse("work", args=[mine.pk])))

    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_it_works_as_a_plain_form(browser, html, trainer, ranking, url):
    page = html(browser(trainer).get(url))

    assert f'<form method="post" action="{reverse("submit", args=[ranking.pk])}"' in page
    assert '<label for="order">' in page
    assert page.count('name="rating-A"') == 7
    assert page.count('name="flag-A"') == len(rankings.Flag)


def test_opening_it_changes_nothing(browser, trainer, ranking, url):
    before = Assignment.objects.filter(pk=ranking.pk).values().get()

    browser(trainer).get(url)

    assert Assignment.objects.filter(pk=ranking.pk).values().get() == before


def test_one_that_ran_out_can_still_be_sent(browser, html, trainer, ranking, url):
    Assignment.objects.filter(pk=ranking.pk).update(lease_until=ranking.held_at)
    assignments.expire()

    page = html(browser(trainer).get(url))

    assert "has run out" in page
    assert "<rank-task" in page


def test_what_was_submitted_is_shown_back(browser, html, trainer, ranking, url):
    a, b, c, d = ranking.shown_order
    rankings.submit(assignment=ranking, user=trainer, tiers=[[b], [a, d], [c]], ratings={b: 7}, flags={c: ["opinion"]})

    page = html(browser(trainer).get(url))

    assert "B first, then A and D tied, then C." in page
    assert '<span class="place">2nd, tied</span>' in page
    assert "Quality 7 of 7" in page
    assert "Expresses an opinion" in page
    assert "<rank-task" not in page
    assert "Submitted" in page
    assert ranking.iteration.reply_policy.name not in page


def test_the_word_of_the_one_before(browser, html, project, trainer, ranking):
    a, b, c, d = ranking.shown_order
    rankings.submit(assignment=ranking, user=trainer, tiers=[[d], [a], [b], [c]])
    factory.open_comparison(project)
    following = assignments.claim(user=trainer, project=project)

    page = html(browser(trainer).get(reverse("work", args=[following.pk]), {"after": ranking.pk}))

    assert "Submitted: D first, then A, then B, then C." in page
    assert "1 today" in page


def test_a_stranger(browser, stranger, url):
    assert browser(stranger).get(url).status_code == 404


def test_another_trainer_of_the_project(browser, project, url):
    assert browser(factory.trainer(project)).get(url).status_code == 404


def test_a_reviewer_has_other_pages(browser, reviewer, url):
    assert browser(reviewer).get(url).status_code == 404


def test_one_who_left_the_project(browser, project, trainer, url):
    project.memberships.filter(user=trainer).delete()

    assert browser(trainer).get(url).status_code == 404


def test_signed_out(browser, url):
    assert browser().get(url).headers["Location"] == f"/accounts/login/?next={url}"


def test_queries_do_not_grow(browser, count_queries, project, trainer, ranking, url):
    client = browser(trainer)
    few = count_queries(client, url)
    for _ in range(5):
        factory.finished_chat(project, turns=2)
    long = factory.project(k=9, authors_rank_own=True)
    user = factory.trainer(long)
    factory.open_comparison(long, turns=6)
    big = assignments.claim(user=user, project=long, kinds=["rank"])

    assert count_queries(client, url) == few
    assert count_queries(browser(user), reverse("work", args=[big.pk])) == few


@pytest.mark.parametrize(
    ("flags", "rating", "order"),
    [(5, True, None), ("opinion", "3", ["A"]), ({"opinion": 1}, [3], 7), (True, None, {})],
)
def test_what_is_odd_in_a_draft_is_left_out(browser, html, trainer, ranking, url, flags, rating, order):
    odd = {"flags": {"A": flags}, "ratings": {"A": rating, "B": 2}, "order": order}
    assignments.save_draft(assignment=ranking, user=trainer, draft=odd, version=0)

    page = html(browser(trainer).get(url))

    assert 'name="order" value=""' in page
    assert page.count(" checked>") == 1
    assert 'name="rating-B" value="2" checked>' in page

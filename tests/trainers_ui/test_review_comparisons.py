"""Comparisons of a project in their states, and one of them."""

import pytest
from django.urls import reverse

from annotate.models import Comparison
from tests import factory
from trainers_ui import lists

LIST = "/projects/bread/rankings/"


@pytest.fixture
def comparison(project) -> Comparison:
    """One that is ranked by one trainer of two."""
    project.iterations.update(overlap=2)
    made = factory.open_comparison(project)
    candidates = list(made.candidates.values_list("id", flat=True))
    factory.ranking(
        made,
        "B A = D C",
        factory.person(project, name="Ada"),
        ratings={candidates[1]: 7},
        flags={candidates[2]: ["opinion"]},
    )
    return made


@pytest.fixture
def url(comparison) -> str:
    return reverse("review_comparison", args=[comparison.pk])


def test_the_list_of_a_state(browser, html, reviewer, comparison, url):
    client = browser(reviewer)

    page = html(client.get(LIST, {"state": "open"}))

    assert "1 of 2 ranked" in page
    assert "Hello there" in page
    assert url in page
    assert url not in html(client.get(LIST))


def test_the_last_ranking_moves_it_to_the_closed_ones(browser, html, reviewer, comparison, url):
    factory.ranking(comparison)

    page = html(browser(reviewer).get(LIST))

    assert "2 of 2 ranked" in page
    assert url in page


def test_failed_ones_say_why(browser, html, reviewer, project):
    made = factory.open_comparison(project)
    Comparison.objects.filter(pk=made.pk).update(state="failed", opened_at=None, reason="No distinct alternative.")

    assert "No distinct alternative." in html(browser(reviewer).get(LIST, {"state": "failed"}))


@pytest.mark.parametrize("state", ["closed", "open", "sampling", "failed"])
def test_empty(browser, html, reviewer, state):
    assert "There is no comparison in this state." in html(browser(reviewer).get(LIST, {"state": state}))


@pytest.mark.parametrize("query", [{"state": "nonsense"}, {"before": "x"}])
def test_a_broken_address(browser, reviewer, query):
    assert browser(reviewer).get(LIST, query).status_code == 422


def test_pages_hold_everything_once(browser, monkeypatch, project, reviewer):
    monkeypatch.setattr(lists, "PAGE", 2)
    monkeypatch.setattr(lists.one_page, "__defaults__", (2,))
    made = [factory.open_comparison(project).pk for _ in range(5)]
    client, seen, before = browser(reviewer), [], ""

    while before is not None:
        response = client.get(LIST, {"state": "open", "before": before})
        seen += [row.pk for row in response.context["rows"]]
        before = response.context["older"]

    assert seen == made[::-1]


def test_one_with_answers_places_and_where_they_came_from(browser, html, reviewer, comparison, url):
    page = html(browser(reviewer).get(url))

    assert "B first, then A and D tied, then C." in page
    # The factory's trainers see the candidates in reverse.
    assert "saw D C B A" in page
    assert page.count("the original") == 1
    assert page.index("the original") < page.index("Answer </span>B")
    assert page.count(f"{comparison.iteration.reply_policy} · temperature 0.8") == 4
    assert '<th scope="row">Ada</th><td>2nd, tied</td><td>–</td><td>–</td>' in page
    assert '<th scope="row">Ada</th><td>1st</td><td>7</td><td>–</td>' in page
    assert '<th scope="row">Ada</th><td>3rd</td><td>–</td><td>Expresses an opinion</td>' in page
    assert "drawn as 1 of 1" in page


def test_one_that_is_being_sampled(browser, html, project, reviewer):
    factory.finished_chat(project)
    made = project.comparisons.get()

    page = html(browser(reviewer).get(reverse("review_comparison", args=[made.pk])))

    assert "It has no candidates yet." in page


def test_not_for_trainers(browser, trainer, url):
    assert browser(trainer).get(LIST).status_code == 403
    assert browser(trainer).get(url).status_code == 404


def test_a_stranger(browser, url):
    outside = factory.person(factory.project(), role="reviewer")

    assert browser(outside).get(LIST).status_code == 404
    assert browser(outside).get(url).status_code == 404


def test_signed_out(browser, url):
    assert browser().get(url).headers["Location"] == f"/accounts/login/?next={url}"
    assert browser().get(LIST).headers["Location"] == f"/accounts/login/?next={LIST}"


def test_queries_do_not_grow(browser, count_queries, project, reviewer, comparison, url):
    client = browser(reviewer)
    listed = f"{LIST}?state=open"
    few_listed, few_read = count_queries(client, listed), count_queries(client, url)
    for _ in range(5):
        factory.open_comparison(project)
    factory.ranking(comparison)

    assert count_queries(client, listed) == few_listed
    assert count_queries(client, url) == few_read


def test_those_of_a_pool_say_what_became_of_them(browser, html, reviewer, comparison, url):
    over = factory.open_comparison(comparison.project)
    told = {"pool": comparison, "reason": f"Comparison {comparison.pk} of its pool is ranked."}
    over.assignments.all().delete()
    Comparison.objects.filter(pk=over.pk).update(state="passed_over", opened_at=None, **told)
    Comparison.objects.filter(pk=comparison.pk).update(pool=comparison, selection="uncertain")
    client = browser(reviewer)

    assert told["reason"] in html(client.get(LIST, {"state": "passed_over"}))
    assert "drawn as 1 of 1 and chosen from a pool" in html(client.get(url))
    assert "chosen from a pool" not in html(client.get(reverse("review_comparison", args=[over.pk])))

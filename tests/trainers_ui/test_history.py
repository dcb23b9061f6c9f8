"""All that a person did."""

import pytest

from annotate import assignments, rankings
from tests import factory
from trainers_ui import lists

URL = "/history/"


def keys(response) -> list[int]:
    return [row.pk for row in response.context["rows"]]


@pytest.fixture
def three_a_page(monkeypatch):
    monkeypatch.setattr(lists, "PAGE", 3)
    monkeypatch.setattr(lists.one_page, "__defaults__", (3,))
    monkeypatch.setattr(lists.own_work, "__kwdefaults__", {"most": 3})


def test_it_works(browser, html, project, trainer):
    factory.finished_chat(project, trainer)

    page = html(browser(trainer).get(URL))

    assert "Hello there" in page
    assert "Older" not in page


def test_pages_hold_everything_once(browser, three_a_page, project, trainer):
    for _ in range(8):
        factory.finished_chat(project, trainer)
    client, seen, url = browser(trainer), [], URL

    while url:
        response = client.get(url)
        seen += keys(response)
        url = f"{URL}?before={response.context['older']}" if response.context["older"] else None

    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen, reverse=True)


def test_rankings_and_skipped_tasks(browser, html, project, trainer, ranking):
    order = [[candidate] for candidate in ranking.shown_order]
    rankings.submit(assignment=ranking, user=trainer, tiers=order)
    factory.open_comparison(project)
    skipped = assignments.claim(user=trainer, project=project, kinds=["rank"])
    assignments.skip(assignment=skipped, user=trainer, reason="unclear")

    response = browser(trainer).get(URL)

    assert keys(response) == [skipped.pk, ranking.pk]
    assert "skipped" in html(response)


def test_only_ones_own(browser, project, trainer):
    factory.finished_chat(project)

    assert keys(browser(trainer).get(URL)) == []


def test_empty(browser, html, trainer):
    assert "See what there is to do" in html(browser(trainer).get(URL))


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30])
def test_a_broken_address(browser, trainer, before):
    assert browser(trainer).get(URL, {"before": before}).status_code == 422


def test_a_key_of_somebody_else(browser, project, trainer, stranger):
    factory.finished_chat(project, trainer)
    theirs = trainer.assignments.get()

    assert browser(stranger).get(URL, {"before": theirs.pk}).status_code == 404


def test_a_key_that_has_not_ended(browser, trainer, chat):
    assert browser(trainer).get(URL, {"before": chat.pk}).status_code == 422


def test_signed_out(browser, db):
    assert browser().get(URL).headers["Location"] == "/accounts/login/?next=/history/"


def test_queries_do_not_grow(browser, count_queries, project, trainer):
    client = browser(trainer)
    factory.finished_chat(project, trainer)
    few = count_queries(client, URL)
    for _ in range(10):
        factory.finished_chat(project, trainer)

    assert count_queries(client, URL) == few

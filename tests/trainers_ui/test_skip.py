"""Passing a task on, with a reason."""

import pytest
from django.urls import reverse

from annotate.models import Assignment
from tests.trainers_ui.conftest import JSON


@pytest.fixture
def url(ranking) -> str:
    return reverse("skip", args=[ranking.pk])


def test_it_asks_why(browser, html, trainer, url):
    page = html(browser(trainer).get(url))

    assert 'value="unclear" required' in page
    assert "It does not come back to you" in page


def test_it_works(browser, html, trainer, ranking, url):
    response = browser(trainer).post(url, {"reason": "language", "note": "Finnish, I think"}, follow=True)

    ranking.refresh_from_db()
    assert ranking.state == "skipped"
    assert (ranking.skip_reason, ranking.skip_note) == ("language", "Finnish, I think")
    assert "Skipped. It does not come back to you." in html(response)


def test_a_script_gets_the_word_for_the_next_page(browser, trainer, ranking, url):
    answer = browser(trainer).post(url, {"reason": "other"}, **JSON).json()

    assert answer["after"] == ranking.pk
    assert "Skipped." in answer["notice"]


def test_one_can_look_at_it_again(browser, html, trainer, ranking, url):
    client = browser(trainer)
    client.post(url, {"reason": "sensitive"})

    page = html(client.get(reverse("work", args=[ranking.pk])))

    assert "You skipped this" in page
    assert "i would rather not work on this subject" in page
    assert "<rank-task" not in page


@pytest.mark.parametrize("reason", ["", "bored"])
def test_without_a_reason(browser, html, trainer, ranking, url, reason):
    response = browser(trainer).post(url, {"reason": reason, "note": "Why not"})

    ranking.refresh_from_db()
    assert response.status_code == 422
    assert ranking.state == "held"
    assert "Why not" in html(response)


def test_twice(browser, trainer, url):
    client = browser(trainer)
    client.post(url, {"reason": "other"})

    assert client.post(url, {"reason": "other"}).status_code == 409
    assert Assignment.objects.filter(state="skipped").count() == 1


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger(browser, stranger, ranking, url, method):
    assert getattr(browser(stranger), method)(url, {"reason": "other"}).status_code == 404
    ranking.refresh_from_db()
    assert ranking.state == "held"


def test_signed_out_posts_come_back_to_the_task(browser, ranking, url):
    response = browser().post(url, {"reason": "other"})

    assert response.headers["Location"] == f"/accounts/login/?next=/work/{ranking.pk}/"

"""Keeping what was typed."""

import json

import pytest
from django.urls import reverse

from annotate import assignments
from tests.trainers_ui.conftest import JSON


@pytest.fixture
def save(browser, trainer, ranking):
    """Posts a draft as the page's script does."""
    url, client = reverse("draft", args=[ranking.pk]), browser(trainer)

    def saved(draft={"order": "B A"}, **fields):  # noqa: B006 (never changed)
        text = draft if isinstance(draft, str) else json.dumps(draft)
        return client.post(url, {"draft": text, "version": 0, "active_seconds": 12} | fields, **JSON)

    return saved


def test_it_works(save, ranking):
    response = save()

    ranking.refresh_from_db()
    assert response.json() == {"version": 1}
    assert ranking.draft == {"order": "B A"}
    assert ranking.active_seconds == 12


def test_the_page_shows_it(save, browser, html, trainer, ranking):
    save({"order": "B A = D", "ratings": {"A": 5}, "flags": {"C": ["opinion"]}, "all_bad": True})

    page = html(browser(trainer).get(reverse("work", args=[ranking.pk])))

    assert 'name="order" value="B A = D"' in page
    assert 'name="rating-A" value="5" checked' in page
    assert 'name="flag-C" value="opinion" checked' in page
    assert 'name="all_bad" value="yes" checked' in page
    assert 'data-version="1"' in page
    assert page.count(" checked") == 3


def test_a_newer_one_is_kept(save, ranking):
    save({"order": "A"})

    response = save({"order": "B"}, version=0)

    ranking.refresh_from_db()
    assert response.status_code == 409
    assert response.json()["code"] == "draft_conflict"
    assert response.json()["current"] == {"order": "A"}
    assert response.json()["version"] == 1
    assert ranking.draft == {"order": "A"}


def test_after_the_end(save, trainer, ranking):
    assignments.skip(assignment=ranking, user=trainer, reason="other")

    response = save()

    assert response.status_code == 409
    assert response.json()["code"] == "conflict"


@pytest.mark.parametrize(
    ("draft", "fields"),
    [
        ("", {}),
        ("{", {}),
        ("[1]", {}),
        ("null", {}),
        (r'{"order": "\u0000"}', {}),
        ('{"order": "' + "A" * 200_001 + '"}', {}),
        ("{}", {"version": "-1"}),
        ("{}", {"version": ""}),
        ("{}", {"version": "9" * 12}),
        ("{}", {"active_seconds": "x"}),
    ],
)
def test_a_damaged_one(save, ranking, draft, fields):
    response = save(draft, **fields)

    ranking.refresh_from_db()
    assert response.status_code == 422
    assert ranking.draft == {}


@pytest.mark.parametrize(
    "draft",
    [
        {"order": 5, "ratings": [], "flags": "x", "all_bad": "y"},
        {"ratings": {"A": "7", "Z": 3}, "flags": {"A": "opinion", "B": [1, None], "C": None}},
        {"order": "<script>", "ratings": None},
    ],
)
def test_one_from_elsewhere_does_not_break_the_page(save, browser, html, trainer, ranking, draft):
    save(draft)

    response = browser(trainer).get(reverse("work", args=[ranking.pk]))

    assert response.status_code == 200
    assert "<script>" not in html(response)


def test_a_stranger(browser, stranger, ranking):
    url = reverse("draft", args=[ranking.pk])

    assert browser(stranger).post(url, {"draft": "{}", "version": 0}, **JSON).status_code == 404


def test_signed_out(browser, ranking):
    response = browser().post(reverse("draft", args=[ranking.pk]), {"draft": "{}", "version": 0}, **JSON)

    assert response.status_code == 401


def test_without_the_token_of_the_page(trainer, ranking):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(trainer)

    response = client.post(reverse("draft", args=[ranking.pk]), {"draft": "{}", "version": 0})

    assert response.status_code == 403
    assert "Please send that again" in response.content.decode()

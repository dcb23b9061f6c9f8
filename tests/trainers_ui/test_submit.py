"""Sending an order."""

import pytest
from django.urls import reverse

from annotate import assignments
from annotate.models import Assignment, Ranking
from tests.trainers_ui.conftest import JSON


@pytest.fixture
def submit(browser, trainer, ranking):
    """Posts the form of the ranking page."""
    url, client = reverse("submit", args=[ranking.pk]), browser(trainer)

    def submitted(order="B A = D C", client=client, headers=JSON, **fields):
        return client.post(url, {"order": order, "active_seconds": 40} | fields, **headers)

    return submitted


def stored(assignment: Assignment) -> dict[str, int]:
    """Ranks by the letters under which the answers were shown."""
    letters = dict(zip(assignment.shown_order, "ABCD", strict=True))
    return {letters[place.candidate_id]: place.rank for place in assignment.rankings.get().places.all()}


def test_it_works(submit, ranking):
    answer = submit(**{"rating-A": "5", "rating-B": "7", "flag-C": ["opinion", "moral"]}).json()

    assert stored(ranking) == {"B": 0, "A": 1, "D": 1, "C": 2}
    places = {place.candidate_id: place for place in ranking.rankings.get().places.all()}
    assert [places[candidate].rating for candidate in ranking.shown_order] == [5, 7, None, None]
    assert places[ranking.shown_order[2]].flags == ["moral", "opinion"]
    assert ranking.rankings.get().active_seconds == 40
    assert answer["after"] == ranking.pk
    assert "Submitted: B first, then A and D tied, then C." in answer["notice"]
    assert reverse("work", args=[ranking.pk]) in answer["notice"]


def test_as_a_plain_form(submit, ranking):
    response = submit("b > a=d, c", headers={})

    assert response.status_code == 302
    assert response.headers["Location"] == f"/?after={ranking.pk}"
    assert stored(ranking) == {"B": 0, "A": 1, "D": 1, "C": 2}


@pytest.mark.parametrize("letters", ["ABCD", "DCBA", "BADC"])
def test_what_is_typed_is_what_is_stored(submit, ranking, letters):
    submit(" ".join(letters))

    assert stored(ranking) == {letter: rank for rank, letter in enumerate(letters)}


def test_all_bad_without_an_order(submit, ranking):
    answer = submit("", all_bad="yes").json()

    assert set(stored(ranking).values()) == {0}
    assert ranking.rankings.get().all_bad
    assert "All are bad." in answer["notice"]


@pytest.mark.parametrize(
    ("order", "fields", "word"),
    [
        ("", {}, "4 of 4 answers have no place yet"),
        ("B A = D", {}, "1 of 4"),
        ("B A D C A", {}, "named twice"),
        ("B A D E", {}, "E is none of the answers"),
        ("B A D C =", {}, "ends with ="),
        ("= B A D C", {}, "stands between"),
        ("B A", {"all_bad": "yes"}, "2 of 4"),
        ("A B C D", {"rating-A": "8"}, "1 to 7"),
        ("A B C D", {"rating-A": "²"}, "1 to 7"),
        ("A B C D", {"flag-A": ["nonsense"]}, "no flag nonsense"),
    ],
)
def test_what_cannot_be_taken(submit, ranking, order, fields, word):
    response = submit(order, **fields)

    ranking.refresh_from_db()
    assert response.status_code == 422
    assert word in response.json()["error"]
    assert ranking.state == "held"
    assert not Ranking.objects.exists()


def test_a_refused_plain_form_shows_what_was_typed(submit, html, ranking):
    response = submit("B A = D", headers={})

    page = html(response)
    assert response.status_code == 422
    assert "1 of 4" in page
    assert "B A = D</textarea>" in page
    assert reverse("work", args=[ranking.pk]) in page


def test_fields_of_no_answer_are_left_out(submit, ranking):
    assert submit(**{"rating-Z": "3", "flag-Z": "opinion", "rating-1": "2"}).status_code == 200
    assert not any(place.rating for place in ranking.rankings.get().places.all())


@pytest.mark.parametrize("seconds", ["", "x", "-4", "9" * 30])
def test_a_broken_clock_costs_nobody_their_work(submit, ranking, seconds):
    assert submit(active_seconds=seconds).status_code == 200
    assert ranking.rankings.get().active_seconds == 0


def test_twice(submit):
    submit()

    response = submit("A B C D")

    assert response.status_code == 409
    assert "submitted already" in response.json()["error"]
    assert Ranking.objects.count() == 1


def test_late(submit, project, trainer, ranking):
    Assignment.objects.filter(pk=ranking.pk).update(lease_until=ranking.held_at)
    assignments.expire()
    Assignment.objects.filter(state="free", kind="rank").update(state="withdrawn", ended_at=ranking.held_at)

    answer = submit().json()

    ranking.refresh_from_db()
    assert ranking.state == "surplus"
    assert "came in late and does not count" in answer["notice"]


def test_a_chat_is_no_ranking(browser, trainer, chat):
    assert browser(trainer).post(reverse("submit", args=[chat.pk]), {"order": "A"}, **JSON).status_code in (409, 422)


def test_a_stranger(submit, browser, stranger, ranking):
    assert submit(client=browser(stranger)).status_code == 404
    assert not Ranking.objects.exists()


def test_signed_out(submit, browser):
    assert submit(client=browser()).status_code == 401
    assert not Ranking.objects.exists()


def test_get_changes_nothing(browser, trainer, ranking):
    assert browser(trainer).get(reverse("submit", args=[ranking.pk])).status_code == 405

"""Taking a task, the one after it, and giving that one back."""

import pytest
from django.urls import reverse

from annotate import assignments, demonstrations, people
from annotate.models import Assignment
from tests import factory
from tests.trainers_ui.conftest import JSON

CLAIM, AHEAD, LEAVE = (f"/projects/bread/{step}/" for step in ("claim", "ahead", "leave"))


def held(user) -> list[Assignment]:
    return list(Assignment.objects.filter(trainer=user, state="held").order_by("seat"))


@pytest.mark.parametrize("kind", ["rank", "chat"])
def test_it_opens_the_page_of_the_task(browser, project, trainer, kind):
    factory.open_comparison(project)
    factory.chat_slot(project)

    response = browser(trainer).post(CLAIM, {"kind": kind})

    (task,) = held(trainer)
    assert task.kind == kind
    assert response.status_code == 302
    assert response.headers["Location"] == reverse("work", args=[task.pk])


def test_a_script_gets_the_address(browser, project, trainer):
    factory.open_comparison(project)

    response = browser(trainer).post(CLAIM, {"kind": "rank"}, **JSON)

    assert response.json() == {"location": reverse("work", args=[held(trainer)[0].pk])}


def test_without_a_kind_the_project_chooses(browser, project, trainer):
    factory.open_comparison(project)
    factory.chat_slot(project)

    browser(trainer).post(CLAIM)

    assert held(trainer)[0].kind == "rank"


def test_reviewers_take_reviews(browser, project, reviewer):
    piece = factory.finished_piece(project)

    response = browser(reviewer).post(CLAIM, {"kind": "review"})

    (task,) = held(reviewer)
    assert (task.kind, task.subject) == ("review", piece)
    assert response.headers["Location"] == reverse("work", args=[task.pk])


def test_trainers_take_no_reviews(browser, project, trainer):
    factory.finished_piece(project)

    assert browser(trainer).post(CLAIM, {"kind": "review"}).status_code == 403
    assert held(trainer) == []


@pytest.mark.parametrize("kind", ["rank", "chat", "write"])
def test_reviewers_take_nothing_else(browser, project, reviewer, kind):
    assert browser(reviewer).post(CLAIM, {"kind": kind}).status_code == 403


def test_nobody_reviews_their_own(browser, project, reviewer):
    people.give_role(user=reviewer, role="trainer")
    factory.finished_piece(project, reviewer)

    assert browser(reviewer).post(CLAIM, {"kind": "review"}).status_code == 404


def test_what_waits_for_oneself_is_taken_by_its_id(browser, project, trainer):
    first, second = (factory.finished_piece(project, trainer) for _ in range(2))
    waiting = [demonstrations.revise(conversation=piece, user=trainer) for piece in (first, second)]

    browser(trainer).post(CLAIM, {"kind": "write", "reserved": waiting[1].pk})

    assert held(trainer) == [waiting[1]]


def test_what_waits_for_somebody_else_is_not_to_be_had(browser, project, trainer):
    other = factory.trainer(project)
    slot = demonstrations.revise(conversation=factory.finished_piece(project, other), user=other)

    assert browser(trainer).post(CLAIM, {"kind": "write", "reserved": slot.pk}).status_code == 404
    assert held(trainer) == []


@pytest.mark.parametrize("reserved", ["x", "-1", "9" * 30])
def test_a_broken_number(browser, trainer, reserved):
    assert browser(trainer).post(CLAIM, {"kind": "write", "reserved": reserved}).status_code == 422


def test_nothing_left(browser, html, trainer):
    response = browser(trainer).post(CLAIM, {"kind": "rank"})

    assert response.status_code == 404
    assert "Nothing to do here now" in html(response)


def test_a_script_is_sent_home_when_nothing_is_left(browser, project, trainer):
    response = browser(trainer).post(CLAIM, {"kind": "rank"}, **JSON)
    assert (response.status_code, response.json()) == (200, {"location": reverse("home")})


def test_a_kind_that_the_project_has_not(browser, project, trainer):
    project.kinds = ["rank"]
    project.save()
    factory.chat_slot(project)

    assert browser(trainer).post(CLAIM, {"kind": "chat"}).status_code == 422
    assert held(trainer) == []


def test_the_next_one_is_fetched_ahead(browser, project, trainer, ranking):
    factory.open_comparison(project)

    response = browser(trainer).post(AHEAD, **JSON)

    ahead = held(trainer)[1]
    assert response.json() == {"location": reverse("work", args=[ahead.pk])}
    assert ahead.seat == 2


def test_nothing_to_fetch_ahead(browser, trainer, ranking):
    assert browser(trainer).post(AHEAD, **JSON).status_code == 204


def test_leaving_gives_it_back(browser, project, trainer, ranking):
    factory.open_comparison(project)
    client = browser(trainer)
    client.post(AHEAD, **JSON)

    assert client.post(LEAVE).status_code == 204
    assert held(trainer) == [ranking]


def test_leaving_with_nothing_fetched(browser, trainer, ranking):
    assert browser(trainer).post(LEAVE).status_code == 204
    assert held(trainer) == [ranking]


def test_what_was_fetched_ahead_becomes_what_is_worked_on(browser, project, trainer, ranking):
    factory.open_comparison(project)
    ahead = assignments.claim(user=trainer, project=project, ahead=True)
    assignments.skip(assignment=ranking, user=trainer, reason="other")

    response = browser(trainer).post(reverse("keep", args=[ahead.pk]), **JSON)

    assert response.status_code == 204
    assert [task.seat for task in held(trainer)] == [1]


def test_keeping_renews_the_lease(browser, trainer, ranking):
    before = ranking.lease_until

    browser(trainer).post(reverse("keep", args=[ranking.pk]), **JSON)

    ranking.refresh_from_db()
    assert ranking.lease_until > before


@pytest.mark.parametrize("url", [CLAIM, AHEAD])
def test_only_trainers_take_work(browser, project, reviewer, url):
    factory.open_comparison(project)

    assert browser(reviewer).post(url).status_code == 403
    assert held(reviewer) == []


@pytest.mark.parametrize("url", [CLAIM, AHEAD, LEAVE])
def test_a_stranger(browser, project, stranger, url):
    factory.open_comparison(project)

    assert browser(stranger).post(url).status_code == 404
    assert held(stranger) == []


def test_a_stranger_keeps_nothing(browser, stranger, ranking):
    assert browser(stranger).post(reverse("keep", args=[ranking.pk])).status_code == 404


@pytest.mark.parametrize("url", [CLAIM, AHEAD, LEAVE])
def test_get_changes_nothing(browser, trainer, url):
    assert browser(trainer).get(url).status_code == 405


@pytest.mark.parametrize("url", [CLAIM, AHEAD, LEAVE])
def test_signed_out(browser, project, url):
    assert browser().post(url).headers["Location"] == "/accounts/login/?next=/"
    refused = browser().post(url, **JSON)
    assert refused.status_code == 401
    assert "kept" in refused.json()["error"]

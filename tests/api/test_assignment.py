"""`GET /api/v1/assignments/{id}/`."""

import pytest

from annotate import assignments, rankings
from annotate.models import Assignment
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factory.project(slug="field")


@pytest.fixture
def slot(project) -> Assignment:
    """A ranking that a trainer holds."""
    factory.open_comparison(project, turns=2)
    return assignments.claim(user=factory.trainer(project), project=project)


def address(slot: Assignment) -> str:
    return f"/api/v1/assignments/{slot.pk}/"


def test_reads_what_the_claim_gave_and_the_draft(api, slot) -> None:
    assignments.save_draft(assignment=slot, user=slot.trainer, draft={"order": "B A"}, version=0, active_seconds=9)
    body = api(slot.trainer).get(address(slot)).json()
    assert [answer["id"] for answer in body["candidates"]] == slot.shown_order
    assert (body["draft"], body["draft_version"], body["active_seconds"]) == ({"order": "B A"}, 1, 9)


def test_reading_writes_nothing(api, slot) -> None:
    before = Assignment.objects.values().get(pk=slot.pk)
    api(slot.trainer).get(address(slot))
    assert Assignment.objects.values().get(pk=slot.pk) == before


def test_of_a_chat_the_messages_so_far(api, project) -> None:
    slot = factory.held_chat(project, factory.trainer(project))
    factory.turn(slot, "Hello there", "Good day")
    body = api(slot.trainer).get(address(slot)).json()
    assert [(turn["role"], turn["text"]) for turn in body["context"]][1:] == [
        ("user", "Hello there"),
        ("assistant", "Good day"),
    ]
    assert (body["kind"], body["candidates"]) == ("chat", [])


def test_afterwards_the_ranking_as_it_is_stored(api, slot) -> None:
    a, b, c, d = slot.shown_order
    rankings.submit(
        assignment=slot, user=slot.trainer, tiers=[[b], [a, d], [c]], ratings={b: 6}, flags={c: ["opinion"]}
    )
    body = api(slot.trainer).get(address(slot)).json()
    assert (body["state"], body["lease_until"], body["ranking"]["state"]) == ("submitted", None, "submitted")
    assert [set(tier) for tier in body["ranking"]["tiers"]] == [{b}, {a, d}, {c}]
    assert (body["ranking"]["ratings"], body["ranking"]["flags"]) == ({str(b): 6}, {str(c): ["opinion"]})


def test_somebody_elses_is_404_for_every_role(api, slot, project) -> None:
    for role in ("trainer", "reviewer", "admin", "engineer"):
        response = api(factory.person(project, role=role)).get(address(slot))
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_ones_own_is_404_after_leaving_the_project(api, slot) -> None:
    slot.trainer.memberships.all().delete()
    assert api(slot.trainer).get(address(slot)).status_code == 404


@pytest.mark.parametrize("number", ["0", "999999999", "99999999999999999999999999"])
def test_an_unknown_one_is_404(api, number: str) -> None:
    assert api(factory.trainer()).get(f"/api/v1/assignments/{number}/").status_code == 404


def test_query_count_does_not_grow(api, project, django_assert_num_queries) -> None:
    user = factory.trainer(project)
    client = api(user)
    for turns in (1, 6):
        factory.open_comparison(project, turns=turns)
        slot = assignments.claim(user=user, project=project)
        with django_assert_num_queries(5):
            client.get(address(slot))
        rankings.submit(assignment=slot, user=user, tiers=[slot.shown_order])
        with django_assert_num_queries(7):
            assert client.get(address(slot)).json()["ranking"]

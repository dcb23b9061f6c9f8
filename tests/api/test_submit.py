"""`POST /api/v1/assignments/{id}/submit/`."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments
from annotate.models import Assignment, Comparison, RankedCandidate, Ranking
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot() -> Assignment:
    """A ranking that a trainer holds, of four candidates."""
    project = factory.project()
    factory.open_comparison(project)
    return assignments.claim(user=factory.trainer(project), project=project)


def address(slot: Assignment) -> str:
    return f"/api/v1/assignments/{slot.pk}/submit/"


def test_stores_the_order_with_its_marks_and_closes_the_comparison(api, slot) -> None:
    a, b, c, d = slot.shown_order
    response = api(slot.trainer).post(
        address(slot),
        {
            "tiers": [[b], [a, d], [c]],
            "ratings": {str(b): 6, str(c): 1},
            "flags": {str(c): ["hallucination", "opinion"]},
            "active_seconds": 84,
        },
    )
    assert response.status_code == 201
    body = response.json()
    ranking = Ranking.objects.get()
    assert (body["id"], body["state"], body["all_bad"], body["active_seconds"]) == (ranking.pk, "submitted", False, 84)
    assert [set(tier) for tier in body["tiers"]] == [{b}, {a, d}, {c}]
    stored = {place.candidate_id: (place.rank, place.rating, place.flags) for place in RankedCandidate.objects.all()}
    assert stored == {
        b: (0, 6, []),
        a: (1, None, []),
        d: (1, None, []),
        c: (2, 1, ["hallucination", "opinion"]),
    }
    assert Comparison.objects.get().state == Comparison.State.CLOSED


def test_all_bad_needs_no_order(api, slot) -> None:
    response = api(slot.trainer).post(address(slot), {"tiers": [], "all_bad": True})
    assert response.status_code == 201
    assert [set(tier) for tier in response.json()["tiers"]] == [set(slot.shown_order)]
    assert response.json()["all_bad"] is True


def test_late_work_is_surplus_once_its_place_is_taken(api, slot, settings) -> None:
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assignments.expire()
    other = assignments.claim(user=factory.trainer(slot.project), project=slot.project)
    assert other.comparison_id == slot.comparison_id
    response = api(slot.trainer).post(address(slot), {"tiers": [slot.shown_order]})
    assert (response.status_code, response.json()["state"]) == (201, "surplus")
    assert Comparison.objects.get().state == Comparison.State.OPEN


def test_twice_is_409_and_changes_nothing(api, slot) -> None:
    client = api(slot.trainer)
    client.post(address(slot), {"tiers": [[candidate] for candidate in slot.shown_order]})
    before = list(RankedCandidate.objects.order_by("id").values())
    response = client.post(address(slot), {"tiers": [slot.shown_order]})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert list(RankedCandidate.objects.order_by("id").values()) == before


def bad_bodies(order: list[int]) -> dict[str, object]:
    """By what is wrong with it."""
    a, b, c, d = order
    whole = [[a], [b], [c], [d]]
    return {
        "no tiers": {},
        "nothing": {"tiers": []},
        "one left out": {"tiers": [[a], [b, c]]},
        "one twice": {"tiers": [[a], [b], [c], [d, a]]},
        "a foreign one": {"tiers": [*whole, [d + 1000]]},
        "a foreign one instead": {"tiers": [[a], [b], [c], [10**30]]},
        "letters": {"tiers": [["A"], ["B"], ["C"], ["D"]]},
        "flat": {"tiers": order},
        "no list": {"tiers": "B A=D C"},
        "rating 8": {"tiers": whole, "ratings": {str(a): 8}},
        "rating 0": {"tiers": whole, "ratings": {str(a): 0}},
        "rating of a foreign one": {"tiers": whole, "ratings": {str(d + 1000): 3}},
        "rating of a letter": {"tiers": whole, "ratings": {"A": 3}},
        "unknown flag": {"tiers": whole, "flags": {str(a): ["dull"]}},
        "flag of a foreign one": {"tiers": whole, "flags": {str(d + 1000): ["opinion"]}},
        "time below nought": {"tiers": whole, "active_seconds": -1},
        "time beyond the column": {"tiers": whole, "active_seconds": 2**31},
        "a list": [whole],
    }


@pytest.mark.parametrize("wrong", list(bad_bodies([1, 2, 3, 4])))
def test_bad_input_is_422_and_changes_nothing(api, slot, wrong: str) -> None:
    response = api(slot.trainer).post(address(slot), bad_bodies(slot.shown_order)[wrong])
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert not Ranking.objects.exists()
    slot.refresh_from_db()
    assert slot.state == Assignment.State.HELD


def test_a_chat_is_409(api) -> None:
    project = factory.project()
    slot = factory.held_chat(project, factory.trainer(project))
    response = api(slot.trainer).post(address(slot), {"tiers": [[1], [2]]})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_after_a_skip_it_is_409(api, slot) -> None:
    assignments.skip(assignment=slot, user=slot.trainer, reason="other")
    response = api(slot.trainer).post(address(slot), {"tiers": [slot.shown_order]})
    assert response.status_code == 409
    assert not Ranking.objects.exists()


def test_somebody_elses_is_404(api, slot) -> None:
    response = api(factory.trainer(slot.project)).post(address(slot), {"tiers": [slot.shown_order]})
    assert response.status_code == 404
    assert not Ranking.objects.exists()

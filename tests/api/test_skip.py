"""`POST /api/v1/assignments/{id}/skip/`."""

import pytest

from annotate import assignments
from annotate.models import Assignment
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot() -> Assignment:
    """A ranking that a trainer holds."""
    project = factory.project()
    factory.open_comparison(project)
    return assignments.claim(user=factory.trainer(project), project=project)


def address(slot: Assignment) -> str:
    return f"/api/v1/assignments/{slot.pk}/skip/"


def test_passes_it_on_for_ever(api, slot) -> None:
    client = api(slot.trainer)
    response = client.post(address(slot), {"reason": "expertise", "note": "It takes a lawyer."})
    assert (response.status_code, response.content) == (204, b"")
    slot.refresh_from_db()
    assert (slot.state, slot.skip_reason, slot.skip_note) == ("skipped", "expertise", "It takes a lawyer.")
    assert Assignment.objects.get(replaces=slot).state == Assignment.State.FREE
    again = client.post(f"/api/v1/projects/{slot.project.slug}/claim/", {})
    assert again.json()["code"] == "nothing_left"


def test_a_second_time_is_409(api, slot) -> None:
    client = api(slot.trainer)
    client.post(address(slot), {"reason": "other"})
    response = client.post(address(slot), {"reason": "unclear"})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert Assignment.objects.filter(replaces=slot).count() == 1


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "bored"}, {"reason": "other", "note": "\x00"}, {"reason": ["other"]}]
)
def test_without_a_reason_it_is_422_and_stays_held(api, slot, body) -> None:
    response = api(slot.trainer).post(address(slot), body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    slot.refresh_from_db()
    assert slot.state == Assignment.State.HELD


def test_somebody_elses_is_404(api, slot) -> None:
    assert api(factory.trainer(slot.project)).post(address(slot), {"reason": "other"}).status_code == 404
    slot.refresh_from_db()
    assert slot.state == Assignment.State.HELD

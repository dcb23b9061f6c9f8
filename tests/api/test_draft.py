"""`PUT /api/v1/assignments/{id}/draft/`."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotate import assignments
from annotate.models import Assignment
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot() -> Assignment:
    """A ranking that a trainer holds, its lease nearly over."""
    project = factory.project()
    factory.open_comparison(project)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    Assignment.objects.filter(pk=slot.pk).update(lease_until=timezone.now() + timedelta(seconds=5))
    return slot


def address(slot: Assignment) -> str:
    return f"/api/v1/assignments/{slot.pk}/draft/"


def test_is_stored_and_renews_the_lease(api, slot) -> None:
    client = api(slot.trainer)
    first = client.put(address(slot), {"draft": {"order": "B"}, "version": 0, "active_seconds": 12})
    assert (first.status_code, first.json()) == (200, {"draft_version": 1})
    second = client.put(address(slot), {"draft": {"order": "B A", "note": "ünï \\u0000"}, "version": 1})
    assert second.json() == {"draft_version": 2}
    slot.refresh_from_db()
    assert (slot.draft, slot.draft_version) == ({"order": "B A", "note": "ünï \\u0000"}, 2)
    assert slot.active_seconds == 12
    assert slot.lease_until > timezone.now() + timedelta(minutes=20)


def test_an_older_version_gets_409_with_the_stored_draft(api, slot) -> None:
    client = api(slot.trainer)
    client.put(address(slot), {"draft": {"order": "B"}, "version": 0})
    response = client.put(address(slot), {"draft": {"order": "C"}, "version": 0})
    assert response.status_code == 409
    assert response.json() == {
        "code": "draft_conflict",
        "detail": "Another tab has saved a newer draft of this.",
        "draft": {"order": "B"},
        "draft_version": 1,
    }
    slot.refresh_from_db()
    assert slot.draft == {"order": "B"}


def test_after_a_skip_it_is_409(api, slot) -> None:
    assignments.skip(assignment=slot, user=slot.trainer, reason="other")
    response = api(slot.trainer).put(address(slot), {"draft": {"order": "B"}, "version": 0})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    slot.refresh_from_db()
    assert slot.draft == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"draft": {}},
        {"version": 0},
        {"draft": [], "version": 0},
        {"draft": {}, "version": -1},
        {"draft": {}, "version": 2**31},
        {"draft": {}, "version": 0, "active_seconds": 2**31},
        {"draft": {"text": "\x00"}, "version": 0},
        {"draft": {"text": "\\\x00"}, "version": 0},
    ],
)
def test_bad_input_is_422_and_changes_nothing(api, slot, body) -> None:
    response = api(slot.trainer).put(address(slot), body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    slot.refresh_from_db()
    assert (slot.draft, slot.draft_version) == ({}, 0)


@pytest.mark.parametrize("value", ['"\\ud800"', "1e999", "-1e999"])
def test_what_no_json_column_holds_is_422(api, slot, value: str) -> None:
    body = f'{{"draft": {{"text": {value}}}, "version": 0}}'
    response = api(slot.trainer).put(address(slot), body, content_type="application/json")
    assert response.status_code == 422


@pytest.mark.parametrize("body", ["", "{", "[1", "NaN", '{"draft": NaN}', "[" * 100_000, "\udcff"])
def test_what_is_no_json_is_refused(api, slot, body: str) -> None:
    raw = body.encode("utf-8", "surrogateescape")
    response = api(slot.trainer).put(address(slot), raw, content_type="application/json")
    assert response.status_code in (400, 422)


def test_a_body_beyond_the_limit_is_413(api, slot, settings) -> None:
    body = {"draft": {"text": "a" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE}, "version": 0}
    response = api(slot.trainer).put(address(slot), body)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_a_form_is_415(api, slot) -> None:
    response = api(slot.trainer).put(address(slot), "draft=1", content_type="application/x-www-form-urlencoded")
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_somebody_elses_is_404(api, slot) -> None:
    response = api(factory.trainer(slot.project)).put(address(slot), {"draft": {"order": "C"}, "version": 0})
    assert response.status_code == 404
    slot.refresh_from_db()
    assert slot.draft == {}

"""`POST /api/v1/assignments/{id}/finish/`."""

import pytest

from annotate import derive
from annotate.models import Conversation
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot():
    """A piece that a trainer writes, saved with two turns."""
    slot = factory.held_piece(factory.project())
    factory.save(slot, *(factory.written_turn(*turn) for turn in factory.TURNS))
    slot.refresh_from_db()
    return slot


def address(slot) -> str:
    return f"/api/v1/assignments/{slot.pk}/finish/"


def test_the_draft_becomes_a_conversation(api, slot) -> None:
    response = api(slot.trainer).post(address(slot), {"version": slot.draft_version})
    assert response.status_code == 201
    body = response.json()
    assert (body["id"], body["kind"], body["state"]) == (slot.conversation_id, "write", "finished")
    assert (body["review_state"], body["superseded_by"], body["reviews"]) == ("wanted", None, [])
    assert body["trainer"] == derive.pseudonym(slot.project.secret, slot.trainer_id)
    assert [(one["position"], one["role"], one["source"]) for one in body["messages"]] == [
        (0, "system", "written"),
        (1, "user", "written"),
        (2, "assistant", "written"),
    ]
    body = api(slot.trainer).get(f"/api/v1/assignments/{slot.pk}/").json()
    assert (body["state"], body["conversation"], len(body["context"])) == ("submitted", slot.conversation_id, 3)


def test_a_newer_draft_is_409_and_comes_along(api, slot) -> None:
    response = api(slot.trainer).post(address(slot), {"version": slot.draft_version - 1})
    body = response.json()
    assert (response.status_code, body["code"]) == (409, "draft_conflict")
    assert (body["draft_version"], len(body["draft"]["turns"])) == (slot.draft_version, 2)
    assert Conversation.objects.get().state == "open"


def test_what_is_to_be_mended_is_422(api, slot) -> None:
    version = factory.save(slot, factory.written_turn("user", "Only a question?"))
    response = api(slot.trainer).post(address(slot), {"version": version})
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert "The last turn is the user's" in response.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"version": -1}, {"version": "x"}, {"version": 2**31}])
def test_bad_input_is_422(api, slot, body) -> None:
    assert api(slot.trainer).post(address(slot), body).status_code == 422


def test_twice_is_409(api, slot) -> None:
    client = api(slot.trainer)
    client.post(address(slot), {"version": slot.draft_version})
    response = client.post(address(slot), {"version": slot.draft_version})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert Conversation.objects.count() == 1


def test_a_chat_is_409(api) -> None:
    project = factory.project()
    slot = factory.held_chat(project, factory.trainer(project))
    assert api(slot.trainer).post(address(slot), {"version": 0}).status_code == 409


def test_somebody_elses_is_404(api, slot) -> None:
    client = api(factory.trainer(slot.project))
    assert client.post(address(slot), {"version": slot.draft_version}).status_code == 404
    assert Conversation.objects.get().state == "open"

"""`POST /api/v1/assignments/{id}/verdict/`."""

import pytest

from annotate import assignments, derive
from annotate.models import Assignment, Conversation, Review
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def slot():
    """A review that a reviewer holds, of a question and its answer."""
    project = factory.project()
    factory.finished_piece(project)
    return assignments.claim(user=factory.person(project, role="reviewer"), project=project, kinds=["review"])


def address(slot) -> str:
    return f"/api/v1/assignments/{slot.pk}/verdict/"


def test_approves(api, slot) -> None:
    client = api(slot.trainer)
    response = client.post(address(slot), {"verdict": "approved", "note": "Good.", "active_seconds": 40})
    assert response.status_code == 201
    review = Review.objects.get()
    body = response.json()
    assert (body["id"], body["conversation"], body["verdict"], body["note"]) == (
        review.pk,
        slot.subject_id,
        "approved",
        "Good.",
    )
    assert (body["comments"], body["edit"], body["current"]) == ([], None, True)
    assert body["reviewer"] == derive.pseudonym(slot.project.secret, slot.trainer_id)
    assert Conversation.objects.get().review_state == "approved"
    assert client.get(f"/api/v1/assignments/{slot.pk}/").json()["review"] == body


def test_returns_with_comments_at_turns(api, slot) -> None:
    response = api(slot.trainer).post(address(slot), {"verdict": "returned", "comments": {"2": "How large?"}})
    assert response.status_code == 201
    assert response.json()["comments"] == [{"position": 2, "text": "How large?"}]
    back = Assignment.objects.get(kind="write", state="free")
    assert (back.subject_id, back.reserved_for) == (slot.subject_id, slot.subject.trainer)


def test_edits_and_approves(api, slot) -> None:
    body = api(slot.trainer).post(address(slot), {"verdict": "approved", "edits": {"2": "Nine minutes."}}).json()
    edit = Conversation.objects.get(pk=body["edit"])
    assert edit.revises_id == slot.subject_id
    assert edit.messages.get(position=2).text == "Nine minutes."


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verdict": "fine"},
        {"verdict": "returned"},
        {"verdict": "returned", "note": "Mend it.", "edits": {"2": "Nine minutes."}},
        {"verdict": "approved", "comments": {"9": "There is no such turn."}},
        {"verdict": "approved", "comments": {"two": "This is no number."}},
        {"verdict": "approved", "edits": {"2": " "}},
        {"verdict": "approved", "edits": {"9": "There is no such turn."}},
        {"verdict": "approved", "edits": ["Nine minutes."]},
        {"verdict": "approved", "active_seconds": -1},
    ],
)
def test_bad_input_is_422_and_changes_nothing(api, slot, body) -> None:
    response = api(slot.trainer).post(address(slot), body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert not Review.objects.exists()
    slot.refresh_from_db()
    assert slot.state == "held"


def test_twice_is_409(api, slot) -> None:
    client = api(slot.trainer)
    client.post(address(slot), {"verdict": "approved"})
    response = client.post(address(slot), {"verdict": "returned", "note": "No."})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert Review.objects.get().verdict == "approved"


def test_of_a_piece_it_is_409(api) -> None:
    piece = factory.held_piece(factory.project())
    assert api(piece.trainer).post(address(piece), {"verdict": "approved"}).status_code == 409


def test_somebody_elses_is_404(api, slot) -> None:
    client = api(factory.person(slot.project, role="reviewer"))
    assert client.post(address(slot), {"verdict": "approved"}).status_code == 404
    assert not Review.objects.exists()

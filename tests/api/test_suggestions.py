"""`/api/v1/assignments/{id}/suggestions/`: asking for them and reading what came."""

import pytest

from annotate.models import GenerationRequest
from tests import factory

pytestmark = pytest.mark.django_db

BEFORE = [{"role": "user", "content": "How do I boil an egg?"}]


@pytest.fixture
def slot():
    """A piece that a trainer writes."""
    return factory.held_piece(factory.project(suggestions=3))


def address(slot) -> str:
    return f"/api/v1/assignments/{slot.pk}/suggestions/"


def test_asks_for_them_and_reads_them_once_they_are_there(api, slot) -> None:
    client = api(slot.trainer)
    response = client.post(address(slot), {"role": "assistant", "before": BEFORE, "hint": "shorter", "n": 2})
    assert response.status_code == 201
    asked = GenerationRequest.objects.get()
    assert response.json() == {
        "id": asked.pk,
        "state": "waiting",
        "reason": "",
        "role": "assistant",
        "position": 2,
        "hint": "shorter",
        "n": 2,
        "completions": [],
    }
    factory.answer(asked, "Boil it.", "Eight minutes.")
    body = client.get(address(slot)).json()
    assert (body["id"], body["state"]) == (asked.pk, "done")
    assert [(one["index"], one["text"], one["finish_reason"]) for one in body["completions"]] == [
        (0, "Boil it.", "stop"),
        (1, "Eight minutes.", "stop"),
    ]


def test_the_projects_number_and_the_users_side(api, slot) -> None:
    body = api(slot.trainer).post(address(slot), {"role": "user"}).json()
    assert (body["role"], body["position"], body["n"]) == ("user", 1, 3)


def test_a_later_one_takes_the_place_of_the_first(api, slot) -> None:
    client = api(slot.trainer)
    first = client.post(address(slot), {"role": "user"}).json()["id"]
    second = client.post(address(slot), {"role": "user"}).json()["id"]
    assert GenerationRequest.objects.get(pk=first).state == "cancelled"
    assert client.get(address(slot)).json()["id"] == second


def test_before_any_was_asked_for_it_is_404(api, slot) -> None:
    response = api(slot.trainer).get(address(slot))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"role": "system"},
        {"role": "user", "n": 0},
        {"role": "user", "n": 4},
        {"role": "user", "before": "Hello"},
        {"role": "user", "before": [{"role": "user"}]},
        {"role": "user", "before": [{"role": "tool", "content": "x"}]},
        {"role": "user", "hint": "x" * 501},
        {"role": "user", "system": "Be rude."},
    ],
)
def test_bad_input_is_422_and_asks_nothing(api, slot, body) -> None:
    response = api(slot.trainer).post(address(slot), body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert not GenerationRequest.objects.exists()


def test_of_a_chat_it_is_409(api) -> None:
    project = factory.project()
    slot = factory.held_chat(project, factory.trainer(project))
    response = api(slot.trainer).post(address(slot), {"role": "user"})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_somebody_elses_is_404(api, slot) -> None:
    client = api(factory.trainer(slot.project))
    assert client.post(address(slot), {"role": "user"}).status_code == 404
    assert client.get(address(slot)).status_code == 404
    assert not GenerationRequest.objects.exists()

"""`POST /api/v1/projects/{slug}/claim/`."""

import pytest

from annotate import assignments
from annotate.models import Assignment
from tests import factory

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/projects/field/claim/"


@pytest.fixture
def project():
    return factory.project(slug="field")


def test_hands_out_a_ranking_whole_and_blind(api, project) -> None:
    comparison = factory.open_comparison(project)
    user = factory.trainer(project)
    response = api(user).post(ADDRESS, {})
    assert response.status_code == 200
    body = response.json()
    slot = Assignment.objects.get(trainer=user)
    assert (body["id"], body["kind"], body["state"], body["project"]) == (slot.pk, "rank", "held", "field")
    assert [turn["role"] for turn in body["context"]] == ["system", "user"]
    texts = dict(comparison.candidates.values_list("id", "completion__text"))
    assert [answer["letter"] for answer in body["candidates"]] == ["A", "B", "C", "D"]
    assert [answer["id"] for answer in body["candidates"]] == slot.shown_order == body["shown_order"]
    assert {answer["id"]: answer["text"] for answer in body["candidates"]} == texts
    assert (body["draft"], body["draft_version"], body["ranking"]) == ({}, 0, None)
    assert body["lease_until"] is not None
    assert {*body["candidates"][0]} == {"letter", "id", "text"}
    assert factory.current(project).reply_policy.name not in response.content.decode()


def test_returns_what_is_held(api, project) -> None:
    factory.open_comparison(project)
    factory.open_comparison(project)
    client = api(factory.trainer(project))
    assert client.post(ADDRESS, {}).json()["id"] == client.post(ADDRESS, {}).json()["id"]


def test_ahead_fetches_the_next_one(api, project) -> None:
    factory.open_comparison(project)
    factory.open_comparison(project)
    client = api(factory.trainer(project))
    first = client.post(ADDRESS, {}).json()["id"]
    ahead = client.post(ADDRESS, {"ahead": True}).json()["id"]
    assert ahead not in (first, None)
    assert client.post(ADDRESS, {"ahead": True}).json()["id"] == ahead


def test_chats_only_when_asked_for(api, project) -> None:
    factory.chat_slot(project)
    client = api(factory.trainer(project))
    assert client.post(ADDRESS, {}).json()["code"] == "nothing_left"
    body = client.post(ADDRESS, {"kinds": ["rank", "chat"]}).json()
    assert (body["kind"], body["candidates"], body["shown_order"]) == ("chat", [], [])
    assert [turn["role"] for turn in body["context"]] == ["system"]


def test_nothing_left_is_404_with_its_own_code(api, project) -> None:
    response = api(factory.trainer(project)).post(ADDRESS, {})
    assert response.status_code == 404
    assert response.json() == {
        "code": "nothing_left",
        "detail": "There is nothing left for you here at the moment.",
    }


@pytest.mark.parametrize(
    "body", [{"kinds": ["paint"]}, {"kinds": []}, {"kinds": "rank"}, {"ahead": "perhaps"}, ["rank"], "rank"]
)
def test_bad_input_is_422_and_claims_nothing(api, project, body) -> None:
    factory.open_comparison(project)
    response = api(factory.trainer(project)).post(ADDRESS, body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["fields"]
    assert not Assignment.objects.filter(state=Assignment.State.HELD).exists()


def test_a_member_who_is_no_trainer_gets_403(api, project) -> None:
    factory.open_comparison(project)
    response = api(factory.person(project, role="reviewer")).post(ADDRESS, {})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_a_stranger_gets_404(api, project) -> None:
    factory.open_comparison(project)
    response = api(factory.trainer()).post(ADDRESS, {})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_query_count_does_not_grow(api, project, django_assert_num_queries) -> None:
    user = factory.trainer(project)
    client = api(user)
    for turns, others in ((1, 0), (6, 4)):
        for _ in range(1 + others):
            factory.open_comparison(project, turns=turns)
        with django_assert_num_queries(13):
            slot = client.post(ADDRESS, {}).json()
        assignments.skip(assignment=Assignment.objects.get(pk=slot["id"]), user=user, reason="other")


def test_a_piece_to_write_with_its_first_draft(api) -> None:
    project = factory.project(slug="field")
    project.prompts.create(text="Say hello", digest="d", family="f")
    factory.write_slot(project)
    body = api(factory.trainer(project)).post(ADDRESS, {"kinds": ["write"]}).json()
    assert (body["kind"], body["context"], body["candidates"], body["subject"]) == ("write", [], [], None)
    assert body["draft"]["turns"][0]["text"] == "Say hello"
    assert body["conversation"] is not None


def test_a_review_with_what_is_reviewed(api) -> None:
    project = factory.project(slug="field")
    conversation = factory.finished_piece(project)
    body = api(factory.person(project, role="reviewer")).post(ADDRESS, {"kinds": ["review"]}).json()
    assert (body["kind"], body["subject"], body["conversation"], body["review"]) == (
        "review",
        conversation.pk,
        None,
        None,
    )
    assert [turn["role"] for turn in body["context"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize(("role", "kind"), [("trainer", "review"), ("reviewer", "write"), ("engineer", "write")])
def test_each_kind_is_for_its_role(api, role: str, kind: str) -> None:
    project = factory.project(slug="field")
    factory.finished_piece(project)
    factory.write_slot(project)
    response = api(factory.person(project, role=role)).post(ADDRESS, {"kinds": [kind]})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_what_waits_for_oneself_comes_first_or_by_its_id(api) -> None:
    project = factory.project(slug="field")
    user = factory.trainer(project)
    factory.write_slot(project, priority=-9)
    first, second = (factory.write_slot(project, reserved_for=user) for _ in range(2))
    client = api(user)
    assert client.post(ADDRESS, {"kinds": ["write"], "reserved": second.pk}).json()["id"] == second.pk
    client.post(f"/api/v1/assignments/{second.pk}/skip/", {"reason": "other"})
    assert client.post(ADDRESS, {"kinds": ["write"]}).json()["id"] == first.pk
    response = api(factory.trainer(project)).post(ADDRESS, {"kinds": ["write"], "reserved": first.pk})
    assert (response.status_code, response.json()["code"]) == (404, "nothing_left")

"""`GET /api/v1/projects/{slug}/conversations/` and `GET /api/v1/conversations/{id}/`."""

import pytest

from annotate import demonstrations, derive
from tests import factory

pytestmark = pytest.mark.django_db

LIST = "/api/v1/projects/field/conversations/"


@pytest.fixture
def project():
    return factory.project(slug="field")


def one(conversation) -> str:
    return f"/api/v1/conversations/{conversation.pk}/"


def ids(response) -> list[int]:
    return [conversation["id"] for conversation in response.json()["results"]]


def suggested_piece(project):
    """A finished piece whose answer was edited from one of two suggestions."""
    slot = factory.held_piece(project)
    asked = factory.suggested(slot, "Boil it.", "Eight minutes.", hint="shorter")
    turns = [
        factory.written_turn("user", "How do I boil an egg?"),
        factory.written_turn(
            "assistant",
            "Eight long minutes.",
            **{"from": [asked.pk, 1]},
            shown=[[asked.pk, 0], [asked.pk, 1]],
            taken=14,
        ),
    ]
    return factory.finished_piece(project, None, *turns, slot=slot)


@pytest.mark.parametrize("role", ["reviewer", "admin", "engineer"])
def test_reads_messages_with_their_provenance(api, project, role) -> None:
    conversation = suggested_piece(project)
    review = factory.review_of(conversation, verdict="returned", note="Say more.", comments={2: "How large?"})
    body = api(factory.person(project, role=role)).get(one(conversation)).json()
    assert (body["project"], body["iteration"], body["kind"], body["review_state"]) == ("field", 1, "write", "returned")
    assert body["trainer"] == derive.pseudonym(project.secret, conversation.trainer_id)
    message = conversation.messages.get(position=2)
    (passed,) = body["messages"][2].pop("passed")
    assert passed == {"id": message.passed[0], "text": "Boil it."}
    assert body["messages"][2] == {
        "position": 2,
        "role": "assistant",
        "text": "Eight long minutes.",
        "source": "edited",
        "completion": {
            "id": message.completion_id,
            "request": message.completion.request_id,
            "index": 1,
            "text": "Eight minutes.",
            "policy": project.policies.get().name,
            "sampling": project.sampling(),
            "seed": None,
            "hint": "shorter",
            "finish_reason": "stop",
        },
        "reasoning": "",
        "edit_distance": message.edit_distance,
        "active_seconds": 5,
        "typed": 5,
        "pasted": 0,
        "taken": 14,
    }
    assert body["messages"][1]["completion"] is None
    (verdict,) = body["reviews"]
    assert (verdict["id"], verdict["note"]) == (review.pk, "Say more.")
    assert verdict["comments"] == [{"position": 2, "text": "How large?"}]


def test_names_the_version_that_stands_in_its_place(api, project) -> None:
    conversation = factory.finished_piece(project)
    edit = factory.review_of(conversation, edits={2: "Nine minutes."}).edit
    client = api(conversation.trainer)
    assert client.get(one(conversation)).json()["superseded_by"] == edit.pk
    # The author reads what was made of their piece.
    body = client.get(one(edit)).json()
    assert (body["revises"], body["superseded_by"], body["review_state"]) == (conversation.pk, None, "approved")


def test_trainers_read_their_own(api, project) -> None:
    mine = factory.finished_piece(project)
    other = factory.finished_piece(project)
    edit = factory.review_of(mine, edits={2: "Nine minutes."}).edit
    client = api(mine.trainer)
    assert ids(client.get(LIST)) == [mine.pk, edit.pk]
    assert client.get(one(mine)).status_code == 200
    assert client.get(one(other)).status_code == 404


def test_a_trainer_is_not_told_where_a_reply_is_from(api, project) -> None:
    chat = factory.finished_chat(project)
    assert api(chat.trainer).get(one(chat)).json()["messages"][2]["completion"] is None
    read = api(factory.person(project, role="reviewer")).get(one(chat)).json()["messages"][2]
    assert (read["source"], read["completion"]["policy"]) == ("reply", project.policies.get().name)


def test_names_addresses_and_secrets_are_not_told(api, project) -> None:
    conversation = factory.finished_piece(project)
    review = factory.review_of(conversation)
    client = api(factory.person(project, role="engineer"))
    text = client.get(one(conversation)).content.decode() + client.get(LIST).content.decode()
    for word in (conversation.trainer.email, review.reviewer.email, project.secret):
        assert word not in text


def test_pages_hold_everything_once_in_order(api, project) -> None:
    made = [factory.finished_piece(project).pk for _ in range(5)]
    client = api(factory.person(project, role="engineer"))
    found, address, pages = [], f"{LIST}?limit=2&kind=write", 0
    while address:
        response = client.get(address)
        found += ids(response)
        address, pages = response.json()["next"], pages + 1
    assert (found, pages) == (made, 3)
    assert ids(client.get(f"{LIST}?after={made[3]}")) == made[4:]


def test_filters(api, project) -> None:
    piece, chat = factory.finished_piece(project), factory.finished_chat(project)
    approved = factory.finished_piece(project)
    factory.review_of(approved)
    open_one = factory.held_piece(project).conversation
    client = api(factory.person(project, role="reviewer"))
    assert ids(client.get(f"{LIST}?kind=chat")) == [chat.pk]
    assert ids(client.get(f"{LIST}?state=open")) == [open_one.pk]
    assert ids(client.get(f"{LIST}?review_state=wanted")) == [piece.pk]
    assert ids(client.get(f"{LIST}?review_state=approved&kind=write&state=finished")) == [approved.pk]


@pytest.mark.parametrize("query", ["kind=rank", "state=shut", "review_state=fine", "limit=0", "limit=501", "after=x"])
def test_a_bad_filter_is_422(api, project, query) -> None:
    response = api(factory.person(project, role="admin")).get(f"{LIST}?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid")


def test_a_stranger_gets_404(api, project) -> None:
    conversation = factory.finished_piece(project)
    client = api(factory.person(role="admin"))
    assert client.get(LIST).status_code == 404
    assert client.get(one(conversation)).status_code == 404


def test_query_count_does_not_grow(api, project, django_assert_num_queries) -> None:
    conversation = suggested_piece(project)
    client = api(factory.person(project, role="engineer"))
    with django_assert_num_queries(4):
        client.get(LIST)
    with django_assert_num_queries(8):
        client.get(one(conversation))
    for _ in range(3):
        suggested_piece(project)
    slot = factory.held_piece(project)
    asked = factory.suggested(slot, "One.", "Two.")
    turns = [
        factory.written_turn(role, text, **{"from": [asked.pk, 0]}, shown=[[asked.pk, 1]])
        for role, text in (*factory.TURNS, *factory.TURNS)
    ]
    long = factory.finished_piece(project, None, *turns, slot=slot)
    with django_assert_num_queries(4):
        client.get(LIST)
    with django_assert_num_queries(8):
        client.get(one(long))
    assert demonstrations.standing_in(long) is None

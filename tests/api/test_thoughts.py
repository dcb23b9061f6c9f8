"""What a model thought before its answers: told to reviewers and of one's own chat, never to who is to rank them."""

import pytest

from annotate import assignments
from tests import factory

pytestmark = pytest.mark.django_db

THOUGHT = "They greet, so I greet."


@pytest.fixture
def comparison():
    return factory.open_comparison(factory.project(slug="field"), reasoning=THOUGHT)


@pytest.mark.parametrize("role", ["reviewer", "admin", "engineer"])
def test_who_reads_the_work_of_others_reads_them_with_the_candidates(api, comparison, role):
    client = api(factory.person(comparison.project, role=role))
    found = client.get(f"/api/v1/comparisons/{comparison.pk}/").json()
    assert [one["reasoning"] for one in found["candidates"]] == [THOUGHT] * 4
    assert THOUGHT not in str([one["text"] for one in found["candidates"]])
    (listed,) = client.get("/api/v1/projects/field/comparisons/").json()["results"]
    assert listed["candidates"] == found["candidates"]


def test_who_is_to_rank_them_does_not(api, comparison):
    user = factory.trainer(comparison.project)
    slot = assignments.claim(user=user, project=comparison.project)
    client = api(user)
    for address in (f"/api/v1/assignments/{slot.pk}/", f"/api/v1/comparisons/{comparison.pk}/"):
        assert THOUGHT not in client.get(address).content.decode()


def test_a_reviewer_who_ranks_them_does_not_either(api, comparison):
    user = factory.person(comparison.project, role="reviewer")
    user.groups.add(*factory.trainer(comparison.project).groups.all())
    assignments.claim(user=user, project=comparison.project, kinds=["rank"])
    for address in (f"comparisons/{comparison.pk}", f"conversations/{comparison.message.conversation_id}"):
        found = api(user).get(f"/api/v1/{address}/")
        assert found.status_code == 403
        assert THOUGHT not in found.content.decode()


@pytest.mark.parametrize("who", ["author", "reviewer"])
def test_a_conversation_tells_them_of_its_replies(api, comparison, who):
    conversation = comparison.message.conversation
    user = conversation.trainer if who == "author" else factory.person(comparison.project, role="reviewer")
    messages = api(user).get(f"/api/v1/conversations/{conversation.pk}/").json()["messages"]
    assert [one["reasoning"] for one in messages] == ["", "", THOUGHT]
    assert messages[2]["text"].startswith("Reply")


def test_a_stranger_reads_nothing(api, comparison):
    client = api(factory.trainer(comparison.project))
    conversation = comparison.message.conversation_id
    assert client.get(f"/api/v1/conversations/{conversation}/").status_code == 404

"""`GET /api/v1/projects/{slug}/comparisons/`."""

import pytest

from annotate import assignments, derive, rankings
from annotate.models import Comparison
from tests import factory

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/projects/field/comparisons/"


@pytest.fixture
def project():
    return factory.project(slug="field", overlap=2)


def ranked(project) -> Comparison:
    """A comparison with one of its two rankings."""
    comparison = factory.open_comparison(project)
    slot = assignments.claim(user=factory.trainer(project), project=project)
    rankings.submit(assignment=slot, user=slot.trainer, tiers=[[candidate] for candidate in slot.shown_order])
    return comparison


def ids(response) -> list[int]:
    return [comparison["id"] for comparison in response.json()["results"]]


@pytest.mark.parametrize("role", ["reviewer", "admin", "engineer"])
def test_reads_candidates_and_rankings(api, project, role: str) -> None:
    comparison = ranked(project)
    body = api(factory.person(project, role=role)).get(ADDRESS).json()
    assert body["next"] is None
    (found,) = body["results"]
    assert (found["id"], found["state"], found["iteration"], found["overlap"]) == (comparison.pk, "open", 1, 2)
    assert {candidate["policy"] for candidate in found["candidates"]} == {factory.current(project).reply_policy.name}
    assert [candidate["original"] for candidate in found["candidates"]].count(True) == 1
    (ranking,) = found["rankings"]
    stored = comparison.rankings.get()
    assert ranking["trainer"] == derive.pseudonym(project.secret, stored.trainer_id)
    assert ranking["shown_order"] == stored.assignment.shown_order
    assert [tier[0] for tier in ranking["tiers"]] == ranking["shown_order"]


def test_names_and_addresses_are_not_told(api, project) -> None:
    comparison = ranked(project)
    text = api(factory.person(project, role="engineer")).get(ADDRESS).content.decode()
    assert comparison.rankings.get().trainer.email not in text
    assert project.secret not in text


def test_pages_hold_everything_once_in_order(api, project) -> None:
    made = [factory.open_comparison(project).pk for _ in range(5)]
    client = api(factory.person(project, role="engineer"))
    found, address, pages = [], f"{ADDRESS}?limit=2&state=open", 0
    while address:
        response = client.get(address)
        found += ids(response)
        address, pages = response.json()["next"], pages + 1
    assert (found, pages) == (made, 3)
    assert ids(client.get(f"{ADDRESS}?after={made[3]}")) == made[4:]


def test_filters_by_state(api, project) -> None:
    opened = factory.open_comparison(project).pk
    factory.finished_chat(project)
    client = api(factory.person(project, role="reviewer"))
    assert ids(client.get(f"{ADDRESS}?state=open")) == [opened]
    assert len(ids(client.get(f"{ADDRESS}?state=sampling"))) == 1
    assert len(ids(client.get(ADDRESS))) == 2


def test_tells_and_filters_how_it_came_to_be_ranked(api, project) -> None:
    drawn, chosen = (factory.open_comparison(project).pk for _ in range(2))
    Comparison.objects.filter(pk=chosen).update(pool=chosen, selection="uncertain")
    client = api(factory.person(project, role="engineer"))
    assert ids(client.get(f"{ADDRESS}?selection=random")) == [drawn]
    (found,) = client.get(f"{ADDRESS}?selection=uncertain").json()["results"]
    assert (found["id"], found["selection"], found["pool"]) == (chosen, "uncertain", chosen)


def test_holds_no_other_projects(api, project) -> None:
    factory.open_comparison(factory.project())
    assert ids(api(factory.person(project, role="admin")).get(ADDRESS)) == []


@pytest.mark.parametrize(
    "query", ["state=shut", "limit=0", "limit=501", "limit=all", "after=-1", "after=x", f"after={2**63}"]
)
def test_a_bad_filter_is_422(api, project, query: str) -> None:
    response = api(factory.person(project, role="admin")).get(f"{ADDRESS}?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid")


def test_a_trainer_gets_403(api, project) -> None:
    response = api(factory.trainer(project)).get(ADDRESS)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_a_stranger_gets_404(api, project) -> None:
    assert api(factory.person(role="admin")).get(ADDRESS).status_code == 404


def test_query_count_does_not_grow(api, project, django_assert_num_queries) -> None:
    ranked(project)
    client = api(factory.person(project, role="engineer"))
    with django_assert_num_queries(11):
        client.get(ADDRESS)
    for _ in range(4):
        ranked(project)
    with django_assert_num_queries(11):
        assert len(ids(client.get(ADDRESS))) == 5

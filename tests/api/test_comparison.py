"""`GET /api/v1/comparisons/{id}/`."""

import pytest

from annotate import assignments, rankings
from annotate.models import Comparison
from tests import factory

pytestmark = pytest.mark.django_db


@pytest.fixture
def comparison() -> Comparison:
    return factory.open_comparison(factory.project(overlap=3), turns=3)


def address(comparison: Comparison) -> str:
    return f"/api/v1/comparisons/{comparison.pk}/"


@pytest.mark.parametrize("role", ["reviewer", "admin", "engineer"])
def test_reads_it_with_its_context(api, comparison, role: str) -> None:
    body = api(factory.person(comparison.project, role=role)).get(address(comparison)).json()
    assert len(body["context"]) == body["position"] == comparison.message.position
    assert body["context"][-1]["role"] == "user"
    assert (body["draw_size"], body["draw_index"]) == (3, comparison.draw_index)
    original = next(candidate for candidate in body["candidates"] if candidate["original"])
    assert original["text"] == comparison.message.text
    assert body["rankings"] == []


@pytest.mark.parametrize("who", ["trainer", "stranger"])
def test_others_get_404(api, comparison, who: str) -> None:
    user = factory.trainer(comparison.project) if who == "trainer" else factory.person(role="admin")
    response = api(user).get(address(comparison))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_query_count_does_not_grow(api, comparison, django_assert_num_queries) -> None:
    client = api(factory.person(comparison.project, role="engineer"))
    project = comparison.project
    for _ in range(3):
        slot = assignments.claim(user=factory.trainer(project), project=project)
        rankings.submit(assignment=slot, user=slot.trainer, tiers=[slot.shown_order])
        with django_assert_num_queries(12):
            client.get(address(comparison))


def test_reads_one_that_was_imported_with_its_ranking(api, comparison) -> None:
    project = comparison.project
    imported = factory.imported_comparison(project, ("Better.",), ("Worse.",))
    client = api(factory.person(project, role="engineer"))

    found = client.get(f"/api/v1/comparisons/{imported.pk}/").json()

    assert (found["iteration"], found["source"]) == (None, "a-file")
    assert [(one["text"], one["kind"], one["policy"], one["sampling"]) for one in found["candidates"]] == [
        ("Better.", "imported", None, None),
        ("Worse.", "imported", None, None),
    ]
    (ranking,) = found["rankings"]
    assert (ranking["kind"], ranking["trainer"], ranking["shown_order"]) == ("imported", None, None)

"""`GET /api/v1/projects/` and `/api/v1/projects/{slug}/`."""

import pytest

from annotate import iterations, projects
from tests import factory

pytestmark = pytest.mark.django_db


def test_lists_the_projects_of_the_caller_by_name(api) -> None:
    later = factory.project(slug="b", name="Zebra")
    sooner = factory.project(slug="a", name="Ant", iteration=False)
    factory.project(slug="c", name="Bee")
    user = factory.trainer(later)
    user.memberships.create(project=sooner)
    assert api(user).get("/api/v1/projects/").json() == [
        {"slug": "a", "name": "Ant", "kinds": ["rank", "chat", "write"], "iteration": None},
        {"slug": "b", "name": "Zebra", "kinds": ["rank", "chat", "write"], "iteration": 1},
    ]


def test_one_has_its_newest_guidelines(api) -> None:
    project = factory.project(slug="field", name="Field")
    projects.set_guidelines(project=project, text="Be *kind*.")
    iterations.close(iteration=factory.current(project))
    assert api(factory.trainer(project)).get("/api/v1/projects/field/").json() == {
        "slug": "field",
        "name": "Field",
        "kinds": ["rank", "chat", "write"],
        "iteration": None,
        "guidelines": {"number": 2, "text": "Be *kind*."},
    }


def test_one_without_guidelines_has_none(api) -> None:
    project = factory.project(slug="field")
    project.iterations.all().delete()
    project.guideline_versions.all().delete()
    assert api(factory.trainer(project)).get("/api/v1/projects/field/").json()["guidelines"] is None


def test_the_secret_is_in_neither(api) -> None:
    project = factory.project(slug="field")
    client = api(factory.person(project, role="engineer"))
    for address in ("/api/v1/projects/", "/api/v1/projects/field/"):
        assert project.secret not in client.get(address).content.decode()


def test_a_stranger_gets_404(api) -> None:
    factory.project(slug="field")
    response = api(factory.person(role="admin")).get("/api/v1/projects/field/")
    assert response.status_code == 404
    assert response.json() == {"code": "not_found", "detail": "There is no such project here."}


def test_query_count_does_not_grow(api, django_assert_num_queries) -> None:
    user = factory.trainer(factory.project())
    client = api(user)
    with django_assert_num_queries(3):
        client.get("/api/v1/projects/")
    for _ in range(5):
        user.memberships.create(project=factory.project())
    with django_assert_num_queries(3):
        assert len(client.get("/api/v1/projects/").json()) == 6

"""`POST /api/v1/projects/{slug}/release-ahead/`."""

import pytest

from annotate import assignments
from annotate.models import Assignment
from tests import factory

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/projects/field/release-ahead/"


@pytest.fixture
def project():
    return factory.project(slug="field")


def test_gives_back_only_what_was_fetched_ahead(api, project) -> None:
    for _ in range(2):
        factory.open_comparison(project)
    user = factory.trainer(project)
    worked_on = assignments.claim(user=user, project=project)
    ahead = assignments.claim(user=user, project=project, ahead=True)
    response = api(user).post(ADDRESS)
    assert (response.status_code, response.json()) == (200, {"released": True})
    worked_on.refresh_from_db()
    ahead.refresh_from_db()
    assert (worked_on.state, ahead.state) == (Assignment.State.HELD, Assignment.State.WITHDRAWN)
    assert Assignment.objects.filter(comparison=ahead.comparison, state=Assignment.State.FREE).count() == 1


def test_nothing_ahead_is_no_error(api, project) -> None:
    response = api(factory.trainer(project)).post(ADDRESS)
    assert (response.status_code, response.json()) == (200, {"released": False})


def test_a_stranger_gets_404(api, project) -> None:
    assert api(factory.trainer()).post(ADDRESS).status_code == 404

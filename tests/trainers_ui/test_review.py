"""The projects whose work a person reads."""

import pytest

from tests import factory

URL = "/read/"


@pytest.mark.parametrize("role", ["reviewer", "admin", "engineer"])
def test_it_lists_ones_projects(browser, html, project, role):
    factory.project(name="Cake")

    page = html(browser(factory.person(project, role=role)).get(URL))

    assert "Bread" in page
    assert "Cake" not in page


def test_no_project(browser, html, db):
    assert "You are in no project yet" in html(browser(factory.person(role="reviewer")).get(URL))


def test_not_for_trainers(browser, html, trainer):
    response = browser(trainer).get(URL)

    assert response.status_code == 403
    assert "This is not for you" in html(response)


def test_signed_out(browser, db):
    assert browser().get(URL).headers["Location"] == "/accounts/login/?next=/read/"

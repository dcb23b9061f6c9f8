"""Who is let in: holders of a token and signed-in people, the latter only with their CSRF token."""

import io

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from tests import factory

pytestmark = pytest.mark.django_db

EVERY = [
    ("get", "/api/v1/projects/"),
    ("get", "/api/v1/projects/field/"),
    ("post", "/api/v1/projects/field/claim/"),
    ("post", "/api/v1/projects/field/release-ahead/"),
    ("get", "/api/v1/projects/field/comparisons/"),
    ("get", "/api/v1/assignments/1/"),
    ("put", "/api/v1/assignments/1/draft/"),
    ("post", "/api/v1/assignments/1/skip/"),
    ("post", "/api/v1/assignments/1/submit/"),
    ("get", "/api/v1/comparisons/1/"),
    ("get", "/api/v1/projects/field/conversations/"),
    ("get", "/api/v1/conversations/1/"),
    ("post", "/api/v1/assignments/1/suggestions/"),
    ("get", "/api/v1/assignments/1/suggestions/"),
    ("post", "/api/v1/assignments/1/finish/"),
    ("post", "/api/v1/assignments/1/verdict/"),
    ("get", "/api/v1/projects/field/exports/"),
    ("post", "/api/v1/projects/field/exports/"),
    ("get", "/api/v1/exports/1/"),
    ("post", "/api/v1/exports/1/stop/"),
    ("post", "/api/v1/exports/1/go-on/"),
    ("get", "/api/v1/exports/1/files/train.jsonl/"),
    ("get", "/api/v1/projects/field/imports/"),
    ("post", "/api/v1/projects/field/imports/"),
    ("get", "/api/v1/imports/1/"),
    ("post", "/api/v1/imports/1/stop/"),
    ("post", "/api/v1/imports/1/go-on/"),
]


def test_this_file_knows_every_endpoint() -> None:
    from annotate.api.urls import version_1

    assert len(version_1) == len({address for _, address in EVERY})


@pytest.mark.parametrize(("method", "address"), EVERY)
def test_without_a_token_is_401(method: str, address: str) -> None:
    factory.project(slug="field")
    response = getattr(APIClient(), method)(address)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Token"
    assert response.json()["code"] == "not_authenticated"


def test_the_token_of_the_command_lets_in() -> None:
    user = factory.trainer(factory.project(slug="field"))
    out = io.StringIO()
    call_command("drf_create_token", user.email, stdout=out)
    key = out.getvalue().split()[2]
    response = APIClient().get("/api/v1/projects/", headers={"authorization": f"Token {key}"})
    assert [project["slug"] for project in response.json()] == ["field"]


@pytest.mark.parametrize("header", ["Token 0123", "Token", "Token a b", "Bearer 0123"])
def test_a_wrong_token_is_401(header: str) -> None:
    response = APIClient().get("/api/v1/projects/", headers={"authorization": header})
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


def test_a_token_of_somebody_who_left_is_401(api) -> None:
    user = factory.trainer()
    client = api(user)
    user.is_active = False
    user.save()
    assert client.get("/api/v1/projects/").status_code == 401


def test_a_signed_in_browser_reads_and_writes_only_with_its_csrf_token() -> None:
    project = factory.project(slug="field")
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(factory.trainer(project), backend="sesame.backends.ModelBackend")
    assert client.get("/api/v1/projects/field/").status_code == 200
    response = client.post("/api/v1/projects/field/claim/", {}, format="json")
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")

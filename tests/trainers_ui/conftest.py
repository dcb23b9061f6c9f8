"""A project with its people, and signed-in browsers without scripts."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotate import assignments
from annotate.models import Assignment, Project, User
from tests import factory


@pytest.fixture
def project(db) -> Project:
    return factory.project(slug="bread", name="Bread", authors_rank_own=True)


@pytest.fixture
def trainer(project) -> User:
    return factory.trainer(project)


@pytest.fixture
def stranger(db) -> User:
    """Somebody who works on another project."""
    return factory.trainer(factory.project())


@pytest.fixture
def reviewer(project) -> User:
    return factory.person(project, role="reviewer")


@pytest.fixture
def browser() -> Callable[[User | None], Client]:
    """A client in which this person is signed in; with None nobody is."""

    def made(user: User | None = None) -> Client:
        client = Client()
        if user is not None:
            client.force_login(user)
        return client

    return made


@pytest.fixture
def ranking(project, trainer) -> Assignment:
    """A ranking of four answers that the trainer holds."""
    factory.open_comparison(project)
    return assignments.claim(user=trainer, project=project, kinds=["rank"])


@pytest.fixture
def chat(project, trainer) -> Assignment:
    """A chat that the trainer holds, nothing said yet."""
    return factory.held_chat(project, trainer)


@pytest.fixture
def count_queries() -> Callable[[Client, str], int]:
    """How many queries a page takes."""

    def counted(client: Client, url: str) -> int:
        # The first call fills caches that live longer than a request.
        assert client.get(url).status_code == 200
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(url)
        return len(queries)

    return counted


@pytest.fixture
def html() -> Callable:
    """The text of a response, white space made one."""
    return lambda response: " ".join(response.content.decode().split())


JSON = {"HTTP_ACCEPT": "application/json"}
HTMX = {"HTTP_HX_REQUEST": "true"}
